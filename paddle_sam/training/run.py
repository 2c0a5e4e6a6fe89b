"""A whole training run from its options: start it, or resume what its folder holds."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from paddle_sam.core.device import seed_everything
from paddle_sam.core.files import atomic_path, remove_leftovers
from paddle_sam.core.lock import one_writer
from paddle_sam.core.weight_file import WeightFile
from paddle_sam.errors import ConfigError, OutputError
from paddle_sam.options import check_resumable, parse_names, read_json, to_json
from paddle_sam.training.distributed import World, join_world
from paddle_sam.training.identity import Identity, check_inputs, keep_inputs
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
        intervals: when what happens.
        loader: gives the training batches.
        test_batches: returns the test batches; called at every validation.
        snapshot: called with the step and the panel whenever there is a panel of training.
    """

    trainer: Trainer
    intervals: Intervals
    loader: Loader
    test_batches: Callable[[], Iterable] = tuple
    snapshot: Callable[[int, np.ndarray], None] | None = None


def start_run(
    options: Any,
    build: Callable[[World, WeightFile | None], Job],
    inputs: Mapping[str, Identity],
    step: int | None = None,
) -> Path:
    """Train, or resume training, in `options.exp_dir`; returns that folder.

    Args:
        options: of the run, `RunOptions`, `exp_dir` and `batch_size` among them.
        build: makes the job, for this process of the run's processes, from new networks or to
            continue from a checkpoint.
        inputs: what the run must find unchanged when it is resumed, by the option that names it.
        step: resume from the checkpoint of this step; None for the latest, if there is one.

    Raises:
        PaddleSamError: the options, data or weights cannot be used, another process trains in the
            folder, or a loss is not finite.
        KeyboardInterrupt: a signal stopped the run, after a checkpoint.
    """
    folder = Path(options.exp_dir)
    world = join_world(options.device, options.allow_tf32)
    with one_writer(folder, "a training run") if world.rank == 0 else contextlib.nullcontext():
        checkpoints = RunCheckpoints(folder / "checkpoints", options.keep_checkpoints)
        changed = {}
        if checkpoints.latest():
            changed = _check_same(folder, options, inputs)
        seed_everything(options.seed)
        mine = world.share(options.batch_size)
        checkpoint = checkpoints.read(step)
        job = build(world, checkpoint)
        run = Run(
            folder,
            job.trainer,
            job.intervals,
            options.batch_size,
            checkpoints,
            world,
            job.snapshot,
        )
        run.resume(checkpoint)
        del checkpoint
        if world.rank == 0:
            prepare_folder(folder, to_json(options))
            keep_inputs(folder, inputs)
        run.train(
            lambda start: job.loader.training(options.batch_size, options.seed, start, mine),
            job.test_batches,
            changed=changed,
        )
    return folder


def _check_same(folder: Path, options: Any, inputs: Mapping[str, Identity]) -> dict[str, str]:
    """Check that options and inputs are those of the run in `folder`; returns allowed changes."""
    kept = folder / "opt.json"
    known = {field.name for field in dataclasses.fields(options)} | set(inputs)
    allowed = []
    if options.allow_changed:
        allowed = parse_names(options.allow_changed, sorted(known), "--allow_changed")
    changed = check_inputs(folder, inputs, allowed)
    if kept.exists():
        changed |= check_resumable(read_json(type(options), kept), options, folder, allowed)
    return changed


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
