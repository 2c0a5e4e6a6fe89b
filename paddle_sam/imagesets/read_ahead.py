"""All images of a set once, in order, read in batches ahead of the caller."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from paddle_sam.errors import ImageError
from paddle_sam.imagesets.archive import ImageSource
from paddle_sam.imagesets.dataset import read_sample
from paddle_sam.imagesets.loader import reading_pool

_BATCHES_AHEAD = 3


def read_batches(
    images: Sequence[ImageSource], size: int, batch_size: int, workers: int
) -> Iterator[tuple[dict[int, np.ndarray], dict[int, str]]]:
    """Images uint8 RGB [size, size, 3] by their indices, and why others could not be read.

    Args:
        images: to be read, resized and given in this order.
        size: side to resize to.
        batch_size: images given at a time, the unreadable ones counted.
        workers: processes that read; 0 reads in this one.
    """

    def collect(jobs: dict) -> tuple[dict[int, np.ndarray], dict[int, str]]:
        read, failed = {}, {}
        for index, job in jobs.items():
            try:
                (read[index],) = job.result()
            except ImageError as error:
                failed[index] = str(error)
        return read, failed

    with reading_pool(workers) as pool:
        ahead = deque()
        for start in range(0, len(images), batch_size):
            indices = range(start, min(start + batch_size, len(images)))
            ahead.append({i: pool.submit(read_sample, (images[i],), size) for i in indices})
            if len(ahead) > (_BATCHES_AHEAD if workers else 0):
                yield collect(ahead.popleft())
        yield from map(collect, ahead)
