"""A whole SAM or pSp training run from its options (`scripts/train.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from paddle_sam.ageing.train.networks import assemble, build_loss
from paddle_sam.ageing.train.options import SAMOptions, data_folders
from paddle_sam.ageing.train.trainer import SAMTrainer
from paddle_sam.core.device import seed_everything
from paddle_sam.imagesets.dataset import ImagePairs
from paddle_sam.imagesets.loader import Batch, BatchLoader
from paddle_sam.options import to_json
from paddle_sam.training.checkpoint import RunCheckpoints
from paddle_sam.training.distributed import join_world
from paddle_sam.training.loop import Intervals, Run, check_options, prepare_folder


def train_sam(config: SAMOptions) -> Path:
    """Train, or go on training, in `config.exp_dir`; returns that folder.

    Raises:
        PaddleSamError: the options, data or weights cannot be used, or a loss became NaN.
    """
    folder = Path(config.exp_dir)
    check_options(folder, config)
    world = join_world(config.device)
    seed_everything(config.seed)
    mine = world.share(config.batch_size)
    train_data = ImagePairs(*data_folders(config, "train"))
    test_data = ImagePairs(*data_folders(config, "test"), config.max_test_images)

    resumed = RunCheckpoints(folder / "checkpoints").read_latest()
    assembled = assemble(config, resumed)
    loss = build_loss(config, assembled.network.latent_avg)
    trainer = SAMTrainer(assembled, loss, config, world)
    run = Run(
        folder,
        trainer,
        Intervals.of(config),
        config.learning_rate,
        config.batch_size,
        config.keep_checkpoints,
        world,
    )
    run.resume(resumed)
    del resumed
    if world.rank == 0:
        prepare_folder(folder, to_json(config))

    training = _loader(config, train_data, config.workers, trainer)
    testing = _loader(config, test_data, config.test_workers, trainer)

    def batches_from(step: int) -> Iterator[Batch]:
        return training.training(config.batch_size, config.seed, step, mine)

    run.train(batches_from, lambda: testing.once(config.test_batch_size))
    return folder


def _loader(config: SAMOptions, data: ImagePairs, workers: int, trainer: SAMTrainer) -> BatchLoader:
    return BatchLoader(
        data,
        trainer.network.input_size,
        workers,
        config.max_bad_images,
        config.cache_images,
        report=tqdm.write,
    )
