"""A whole training run: start it from its options, or resume what its folder holds.

Here is the order of events: steps, records, pictures, validation, checkpoints. It knows no network.
A trainer knows one step and how to judge test data; its schedules are functions of the step, so a
run that was stopped resumes as if it had not been.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.core.device import seed_everything
from paddle_sam.core.folders import LOCK, one_writer
from paddle_sam.core.processes import InBackground, stop_signals
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import ImageError, PaddleSamError, TrainingError
from paddle_sam.training.distributed import World, agree, join_world, meet
from paddle_sam.training.folder import (
    Identity,
    RunCheckpoints,
    RunLogger,
    advising,
    check_same,
    prepare_folder,
)
from paddle_sam.training.trainers import RunState

_STOPPED, _FAILED = 1, 2  # why a run ends
_SAID_EVERY = 60.0  # seconds between lines about progress


class Trainer(Protocol):
    """What a run needs of a trainer. Values are logged by name; `loss` decides what is best."""

    state: RunState  # all that resuming needs
    learning_rate: float  # for the record

    def train_step(self, batch: Any, step: int) -> dict[str, float]:
        """Do step number `step` (0 is the first) on this process's share of its batch.

        Returns:
            values to log, the same in every process.

        Raises:
            TrainingError: one of them is not a finite number. What the step changed is not saved.
        """

    def evaluate(self, batches: Iterable) -> dict[str, float]:
        """Judge test batches; returns nothing if there is nothing to judge by."""

    def panel(self) -> np.ndarray | None:
        """Return a picture of the last batch, uint8 RGB [H, W, 3]."""


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Steps between events, and the number of steps in the run."""

    max_steps: int
    board_interval: int
    image_interval: int
    val_interval: int
    save_interval: int

    @classmethod
    def of(cls, options: Any) -> Intervals:
        """Take the options of the same names."""
        return cls(
            **{field.name: getattr(options, field.name) for field in dataclasses.fields(cls)}
        )


@dataclasses.dataclass(frozen=True)
class Job:
    """What a kind of training brings to its run.

    Attributes:
        trainer: computes the steps.
        intervals: when what happens.
        loader: yields the training batches, as `BatchLoader.training` does.
        test_batches: returns the test batches; called at every validation.
        snapshot: called with the step and the panel whenever there is a panel of training; returns
            a function that writes what it copied, while the next steps are computed.
        batch_size: images that a step takes of all processes; 0 for the option's.
    """

    trainer: Trainer
    intervals: Intervals
    loader: Any
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
        KeyboardInterrupt: a signal stopped the run, after a checkpoint of the last step. There is
            one as well where images cannot be read, here or in another process; where a loss is not
            finite, the last checkpoint is untouched.
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
    changed = check_same(folder, options, inputs) if checkpoints.latest() else {}
    seed_everything(options.seed)
    world.share(options.batch_size)  # before networks are loaded
    checkpoint = checkpoints.read(step)
    job = build(world, checkpoint)
    batch = job.batch_size or options.batch_size
    run = Run(folder, job, batch, checkpoints, world)
    run.resume(checkpoint)
    del checkpoint
    if world.rank == 0:
        for name, identity in inputs.items():
            if "images" in identity:
                print(f"--{name}: {identity['images']} images")
        prepare_folder(folder, options, inputs)
    run.train(job.loader.training(batch, options.seed, run.step, world.share(batch)), changed)


