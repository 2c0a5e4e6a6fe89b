"""Batches of images, read ahead by worker processes, the same whatever their number.

They travel as bytes, uint8 [N, S, S, 3], a quarter of what a network takes: `to_device` turns
them into its input where it runs. Paddle is imported there, as reading processes do not need it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_sam.core.images import to_network
from paddle_sam.core.processes import process_pool
from paddle_sam.errors import ImageError
from paddle_sam.imagesets.archive import ImageSource
from paddle_sam.imagesets.dataset import ImagePairs, draw_mirrored, read_sample, sample_index

if TYPE_CHECKING:
    import paddle

_BATCHES_AHEAD = 3
_GRACE = 20.0  # seconds
SQUEEZED = (
    "images that are not square are squeezed to squares (said once), such as {}; to cut them"
    " instead: python scripts/prepare_dataset.py, or align_all_parallel.py for faces"
)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images uint8 RGB [N, S, S, 3]; `target` is None where it equals `source`.

    mirror: bool [N], which of them are shown mirrored; None for none.
    """

    source: np.ndarray
    target: np.ndarray | None
    paths: tuple[ImageSource, ...]
    mirror: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, part: slice) -> Batch:
        target, mirror = (None if a is None else a[part] for a in (self.target, self.mirror))
        return Batch(self.source[part], target, self.paths[part], mirror)

    def tensors(self, size: int = 0) -> tuple[paddle.Tensor, paddle.Tensor | None]:
        """Return source and target as `to_device` makes them."""
        target = None if self.target is None else to_device(self.target, self.mirror, size)
        return to_device(self.source, self.mirror, size), target


