"""A whole StyleGAN2 training run from its options (`scripts/train_stylegan2.py`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.core import sequences
from paddle_sam.core.device import seed_everything
from paddle_sam.core.images import save_image
from paddle_sam.core.sheets import grid_columns, tiled
from paddle_sam.core.weight_file import save_file
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import ImageSource, read_source
from paddle_sam.imagesets.dataset import ImagePairs
from paddle_sam.imagesets.loader import Batch, BatchLoader
from paddle_sam.options import to_json
from paddle_sam.stylegan2.quality import GeneratedQuality
from paddle_sam.stylegan2.train.growth import Archs, read_start
from paddle_sam.stylegan2.train.options import PLENTY_OF_IMAGES, StyleGAN2Options
from paddle_sam.stylegan2.train.trainer import StyleGAN2Trainer
from paddle_sam.training.checkpoint import RunCheckpoints
from paddle_sam.training.distributed import join_world
from paddle_sam.training.loop import Intervals, Run, check_options, prepare_folder

_REALS_AT_ONCE = 32
_CHECKED = 16


def train_stylegan2(config: StyleGAN2Options) -> Path:
    """Train, or go on training, in `config.exp_dir`; returns that folder.

    Raises:
        PaddleSamError: the options, data or weights cannot be used, or a loss became NaN.
        KeyboardInterrupt: a signal stopped the run, after a checkpoint.
    """
    folder = Path(config.exp_dir)
    check_options(folder, config)
    world = join_world(config.device)
    seed_everything(config.seed)
    mine = world.share(config.batch_size)
    data = _images(config)

    checkpoints = RunCheckpoints(folder / "checkpoints")
    latest = config.resume == "latest"
    resumed = checkpoints.read_latest() if latest else checkpoints.read(int(config.resume))
    start = None
    if config.init_from and resumed is None:
        start, new = read_start(config)
        if new and world.rank == 0:
            print(f"{config.init_from}: what begins anew: {new}")
    known = resumed["networks"] if resumed else start
    trainer = StyleGAN2Trainer(
        Archs.of_entries(known, config) if known else Archs.of_config(config),
        config,
        augmentation(config, len(data)),
        start,
        _judge(config, data) if world.rank == 0 else None,
        world,
    )
    run = Run(
        folder,
        trainer,
        _intervals(config),
        config.g_lr,
        config.batch_size,
        config.keep_checkpoints,
        world,
        lambda step, panel: _save_snapshot(folder, trainer, step, panel),
    )
    run.resume(resumed)
    del resumed, known, start
    if world.rank == 0:
        prepare_folder(folder, to_json(config))
        _save_reals(folder, data, config)

    loader = _loader(data, config, config.cache_images)

    def batches_from(step: int) -> Iterator[Batch]:
        return loader.training(config.batch_size, config.seed, step, mine)

    run.train(batches_from, lambda: ())
    return folder


def augmentation(config: StyleGAN2Options, images: int) -> str:
    """What `--augment` means for a data set of so many images: `ada`, `fixed` or `none`."""
    if config.augment != "auto":
        return config.augment
    return "ada" if images < PLENTY_OF_IMAGES else "none"


def _intervals(config: StyleGAN2Options) -> Intervals:
    return Intervals(
        max_steps=config.steps(config.total_kimg),
        board_interval=config.steps(config.log_kimg),
        image_interval=config.steps(config.snapshot_kimg),
        val_interval=config.steps(config.metric_kimg),
        save_interval=config.steps(config.save_kimg),
    )


def _images(config: StyleGAN2Options) -> ImagePairs:
    """The training images, of which some from all over are checked to be large enough squares."""
    data = ImagePairs(config.train_data)
    for source in spread(data, _CHECKED).sources:
        with contextlib.suppress(ImageError):  # the loader says which cannot be read
            _check_square(source, config.resolution)
    return data


def _check_square(source: ImageSource, resolution: int) -> None:
    height, width = read_source(source).shape[:2]
    if height != width or height < resolution:
        raise ConfigError(
            f"train_data: {source} has {width} x {height} pixels, expected squares of at least"
            f" {resolution} (--resolution). Prepare the data set first: python"
            " scripts/prepare_dataset.py --help"
        )


def _loader(data: ImagePairs, config: StyleGAN2Options, cache: bool = False) -> BatchLoader:
    return BatchLoader(
        data,
        config.resolution,
        config.num_workers,
        config.max_bad_images,
        cache,
        config.mirror,
        report=tqdm.write,
    )


def spread(data: ImagePairs, count: int) -> ImagePairs:
    """At most `count` images from all over the data, which is often sorted by what it shows."""
    return ImagePairs([data.sources[index] for index in sequences.spread(count, len(data))])


def _judge(config: StyleGAN2Options, data: ImagePairs) -> GeneratedQuality | None:
    chosen = spread(data, config.metric_images)

    def reals() -> Iterator[np.ndarray]:
        for batch in _loader(chosen, config).once(_REALS_AT_ONCE):
            yield batch.source

    if config.metric == "fid":
        return GeneratedQuality.fid(config.inception_path, config.device, reals, len(chosen))
    if config.metric == "kid_alex":
        return GeneratedQuality.kid_alex(config.lpips_path, reals, len(chosen))
    return None


def _save_snapshot(folder: Path, trainer: StyleGAN2Trainer, step: int, panel: np.ndarray) -> None:
    """The averaged generator alone, and what it makes of the same latents every time."""
    images = step * trainer.config.batch_size
    close = trainer.config.snapshot_kimg < 1  # closer than whole thousands can tell apart
    kimg = f"{images / 1000:010.3f}" if close else f"{images // 1000:06d}"
    save_file(folder / "snapshots" / f"network_{kimg}.pdparams", trainer.snapshot())
    save_image(folder / "samples" / f"fakes_{kimg}.png", panel)


def _save_reals(folder: Path, data: ImagePairs, config: StyleGAN2Options) -> None:
    """A grid of real images as they are trained on, to compare the generated ones with."""
    path = folder / "samples" / "reals.png"
    columns = grid_columns(config.resolution)
    chosen = spread(data, columns * columns)
    if path.exists() or len(chosen) < columns:
        return
    images = next(_loader(chosen, config).once(len(chosen))).source
    save_image(path, tiled(images[: len(images) // columns * columns], columns))
