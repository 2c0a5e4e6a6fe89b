"""Options of StarGAN v2 training (`scripts/train_stargan2.py`), under the published names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from paddle_sam.errors import ConfigError
from paddle_sam.metrics.options import INCEPTION, LPIPS
from paddle_sam.options import option
from paddle_sam.stargan2.translate_options import check_mode, mode_option


@dataclasses.dataclass(frozen=True)
class StarGAN2Options:
    """One training run. `opt.json` in the run's folder keeps it."""

    # Data and place
    mode: str = mode_option("train")
    train_img_dir: str = option(
        "data/celeba_hq/train", "a folder or zip of images for each domain, or a zip with classes"
    )
    val_img_dir: str = option("data/celeba_hq/val", "the same, of images not trained on")
    exp_dir: str = option(
        "log/stargan2", "folder of the run; a run found there is resumed", resumable=True
    )
    wing_path: str = option(
        "pretrained_models/wing.pdparams", "face alignment network; needed where --w_hpf is above 0"
    )
    num_workers: int = option(4, "processes that read images", minimum=0, resumable=True)
    max_bad_images: int = option(
        100, "stop after so many unreadable images", minimum=0, resumable=True
    )

    # Networks
    img_size: int = option(256, "height and width, a power of two", minimum=32)
    num_domains: int = option(2, "domains", minimum=1)
    latent_dim: int = option(16, "length of latents", minimum=1)
    hidden_dim: int = option(512, "width of the mapping network", minimum=1)
    style_dim: int = option(64, "length of styles", minimum=1)
    max_conv_dim: int = option(512, "most channels of a convolution", minimum=1)
    base_dim: int = option(0, "channels at full size; 0 for the published 16384 / size", minimum=0)
    w_hpf: float = option(1.0, "high-pass skip, for faces; 0 for none", minimum=0)

    # Losses
    lambda_reg: float = option(1.0, "factor of R1", minimum=0)
    lambda_cyc: float = option(1.0, "factor of cycle consistency", minimum=0)
    lambda_sty: float = option(1.0, "factor of style reconstruction", minimum=0)
    lambda_ds: float = option(1.0, "factor of diversity at the start", minimum=0)
    ds_iter: int = option(100_000, "steps in which --lambda_ds falls to 0", minimum=1)

    # Optimisation
    randcrop_prob: float = option(0.5, "how often images are cropped at random", minimum=0)
    total_iters: int = option(100_000, "steps to train", minimum=1, resumable=True)
    resume_iter: int = option(
        0, "resume from this step's checkpoint; 0 for the latest", minimum=0, resumable=True
    )
    batch_size: int = option(8, "images per step, over all devices", minimum=1)
    val_batch_size: int = option(32, "validation images at a time", minimum=1, resumable=True)
    lr: float = option(1e-4, "learning rate", minimum=0)
    f_lr: float = option(1e-6, "learning rate of the mapping network", minimum=0)
    beta1: float = option(0.0, "Adam's decay of the mean", minimum=0)
    beta2: float = option(0.99, "Adam's decay of the variance", minimum=0)
    weight_decay: float = option(1e-4, "L2 penalty in Adam's gradients", minimum=0)
    ema_decay: float = option(0.999, "decay of the averaged weights", minimum=0)
    seed: int = option(777, "seed of everything random", minimum=0)
    device: str = option("auto", "auto, cpu, gpu or gpu:N", resumable=True)

    # Events, in steps
    print_every: int = option(10, "steps between logged losses", minimum=1, resumable=True)
    sample_every: int = option(5000, "steps between sample matrices", minimum=1, resumable=True)
    save_every: int = option(10_000, "steps between checkpoints", minimum=1, resumable=True)
    eval_every: int = option(50_000, "steps between validations", minimum=1, resumable=True)
    keep_checkpoints: int = option(
        0, "delete all but so many newest checkpoints; 0 keeps all", minimum=0, resumable=True
    )

    # Validation
    max_val_images: int = option(64, "validation images of each domain; 0 for all", minimum=0)
    num_outs_per_domain: int = option(10, "translations of each into each domain", minimum=2)
    inception_path: str = option(INCEPTION, "converted Inception-v3 of FID", resumable=True)
    lpips_path: str = option(LPIPS, "LPIPS weights", resumable=True)
    no_fid: bool = option(False, "validate without FID, KID, precision and recall")
    no_lpips: bool = option(False, "validate without LPIPS diversity")

    def __post_init__(self):
        check_mode(self.mode, "train")
        if self.randcrop_prob > 1:
            raise ConfigError(f"randcrop_prob: expected at most 1, found {self.randcrop_prob}")
        if not (self.beta1 < 1 and self.beta2 < 1 and self.ema_decay < 1):
            raise ConfigError("beta1, beta2, ema_decay: expected below 1")


_PRESETS = {
    "celeba_hq": {},
    "afhq": {
        "train_img_dir": "data/afhq/train",
        "val_img_dir": "data/afhq/val",
        "exp_dir": "log/stargan2_afhq",
        "num_domains": 3,
        "w_hpf": 0.0,
        "lambda_ds": 2.0,
    },
    # Small networks, for a processor.
    "mini": {
        "img_size": 64,
        "base_dim": 16,
        "max_conv_dim": 64,
        "hidden_dim": 128,
        "style_dim": 32,
        "w_hpf": 0.0,
        "ds_iter": 2000,
        "total_iters": 2000,
        "batch_size": 4,
        "f_lr": 1e-5,
        "lr": 2e-4,
        "num_workers": 0,
        "sample_every": 100,
        "save_every": 100,
        "eval_every": 500,
        "no_fid": True,
        "keep_checkpoints": 2,
        "exp_dir": "log/stargan2_mini",
    },
}
PRESETS = tuple(_PRESETS)


def implied(preset: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a preset, for what the command line leaves open."""
    return dict(_PRESETS.get(preset, {}))
