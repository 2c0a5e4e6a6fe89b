"""A whole training run of the age regressor from its options (`scripts/train_age.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.ageing.train.age_labels import read_ages
from paddle_sam.ageing.train.age_options import AgeOptions
from paddle_sam.ageing.train.age_trainer import AgeTrainer
from paddle_sam.core.device import seed_everything
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import ImageSource, list_sources
from paddle_sam.imagesets.dataset import ImagePairs
from paddle_sam.imagesets.loader import Batch, BatchLoader
from paddle_sam.options import to_json
from paddle_sam.training.distributed import join_world
from paddle_sam.training.loop import Intervals, Run, check_options, prepare_folder


def train_age(config: AgeOptions) -> Path:
    """Train, or go on training, in `config.exp_dir`; returns that folder.

    Raises:
        PaddleSamError: the options, data or weights cannot be used, or the loss became NaN.
    """
    folder = Path(config.exp_dir)
    check_options(folder, config)
    world = join_world(config.device)
    seed_everything(config.seed)
    mine = world.share(config.batch_size)
    ages, train_images, test_images = _split(config)
    trainer = AgeTrainer(config, ages, world)
    run = Run(
        folder,
        trainer,
        Intervals.of(config),
        config.learning_rate,
        config.batch_size,
        config.keep_checkpoints,
        world,
    )
    run.resume(run.checkpoints.read_latest())
    if world.rank == 0:
        prepare_folder(folder, to_json(config))
    training, testing = (_loader(config, images) for images in (train_images, test_images))

    def batches_from(step: int) -> Iterator[Batch]:
        return training.training(config.batch_size, config.seed, step, mine)

    run.train(batches_from, lambda: testing.once(config.test_batch_size))
    return folder


def _split(
    config: AgeOptions,
) -> tuple[dict[ImageSource, float], list[ImageSource], list[ImageSource]]:
    """Ages of all labelled images, and which of them are for training and for testing."""
    if not config.train_data:
        raise ConfigError("--train_data: name a folder or archive of face images")
    ages, labelled = _labelled(config, config.train_data)
    if config.test_data:
        test_ages, test = _labelled(config, config.test_data)
        return ages | test_ages, labelled, test
    order = np.random.default_rng((config.seed, 4)).permutation(len(labelled))
    held_out = max(1, round(config.holdout * len(labelled)))
    if held_out >= len(labelled):
        raise ConfigError(f"--holdout: {config.holdout} leaves none of {len(labelled)} images")
    test_indices = set(order[:held_out].tolist())
    train = [image for i, image in enumerate(labelled) if i not in test_indices]
    return ages, train, [labelled[i] for i in sorted(test_indices)]


def _labelled(config: AgeOptions, data: str) -> tuple[dict[ImageSource, float], list[ImageSource]]:
    """The images of a folder or archive that have an age, and their ages."""
    images = list_sources(data)
    ages = read_ages(config.labels, images)
    if without := [image for image in images if image not in ages]:
        print(
            f"{data}: {len(without)} of {len(images)} images have no age in --labels"
            f" {config.labels} and are left out, such as {without[0].name}"
        )
    return ages, [image for image in images if image in ages]


def _loader(config: AgeOptions, images: Sequence[ImageSource]) -> BatchLoader:
    return BatchLoader(
        ImagePairs(images),
        config.input_size,
        config.workers,
        config.max_bad_images,
        config.cache_images,
        report=tqdm.write,
    )
