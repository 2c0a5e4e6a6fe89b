"""Threads that do the demo's work one job at a time, fairly between visitors."""

from __future__ import annotations

import atexit
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import TypeVar

from paddle_sam.errors import PaddleSamError

Result = TypeVar("Result")


class BusyError(PaddleSamError):
    """More is asked for than the demo takes on."""


class Worker:
    """Run jobs one at a time, one of each waiting visitor in turn.

    A visitor's own jobs keep their order, as a slider that is dragged needs; a visitor who asks
    for a hundred pictures delays another by one of them.

    Args:
        queue_length: jobs that may wait; half of them may be one visitor's.
        name: of the thread.
    """

    def __init__(self, queue_length: int = 64, name: str = "network"):
        self.queue_length = queue_length
        self._queues: OrderedDict[Hashable, deque] = OrderedDict()
        self._changed = threading.Condition()
        self._waiting = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        # Paddle aborts the process if a thread is inside of it when the interpreter ends.
        atexit.register(self.close)

    def run(self, job: Callable[[], Result], visitor: Hashable = None) -> Result:
        """Wait for this job's turn, do it, and return its result or raise its exception.

        Raises:
            BusyError: too many jobs wait already, in all or of this visitor.
        """
        future = Future()
        with self._changed:
            if self._closed:
                raise BusyError("The demo is ending.")
            own = len(self._queues.get(visitor, ()))
            if self._waiting >= self.queue_length or own >= max(self.queue_length // 2, 1):
                raise BusyError("Many people are using this demo. Please try again in a moment.")
            self._waiting += 1
            self._queues.setdefault(visitor, deque()).append((future, job))
            self._changed.notify()
        return future.result()

    def close(self) -> None:
        """Finish the running job, refuse those that wait, and end the thread."""
        with self._changed:
            self._closed = True
            for queue in self._queues.values():
                for future, _ in queue:
                    future.set_exception(BusyError("The demo is ending."))
            self._queues.clear()
            self._changed.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queues or self._closed)
                if not self._queues:
                    return
                visitor, queue = self._queues.popitem(last=False)
                future, job = queue.popleft()
                if queue:
                    self._queues[visitor] = queue  # behind the others
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)
            finally:
                del future, job  # nothing of a visitor stays until the next job
                with self._changed:
                    self._waiting -= 1
