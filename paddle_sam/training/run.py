"""A whole training run from its options: start it, or resume what its folder holds.

What it is made from is known by its content: folders may move, what is in them may not change.
`inputs.json` in the run's folder keeps that. Data and weight files that a run needs are compared
with it when the run is resumed, whatever they are called by then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from paddle_sam.core.device import seed_everything
from paddle_sam.core.files import atomic_path, remove_leftovers, sha256, write_json
from paddle_sam.core.folders import LOCK, one_writer
from paddle_sam.core.weight_file import WeightFile
from paddle_sam.errors import ConfigError, OutputError, PaddleSamError, quoted
from paddle_sam.options import check_resumable, parse_names, read_json, to_json
from paddle_sam.training.distributed import World, join_world
from paddle_sam.training.loop import Intervals, Run, Trainer
from paddle_sam.training.state import RunCheckpoints

INPUTS = "inputs.json"
Identity = Mapping[str, Any]


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
        snapshot: called with the step and the panel whenever there is a panel of training; returns
            a function that writes what it copied, while the next steps are computed.
        batch_size: images that a step takes of all processes; 0 for the option's.
    """

    trainer: Trainer
    intervals: Intervals
    loader: Loader
    test_batches: Callable[[], Iterable] = tuple
    snapshot: Callable[[int, np.ndarray], Callable[[], None]] | None = None
    batch_size: int = 0


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
    world = join_world(options.device, options.allow_tf32, options.autotune)
    new = not folder.exists()
    try:
        with one_writer(folder, "a training run") if world.rank == 0 else contextlib.nullcontext():
            _train(folder, world, options, build, inputs, step)
    except PaddleSamError:
        if new and world.rank == 0 and [path.name for path in folder.iterdir()] == [LOCK]:
            shutil.rmtree(folder)  # a run that could not start leaves nothing
        raise
    return folder


def _train(
    folder: Path,
    world: World,
    options: Any,
    build: Callable[[World, WeightFile | None], Job],
    inputs: Mapping[str, Identity],
    step: int | None,
) -> None:
    """Do what `start_run` says, in a folder that is this run's alone."""
    checkpoints = RunCheckpoints(folder / "checkpoints", options.keep_checkpoints)
    changed = _check_same(folder, options, inputs) if checkpoints.latest() else {}
    seed_everything(options.seed)
    world.share(options.batch_size)  # before networks are loaded
    checkpoint = checkpoints.read(step)
    job = build(world, checkpoint)
    batch = job.batch_size or options.batch_size
    run = Run(folder, job.trainer, job.intervals, batch, checkpoints, world, job.snapshot)
    run.resume(checkpoint)
    del checkpoint
    if world.rank == 0:
        for name, identity in inputs.items():
            if "images" in identity:
                print(f"--{name}: {identity['images']} images")
        prepare_folder(folder, to_json(options))
        write_json(folder / INPUTS, dict(inputs))
    run.train(
        lambda start: job.loader.training(batch, options.seed, start, world.share(batch)),
        job.test_batches,
        changed=changed,
    )


def numbered(options: Any) -> Any:
    """Return the options with the folder that `--new_run` describes as their `exp_dir`.

    Raises:
        ConfigError: the description cannot be part of a name.
    """
    if not options.new_run:
        return options
    if not re.fullmatch(r"[\w .,=+-]{1,80}", options.new_run):
        raise ConfigError(
            f"--new_run: expected up to 80 letters, digits and .,=+-_, found"
            f" {quoted(options.new_run)}"
        )
    root = Path(options.exp_dir)
    used = [re.match(r"\d{5}-", path.name) for path in root.iterdir()] if root.is_dir() else []
    number = max((int(match[0][:5]) for match in used if match), default=-1) + 1
    folder = root / f"{number:05d}-{options.new_run.strip().replace(' ', '-')}"
    return dataclasses.replace(options, exp_dir=str(folder), new_run="")


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


def identify_file(path: Path) -> Identity:
    """Describe a file by its content; nothing if there is none, which is said where it is read."""
    if not path.is_file():
        return {}
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def check_inputs(
    folder: Path, inputs: Mapping[str, Identity], allowed: Collection[str]
) -> dict[str, str]:
    """Compare inputs, by the options that name them, with those the run in `folder` was made from.

    Returns:
        the changes that are `allowed`, in words by option.

    Raises:
        ConfigError: others have changed, or the note of them is damaged.
    """
    note = folder / INPUTS
    if not note.exists():
        return {}
    try:
        before = dict(json.loads(note.read_text(encoding="utf-8")))
        changed = {
            name: f"{_words(before[name])} -> {_words(identity)}"
            for name, identity in inputs.items()
            if identity and before.get(name, identity) != identity
        }
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{note}: cannot be read ({error}). Delete it to resume the run without comparing its"
            " data with what it was started with."
        ) from error
    for name, words in changed.items():
        if name not in allowed:
            raise ConfigError(
                f"--{name}: not what the run in {folder} was started with ({words}). Give that, or"
                f" --allow_changed {name} to continue with the other on purpose."
            )
    return changed


def _words(identity: Identity) -> str:
    what = "images" if "images" in identity else "bytes"
    return f"{identity.get(what)} {what}, {str(identity.get('sha256'))[:8]}"
