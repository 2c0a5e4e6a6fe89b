"""What the demo remembers of visitors, in memory, a while, and the threads that work for them.

A session holds a photo, its faces and their codes. Jobs are done one at a time, fairly between
visitors.
"""

from __future__ import annotations

import atexit
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from paddle_sam.ageing.dial import FaceDial
from paddle_sam.errors import PaddleSamError

AGES_KEPT = 128  # codes of a face
PICTURE_BYTES_KEPT = 64_000_000  # of a session
ACTIVE_SECONDS = 120.0  # a visitor who asked for something so recently is never turned out
Result = TypeVar("Result")


class SessionEndedError(PaddleSamError):
    """The visitor's faces are no longer in memory."""


class Recent:
    """Values by key, of which the longest unused go when there is too much.

    Args:
        limit: largest sum of the sizes given with the values.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.size = 0
        self._entries: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable):
        """Return the value of a key; None if it is not kept (any more)."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def add(self, key: Hashable, value: object, size: int) -> None:
        """Keep a value."""
        with self._lock:
            self.size += size - self._entries.get(key, (None, 0))[1]
            self._entries[key] = value, size
            while self.size > self.limit:
                self.size -= self._entries.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._entries.clear()
            self.size = 0


@dataclass(eq=False)
class Subject:
    """A face and its codes.

    crop: uint8 [S, S, 3]. image: the same as the network takes it, [1, 3, S, S]. inverted: its
    code [1, L, D]. dial: blends results into the photograph as the page shows it; None where the
    network cannot. aged: its codes by age, before any edit.
    """

    crop: np.ndarray
    image: object
    inverted: object
    dial: FaceDial | None = None
    aged: Recent = field(default_factory=lambda: Recent(AGES_KEPT))


@dataclass
class VideoJob:
    """A video that is being made or is ready.

    wanted: what it shows. done: share of its frames, 0 to 1. data: the MP4 file once ready. error:
    why it was given up.
    """

    wanted: Hashable
    done: float = 0.0
    data: bytes | None = None
    error: str = ""


@dataclass(eq=False)
class Session:
    """One uploaded photograph and what was made of it.

    model: name of the model that ages it. photo: the image file's bytes. preview: the photograph,
    reduced for the page, uint8 [H, W, 3]. quads: where each face was cut out of the full
    photograph, in shares of its width and height, [4, 2]. faces: those of the photograph.
    references: faces to take colours and textures from. pictures: PNG by what they show. video: the
    last one asked for.
    """

    model: str
    photo: bytes
    preview: np.ndarray
    quads: list[np.ndarray]
    faces: list[Subject]
    references: list[Subject] = field(default_factory=list)
    pictures: Recent = field(default_factory=lambda: Recent(PICTURE_BYTES_KEPT))
    video: VideoJob | None = None
    used: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        """Bytes in memory, but for codes, which are small."""
        # A crop is kept in bytes and, four times as large, as the network takes it.
        faces = sum(5 * face.crop.nbytes for face in (*self.faces, *self.references))
        faces += sum(face.dial.nbytes for face in self.faces if face.dial)
        video = len(self.video.data or b"") if self.video else 0
        return len(self.photo) + self.preview.nbytes + faces + self.pictures.size + video


class Sessions:
    """Sessions by secret token, as long as they are used and memory allows.

    Args:
        limit: sessions kept at once.
        idle_seconds: how long a session is kept after its last use.
        max_bytes: memory that all of them may take.
    """

    def __init__(self, limit: int = 256, idle_seconds: float = 900.0, max_bytes: float = 1e9):
        self.limit = limit
        self.idle_seconds = idle_seconds
        self.max_bytes = max_bytes
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # the longest unused first
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> str:
        """Keep a session, and return its token.

        Raises:
            BusyError: there is no room, and everybody's photo is in use.
        """
        token = secrets.token_urlsafe(16)
        with self._lock:
            self.drop_old()
            self.trim(session.size)
            while len(self._sessions) >= self.limit or self._size() + session.size > self.max_bytes:
                oldest = next(iter(self._sessions.values()), None)
                if oldest is None:
                    raise BusyError(
                        "This photo and its faces take more memory than this demo may use"
                        f" ({self.max_bytes / 1e6:.0f} MB). Please cut out fewer faces."
                    )
                if time.monotonic() - oldest.used < ACTIVE_SECONDS:
                    raise BusyError(
                        "Many photos are open in this demo. Please try again in a minute."
                    )
                self._sessions.popitem(last=False)
            self._sessions[token] = session
        return token

    def get(self, token: str) -> Session:
        """Return the session of a token, and restart its idle time.

        Raises:
            SessionEndedError: it does not exist (any more).
        """
        with self._lock:
            self.drop_old()
            if token not in self._sessions:
                raise SessionEndedError(
                    "This photo is no longer in memory (photos are forgotten after"
                    f" {self.idle_seconds / 60:g} idle minutes). Please choose it again."
                )
            session = self._sessions[token]
            session.used = time.monotonic()
            self._sessions.move_to_end(token)
            return session

    def forget(self, token: str) -> None:
        """Drop a session at the visitor's wish."""
        with self._lock:
            self._sessions.pop(token, None)

    def drop_old(self) -> None:
        """Drop idle sessions; called now and then, also while nobody asks."""
        oldest_allowed = time.monotonic() - self.idle_seconds
        with self._lock:
            while self._sessions and next(iter(self._sessions.values())).used < oldest_allowed:
                self._sessions.popitem(last=False)

    def trim(self, more: int = 0) -> None:
        """Drop pictures that can be rendered again while all sessions take too much.

        `more` are bytes that there has to be room for.
        """
        with self._lock:
            for session in self._sessions.values():
                if self._size() + more <= self.max_bytes:
                    return
                session.pictures.clear()

    def _size(self) -> int:
        return sum(session.size for session in self._sessions.values())


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
