"""Which age to ask a model for, so that its faces look the age that is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from paddle_sam.errors import CheckpointError


@dataclass(frozen=True)
class Calibration:
    """A measured curve from the age that a model is asked for to the age its faces look.

    asked, seen: years; both rise strictly. judge: what read the ages.
    """

    asked: tuple[float, ...]
    seen: tuple[float, ...]
    judge: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any] | None, label: str) -> Calibration | None:
        """Build from a weight file's entry `calibration`; None without one.

        Raises:
            CheckpointError: it is not such a curve; the message begins with `label`.
        """
        if not entry:
            return None
        try:
            found = cls(*(tuple(map(float, entry[name])) for name in ("asked", "seen")))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{label}: its `calibration` cannot be used: {error}") from error
        rising = all(len(one) > 1 and (np.diff(one) > 0).all() for one in (found.asked, found.seen))
        if not rising or len(found.asked) != len(found.seen):
            raise CheckpointError(f"{label}: its `calibration` is not a rising curve")
        return cls(found.asked, found.seen, str(entry.get("judge", "")))

    @classmethod
    def fitted(cls, asked: np.ndarray, seen: np.ndarray, judge: str) -> Calibration:
        """The curve through measured ages [N], made to rise: where it does not, points go.

        >>> Calibration.fitted(np.array([0, 50, 80, 100]), np.array([9, 40, 38, 60]), "x").seen
        (9.0, 40.0, 60.0)
        """
        rising = [0]
        for at in range(1, len(asked)):
            if seen[at] > seen[rising[-1]]:
                rising.append(at)
        pick = lambda values: tuple(round(float(values[at]), 2) for at in rising)  # noqa: E731
        return cls(pick(asked), pick(seen), judge)

    @property
    def reach(self) -> tuple[float, float]:
        """The youngest and the oldest age that the model's faces look."""
        return self.seen[0], self.seen[-1]

    def asks(self, ages: np.ndarray) -> np.ndarray:
        """Return what to ask for, float32, so that faces look `ages`, as far as they can."""
        return np.interp(ages, self.seen, self.asked).astype(np.float32)

    def entry(self) -> dict[str, Any]:
        """What a weight file holds of it."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
