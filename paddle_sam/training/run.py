"""A whole training run from its options: start it, or resume what its folder holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from paddle_sam.core.device import seed_everything
from paddle_sam.core.files import atomic_path, remove_leftovers
from paddle_sam.core.weight_file import WeightFile
from paddle_sam.errors import ConfigError, OutputError
from paddle_sam.options import check_resumable, read_json, to_json
from paddle_sam.training.distributed import World, join_world
from paddle_sam.training.loop import Intervals, Run, Trainer
from paddle_sam.training.state import RunCheckpoints


class Loader(Protocol):
    """Endless batches of training data."""

    def training(self, batch_size: int, seed: int, start: int, part: slice) -> Iterator:
        """Yield the samples `part` of each batch from step `start` (0 is the first) on."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What a kind of training brings to `start_run`.

    Attributes:
        trainer: computes the steps.
        loader: gives the training batches.
        test_batches: returns the test batches; called at every validation.
        snapshot: called with the step and the panel whenever there is a panel of training.
    """

    trainer: Trainer
    loader: Loader
    test_batches: Callable[[], Iterable] = tuple
    snapshot: Callable[[int, np.ndarray], None] | None = None


def start_run(
    options: Any,
    build: Callable[[World, WeightFile | None], Job],
    intervals: Intervals | None = None,
    step: int | None = None,
) -> Path:
    """Train, or resume training, in `options.exp_dir`; returns that folder.

    Args:
        options: of the run, `exp_dir`, `device`, `seed`, `batch_size` and `keep_checkpoints` among
            them.
        build: makes the job, for this process of the run's processes, from new networks or to
            continue from a checkpoint.
        intervals: when what happens; None takes the options of the same names.
        step: resume from the checkpoint of this step; None for the latest, if there is one.

    Raises:
        PaddleSamError: the options, data or weights cannot be used, or a loss is not finite.
        KeyboardInterrupt: a signal stopped the run, after a checkpoint.
    """
    folder = Path(options.exp_dir)
    checkpoints = RunCheckpoints(folder / "checkpoints", options.keep_checkpoints)
    kept = folder / "opt.json"
    if kept.exists() and checkpoints.latest():
        check_resumable(read_json(type(options), kept), options, folder)
    world = join_world(options.device)
    seed_everything(options.seed)
    mine = world.share(options.batch_size)
    checkpoint = checkpoints.read(step)
    job = build(world, checkpoint)
    intervals = intervals or Intervals.of(options)
    run = Run(folder, job.trainer, intervals, options.batch_size, checkpoints, world, job.snapshot)
    run.resume(checkpoint)
    del checkpoint
    if world.rank == 0:
        prepare_folder(folder, to_json(options))
    run.train(
        lambda start: job.loader.training(options.batch_size, options.seed, start, mine),
        job.test_batches,
    )
    return folder


def prepare_folder(folder: Path, text: str) -> None:
    """Make a run's folder with its options in `opt.json`, without what a kill left half written.

    Raises:
        ConfigError: the folder cannot be made.
    """
    try:
        with atomic_path(folder / "opt.json") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except OutputError as error:
        raise ConfigError(f"--exp_dir: {error}") from error
    remove_leftovers(folder)
