"""What the demo remembers of a visitor: face crops and their codes, for a while, in memory."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from paddle_sam.common.checks import PaddleSamError


class SessionEndedError(PaddleSamError):
    """The visitor's faces are no longer in memory."""


@dataclass
class Session:
    """One uploaded photograph, of which only the face crops are kept.

    model: name of the model whose crops these are. crops: uint8 [F, S, S, 3]. images and inverted:
    the crops as the network takes them and their codes. rendered: PNG by (face, age).
    """

    model: str
    crops: np.ndarray
    images: object
    inverted: object
    rendered: dict[tuple[int, float], bytes] = field(default_factory=dict)
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
            self._drop_old()
        return token

    def get(self, token: str) -> Session:
        """The session of a token, its idle time begun anew.

        Raises:
            SessionEndedError: there is none (any more).
        """
        with self._lock:
            self._drop_old()
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

    def _drop_old(self) -> None:
        oldest_allowed = time.monotonic() - self.idle_seconds
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if len(self._sessions) <= self.limit and oldest.used >= oldest_allowed:
                return
            self._sessions.popitem(last=False)
