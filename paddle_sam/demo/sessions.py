"""What the demo remembers of a visitor: a photo, its faces and their codes, in memory, a while."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from paddle_sam.errors import PaddleSamError

AGES_KEPT = 128  # codes of a face
PICTURE_BYTES_KEPT = 64_000_000  # of a session


class SessionEndedError(PaddleSamError):
    """The visitor's faces are no longer in memory."""


class Recent:
    """Values by key, of which the longest unused go when there is too much.

    Args:
        limit: largest sum of the sizes given with the values.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._entries: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable):
        """The value of a key; None where there is none (any more)."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def add(self, key: Hashable, value: object, size: int) -> None:
        """Keep a value."""
        with self._lock:
            self._entries[key] = value, size
            while sum(size for _, size in self._entries.values()) > self.limit:
                self._entries.popitem(last=False)


@dataclass(eq=False)
class Subject:
    """A face and its codes.

    crop: uint8 [S, S, 3]. image: the same as the network takes it, [1, 3, S, S]. inverted: its
    code [1, L, D]. aged: its codes by age, before any edit.
    """

    crop: np.ndarray
    image: object
    inverted: object
    aged: Recent = field(default_factory=lambda: Recent(AGES_KEPT))


@dataclass(eq=False)
class Session:
    """One uploaded photograph and what was made of it.

    model: name of the model that ages it. photo: the image file's bytes. preview: the photograph,
    reduced for the page, uint8 [H, W, 3]. quads: where each face was cut out of the full
    photograph, in shares of its width and height, [4, 2]. faces: those of the photograph.
    references: faces to take colours and textures from. pictures: PNG by what they show.
    video_done: how much of a video that is being made is there, 0 to 1.
    """

    model: str
    photo: bytes
    preview: np.ndarray
    quads: list[np.ndarray]
    faces: list[Subject]
    references: list[Subject] = field(default_factory=list)
    pictures: Recent = field(default_factory=lambda: Recent(PICTURE_BYTES_KEPT))
    video_done: float = 0.0
    used: float = field(default_factory=time.monotonic)


class Sessions:
    """Sessions by secret token; the oldest goes when there are too many or it was idle too long.

    Args:
        limit: sessions kept at once.
        idle_seconds: how long a session is kept after its last use.
    """

    def __init__(self, limit: int = 32, idle_seconds: float = 900.0):
        self.limit = limit
        self.idle_seconds = idle_seconds
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, session: Session) -> str:
        """Keep a session; returns its token."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._sessions[token] = session
        self.drop_old()
        return token

    def get(self, token: str) -> Session:
        """The session of a token, its idle time begun anew.

        Raises:
            SessionEndedError: there is none (any more).
        """
        self.drop_old()
        with self._lock:
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
        """Drop what is too old or too much; called now and then also while nobody asks."""
        oldest_allowed = time.monotonic() - self.idle_seconds
        with self._lock:
            while self._sessions:
                oldest = next(iter(self._sessions.values()))
                if len(self._sessions) <= self.limit and oldest.used >= oldest_allowed:
                    return
                self._sessions.popitem(last=False)
