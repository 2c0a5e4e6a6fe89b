"""Distances between sets of images by their features, in double precision.

FID (Heusel et al. 2017, arXiv 1706.08500) is the Frechet distance between the Gaussians with the
features' means and covariances. KID (Binkowski et al. 2018, arXiv 1801.01401) is the squared
maximum mean discrepancy under a cubic kernel, estimated without bias. Precision (Kynkaanniemi et
al. 2019, arXiv 1904.06991) is the share of generated images that look real, recall the share of
real images that the generator could make; "look real" means to lie in the union of balls around
the real features, each reaching its k-th nearest neighbour.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from paddle_sam.core.processes import batches
from paddle_sam.errors import ConfigError, check_shape

NEIGHBOURS = 3  # the k of the paper
_BLOCK = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean [D], and a factor F [K, D], of any K, of the covariance F^T F; float64."""

    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        """The Gaussian of features [N, D].

        Raises:
            ConfigError: fewer than two samples have no covariance.
        """
        check_shape("features", features, (None, None))
        if len(features) < 2:
            raise ConfigError(f"FID: expected at least 2 images in a set, found {len(features)}")
        features = np.asarray(features, np.float64)
        mean = features.mean(axis=0)
        # Centred first, so that no digits are lost however large the mean is.
        factor = (features - mean) / np.sqrt(len(features) - 1)
        return cls(mean, np.linalg.qr(factor, mode="r") if len(features) > len(mean) else factor)

    @property
    def covariance(self) -> np.ndarray:
        """C = F^T F, [D, D]."""
        return self.factor.T @ self.factor


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    The trace of the root is the sum of the singular values of F_a F_b^T, whose squares are the
    eigenvalues of C_a C_b: exact for the singular covariances of few images too, and quick then.
    """
    check_shape("mean", b.mean, a.mean.shape)
    trace_of_root = np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum()
    traces = np.square(a.factor).sum() + np.square(b.factor).sum()
    return float(np.square(a.mean - b.mean).sum() + traces - 2 * trace_of_root)


def fid(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of two sets of features, [N, D] and [M, D]."""
    return frechet_distance(Gaussian.of(a), Gaussian.of(b))


def kid(
    a: np.ndarray, b: np.ndarray, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Kernel distance of two sets of features, [N, D] and [M, D]: mean and standard deviation.

    Over `subsets` random subsets of `subset_size` images of each set (of all images where there
    are fewer). The kernel is k(x, y) = (x.y / D + 1)^3.
    """
    check_shape("features", a, (None, b.shape[1]))
    size = min(subset_size, len(a), len(b))
    if size < 2:
        raise ConfigError(f"KID: expected at least 2 images in a set, found {size}")
    rng = np.random.default_rng(seed)
    distances = [
        _squared_mmd(
            a[rng.choice(len(a), size, replace=False)].astype(np.float64),
            b[rng.choice(len(b), size, replace=False)].astype(np.float64),
        )
        for _ in range(subsets)
    ]
    return float(np.mean(distances)), float(np.std(distances))


def _squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased estimate of the squared MMD of two samples [n, D] (their eq. 4)."""
    n = len(x)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (n * (n - 1))
    return within - 2 * xy.mean()


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


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
    for block in batches(a, _BLOCK):
        distances = np.square(block).sum(axis=1)[:, None] + squares - 2 * block @ b.T
        yield distances.clip(0)
