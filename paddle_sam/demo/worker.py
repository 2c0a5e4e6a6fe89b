"""One thread that does all the network's work, in the order of the requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from paddle_sam.errors import PaddleSamError

Result = TypeVar("Result")


class BusyError(PaddleSamError):
    """More work is waiting than the demo takes on."""


class Worker:
    """Runs jobs one after the other, first come first served.

    A Paddle predictor serves one thread at a time, and a slider that is dragged must get its
    pictures in order.

    Args:
        queue_length: jobs that may wait; further ones are refused.
    """

    def __init__(self, queue_length: int = 64):
        self.queue_length = queue_length
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")
        self._waiting = 0
        self._lock = threading.Lock()

    def run(self, job: Callable[[], Result]) -> Result:
        """Wait for the jobs before this one, do it, and give its result or its exception.

        Raises:
            BusyError: `queue_length` jobs are waiting already.
        """
        with self._lock:
            if self._waiting >= self.queue_length:
                raise BusyError("Many people are using this demo. Please try again in a moment.")
            self._waiting += 1
            future = self._pool.submit(job)
        try:
            return future.result()
        finally:
            with self._lock:
                self._waiting -= 1

    def close(self) -> None:
        """Finish the jobs that wait and end the thread."""
        self._pool.shutdown()
