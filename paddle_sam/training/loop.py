"""The order of events in a run: steps, records, pictures, validation, checkpoints.

The loop knows no network. A trainer knows one step and how to judge test data; its schedules are
functions of the step, so a run that was stopped resumes as if it had not been.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.core.weight_file import WeightFile
from paddle_sam.errors import ImageError, TrainingError
from paddle_sam.training.distributed import World, anywhere, meet
from paddle_sam.training.run_logger import RunLogger
from paddle_sam.training.state import RunCheckpoints, RunState


class Trainer(Protocol):
    """What the loop needs of a trainer. Values are logged by name; `loss` decides what is best."""

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


class Run:
    """One training run in its folder.

    Args:
        folder: `stats.jsonl`, `timestamp.txt`, `images/`, `visualdl/` and `checkpoints/` go there.
        trainer: computes the steps.
        intervals: when what happens.
        batch_size: images per step, for the record of throughput.
        checkpoints: those of the folder.
        world: the processes of the run; the first one writes.
        snapshot: called with the step and the panel whenever there is a panel of training.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        intervals: Intervals,
        batch_size: int,
        checkpoints: RunCheckpoints,
        world: World | None = None,
        snapshot: Callable[[int, np.ndarray], None] | None = None,
    ):
        self.folder = Path(folder)
        self.trainer = trainer
        self.intervals = intervals
        self.batch_size = batch_size
        self.world = world or World()
        self.checkpoints = checkpoints
        self._snapshot = snapshot
        self.step = 0
        self.best_loss: float | None = None
        self.elapsed = 0.0
        trainer.state.values(self, "step", "best_loss", "elapsed")
        self._logger: RunLogger | None = None
        self._saved = 0  # step of the last checkpoint
        self._recorded = (0, 0.0)  # step and elapsed time of the last record of the rate
        self._values: dict[str, float] = {}  # of the last step: test losses if it was judged

    def resume(self, checkpoint: WeightFile | None) -> None:
        """Resume from a checkpoint (`checkpoints.read()`); None starts afresh.

        Checkpoints of later steps, if the run goes back to an earlier one, are set aside.
        """
        if checkpoint is None:
            return
        self.trainer.state.restore(checkpoint)
        self._saved = self.step
        self._recorded = (self.step, self.elapsed)
        if self.world.rank == 0 and (aside := self.checkpoints.set_aside(self.step)):
            print(f"Resuming from step {self.step}; moved later checkpoints to {aside}")

    def train(
        self,
        batches_from: Callable[[int], Iterator],
        test_batches: Callable[[], Iterable],
        say: Callable[[str], None] = tqdm.write,
    ) -> None:
        """Train up to the last step. SIGTERM or Ctrl-C ends the run with a checkpoint.

        Args:
            batches_from: returns the endless batches from a step on.
            test_batches: returns the test batches; called at every validation.
            say: prints a line without disturbing the progress bar.

        Raises:
            TrainingError: a loss is not a number; the last checkpoint is untouched.
            ImageError: images cannot be read; there is a checkpoint of the last step.
            KeyboardInterrupt: a signal stopped the run; there is a checkpoint of the last step.
        """
        if self.step >= self.intervals.max_steps:
            say(f"{self.folder}: has {self.step} steps already, as many as asked for")
            return
        first = self.world.rank == 0
        self._logger = RunLogger(self.folder, self.step, say) if first else None
        progress = tqdm(
            total=self.intervals.max_steps, initial=self.step, unit="step", disable=not first
        )
        batches = batches_from(self.step)
        try:
            with progress, stop_signals(interrupt=self.world.size == 1) as stop:
                while self.step < self.intervals.max_steps:
                    self._one_step(batches, test_batches, progress)
                    if anywhere(stop.is_set(), self.world):
                        self._save()
                        if first:
                            say(
                                f"stopped after step {self.step}, which is saved; the same command"
                                " resumes from it"
                            )
                        raise KeyboardInterrupt
        except ImageError:  # the network is as good as before
            self._save()
            raise
        finally:
            batches.close()
            if self._logger is not None:
                self._logger.close()

    def _one_step(self, batches: Iterator, test_batches: Callable, progress: tqdm) -> None:
        started = time.perf_counter()
        batch = next(batches)
        meet(self.world)
        try:
            losses = self.trainer.train_step(batch, self.step)
        except TrainingError as error:
            latest = self.checkpoints.latest()
            raise TrainingError(f"{error} Last checkpoint: {latest or 'none yet'}.") from error
        self.step += 1
        self.elapsed += time.perf_counter() - started
        progress.update()

        if self._due(self.intervals.board_interval):
            progress.set_postfix(loss=f"{losses['loss']:.4f}", refresh=False)
            if self._logger is not None:
                self._logger.scalars("train", self.step, losses)
                self._logger.scalars("run", self.step, self._resources())
        self._values = losses
        if self._logger is None:
            return
        if self._due(self.intervals.image_interval) or self.step == 1:
            panel = self._log_panel("train")
            if self._snapshot is not None:
                self._snapshot(self.step, panel)
        if self._due(self.intervals.val_interval):
            self._validate(test_batches())
        if self._due(self.intervals.save_interval):
            self._save()

    def _save(self) -> None:
        """Write a checkpoint of the last step, unless there is one."""
        if self._logger is None or self._saved == self.step:
            return
        checkpoint = self.trainer.state.saved()
        if bad := checkpoint.not_finite():
            raise TrainingError(
                f"step {self.step}: {bad} has values that are not finite numbers; it was not saved."
                f" Last checkpoint: {self.checkpoints.latest() or 'none yet'}."
            )
        self.checkpoints.save(self.step, checkpoint)
        self._saved = self.step
        self._logger.saved(self.step, self._values)

    def _due(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.intervals.max_steps

    def _validate(self, batches: Iterable) -> None:
        found = self.trainer.evaluate(batches)
        if not found:
            return
        self._values = found
        self._logger.scalars("test", self.step, found)
        self._log_panel("test")
        if self.best_loss is None or found["loss"] < self.best_loss:
            self.best_loss = found["loss"]
            self.trainer.state.weights().write(self.checkpoints.folder / "best_model.pdparams")
            self._logger.best(self.step, self.best_loss, found)

    def _log_panel(self, split: str) -> np.ndarray | None:
        panel = self.trainer.panel()
        if panel is not None:
            self._logger.panel(f"{split}/faces", self.step, panel)
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
def stop_signals(interrupt: bool = True) -> Iterator[threading.Event]:
    """Yield an event that SIGTERM or Ctrl-C sets; a second Ctrl-C acts as usual.

    A second SIGTERM does not: Paddle's launcher sends three within a second.

    Args:
        interrupt: whether a signal interrupts what waits for the system. What Paddle's processes
            say to each other does not outlive that.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread hears signals
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def request(number, frame) -> None:
        if stop.is_set():
            return
        stop.set()
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        with contextlib.suppress(OSError):  # not print, which may be at work already
            os.write(2, b"\nstopping after this step; another Ctrl-C stops at once\n")

    for number in before:
        signal.signal(number, request)
        if not interrupt:
            signal.siginterrupt(number, False)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