@dataclasses.dataclass(eq=False)
class Run:
    """One training run in its folder.

    Attributes:
        folder: `stats.jsonl`, `timestamp.txt`, `images/`, `visualdl/` and `checkpoints/` go there.
        job: what is trained, and when what happens.
        batch_size: images per step, for the record of throughput.
        checkpoints: those of the folder.
        world: the processes of the run; the first one writes.
        step, elapsed: steps done, and the seconds that they took.
        best_loss: of all validations so far.
    """

    folder: Path
    job: Job
    batch_size: int
    checkpoints: RunCheckpoints
    world: World = World()
    step: int = 0
    elapsed: float = 0.0
    best_loss: float | None = None
    _logger: RunLogger | None = None
    _aside: InBackground | None = None  # writes while the next steps are computed
    _saved: int = 0  # step of the last checkpoint
    _recorded: tuple[int, float] = (0, 0.0)  # step and elapsed time of the last record of the rate
    # Of the last step: test losses if it was judged.
    _values: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.trainer = self.job.trainer
        self.trainer.state.values(self, "step", "best_loss", "elapsed")

    def resume(self, checkpoint: WeightFile | None) -> None:
        """Resume from a checkpoint (`checkpoints.read()`); None starts afresh.

        Checkpoints of later steps, if the run goes back to an earlier one, are set aside.
        """
        if checkpoint is None:
            return
        with advising():
            self.trainer.state.restore(checkpoint)
        self._saved = self.step
        self._recorded = (self.step, self.elapsed)
        if self.world.rank == 0 and (aside := self.checkpoints.set_aside(self.step)):
            print(f"Resuming from step {self.step}; moved later checkpoints to {aside}")

    def train(
        self,
        batches: Iterator,
        changed: Mapping[str, str] | None = None,
        say: Callable[[str], None] = tqdm.write,
    ) -> None:
        """Train up to the last step. A signal ends the run with a checkpoint; see `stop_signals`.

        Args:
            batches: a generator of endless batches from the next step on.
            changed: what is not as it was when the run began, for the record.
            say: prints a line without disturbing the progress bar.

        Raises as `start_run` does.
        """
        total = self.job.intervals.max_steps
        first = self.world.rank == 0
        if self.step >= total:
            if first:
                say(f"{self.folder}: has {self.step} steps already, as many as asked for")
            return
        with contextlib.ExitStack() as stack:
            if first:
                self._logger = RunLogger(self.folder, self.step, say)
                stack.callback(self._logger.close)
                if changed:
                    self._logger.changed(self.step, changed)
                self._aside = stack.enter_context(InBackground(waiting=1))
            tell = stack.enter_context(progress(total, self.step, say, shown=first))
            stop = stack.enter_context(stop_signals(interrupt=self.world.size == 1))
            stack.callback(batches.close)
            meet(self.world)
            while self.step < total:
                started = time.perf_counter()
                batch = self._next_batch(batches, stop)
                self._one_step(batch)
                self.elapsed += time.perf_counter() - started
                tell(self.step, self._values["loss"])
                self._events()

    def _next_batch(self, batches: Iterator, stop: threading.Event) -> Any:
        """Return the next batch, unless the processes agree to end the run, with a checkpoint.

        Nobody leaves alone: the others would wait, and the first could not save what was reached.
        """
        batch, failure = None, None
        try:
            batch = next(batches)
        except ImageError as error:  # the networks are as good as before
            failure = error
        end = agree(_FAILED if failure else _STOPPED * stop.is_set(), self.world)
        if not end:
            return batch
        self._save()
        if self._aside is not None:
            self._aside.wait()
        if end == _FAILED:
            raise failure or ImageError("another process of this run cannot read images; see there")
        if self._logger is not None:
            self._logger.say(
                f"stopped after step {self.step}, which is saved; the same command resumes from it"
            )
        raise KeyboardInterrupt

    def _one_step(self, batch: Any) -> None:
        try:
            self._values = self.trainer.train_step(batch, self.step)
        except TrainingError as error:
            if self._aside is not None:
                self._aside.wait()
            raise TrainingError(f"{error} {self._last_checkpoint()}") from error
        self.step += 1

    def _last_checkpoint(self) -> str:
        return f"Last checkpoint: {self.checkpoints.latest() or 'none yet'}."

    def _events(self) -> None:
        """Do what is due after a step."""
        intervals = self.job.intervals
        shows = self._due(intervals.image_interval) or self.step == 1
        judges, saves = self._due(intervals.val_interval), self._due(intervals.save_interval)
        if self._logger is not None:
            if self._due(intervals.board_interval):
                self._logger.scalars("train", self.step, self._values)
                self._logger.scalars("run", self.step, self._resources())
            if shows:
                panel = self._log_panel("train")
                if self.job.snapshot is not None:
                    self._aside(self.job.snapshot(self.step, panel))
            if judges:
                self._validate()
            if saves:
                self._save()
        if shows or judges or saves:
            meet(self.world)  # the first process was busy with these

    def _due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.job.intervals.max_steps

    def _save(self) -> None:
        """Write a checkpoint of the last step, unless there is one."""
        if self._logger is None or self._saved == self.step:
            return
        checkpoint = self.trainer.state.saved()
        if bad := checkpoint.not_finite():
            raise TrainingError(
                f"step {self.step}: {bad} has values that are not finite numbers; it was not saved."
                f" {self._last_checkpoint()}"
            )
        step, values = self.step, self._values

        def write() -> None:
            self.checkpoints.save(step, checkpoint)
            self._logger.saved(step, values)

        self._saved = step
        self._aside(write)

    def _validate(self) -> None:
        found = self.trainer.evaluate(self.job.test_batches())
        if not found:
            return
        self._values = found
        self._logger.scalars("test", self.step, found)
        self._log_panel("test")
        if found["loss"] < (math.inf if self.best_loss is None else self.best_loss):
            self.best_loss = found["loss"]
            step, best = self.step, self.trainer.state.weights()

            def write() -> None:
                best.write(self.checkpoints.folder / "best_model.pdparams")
                self._logger.best(step, found["loss"], found)

            self._aside(write)

    def _log_panel(self, split: str) -> np.ndarray | None:
        panel = self.trainer.panel()
        if panel is not None:
            self._aside(self._logger.panel, f"{split}/faces", self.step, panel)
        return panel

    def _resources(self) -> dict[str, float]:
        step, elapsed = self._recorded
        self._recorded = (self.step, self.elapsed)
        rate = (self.step - step) / (self.elapsed - elapsed)
        return {
            "learning_rate": self.trainer.learning_rate,
            "images_per_second": self.batch_size * rate,
            "peak_memory_gb": peak_memory() / 1e9,
            "hours": self.elapsed / 3600,
        }


@contextlib.contextmanager
def progress(
    total: int, done: int, say: Callable[[str], None], shown: bool
) -> Iterator[Callable[[int, float], None]]:
    """Yield what is told of each step and its loss: a bar in a terminal, else a line a minute."""
    lines = shown and not sys.stderr.isatty()
    due = time.monotonic() + _SAID_EVERY if lines else math.inf
    with tqdm(total=total, initial=done, unit="step", disable=lines or not shown) as bar:

        def tell(step: int, loss: float) -> None:
            nonlocal due
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            if (now := time.monotonic()) >= due:
                due = now + _SAID_EVERY
                say(f"step {step} of {total}, loss {loss:.4f}")

        yield tell


def peak_memory() -> int:
    """Return the most memory used so far, in bytes: of the GPU or the process."""
    if paddle.device.get_device().startswith("gpu"):
        return paddle.device.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