def to_device(images: np.ndarray, mirror: np.ndarray | None = None, size: int = 0) -> paddle.Tensor:
    """Turn images into network input on Paddle's device: float32 [N, 3, S, S] in [-1, 1].

    Args:
        images: uint8 [N, S, S, 3]; or network input as an array, whose values are kept.
        mirror: bool [N], which of them to mirror.
        size: reduce them to this side by averaging squares of pixels; 0 keeps S.
    """
    import paddle

    if images.dtype == np.uint8 and paddle.get_device() == "cpu":
        images = to_network(images)  # NumPy does it in a quarter of Paddle's time there
    x = paddle.to_tensor(images)
    if images.dtype == np.uint8:
        # A division, as in `to_network`; Paddle's own by a number multiplies by its inverse.
        x = paddle.divide(x.transpose([0, 3, 1, 2]).astype("float32"), paddle.to_tensor(127.5)) - 1
    if mirror is not None and mirror.any():
        x = paddle.where(paddle.to_tensor(mirror)[:, None, None, None], paddle.flip(x, [3]), x)
    if size and size != x.shape[2]:
        x = paddle.nn.functional.avg_pool2d(x, x.shape[2] // size)
    return x


class BatchLoader:
    """Reads batches of an `ImagePairs`.

    Unreadable images are reported once each and replaced by the next readable one.

    Args:
        data: the images.
        size: height and width to resize to.
        workers: reading processes; 0 reads in this one.
        max_bad: unreadable images to tolerate.
        cache: keep decoded images in memory.
        mirror: mirror half of the training images, at random.
        report: called with a message for each unreadable image.
    """

    def __init__(
        self,
        data: ImagePairs,
        size: int,
        workers: int = 0,
        max_bad: int = 0,
        cache: bool = False,
        mirror: bool = True,
        report: Callable[[str], None] = print,
    ):
        self.data = data
        self.size = size
        self.workers = workers
        self.max_bad = max_bad
        self.bad: dict[int, str] = {}
        self._cache: dict[int, tuple[np.ndarray, ...]] | None = {} if cache else None
        self._mirror, self._squeezed = mirror, False
        self._report = report

    def training(self, batch_size: int, seed: int, start: int, part: slice) -> Iterator[Batch]:
        """Yield shuffled batches without end, from step `start` (0 is the first).

        Args:
            batch_size: samples per step in the whole run.
            seed: the run's seed.
            start: first step to yield.
            part: which samples of each step to read (those of this process).
        """

        places = step_positions(batch_size, start, part)
        wanted = ((p, [sample_index(int(i), len(self.data), seed) for i in p]) for p in places)
        for positions, batch in self._read(wanted):
            mirror = draw_mirrored(positions, seed) if self._mirror else None
            yield dataclasses.replace(batch, mirror=mirror)

    def once(self, batch_size: int) -> Iterator[Batch]:
        """Yield every sample once, in order; the last batch may be smaller."""
        indices = range(len(self.data))
        wanted = ((None, indices[i : i + batch_size]) for i in indices[::batch_size])
        return (batch for _, batch in self._read(wanted))

    def _read(self, wanted: Iterable[tuple[Any, Sequence[int]]]) -> Iterator[tuple[Any, Batch]]:
        """Yield (tag, batch) for each (tag, indices) wanted."""
        with reading_pool(self.workers) as executor:

            def submit(item: tuple) -> tuple:
                tag, indices = item
                return tag, indices, [self._submit(executor, index) for index in indices]

            for tag, indices, futures in ahead(wanted, submit, self.workers):
                yield tag, self._collect(executor, indices, futures)

    def _submit(self, executor: Executor, index: int) -> Future | None:
        if index in self.bad or (self._cache is not None and index in self._cache):
            return None
        return executor.submit(read_sample, self.data.paths(index), self.size)

    def _collect(self, executor, indices: Sequence[int], futures: Sequence) -> Batch:
        samples, paths = [], []
        for index, future in zip(indices, futures, strict=True):
            images = self._result(index, future)
            while images is None:  # unreadable: take the next that is not
                index = (index + 1) % len(self.data)
                images = self._result(index, self._submit(executor, index))
            samples.append(images)
            paths.append(self.data.sources[index])
        source, *target = (np.stack(side) for side in zip(*samples, strict=True))
        return Batch(source, target[0] if target else None, tuple(paths))

    def _result(self, index: int, future: Future | None) -> tuple[np.ndarray, ...] | None:
        if future is None:
            return self._cache.get(index) if self._cache is not None else None
        try:
            images, squeezed = future.result()
        except ImageError as error:
            self._note_bad(index, str(error))
            return None
        if squeezed and not self._squeezed:
            self._squeezed = True
            self._report(SQUEEZED.format(squeezed))
        if self._cache is not None:
            self._cache[index] = images
        return images

    def _note_bad(self, index: int, message: str) -> None:
        if index in self.bad:
            return
        self.bad[index] = message
        self._report(f"skipped an unreadable image: {message}")
        if len(self.bad) > self.max_bad or len(self.bad) == len(self.data):
            raise ImageError(
                f"{len(self.bad)} of {len(self.data)} training or test images cannot be read, the"
                f" last: {message} Repair or remove them, or allow more with --max_bad_images."
            )


def read_batches(
    images: Sequence[ImageSource], size: int, batch_size: int, workers: int
) -> Iterator[tuple[dict[int, np.ndarray], dict[int, str]]]:
    """Yield images uint8 RGB [size, size, 3] by their indices, and why others cannot be read.

    Args:
        images: read and resized in this order, each once.
        size: side to resize to.
        batch_size: images in each batch, the unreadable ones counted.
        workers: processes that read; 0 reads in this one.
    """
    with reading_pool(workers) as pool:

        def submit(start: int) -> dict[int, Future]:
            indices = range(start, min(start + batch_size, len(images)))
            return {i: pool.submit(read_sample, (images[i],), size) for i in indices}

        for jobs in ahead(range(0, len(images), batch_size), submit, workers):
            read, failed = {}, {}
            for index, job in jobs.items():
                try:
                    (read[index],) = job.result().images
                except ImageError as error:
                    failed[index] = str(error)
            yield read, failed


def step_positions(batch_size: int, start: int, part: slice) -> Iterator[np.ndarray]:
    """Yield the positions of a run's samples, step after step from `start`, of one process."""
    for step in itertools.count(start):
        yield np.arange(step * batch_size, (step + 1) * batch_size)[part]


def ahead(items: Iterable, submit: Callable[[Any], Any], workers: int) -> Iterator:
    """Yield `submit(item)` of every item, with some batches submitted in advance."""
    waiting: deque = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) > (_BATCHES_AHEAD if workers else 0):
            yield waiting.popleft()
    yield from waiting


class _SameProcess(Executor):
    """Runs a task when it is submitted, here."""

    def submit(self, task, /, *arguments, **named):
        future = Future()
        try:
            future.set_result(task(*arguments, **named))
        except Exception as error:  # as in a pool: it is raised where the result is asked for
            future.set_exception(error)
        return future


@contextlib.contextmanager
def reading_pool(workers: int) -> Iterator[Executor]:
    """Yield processes that read images; with 0 workers tasks run here, when submitted.

    Raises:
        ImageError: a process was killed, which it is where memory runs out.
    """
    if workers == 0:
        yield _SameProcess()
        return
    try:
        with process_pool(workers, _put_off_signals) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise ImageError(
            f"one of {workers} processes that read images was killed, perhaps because memory ran"
            " out. Use fewer of them; 0 reads in the main process."
        ) from error


def _put_off_signals() -> None:
    """Keep reading for a while after a signal to end, which all processes of a run may receive.

    Meanwhile the training process finishes its step. The delay is limited: a pool that lost a
    process ends the others by SIGTERM, and waits for them.
    """

    def end_later(number, frame):
        timer = threading.Timer(_GRACE, os._exit, (1,))
        timer.daemon = True
        timer.start()

    for name in ("SIGTERM", "SIGHUP", "SIGUSR1"):
        number = getattr(signal, name, None)  # Windows has the first only
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end_later)
