"""Work in batches, in processes, one of which may die over its task, and in the background.

And what ends a process: `stop_signals`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from paddle_sam.core.command import open_streams, show_notes
from paddle_sam.errors import ImageError, Note

Task = TypeVar("Task", bound=Hashable)
_BATCHES_AHEAD = 3
_GRACE = 20.0  # seconds
Sliced = TypeVar("Sliced", bound=Sequence)


def in_processes(
    function: Callable[[Task], Any],
    tasks: Sequence[Task],
    workers: int,
    died: Any,
) -> Iterator[tuple[Task, Any]]:
    """Yield each task with what `function` gave, as they end; an error it raises is raised here.

    A process may die over a task (out of memory, a crash in a decoder), which ends its whole pool.
    The tasks that it may have been are then tried one by one, the others in a new pool.

    Args:
        function: importable by name, or a `functools.partial` of such a function.
        tasks: each once.
        workers: number of processes.
        died: given in place of a result for a task whose process died.
    """
    tasks = list(tasks)
    order = {task: index for index, task in enumerate(tasks)}
    while tasks:
        unfinished = []
        for task, future in _pooled(function, tasks, workers):
            try:
                yield task, future.result()
            except BrokenProcessPool:
                unfinished.append(task)
        unfinished.sort(key=order.get)
        in_flight = 2 * workers + 2  # running, and handed to the pool's queue
        for suspect in unfinished[:in_flight]:
            for task, future in _pooled(function, [suspect], 1):
                try:
                    yield task, future.result()
                except BrokenProcessPool:
                    yield task, died
        tasks = unfinished[in_flight:]


def _pooled(function: Callable, tasks: Sequence[Task], workers: int):
    """Give every task to a pool and yield it with its future when that is done."""
    pool = process_pool(workers)
    waiting = iter(tasks)
    futures: dict[Future, Task] = {}
    try:
        while True:
            # Not all at once: what is done and not yet taken is held in memory.
            for task in islice(waiting, 4 * workers - len(futures)):
                try:
                    future = pool.submit(function, task)
                except BrokenProcessPool as error:
                    future = Future()
                    future.set_exception(error)
                futures[future] = task
            if not futures:
                return
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                yield futures.pop(future), future
    finally:
        pool.shutdown(cancel_futures=True)


def process_pool(
    workers: int, start: Callable | None = None
) -> ProcessPoolExecutor | ThreadPoolExecutor:
    """Return processes that leave Ctrl-C to this one, but do not outlive it, however it ends.

    Where the system has no semaphores, and so no pools of processes, a thread does the work.

    Args:
        start: importable by name. Each process calls it first, if given; a thread does not.
    """
    # Forking a process that runs Paddle's threads can deadlock; spawned ones start clean.
    context = multiprocessing.get_context("spawn")
    try:
        return ProcessPoolExecutor(workers, context, _start_worker, (start,))
    # What Python raises without semaphores differs by system and version.
    except (OSError, ImportError, NotImplementedError) as error:
        warnings.warn(
            f"this system has no pools of processes ({error}); one thread does the work",
            Note,
            stacklevel=2,
        )
        return ThreadPoolExecutor(1)


def _start_worker(start: Callable | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    open_streams()
    show_notes()

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if start is not None:
        start()


def ahead(items: Iterable, submit: Callable[[Any], Any], most: int = _BATCHES_AHEAD) -> Iterator:
    """Yield `submit(item)` of every item, with `most` submitted in advance."""
    waiting: deque = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) > most:
            yield waiting.popleft()
    yield from waiting


@contextlib.contextmanager
def reading_pool(workers: int) -> Iterator[Executor]:
    """Yield processes that read images; with 0 workers a thread of this one does.

    Raises:
        ImageError: a process was killed, which it is where memory runs out.
    """
    if workers == 0:
        pool = ThreadPoolExecutor(1, "reader")
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
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

    for number in _heard("SIGTERM", "SIGHUP", "SIGUSR1"):
        signal.signal(number, end_later)


def _heard(*names: str) -> list[int]:
    """Return those of the signals that the system has and that are not ignored."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def stop_signals(interrupt: bool = True) -> Iterator[threading.Event]:
    """Yield an event that a signal to end sets; a second Ctrl-C acts as usual.

    Signals to end are SIGTERM, Ctrl-C, SIGHUP (the terminal was closed) unless it is ignored, as
    under nohup, and SIGUSR1 (a batch system's warning). Only Ctrl-C acts as usual the second time:
    Paddle's launcher sends three SIGTERM within a second.

    Args:
        interrupt: whether a signal interrupts what waits for the system. What Paddle's processes
            say to each other does not outlive that.
    """
    stop = threading.Event()
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread hears signals
        return
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, *_heard("SIGTERM", "SIGHUP", "SIGUSR1"))
    }

    def request(number, frame) -> None:
        if signal.Signals(number).name == "SIGHUP":
            for stream in terminals:  # writing to one that is gone would end the run
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
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


class InBackground:
    """Does calls in a thread while the caller continues; on leaving, waits for them.

    With several `threads` calls overlap; `waiting` calls may be pending before the caller waits.

    An exception of a call is raised in the caller, at its next call or on leaving. Where the caller
    itself failed or was interrupted, the calls made before are done all the same.
    """

    def __init__(self, waiting: int = 8, threads: int = 1):
        self._pool, self._room = ThreadPoolExecutor(threads), waiting
        self._calls: deque[Future] = deque()

    def __enter__(self) -> InBackground:
        return self

    def __call__(self, function: Callable, *arguments) -> None:
        self._calls.append(self._pool.submit(function, *arguments))
        while self._calls and (self._calls[0].done() or len(self._calls) > self._room):
            self._calls.popleft().result()

    def wait(self) -> None:
        """Wait for all calls so far."""
        while self._calls:
            self._calls.popleft().result()

    def __exit__(self, kind, *_) -> None:
        self._pool.shutdown()
        if kind is None:
            self.wait()


def batches(items: Sliced, size: int) -> Iterator[Sliced]:
    """Yield slices of `size` items in order; the last may be shorter.

    >>> list(batches([1, 2, 3, 4, 5], 2))
    [[1, 2], [3, 4], [5]]
    """
    return (items[start : start + size] for start in range(0, len(items), size))


def spread(count: int, total: int) -> list[int]:
    """Return up to `count` whole numbers from 0 to `total` - 1, evenly spread, with both ends.

    >>> spread(3, 9)
    [0, 4, 8]
    >>> spread(5, 2)
    [0, 1]
    """
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
