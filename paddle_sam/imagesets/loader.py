"""Batches of images, read ahead by worker processes, the same whatever their number."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from paddle_sam.core.images import to_network
from paddle_sam.core.processes import process_pool
from paddle_sam.errors import ImageError
from paddle_sam.imagesets.archive import ImageSource
from paddle_sam.imagesets.dataset import ImagePairs, read_sample, shuffled
from paddle_sam.imagesets.transforms import flips, mirrored

_BATCHES_AHEAD = 3
_GRACE = 20.0  # seconds


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images float32 [N, 3, S, S] in [-1, 1]; `target` is None where it equals `source`."""

    source: np.ndarray
    target: np.ndarray | None
    paths: tuple[ImageSource, ...]

    def __len__(self) -> int:
        return len(self.source)


class BatchLoader:
    """Reads batches of an `ImagePairs`.

    Unreadable images are reported once each and replaced by the next readable one.

    Args:
        data: the images.
        size: height and width to resize to.
        workers: reading processes; 0 reads in this one.
        max_bad: unreadable images to put up with.
        cache: keep decoded images in memory.
        mirror: whether training batches are mirrored at random.
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
        self._mirror = mirror
        self._report = report

    def training(self, batch_size: int, seed: int, start: int, part: slice) -> Iterator[Batch]:
        """Endless shuffled batches, mirrored or not, from step `start` (0 is the first).

        Args:
            batch_size: samples per step in the whole run.
            seed: the run's seed.
            start: first step to give.
            part: which samples of each step to read (those of this process).
        """

        def positions() -> Iterator[np.ndarray]:
            step = start
            while True:
                yield np.arange(step * batch_size, (step + 1) * batch_size)[part]
                step += 1

        def indices(places: np.ndarray) -> list[int]:
            return [shuffled(int(place), len(self.data), seed) for place in places]

        for places, batch in self._read_ahead((p, indices(p)) for p in positions()):
            mirror = flips(places, seed) if self._mirror else np.zeros(len(places), bool)
            yield self._batch(batch, mirror)

    def once(self, batch_size: int) -> Iterator[Batch]:
        """Every sample once, in order; the last batch may be smaller."""
        groups = (
            list(range(first, min(first + batch_size, len(self.data))))
            for first in range(0, len(self.data), batch_size)
        )
        for _, batch in self._read_ahead((None, group) for group in groups):
            yield self._batch(batch, np.zeros(len(batch), bool))

    def _batch(self, samples: list[tuple[int, tuple]], mirror: np.ndarray) -> Batch:
        sides = [
            to_network(list(mirrored(np.stack(side), mirror)))
            for side in zip(*(images for _, images in samples), strict=True)
        ]
        paths = tuple(self.data.sources[index] for index, _ in samples)
        return Batch(sides[0], sides[1] if len(sides) > 1 else None, paths)

    def _read_ahead(self, wanted: Iterator[tuple]) -> Iterator[tuple]:
        """Give (tag, [(index, images), ...]) for each (tag, indices) wanted."""
        with reading_pool(self.workers) as executor:
            ahead = []
            for tag, indices in wanted:
                ahead.append((tag, indices, [self._submit(executor, i) for i in indices]))
                if len(ahead) > (_BATCHES_AHEAD if self.workers else 0):
                    yield self._collect(executor, *ahead.pop(0))
            for item in ahead:
                yield self._collect(executor, *item)

    def _submit(self, executor: Executor, index: int) -> Future | None:
        if index in self.bad or (self._cache is not None and index in self._cache):
            return None
        return executor.submit(read_sample, self.data.paths(index), self.size)

    def _collect(self, executor, tag, indices: Sequence[int], futures: Sequence) -> tuple:
        samples = []
        for index, future in zip(indices, futures, strict=True):
            images = self._result(index, future)
            while images is None:  # unreadable: take the next that is not
                index = (index + 1) % len(self.data)
                images = self._result(index, self._submit(executor, index))
            samples.append((index, images))
        return tag, samples

    def _result(self, index: int, future: Future | None) -> tuple[np.ndarray, ...] | None:
        if future is None:
            return self._cache.get(index) if self._cache is not None else None
        try:
            images = future.result()
        except ImageError as error:
            self._note_bad(index, str(error))
            return None
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
    """Processes that read images; with 0 workers tasks run here, when they are submitted.

    Raises:
        ImageError: a process was killed, which it is where memory runs out.
    """
    if workers == 0:
        yield _SameProcess()
        return
    try:
        with process_pool(workers, _put_off_sigterm) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise ImageError(
            f"one of {workers} processes that read images was killed, perhaps for want of memory."
            " Give fewer of them; 0 reads in the main process."
        ) from error


def _put_off_sigterm() -> None:
    """Go on reading for a while after SIGTERM, which all processes of a run may get.

    The training process finishes its step meanwhile. Not for ever: a pool of which a process was
    killed ends the others so, and waits for them.
    """

    def end_later(number, frame):
        timer = threading.Timer(_GRACE, os._exit, (1,))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, end_later)
