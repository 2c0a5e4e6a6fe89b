"""Cutting sequences into batches, and spreading numbers over a range."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

Sliced = TypeVar("Sliced", bound=Sequence)


def batches(items: Sliced, size: int) -> Iterator[Sliced]:
    """Yield slices of `size` items in order; the last may be shorter.

    >>> list(batches([1, 2, 3, 4, 5], 2))
    [[1, 2], [3, 4], [5]]
    """
    return (items[start : start + size] for start in range(0, len(items), size))


def spread(count: int, total: int) -> list[int]:
    """Return up to `count` whole numbers below `total`, evenly spread, both ends included.

    >>> spread(3, 9)
    [0, 4, 8]
    >>> spread(5, 2)
    [0, 1]
    """
    if count >= total:
        return list(range(total))
    return [round(index * (total - 1) / max(count - 1, 1)) for index in range(count)]


def ease(share: float) -> float:
    """Return a smooth way from 0 to 1, half a cosine: slow, fast, slow.

    >>> ease(0.0), ease(0.5), ease(1.0)
    (0.0, 0.5, 1.0)
    """
    return (1 - math.cos(math.pi * share)) / 2
