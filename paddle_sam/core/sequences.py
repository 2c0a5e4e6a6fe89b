"""Cutting sequences into batches, and spreading numbers over a range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

Sliced = TypeVar("Sliced", bound=Sequence)


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


def ease(share: float | np.ndarray) -> float | np.ndarray:
    """Return the way from 0 to 1 along half a cosine, which starts and ends slowly.

    >>> [round(float(ease(share)), 3) for share in (0, 0.25, 0.5, 1)]
    [0.0, 0.146, 0.5, 1.0]
    """
    return (1 - np.cos(np.pi * share)) / 2
