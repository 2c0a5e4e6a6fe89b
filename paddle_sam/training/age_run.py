"""A whole training run of the age regressor from its options (`scripts/train_age.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.common.checks import ConfigError
from paddle_sam.common.images import list_images
from paddle_sam.common.runtime import resolve_device, seed_everything
from paddle_sam.configs.age import AgeConfig
from paddle_sam.configs.base import check_resumable, read_json, to_json
from paddle_sam.data.age_labels import read_ages
from paddle_sam.data.dataset import ImagePairs
from paddle_sam.data.loader import Batch, BatchLoader
from paddle_sam.training.age_trainer import AgeTrainer
from paddle_sam.training.loop import Intervals, Run, prepare_folder


def train_age(config: AgeConfig) -> Path:
    """Train, or go on training, in `config.exp_dir`; returns that folder.

    Raises:
        PaddleSamError: the options, data or weights cannot be used, or the loss became NaN.
    """
    folder = Path(config.exp_dir)
    if (folder / "opt.json").exists():
        check_resumable(read_json(AgeConfig, folder / "opt.json"), config, folder)
    resolve_device(config.device)
    seed_everything(config.seed)
    ages, train_paths, test_paths = _split(config)
    trainer = AgeTrainer(config, ages)
    run = Run(
        folder,
        trainer,
        Intervals.of(config),
        config.learning_rate,
        config.batch_size,
        config.keep_checkpoints,
    )
    run.resume(run.checkpoints.read_latest())
    prepare_folder(folder, to_json(config))
    training, testing = (_loader(config, paths) for paths in (train_paths, test_paths))

    def batches_from(step: int) -> Iterator[Batch]:
        return training.training(config.batch_size, config.seed, step, slice(None))

    run.train(batches_from, lambda: testing.once(config.test_batch_size))
    return folder


def _split(config: AgeConfig) -> tuple[dict[Path, float], list[Path], list[Path]]:
    """Ages of all labelled images, and which of them are for training and for testing."""
    if not config.train_data:
        raise ConfigError("--train_data: name a folder of face images")
    paths = list_images(config.train_data)
    ages = read_ages(config.labels, paths)
    labelled = [path for path in paths if path in ages]
    if config.test_data:
        test = list_images(config.test_data)
        ages |= read_ages(config.labels, test)
        return ages, labelled, [path for path in test if path in ages]
    order = np.random.default_rng((config.seed, 4)).permutation(len(labelled))
    held_out = max(1, round(config.holdout * len(labelled)))
    if held_out >= len(labelled):
        raise ConfigError(f"--holdout: {config.holdout} leaves none of {len(labelled)} images")
    test_indices = set(order[:held_out].tolist())
    train = [path for i, path in enumerate(labelled) if i not in test_indices]
    return ages, train, [labelled[i] for i in sorted(test_indices)]


def _loader(config: AgeConfig, paths: Sequence[Path]) -> BatchLoader:
    return BatchLoader(
        ImagePairs(paths),
        config.input_size,
        config.workers,
        config.max_bad_images,
        config.cache_images,
        report=tqdm.write,
    )
