"""Options of `scripts/evaluate.py`, one set for each thing that can be evaluated."""

from __future__ import annotations

import dataclasses

from paddle_sam.configs.base import option

_RESIZING = ("clean", "legacy")


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """What FID, KID, precision and recall are computed with."""

    inception_path: str = option(
        "pretrained_models/pt_inception-2015-12-05-6726825d.pdparams",
        "converted Inception-v3 of FID",
    )
    resizing: str = option(
        "clean",
        "how images get to 299 pixels: clean (antialiased), or legacy to compare with old figures",
        choices=_RESIZING,
    )
    cache_dir: str = option("log/features", "where features are kept between runs")
    batch_size: int = option(32, "images at a time; changes speed and memory only", minimum=1)
    output: str = option("", "JSON file for the results (default: printed only)")
    device: str = option("auto", "auto, cpu, gpu or gpu:N")


@dataclasses.dataclass(frozen=True)
class SetsConfig(FeatureConfig):
    """Compare two folders or archives of images."""

    real: str = option("", "folder or archive of real images")
    made: str = option("", "folder or archive of generated images")


@dataclasses.dataclass(frozen=True)
class StarGAN2EvaluationConfig(FeatureConfig):
    """StarGAN v2's protocol on a data set."""

    checkpoint_path: str = option("", "StarGAN v2 weight file or training checkpoint")
    wing_path: str = option(
        "", "face alignment network, where the checkpoint has none but needs it"
    )
    train_img_dir: str = option("data/celeba_hq/train", "training images, a folder per domain")
    val_img_dir: str = option("data/celeba_hq/val", "validation images, a folder per domain")
    eval_dir: str = option("log/stargan2_eval", "where translations are kept")
    num_outs_per_domain: int = option(10, "translations of each image", minimum=2)
    max_images: int = option(0, "validation images of each domain; 0 for all", minimum=0)
    lpips_path: str = option("pretrained_models/lpips_alex.npz", "LPIPS weights")
    no_fid: bool = option(False, "leave out what needs Inception features")
    seed: int = option(0, "seed of latents and references", minimum=0)
