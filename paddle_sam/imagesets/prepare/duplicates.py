"""Equal and nearly equal images, of which the best is kept.

Near duplicates are searched for by the bits of their perceptual hashes: every pair of them is
compared, by XOR and population count over whole arrays (40,000 images: 5 seconds, growing with the
square), and each pair found is then confirmed by looking at the pictures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from tqdm import tqdm

_BLOCK = 1 << 22  # pairs compared at once
_MANY = 10_000  # hashes from which a progress bar is worth it
_SIDE = 32
_MARGIN = 5
_SIZES = range(28, 38)
_WORTH_A_LOOK = 0.6  # correlation in place, below which no shift or size is tried
# Correlation from which two pictures show the same. Of a thousand aligned faces, the most alike
# two that were not one photograph twice came to 0.90; cut by 2 to 6%, one photograph to 0.97.
SAME = 0.95


@dataclass(frozen=True)
class Candidate:
    """Facts that decide whether an image is a duplicate, and which of several is the best.

    pixels: digest of all pixels of the picture it was cut from, and where.
    bits: its perceptual hash.
    side: pixels of the picture along its side. sharpness: see `Measures`.
    """

    pixels: str
    bits: int
    side: float
    sharpness: float


@dataclass(frozen=True)
class Duplicate:
    """Which image is kept instead, and why: `duplicate` or `near_duplicate`."""

    of: int
    reason: str


def find_duplicates(
    candidates: Sequence[Candidate], bits: int, same: Callable[[int, int], bool]
) -> dict[int, Duplicate]:
    """Choose the images to drop, by their indices.

    Best first (larger, then sharper), an image is kept unless it is a duplicate of one already
    kept; so of a chain of images, each like the next, both ends may stay.

    Args:
        candidates: in an order that does not depend on anything but the images.
        bits: how many of the 64 bits of near duplicates may differ; negative finds none.
        same: confirms that two images, given by their indices, show the same.
    """
    best_first = sorted(
        range(len(candidates)), key=lambda i: (-candidates[i].side, -candidates[i].sharpness, i)
    )
    first: dict[str, int] = {}
    dropped: dict[int, Duplicate] = {}
    for index in best_first:
        of = first.setdefault(candidates[index].pixels, index)
        if of != index:
            dropped[index] = Duplicate(of, "duplicate")
    alone = list(first.values())
    hashes = np.array([candidates[index].bits for index in alone], np.uint64)
    better = defaultdict(list)
    for one, other in near_pairs(hashes, bits):
        better[other].append(one)
    for position, index in enumerate(alone):
        for of in (alone[one] for one in better[position]):
            if of not in dropped and same(of, index):
                dropped[index] = Duplicate(of, "near_duplicate")
                break
    # What an equal image was dropped for may itself have gone for a better one.
    return {
        index: Duplicate(dropped[one.of].of, one.reason) if one.of in dropped else one
        for index, one in dropped.items()
    }


def near_pairs(hashes: np.ndarray, bits: int) -> Iterator[tuple[int, int]]:
    """Yield pairs i < j of uint64 hashes [N] that differ in at most `bits` bits, in order."""
    if bits < 0:
        return
    rows = max(_BLOCK // max(len(hashes), 1), 1)
    starts = range(0, len(hashes), rows)
    for start in tqdm(starts, "comparing", unit="block", disable=len(hashes) < _MANY):
        # Against all that follow the block's first.
        differ = np.bitwise_count(hashes[start : start + rows, None] ^ hashes[None, start:])
        for one, other in np.argwhere(differ <= bits).tolist():
            if one < other:
                yield start + one, start + other


def to_grey(image: np.ndarray) -> np.ndarray:
    """Reduce a square uint8 [S, S, 3] to its brightness uint8 [32, 32], for `look_the_same`."""
    picture = Image.fromarray(image).convert("L")
    return np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))


def look_the_same(left: np.ndarray, right: np.ndarray) -> bool:
    """Return whether two reduced pictures show the same, even if cropped slightly differently."""
    if left.std() == 0 or right.std() == 0:
        return False
    plain = np.corrcoef(left.ravel(), right.ravel())[0, 1]
    return bool(plain >= _WORTH_A_LOOK and correlation(left, right) >= SAME)


def correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Return the best correlation, up to 1, of the middle of one reduced picture with the other.

    Every place is tried, at sizes from 28/32 to 37/32.
    """
    middle = left[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].astype(np.float32)
    middle = (middle - middle.mean()).ravel()
    side, length = left.shape[0] - 2 * _MARGIN, float(np.linalg.norm(middle))
    best = 0.0
    for size in _SIZES if length else ():
        picture = Image.fromarray(right).resize((size, size), Image.Resampling.BICUBIC)
        windows = sliding_window_view(np.asarray(picture, np.float32), (side, side))
        windows = windows.reshape(-1, side * side)
        windows = windows - windows.mean(axis=1, keepdims=True)
        lengths = np.maximum(np.linalg.norm(windows, axis=1), 1e-3)
        best = max(best, float((windows @ middle / lengths).max()) / length)
    return best
