"""The order of events in a run: steps, records, pictures, validation, checkpoints.

The loop knows no network. A trainer knows one step and how to judge test data; its schedules are
functions of the step, so a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.core.files import atomic_path, remove_leftovers
from paddle_sam.errors import ConfigError, ImageError, OutputError, TrainingError
from paddle_sam.options import check_resumable, read_json
from paddle_sam.training.checkpoint import TRAINING, RunCheckpoints
from paddle_sam.training.distributed import World, anywhere, average_values, meet
from paddle_sam.training.run_logger import RunLogger


class Trainer(Protocol):
    """What the loop needs of a trainer. Losses are logged by name; `loss` decides what is best.

    `evaluate` gives nothing where there is nothing to judge by.
    """

    def train_step(self, batch: Any, step: int) -> dict[str, float]: ...

    def evaluate(self, batches: Iterable) -> dict[str, float]: ...

    def panel(self) -> np.ndarray | None: ...

    def weights(self) -> dict[str, Any]: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, content: Mapping[str, Any]) -> None: ...


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Steps between events, and the number of steps in the run."""

    max_steps: int
    board_interval: int
    image_interval: int
    val_interval: int
    save_interval: int

    @classmethod
    def of(cls, config: Any) -> Intervals:
        """Take the options of the same names."""
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(cls)})


class Run:
    """One training run in its folder.

    Args:
        folder: `stats.jsonl`, `timestamp.txt`, `images/`, `visualdl/` and `checkpoints/` go there.
        trainer: computes the steps.
        intervals: when what happens.
        learning_rate: for the record.
        batch_size: images per step, for the record of throughput.
        keep_checkpoints: numbered checkpoints to keep; 0 for all.
        world: the processes of the run; the first one writes.
        snapshot: called with the step and the panel whenever there is a panel of training.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        intervals: Intervals,
        learning_rate: float,
        batch_size: int,
        keep_checkpoints: int = 0,
        world: World | None = None,
        snapshot: Callable[[int, np.ndarray], None] | None = None,
    ):
        self.folder = Path(folder)
        self.trainer = trainer
        self.intervals = intervals
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.world = world or World()
        self.checkpoints = RunCheckpoints(self.folder / "checkpoints", keep_checkpoints)
        self._snapshot = snapshot
        self.step = 0
        self.best_loss: float | None = None
        self.elapsed = 0.0
        self._logger: RunLogger | None = None
        self._saved = 0  # step of the last checkpoint
        self._recorded = (0, 0.0)  # step and elapsed time of the last record of the rate
        self._values: dict[str, float] = {}  # of the last step: test losses if it was judged

    def resume(self, content: Mapping[str, Any] | None) -> None:
        """Go on from a checkpoint's content (`checkpoints.read_latest()`); None starts afresh.

        Checkpoints of later steps, where the run goes back to an earlier one, are set aside.
        """
        if content is None:
            return
        self.trainer.restore(content)
        training = content[TRAINING]
        self.step = training["step"]
        self.best_loss = training["best_loss"]
        self.elapsed = training["elapsed"]
        self._saved = self.step
        self._recorded = (self.step, self.elapsed)
        if self.world.rank == 0 and (aside := self.checkpoints.set_aside(self.step)):
            print(f"going on from step {self.step}; later checkpoints are in {aside}")

    def train(
        self,
        batches_from: Callable[[int], Iterator],
        test_batches: Callable[[], Iterable],
        say: Callable[[str], None] = tqdm.write,
    ) -> None:
        """Train up to the last step. SIGTERM or Ctrl-C ends the run with a checkpoint.

        Args:
            batches_from: gives the endless batches from a step on.
            test_batches: gives the test batches; called at every validation.
            say: prints a line without disturbing the progress bar.

        Raises:
            TrainingError: a loss is no longer a number; the last checkpoint is untouched.
            ImageError: images cannot be read; there is a checkpoint of the last step.
            KeyboardInterrupt: a signal stopped the run, which has a checkpoint of the last step.
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
                                " goes on from it"
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
            losses = average_values(losses, self.world)
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
        content = self._content()
        if bad := _not_finite(content):
            raise TrainingError(
                f"step {self.step}: {bad} has values that are not numbers; it was not saved. Last"
                f" checkpoint: {self.checkpoints.latest() or 'none yet'}."
            )
        self.checkpoints.save(self.step, content)
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
            self.checkpoints.save_best(self.trainer.weights())
            self._logger.best(self.step, self.best_loss, found)

    def _log_panel(self, split: str) -> np.ndarray | None:
        panel = self.trainer.panel()
        if panel is not None:
            self._logger.panel(f"{split}/faces", self.step, panel)
        return panel

    def _content(self) -> dict[str, Any]:
        training = {
            "step": self.step,
            "best_loss": self.best_loss,
            "elapsed": self.elapsed,
            **self.trainer.state(),
        }
        return {**self.trainer.weights(), TRAINING: training}

    def _resources(self) -> dict[str, float]:
        step, elapsed = self._recorded
        self._recorded = (self.step, self.elapsed)
        rate = (self.step - step) / (self.elapsed - elapsed)
        return {
            "learning_rate": self.learning_rate,
            "images_per_second": self.batch_size * rate,
            "peak_memory_gb": peak_memory() / 1e9,
            "hours": self.elapsed / 3600,
        }


def _not_finite(content: Mapping[str, Any]) -> str | None:
    """Name of the first weight in a checkpoint's content that holds NaN or infinity."""
    for name, entry in content.get("networks", {}).items():
        for key, array in entry["state"].items():
            if not np.isfinite(array).all():
                return f"{name}.{key}"
    return None


@contextlib.contextmanager
def stop_signals(interrupt: bool = True) -> Iterator[threading.Event]:
    """Give an event that SIGTERM or Ctrl-C sets; a second Ctrl-C acts as usual.

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
    """Most memory used so far, in bytes: of the GPU if that is the device, else of the process."""
    if paddle.device.get_device().startswith("gpu"):
        return paddle.device.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def check_options(folder: Path, config: Any) -> None:
    """Raise `ConfigError` if the run in `folder` cannot be resumed with the options `config`."""
    kept = folder / "opt.json"
    if kept.exists() and RunCheckpoints(folder / "checkpoints").latest():
        check_resumable(read_json(type(config), kept), config, folder)


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
