"""Options of age regressor training (`scripts/train_age.py`)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from paddle_sam.errors import ConfigError
from paddle_sam.options import RunOptions, option

# Widths of the five convolution stages and of the two linear layers, by size of network.
SIZES = {"published": ((64, 128, 256, 512, 512), 4096), "mini": ((16, 32, 64, 128, 128), 256)}


@dataclasses.dataclass(frozen=True)
class AgeOptions(RunOptions):
    """One training run of the age regressor. `opt.json` in the run's folder keeps it."""

    changeable: ClassVar = "batch_size test_batch_size learning_rate mae_lambda"

    exp_dir: str = option(
        "log/age", "folder of the run; a run found there is resumed", resumable=True
    )
    train_data: str = option(
        "", "folder (at any depth) or zip archive of face images", resumable=True
    )
    test_data: str = option(
        "", "the same of test images; without it, --holdout of the others", resumable=True
    )
    labels: str = option(
        "utkface",
        "where ages come from: utkface (file names AGE_...), a CSV file, a JSON file",
        resumable=True,
    )
    holdout: float = option(0.1, "share of images kept for testing without --test_data", minimum=0)
    network: str = option("published", "size of the network", choices=tuple(SIZES))
    input_size: int = option(224, "height and width of the network's input", minimum=32)
    vgg_path: str = option(
        "", "VGG16 features to start from, such as pretrained_models/lpips_vgg.npz", resumable=True
    )
    checkpoint_path: str = option(
        "",
        "fine-tune this age regressor, such as a converted DEX; its size takes the place of"
        " --network and --input_size",
        resumable=True,
    )
    cache_images: bool = option(False, "keep decoded images in memory", resumable=True)
    workers: int = option(4, "processes that read images", minimum=0, resumable=True)
    batch_size: int = option(32, "images per step, over all devices", minimum=1)
    test_batch_size: int = option(32, "images per test step", minimum=1)
    learning_rate: float = option(1e-4, "learning rate", minimum=0)
    mae_lambda: float = option(0.1, "factor of the mean absolute error in years", minimum=0)
    max_steps: int = option(20_000, "steps to train", minimum=1, resumable=True)
    image_interval: int = option(1000, "steps between image panels", minimum=1, resumable=True)
    board_interval: int = option(50, "steps between logged losses", minimum=1, resumable=True)
    val_interval: int = option(1000, "steps between validations", minimum=1, resumable=True)
    save_interval: int = option(1000, "steps between checkpoints", minimum=1, resumable=True)

    def check(self):
        if self.checkpoint_path and self.vgg_path:
            raise ConfigError(
                "--checkpoint_path, --vgg_path: both say what to start from; expected one of them"
            )
