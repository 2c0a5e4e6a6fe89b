"""Resolutions and W+ codes of StyleGAN2: how many, what they act on, their mean, mixing them.

Knows nothing of the layers; those are in `paddle_sam.networks.stylegan2`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import paddle

from paddle_sam.errors import ConfigError, check_shape

MEAN_SAMPLES = 10_000  # random codes whose mean stands for the average code
# Resolutions in the coarse and in the middle range of the papers' figures.
_PUBLISHED_RESOLUTIONS = 2


def code_count(size: int) -> int:
    """Number of W+ codes of a generator of `size` pixels: 2 log2(size) - 2 (18 at 1024)."""
    return 2 * _log2(size) - 2


def _log2(size: int) -> int:
    exponent = int(size).bit_length() - 1
    if size < 8 or 1 << exponent != size:
        raise ConfigError(f"size: expected a power of two of at least 8, found {size}")
    return exponent


def resolution_levels(size: int, channels: Mapping[int, int]) -> list[int]:
    """Every resolution 4, 8, ..., size of a network with these channels at each.

    Raises:
        ConfigError: the size is not a power of two of at least 8, or `channels` lacks a resolution.
    """
    resolutions = [1 << exponent for exponent in range(2, _log2(size) + 1)]
    if missing := [r for r in resolutions if r not in channels]:
        raise ConfigError(f"channels: no entry for resolution {missing[0]} of size {size}")
    return resolutions


def style_ranges(size: int) -> dict[str, range]:
    """Numbers of the W+ codes called coarse, middle and fine in a generator of `size` pixels.

    A resolution R has the codes 2 log2(R/4) and the next, as in the StyleGAN papers' figures. At
    1024 px they call 4 and 8 px coarse (pose, shape of the face), 16 and 32 px middle (features,
    eyes open or closed) and from 64 px on fine (colours). A smaller generator has fewer
    resolutions for the same three jobs: each of the first two ranges gets a third of them, never
    more than two.

        size    coarse        middle         fine
        1024    4-8    0-3    16-32   4-7    64-1024   8-17
        512     4-8    0-3    16-32   4-7    64-512    8-15
        256     4-8    0-3    16-32   4-7    64-256    8-13
        128     4-8    0-3    16-32   4-7    64-128    8-11
        64      4      0-1    8       2-3    16-64     4-9
        32      4      0-1    8       2-3    16-32     4-7

    >>> style_ranges(1024)
    {'coarse': range(0, 4), 'middle': range(4, 8), 'fine': range(8, 18)}
    >>> style_ranges(64)
    {'coarse': range(0, 2), 'middle': range(2, 4), 'fine': range(4, 10)}

    Raises:
        ConfigError: the generator is too small to have three ranges.
    """
    codes = code_count(size)
    if size < 16:
        raise ConfigError(f"style ranges: expected a generator of 16 px or more, found {size}")
    width = 2 * min(codes // 2 // 3, _PUBLISHED_RESOLUTIONS)
    return {
        "coarse": range(width),
        "middle": range(width, 2 * width),
        "fine": range(2 * width, codes),
    }


def first_resolution(codes: range) -> int:
    """The lowest resolution, in pixels, that a range of codes acts on."""
    return 4 << (codes.start // 2)


def noise_resolutions(size: int) -> list[int]:
    """Side of the noise map of each layer: one at 4 px, two at each resolution above.

    >>> noise_resolutions(16)
    [4, 8, 8, 16, 16]
    """
    return [4 << ((layer + 1) // 2) for layer in range(code_count(size) - 1)]


@paddle.no_grad()
def average_code(
    map_latents: Callable[[paddle.Tensor], paddle.Tensor],
    style_dim: int,
    samples: int = MEAN_SAMPLES,
) -> np.ndarray:
    """Mean float32 [D] of w over random z, always the same ones.

    Args:
        map_latents: the mapping network, z [N, D] -> w [N, D].
        style_dim: D.
        samples: number of z.
    """
    random = np.random.RandomState(0)
    total = np.zeros(style_dim)
    for start in range(0, samples, 1000):
        z = random.randn(min(1000, samples - start), style_dim).astype(np.float32)
        total += map_latents(paddle.to_tensor(z)).numpy().sum(axis=0, dtype=np.float64)
    return (total / samples).astype(np.float32)


def mix_latents(
    codes: paddle.Tensor,
    latent_mask: Sequence[int],
    inject_latent: paddle.Tensor | None = None,
    alpha: float | None = None,
) -> paddle.Tensor:
    """Replace, or blend by `alpha`, the codes [N, L, D] whose indices `latent_mask` names.

    Args:
        inject_latent: codes [N or 1, L, D] that take their place; None for zeros.
        alpha: the share of `inject_latent`; None for all of it.

    Raises:
        ConfigError: an index is outside 0..L-1, or a shape does not fit.
    """
    check_shape("codes", codes, (None, None, None))
    n_codes = codes.shape[1]
    if wrong := [index for index in latent_mask if not 0 <= index < n_codes]:
        raise ConfigError(f"latent_mask: this model has codes 0 to {n_codes - 1}, found {wrong[0]}")
    if inject_latent is None:
        alpha = None  # there is nothing to blend with: masked codes become zero
        inject_latent = paddle.zeros_like(codes)
    check_shape("inject_latent", inject_latent, (None, n_codes, codes.shape[2]))
    share = 1.0 if alpha is None else alpha
    shares = [share if index in latent_mask else 0.0 for index in range(n_codes)]
    weight = paddle.to_tensor(shares, dtype=codes.dtype).reshape([1, n_codes, 1])
    return weight * inject_latent + (1.0 - weight) * codes
