"""Writing results while the next ones are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class InBackground:
    """Does calls one after the other in a thread, while the caller goes on; on leaving, waits.

    An exception of a call is raised in the caller, at its next call or on leaving. Where the caller
    itself failed or was interrupted, the calls made before are done all the same.
    """

    def __init__(self, waiting: int = 8):
        self._pool, self._room = ThreadPoolExecutor(1), waiting
        self._calls: deque[Future] = deque()

    def __enter__(self) -> InBackground:
        return self

    def __call__(self, function: Callable, *arguments) -> None:
        self._calls.append(self._pool.submit(function, *arguments))
        while self._calls and (self._calls[0].done() or len(self._calls) > self._room):
            self._calls.popleft().result()

    def __exit__(self, kind, *_) -> None:
        self._pool.shutdown()
        if kind is None:
            while self._calls:
                self._calls.popleft().result()
