"""Options of `scripts/stargan2.py`, a set for each `--mode`, under the published names."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from paddle_sam.core.command import parse
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.metrics.options import FeatureOptions
from paddle_sam.options import INCEPTION, LPIPS, Options, RunOptions, device_option, option

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
    # The reproduction report: the published settings but for these, for a smaller GPU.
    "report": {
        "batch_size": 4,
        "ds_iter": 500_000,
        "total_iters": 500_000,
        "save_every": 5000,
        "exp_dir": "log/stargan2_report",
    },
    # Small networks, for a CPU.
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


def mode_option(mode: str) -> str:
    """`--mode`, which has this one value in the options of a mode."""
    return option(mode, "what the command does", choices=(mode,))


@dataclasses.dataclass(frozen=True)
class StarGAN2Options(RunOptions):
    """One training run. `opt.json` in the run's folder keeps it."""

    changeable: ClassVar = (
        "lambda_reg lambda_cyc lambda_sty lambda_ds ds_iter randcrop_prob batch_size lr f_lr "
        "beta1 beta2 weight_decay ema_decay max_val_images num_outs_per_domain no_fid no_lpips"
    )

    presets: ClassVar = tuple(sorted(_PRESETS))

    # Data and place
    mode: str = mode_option("train")
    train_img_dir: str = option(
        "data/celeba_hq/train",
        "a folder or zip of images for each domain, or a zip with classes",
        resumable=True,
    )
    val_img_dir: str = option(
        "data/celeba_hq/val", "the same, of images not trained on", resumable=True
    )
    exp_dir: str = option(
        "log/stargan2", "folder of the run; a run found there is resumed", resumable=True
    )
    wing_path: str = option(
        "pretrained_models/wing.pdparams",
        "face alignment network; needed where --w_hpf is above 0",
        resumable=True,
    )
    num_workers: int = option(4, "processes that read images", minimum=0, resumable=True)

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
    randcrop_prob: float = option(
        0.5, "how often images are cropped at random", minimum=0, maximum=1
    )
    total_iters: int = option(100_000, "steps to train", minimum=1, resumable=True)
    resume_iter: int = option(
        0, "resume from this step's checkpoint; 0 for the latest", minimum=0, resumable=True
    )
    batch_size: int = option(8, "images per step, over all devices", minimum=1)
    val_batch_size: int = option(32, "validation images at a time", minimum=1, resumable=True)
    lr: float = option(1e-4, "learning rate", minimum=0)
    f_lr: float = option(1e-6, "learning rate of the mapping network", minimum=0)
    beta1: float = option(0.0, "Adam's decay of the mean", minimum=0, below=1)
    beta2: float = option(0.99, "Adam's decay of the variance", minimum=0, below=1)
    weight_decay: float = option(1e-4, "L2 penalty in Adam's gradients", minimum=0)
    ema_decay: float = option(0.999, "decay of the averaged weights", minimum=0, below=1)
    seed: int = option(777, "seed of everything random", minimum=0)

    # Events, in steps
    print_every: int = option(10, "steps between logged losses", minimum=1, resumable=True)
    sample_every: int = option(5000, "steps between sample matrices", minimum=1, resumable=True)
    save_every: int = option(10_000, "steps between checkpoints", minimum=1, resumable=True)
    eval_every: int = option(50_000, "steps between validations", minimum=1, resumable=True)
    keep_checkpoints: int = option(
        0, "keep the newest N checkpoints; 0 keeps all", minimum=0, resumable=True
    )

    # Validation
    max_val_images: int = option(64, "validation images of each domain; 0 for all", minimum=0)
    num_outs_per_domain: int = option(10, "translations of each into each domain", minimum=2)
    inception_path: str = option(INCEPTION, "converted Inception-v3 of FID", resumable=True)
    lpips_path: str = option(LPIPS, "LPIPS weights", resumable=True)
    no_fid: bool = option(False, "validate without FID, KID, precision and recall")
    no_lpips: bool = option(False, "validate without LPIPS diversity")

    @classmethod
    def implied(cls, preset: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the preset."""
        return dict(_PRESETS.get(preset, {}))


@dataclasses.dataclass(frozen=True)
class WeightsOptions(Options):
    """Which StarGAN v2 to use: a file, or a folder and a step as the published code has it."""

    checkpoint_path: str = option("", "StarGAN v2 weight file or training checkpoint")
    checkpoint_dir: str = option(
        "log/stargan2/checkpoints", "instead: folder of checkpoints, with --resume_iter"
    )
    resume_iter: int = option(0, "the step whose checkpoint to take from that folder", minimum=0)
    wing_path: str = option(
        "", "face alignment network, where the checkpoint has none but needs it"
    )
    img_size: int = option(0, "image side the weights have to have; 0 for any", minimum=0)
    num_domains: int = option(0, "domains they have to have; 0 for any", minimum=0)
    latent_dim: int = option(0, "length of latents they have to have; 0 for any", minimum=0)
    style_dim: int = option(0, "length of styles they have to have; 0 for any", minimum=0)
    w_hpf: float = option(-1.0, "high-pass skip they have to have; -1 for any", minimum=-1)

    def weight_file(self) -> Path:
        """The weight file.

        Raises:
            ConfigError: no file is named.
            CheckpointError: the folder has no checkpoint of that step.
        """
        if self.checkpoint_path:
            return Path(self.checkpoint_path)
        if not self.resume_iter:
            raise ConfigError(
                "--checkpoint_path: name a StarGAN v2 weight file, or a step of --checkpoint_dir by"
                " --resume_iter"
            )
        return self.checkpoint_of(self.resume_iter)

    def checkpoint_of(self, step: int) -> Path:
        """The checkpoint of a step in `checkpoint_dir`.

        Raises:
            CheckpointError: the folder has none of that step.
        """
        folder = Path(self.checkpoint_dir)
        names = [f"iteration_{step}", f"{step:06d}_nets_ema", f"{step}_nets_ema"]
        for name in names:
            if (path := folder / f"{name}.pdparams").is_file():
                return path
        raise CheckpointError(
            f"--resume_iter: {folder} has no {' or '.join(names)}.pdparams; a published .ckpt is"
            " converted first, by convert/convert_weights.py"
        )


@dataclasses.dataclass(frozen=True)
class SampleOptions(WeightsOptions):
    """Translate images: by references, by latents, and as a video."""

    mode: str = mode_option("sample")
    src_dir: str = option("data/celeba_hq/val", "images to translate, a folder per domain")
    ref_dir: str = option("data/celeba_hq/val", "images whose style to take, a folder per domain")
    result_dir: str = option("results/stargan2", "folder for the pictures")
    max_images: int = option(6, "images of each domain; 0 for all", minimum=0)
    num_outs_per_domain: int = option(8, "latents for each domain", minimum=1)
    psi: float = option(1.0, "below 1: latents' styles closer to the mean", minimum=0)
    series: str = option(
        "", "also a series.jpg of training: steps of checkpoints in --checkpoint_dir, 1000,5000"
    )
    video: bool = option(True, "also write a video that goes from reference to reference")
    video_steps: int = option(30, "frames from one reference to the next", minimum=1)
    fps: float = option(30.0, "frames per second", minimum=1)
    seed: int = option(777, "seed of the latents", minimum=0)
    device: str = device_option()


@dataclasses.dataclass(frozen=True)
class StarGAN2EvaluationOptions(WeightsOptions, FeatureOptions):
    """StarGAN v2's protocol: translations between all domains, how real and how varied."""

    mode: str = mode_option("eval")
    train_img_dir: str = option("data/celeba_hq/train", "training images, a folder per domain")
    val_img_dir: str = option("data/celeba_hq/val", "validation images, a folder per domain")
    eval_dir: str = option("log/stargan2_eval", "where translations are kept")
    num_outs_per_domain: int = option(10, "translations of each image", minimum=2)
    max_images: int = option(0, "validation images of each domain; 0 for all", minimum=0)
    val_batch_size: int = option(32, "images translated at a time", minimum=1)
    no_fid: bool = option(False, "leave out FID, KID, precision and recall")
    groups: str = option(
        "", "CSV file of rows DOMAIN/FILE,GROUP,...: LPIPS also by group of validation images"
    )
    seed: int = option(0, "seed of latents and references", minimum=0)


@dataclasses.dataclass(frozen=True)
class AlignOptions(Options):
    """Align photographs of one face each onto the mean face of CelebA-HQ."""

    mode: str = mode_option("align")
    inp_dir: str = option("", "photograph, or folder of them")
    out_dir: str = option("results/aligned", "folder for the crops")
    wing_path: str = option("pretrained_models/wing.pdparams", "converted wing.ckpt")
    lm_path: str = option(
        "pretrained_models/celeba_lm_mean.npz", "mean face, as published (.npz) or converted"
    )
    img_size: int = option(256, "height and width of the crops", minimum=16)
    device: str = device_option()


MODES = {
    "train": StarGAN2Options,
    "sample": SampleOptions,
    "eval": StarGAN2EvaluationOptions,
    "align": AlignOptions,
}
# Options of the published command, which takes all of them in every mode.
_PUBLISHED = """
    img_size num_domains latent_dim hidden_dim style_dim lambda_reg lambda_cyc lambda_sty lambda_ds
    ds_iter w_hpf randcrop_prob total_iters resume_iter batch_size val_batch_size lr f_lr beta1
    beta2 weight_decay num_outs_per_domain num_workers seed train_img_dir val_img_dir sample_dir
    checkpoint_dir eval_dir result_dir src_dir ref_dir inp_dir out_dir wing_path lm_path
    print_every sample_every save_every eval_every
"""


def read_command_line(argv: Sequence[str] | None, description: str, prog: str | None = None) -> Any:
    """The options of the `--mode` that a command line names.

    Published options that the mode does not use are accepted, as in the published command, and
    named in a note on stderr.

    Args:
        argv: arguments; None for those of the process.
        description, prog: for `--help`.

    Raises:
        ConfigError: the mode is missing, or a value cannot work.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog=prog)
    first.add_argument("--mode", choices=MODES)
    mode = first.parse_known_args(argv)[0].mode
    if mode is None:
        if {"-h", "--help"} & set(sys.argv[1:] if argv is None else argv):
            print(description)
            raise SystemExit(0)
        raise ConfigError(f"--mode: expected one of {', '.join(MODES)}, found none")
    config_type = MODES[mode]
    known = {field.name for field in dataclasses.fields(config_type)}
    others = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    for name in _PUBLISHED.split():
        if name not in known:
            others.add_argument(f"--{name}", nargs="?")
    unused, argv = others.parse_known_args(argv)
    if unused := vars(unused):
        where = "; a run keeps everything in --exp_dir" if mode == "train" else ""
        names = ", ".join(f"--{name}" for name in unused)
        print(f"note: --mode {mode} does not use {names}{where}", file=sys.stderr)
    return parse(config_type, argv, description, prog)
