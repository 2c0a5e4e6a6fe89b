"""Which codes and noise maps of a StyleGAN2 generator are coarse, middle and fine.

A resolution R has the codes 2 log2(R/4) and the next, as in the StyleGAN papers' figures. At
1024 px they call 4 and 8 px coarse (pose, shape of the face), 16 and 32 px middle (features, eyes
open or closed) and from 64 px on fine (colours). A smaller generator has fewer resolutions for
the same three jobs: each of the first two ranges gets a third of them, never more than two.

    size    coarse        middle         fine
    1024    4-8    0-3    16-32   4-7    64-1024   8-17
    512     4-8    0-3    16-32   4-7    64-512    8-15
    256     4-8    0-3    16-32   4-7    64-256    8-13
    128     4-8    0-3    16-32   4-7    64-128    8-11
    64      4      0-1    8       2-3    16-64     4-9
    32      4      0-1    8       2-3    16-32     4-7
"""

from __future__ import annotations

from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2 import style_count

# Resolutions in the coarse and in the middle range of the papers' figures.
PUBLISHED_RESOLUTIONS = 2


def style_ranges(size: int) -> dict[str, range]:
    """Numbers of the W+ codes called coarse, middle and fine in a generator of `size` pixels.

    >>> style_ranges(1024)
    {'coarse': range(0, 4), 'middle': range(4, 8), 'fine': range(8, 18)}
    >>> style_ranges(64)
    {'coarse': range(0, 2), 'middle': range(2, 4), 'fine': range(4, 10)}

    Raises:
        ConfigError: the generator is too small to have three ranges.
    """
    codes = style_count(size)
    if size < 16:
        raise ConfigError(f"style ranges: expected a generator of 16 px or more, found {size}")
    width = 2 * min(codes // 2 // 3, PUBLISHED_RESOLUTIONS)
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
    return [4 << ((layer + 1) // 2) for layer in range(style_count(size) - 1)]
