"""Precision and recall of generated images (Kynkaanniemi et al. 2019, arXiv 1904.06991).

Precision is the share of generated images that look real, recall the share of real images that
the generator could make. "Look real" means to lie in the union of balls around the real features,
each reaching its k-th nearest neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from paddle_sam.errors import ConfigError, check_shape

NEIGHBOURS = 3  # the published k
_BLOCK = 1024


def precision_recall(
    real: np.ndarray, generated: np.ndarray, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Precision and recall of features [M, D] `generated` against [N, D] `real`.

    Raises:
        ConfigError: a set is too small to have that many neighbours.
    """
    check_shape("features", generated, (None, real.shape[1]))
    for name, features in (("real", real), ("generated", generated)):
        if len(features) <= neighbours:
            raise ConfigError(
                f"precision and recall: expected more than {neighbours} {name} images, found"
                f" {len(features)}"
            )
    real, generated = real.astype(np.float64), generated.astype(np.float64)
    return (
        _share_inside(generated, real, neighbours),
        _share_inside(real, generated, neighbours),
    )


def _share_inside(points: np.ndarray, centres: np.ndarray, neighbours: int) -> float:
    """Share of `points` within the ball of at least one of `centres`."""
    radii = np.concatenate(
        [
            # The nearest of all is the point itself.
            np.partition(distances, neighbours, axis=1)[:, neighbours]
            for distances in _squared_distances(centres, centres)
        ]
    )
    inside = [(distances <= radii).any(axis=1) for distances in _squared_distances(points, centres)]
    return float(np.concatenate(inside).mean())


def _squared_distances(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances of all pairs, [up to 1024, len(b)] at a time."""
    squares = np.square(b).sum(axis=1)
    for start in range(0, len(a), _BLOCK):
        block = a[start : start + _BLOCK]
        distances = np.square(block).sum(axis=1)[:, None] + squares - 2 * block @ b.T
        yield distances.clip(0)
