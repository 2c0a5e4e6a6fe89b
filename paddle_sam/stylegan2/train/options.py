"""Options of StyleGAN2 training (`scripts/train_stylegan2.py`). Progress is counted in images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from paddle_sam.errors import ConfigError, quoted
from paddle_sam.options import INCEPTION, LPIPS, RunOptions, option, parse_names

AUGMENTATIONS = ("blit", "geometry", "colour")
# From this many images on, discriminators are not known to overfit (Karras et al. 2020b).
PLENTY_OF_IMAGES = 100_000
# What options by image size list.
_FORMS = {"stages": "SIZE:KIMG", "stage_rates": "SIZE:RATE", "stage_batches": "SIZE:N"}

_PAPER = {"mapping_layers": 8, "ema_rampup": 0.0, "mirror": True}
_PAPER64 = _PAPER | {"batch_size": 64, "mbstd_group": 8, "ema_kimg": 20.0, "g_lr": 0.0025}
# What is started from is good already: it is averaged from the first step, and at its full size.
# Its discriminator learns a small set by heart sooner than a new one, so p has to follow sooner.
_TRANSFER = {"ema_rampup": 0.0, "stages": ""}
_TRANSFER_ADA_KIMG = 100.0
_PRESETS = {
    "auto": {},
    "paper256": _PAPER64 | {"resolution": 256, "r1_gamma": 1.0},
    "paper512": _PAPER64 | {"resolution": 512, "r1_gamma": 0.5},
    "paper1024": _PAPER
    | {"resolution": 1024, "batch_size": 32, "r1_gamma": 2.0, "ema_kimg": 10.0, "g_lr": 0.002},
    # Config F of the StyleGAN2 paper, without augmentation.
    "stylegan2": _PAPER
    | {
        "resolution": 1024,
        "batch_size": 32,
        "r1_gamma": 10.0,
        "ema_kimg": 10.0,
        "g_lr": 0.002,
        "augment": "none",
        "channel_base": 32768,
    },
    # Small networks that grow, for a CPU.
    "mini": {
        "resolution": 64,
        "batch_size": 8,
        "latent_dim": 64,
        "channel_base": 512,
        "channel_max": 64,
        "stages": "16:9,32:22",
        "path_interval": 8,
        "r1_gamma": 0.2,
        "ema_kimg": 1.0,
        "ada_kimg": 50.0,
        "num_workers": 0,
        "cache_images": True,
        "total_kimg": 60.0,
        "log_kimg": 0.2,
        "snapshot_kimg": 2.0,
        "save_kimg": 2.0,
        "metric_kimg": 2.0,
        "metric_images": 500,
        "exp_dir": "log/stylegan2_mini",
    },
}


@dataclasses.dataclass(frozen=True)
class StyleGAN2Options(RunOptions):
    """One training run. `opt.json` in the run's folder keeps it."""

    changeable: ClassVar = (
        "mirror r1_gamma r1_interval path_weight path_interval path_shrink style_mixing augment "
        "augment_ops augment_p ada_target ada_interval ada_kimg batch_size g_lr d_lr ema_kimg "
        "ema_rampup amp freeze_d stage_rates stage_batches d_repeats minibatch_repeats"
    )

    presets: ClassVar = tuple(sorted(_PRESETS))
    # Settings of the StyleGAN1 code.
    aliases: ClassVar = {
        "D_repeats": "d_repeats",
        "G_smoothing_kimg": "ema_kimg",
        "desc": "new_run",
        "mirror_augment": "mirror",
    }
    replaced: ClassVar = {
        "minibatch_base": "use --batch_size N, over all devices",
        "minibatch_dict": "use --stage_batches SIZE:N,... with --stages",
        "network_snapshot_ticks": "use --snapshot_kimg N and --save_kimg N, in thousands of images",
        "num_gpus": "run python -m paddle.distributed.launch --nproc_per_node N"
        " scripts/train_stylegan2.py with the other options",
        "resume_kimg": "progress is kept in the checkpoint: use --resume latest, or --init_from"
        " FILE to start from a trained model",
        "resume_run_id": "name the run by --exp_dir, or a trained model by --init_from FILE",
    }

    # Data and place
    train_data: str = option(
        "data/train",
        "folder of images, or an archive made by preparation; of several, as A,B:2, each image of B"
        " counts twice",
        resumable=True,
    )
    exp_dir: str = option("log/stylegan2", "folder of the run", resumable=True)
    resume: str = option(
        "latest", "latest (start where there is none), or a step of the run", resumable=True
    )
    resolution: int = option(256, "height and width, a power of two", minimum=8)
    mirror: bool = option(True, "show every second image mirrored")
    cond: bool = option(
        False, "train with labels: the classes of archives (prepare_dataset.py --labels folders)"
    )
    num_workers: int = option(2, "processes that read images", minimum=0, resumable=True)
    cache_images: bool = option(False, "keep decoded images in memory", resumable=True)

    # Networks
    latent_dim: int = option(512, "length of z and w", minimum=1)
    mapping_layers: int = option(8, "layers of the mapping network", minimum=1)
    channel_base: int = option(32768, "channels are CHANNEL_BASE / resolution ...", minimum=8)
    channel_max: int = option(512, "... but at most N", minimum=1)
    mbstd_group: int = option(4, "images in a group of the minibatch deviation", minimum=1)
    stages: str = option(
        "",
        "stages of growth as SIZE:KIMG,...; 16:20,32:40 trains 20 kimg at 16 px, 40 at 32",
        may_be_empty=True,
        resumable=True,
    )
    init_from: str = option(
        "",
        "start from the networks of this StyleGAN2 weight file (transfer); unless given otherwise"
        " without --stages, with --ema_rampup 0 and --ada_kimg 100",
        resumable=True,
    )
    freeze_d: int = option(
        0,
        "never update the first N discriminator stages, counted from the image (FreezeD)",
        minimum=0,
    )

    # Losses
    r1_gamma: float = option(0.8192, "factor of R1, gamma / 2 |grad D|^2; 0 for none", minimum=0)
    r1_interval: int = option(16, "steps between R1 updates", minimum=1)
    path_weight: float = option(2.0, "factor of the path length penalty; 0 for none", minimum=0)
    path_interval: int = option(4, "steps between path length updates", minimum=1)
    path_shrink: int = option(2, "use one of every N images for the path length penalty", minimum=1)
    style_mixing: float = option(0.9, "how often styles are mixed", minimum=0, maximum=1)

    # Augmentation
    augment: str = option(
        "auto",
        f"ada adapts p, fixed keeps it; auto is ada below {PLENTY_OF_IMAGES} images, else none",
        choices=("auto", "ada", "fixed", "none"),
    )
    augment_ops: str = option(",".join(AUGMENTATIONS), "groups of augmentations")
    augment_p: float = option(
        0.0, "probability of each augmentation at the start", minimum=0, maximum=1
    )
    ada_target: float = option(0.6, "mean sign of D on real images that p is steered to")
    ada_interval: int = option(4, "steps between adjustments of p", minimum=1)
    ada_kimg: float = option(500.0, "thousands of images in which p can go from 0 to 1", minimum=1)

    # Optimisation
    total_kimg: float = option(25_000.0, "thousands of images to train", minimum=0, resumable=True)
    batch_size: int = option(16, "images per step, over all devices", minimum=1)
    accumulate: int = option(
        1, "parts a batch is computed in; same result, less memory", minimum=1, resumable=True
    )
    g_lr: float = option(0.0025, "learning rate of the generator", minimum=0)
    d_lr: float = option(0.0025, "learning rate of the discriminator", minimum=0)
    stage_rates: str = option(
        "", "learning rates by image size as SIZE:RATE,...; other sizes take --g_lr and --d_lr"
    )
    stage_batches: str = option(
        "", "batch sizes by image size as SIZE:N,...; other sizes take --batch_size"
    )
    d_repeats: int = option(
        1, "discriminator updates a step, each with images of its own", minimum=1
    )
    minibatch_repeats: int = option(
        1, "steps between changes of what depends on progress, such as the image size", minimum=1
    )
    ema_kimg: float = option(5.0, "half-life of the averaged generator", minimum=0)
    ema_rampup: float = option(
        0.05, "share of the images so far that limits the half-life; 0 for no limit", minimum=0
    )
    amp: bool = option(False, "16-bit arithmetic where it is safe (GPUs)")

    # Events, in thousands of images
    log_kimg: float = option(1.0, "between logged losses", minimum=0, resumable=True)
    snapshot_kimg: float = option(50.0, "between snapshots and grids", minimum=0, resumable=True)
    save_kimg: float = option(50.0, "between checkpoints", minimum=0, resumable=True)
    metric: str = option(
        "none",
        "measured during training: fid needs converted Inception weights, kid_alex is the kernel"
        " distance of AlexNet features, to compare within a run only",
        choices=("none", "fid", "kid_alex"),
        resumable=True,
    )
    metric_kimg: float = option(200.0, "between measurements", minimum=0, resumable=True)
    metric_images: int = option(
        5000, "most images of each kind in a measurement", minimum=2, resumable=True
    )
    inception_path: str = option(
        INCEPTION, "converted Inception-v3, for --metric fid", resumable=True
    )
    lpips_path: str = option(LPIPS, "AlexNet, for --metric kid_alex", resumable=True)

    def check(self):
        if self.resolution & (self.resolution - 1):
            raise ConfigError(f"--resolution: expected a power of two, found {self.resolution}")
        if self.resume != "latest" and not (self.resume.isdecimal() and len(self.resume) < 19):
            raise ConfigError(f"--resume: expected latest or a step, found {quoted(self.resume)}")
        if self.freeze_d and (self.stages or not self.init_from):
            raise ConfigError("--freeze_d: expected with --init_from and without --stages")
        stages = self.pairs("stages")
        sizes = [size for size, _ in stages]
        powers = all(8 <= size < self.resolution and not size & (size - 1) for size in sizes)
        if not powers or sizes != sorted(set(sizes)) or any(kimg < 0 for _, kimg in stages):
            raise ConfigError(
                "--stages: expected rising powers of two from 8 and below --resolution"
                f" {self.resolution}, none with a KIMG below 0, found {self.stages}"
            )
        for name, fits, what in (
            ("stage_rates", lambda rate: rate >= 0, "rates of"),
            ("stage_batches", lambda n: n >= 1 and n % 1 == 0, "whole numbers of images for"),
        ):
            for size, number in self.pairs(name):
                if size not in {*sizes, self.resolution} or not fits(number):
                    raise ConfigError(
                        f"--{name}: expected {what} sizes of --stages or --resolution, found"
                        f" {size}:{number:g}"
                    )
        parse_names(self.augment_ops, AUGMENTATIONS, "--augment_ops")
        if self.augment == "fixed" and not self.augment_p:
            raise ConfigError("--augment_p: expected more than 0 with --augment fixed, found 0")
        if self.augment == "none" and self.augment_p:
            raise ConfigError(
                f"--augment_p: expected 0 with --augment none, found {self.augment_p}"
            )

    @classmethod
    def implied(cls, preset: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values of a transfer, where it is one, then the preset's, then those by resolution."""
        values = dict(_PRESETS[preset or "auto"])
        if given.get("init_from"):
            soon = min(_TRANSFER_ADA_KIMG, values.get("ada_kimg", _TRANSFER_ADA_KIMG))
            values |= _TRANSFER | {"ada_kimg": soon}
        if "g_lr" in values:
            values["d_lr"] = values["g_lr"]
        chosen = values | dict(given)
        size = chosen.get("resolution", cls.resolution)
        return by_resolution(size, chosen.get("batch_size", 0)) | values

    def pairs(self, name: str) -> list[tuple[int, float]]:
        """Pairs of an image size and a number that one of the options by size lists.

        >>> StyleGAN2Options(stages="16:20,32:40", resolution=64).pairs("stages")
        [(16, 20.0), (32, 40.0)]
        """
        pairs = []
        for item in filter(None, getattr(self, name).split(",")):
            size, _, number = item.partition(":")
            try:
                pairs.append((int(size), float(number)))
            except ValueError:
                pairs.append((0, math.nan))
            if not math.isfinite(pairs[-1][1]):
                raise ConfigError(f"--{name}: expected {_FORMS[name]},..., found {quoted(item)}")
        return pairs

    def steps(self, kimg: float) -> int:
        """Steps in which about `kimg` thousand images are trained on; at least 1."""
        return max(1, round(1000 * kimg / self.images_per_step))

    @property
    def images_per_step(self) -> int:
        """Real images that a step trains on."""
        return self.batch_size * self.d_repeats

    def rates_at(self, size: int) -> tuple[float, float]:
        """Return the learning rates of generator and discriminator for images of `size` pixels."""
        rates = dict(self.pairs("stage_rates"))
        return rates.get(size, self.g_lr), rates.get(size, self.d_lr)

    def stretches(self) -> list[StyleGAN2Options]:
        """Return the options of each part of the run that has one batch size, in their order."""
        batches = dict(self.pairs("stage_batches"))
        if not batches:
            return [self]
        allowed = ",".join(filter(None, [self.allow_changed, "batch_size"]))
        ends, done = [], 0.0
        for size, kimg in [*self.pairs("stages"), (self.resolution, math.inf)]:
            done = min(done + kimg, self.total_kimg)
            ends.append((int(batches.get(size, self.batch_size)), done))
        return [
            dataclasses.replace(self, batch_size=batch, total_kimg=end, allow_changed=allowed)
            for number, (batch, end) in enumerate(ends)
            if number + 1 == len(ends) or ends[number + 1][0] != batch
        ]

    def size_at(self, images: int) -> int:
        """Return the size of the images that the next step trains on, after `images` images."""
        done = 0.0
        for size, kimg in self.pairs("stages"):
            done += 1000 * kimg
            if images < done:
                return size
        return self.resolution


def by_resolution(resolution: int, batch_size: int = 0) -> dict[str, Any]:
    """Settings for an image size on one device, and for a batch size where that is given.

    R1's factor grows with the pixels and falls with the batch; larger batches average longer.
    These are the rules of StyleGAN2-ADA's automatic configuration (Karras et al. 2020b).
    """
    batch = batch_size or max(min(4096 // resolution, 32), 4)
    rate = 0.002 if resolution >= 1024 else 0.0025
    return {
        "batch_size": batch,
        "g_lr": rate,
        "d_lr": rate,
        "r1_gamma": 0.0002 * resolution**2 / batch,
        "ema_kimg": batch * 10 / 32,
        "channel_base": 32768 if resolution >= 512 else 16384,
        "mapping_layers": 2,
    }
