"""Nearest neighbours of images in a data set: is what a generator makes new, or copied?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.core.images import to_network
from paddle_sam.errors import ImageError
from paddle_sam.imagesets.archive import ImageSource
from paddle_sam.imagesets.read_ahead import read_batches
from paddle_sam.networks.lpips import LPIPS

BATCH = 16


class Distance(Protocol):
    """What makes two images near each other."""

    def extract(self, images: np.ndarray) -> Sequence:
        """What is compared of images uint8 [N, S, S, 3]: arrays or tensors [N, ...]."""

    def between(self, queries: Sequence, images: Sequence) -> np.ndarray:
        """Distances float [Q, N] between what `extract` gave for Q and for N images."""


class PixelDistance:
    """Root mean square difference of the pixels, in grey levels."""

    def extract(self, images: np.ndarray) -> list[np.ndarray]:
        return [images.reshape(len(images), -1).astype(np.float32)]

    def between(self, queries: Sequence, images: Sequence) -> np.ndarray:
        rows = [np.square(images[0] - query).mean(axis=1) for query in queries[0]]
        return np.sqrt(np.stack(rows))


class LpipsDistance:
    """LPIPS, which is small where people see the same picture."""

    def __init__(self, lpips: LPIPS):
        self.lpips = lpips

    def extract(self, images: np.ndarray) -> list[paddle.Tensor]:
        with paddle.no_grad():
            return self.lpips.extract(paddle.to_tensor(to_network(images)))

    def between(self, queries: Sequence, images: Sequence) -> np.ndarray:
        rows = []
        with paddle.no_grad():
            for index in range(len(queries[0])):
                query = [level[index : index + 1] for level in queries]
                rows.append(self.lpips.distance(query, images).numpy())
        return np.stack(rows)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest images of each of Q queries, the nearest first.

    indices: int [Q, K], places in the data set. distances: float [Q, K].
    """

    indices: np.ndarray
    distances: np.ndarray


def distances(
    queries: np.ndarray,
    images: Sequence[ImageSource],
    distance: Distance,
    mirror: bool = False,
    workers: int = 0,
) -> np.ndarray:
    """Distance float [Q, N] of queries uint8 [Q, S, S, 3] from every image of a data set.

    Images that cannot be read are named and infinitely far.

    Args:
        mirror: take the smaller of the distances of a query and of its mirror image.
        workers: processes that read; 0 reads in this one.

    Raises:
        ImageError: no image can be read.
    """
    size = queries.shape[1]
    if mirror:
        queries = np.concatenate([queries, queries[:, :, ::-1]])
    wanted = distance.extract(queries)
    found = np.full((len(queries), len(images)), np.inf)
    unreadable = {}
    with tqdm(total=len(images), unit="image") as progress:
        for read, failed in read_batches(images, size, BATCH, workers):
            if read:
                pixels = np.stack(list(read.values()))
                found[:, list(read)] = distance.between(wanted, distance.extract(pixels))
            for reason in failed.values():
                tqdm.write(f"skipped: {reason}", file=sys.stderr)
            unreadable |= failed
            progress.update(len(read) + len(failed))
    if len(unreadable) == len(images):
        raise ImageError(f"none of {len(images)} images can be read, the first: {unreadable[0]}")
    return found.reshape(2, -1, len(images)).min(axis=0) if mirror else found


def nearest(table: np.ndarray, count: int) -> Neighbours:
    """The `count` smallest of each row of `distances`, fewer where there are not so many.

    >>> nearest(np.array([[0.5, 0.1, 0.3]]), 2).indices
    array([[1, 2]])
    """
    readable = int(np.isfinite(table).sum(axis=1).min())
    indices = np.argsort(table, axis=1, kind="stable")[:, : min(count, readable)]
    return Neighbours(indices, np.take_along_axis(table, indices, axis=1))
