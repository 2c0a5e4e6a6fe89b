"""The pSp encoder: an image to W+ offsets through a feature pyramid and map-to-style blocks.

Richardson et al., "Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation" (2021),
section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.residual_body import (
    PUBLISHED_UNITS,
    PUBLISHED_WIDTHS,
    input_layer,
    residual_body,
    stage_ends,
)
from paddle_sam.networks.stylegan2_ops import EqualLinear

COARSE_STYLES = 3
MIDDLE_STYLES = 4


class MapToStyle(nn.Layer):
    """A feature map [N, C, S, S] to one code [N, D]: stride-2 convolutions down to one pixel."""

    def __init__(self, in_channels: int, style_dim: int, spatial: int):
        super().__init__()
        layers, channels = [], in_channels
        while spatial > 1:
            layers += [nn.Conv2D(channels, style_dim, 3, 2, padding=1), nn.LeakyReLU(0.01)]
            channels, spatial = style_dim, spatial // 2
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(style_dim, style_dim)

    def forward(self, x):
        return self.linear(self.convs(x).flatten(1))


class GradualStyleEncoder(nn.Layer):
    """Feature pyramid encoder with one map-to-style block per W+ code.

    The pyramid is tapped after the last unit of the second, third and fourth stage of the body;
    the coarse codes come from the last, the middle ones from the third, the fine ones from the
    second.

    Args:
        input_size: height and width of the input, a power of two of at least 32.
        in_channels: 3 for an image, 4 for an image and a target age plane.
        n_styles: number of W+ codes, L (attribute `n_codes`).
        style_dim: D, also the width of the pyramid.
        stem: channels of the first convolution.
        widths: channels of the four stages, of the last one D.
        units: residual units of the four stages (`PUBLISHED_UNITS` names the published depths).
        squeeze_excite: IR-SE body instead of IR.
        progressive: the first code is added to all others, as e4e does (Tov et al. 2021, sec. 5).
        pyramid: codes read three maps; otherwise all read the smallest, as in ReStyle (Alaluf et
            al. 2021, sec. 4).
    """

    def __init__(
        self,
        input_size: int = 256,
        in_channels: int = 3,
        n_styles: int = 18,
        style_dim: int = 512,
        stem: int = 64,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        units: Sequence[int] = PUBLISHED_UNITS[50],
        squeeze_excite: bool = True,
        progressive: bool = False,
        pyramid: bool = True,
    ):
        super().__init__()
        self.progressive, self.pyramid = progressive, pyramid
        if len(widths) != 4 or len(units) != 4:
            raise ConfigError(f"widths, units: expected 4 stages, found {widths}, {units}")
        if widths[-1] != style_dim:
            raise ConfigError(
                f"widths: the pyramid adds the last stage to maps of style_dim channels, found"
                f" {widths[-1]} and {style_dim}"
            )
        if input_size < 32 or input_size & (input_size - 1):
            raise ConfigError(f"input_size: expected a power of two from 32, found {input_size}")
        self.input_size = input_size
        self.in_channels = in_channels
        self.n_codes = n_styles
        self.taps = stage_ends(units)[1:]
        self.input_layer = input_layer(in_channels, stem)
        self.body = residual_body(stem, widths, units, squeeze_excite)
        self.styles = nn.LayerList()
        for index in range(n_styles):
            spatial = input_size // 16 * self.pyramid_scale(index)
            channels = widths[-1] if index < COARSE_STYLES else style_dim
            self.styles.append(MapToStyle(channels, style_dim, spatial))
        if pyramid:
            self.latlayer1 = nn.Conv2D(widths[2], style_dim, 1)
            self.latlayer2 = nn.Conv2D(widths[1], style_dim, 1)

    def pyramid_scale(self, index: int) -> int:
        """Size of the feature map that code `index` reads, in units of the smallest map."""
        if not self.pyramid or index < COARSE_STYLES:
            return 1
        return 2 if index < COARSE_STYLES + MIDDLE_STYLES else 4

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x [N, in_channels, input_size, input_size] in [-1, 1] -> codes [N, L, D]."""
        check_shape("x", x, (None, self.in_channels, self.input_size, self.input_size))
        x = self.input_layer(x)
        tapped = []
        for index, unit in enumerate(self.body):
            x = unit(x)
            if index in self.taps:
                tapped.append(x)
        fine, middle, coarse = tapped
        if self.pyramid:
            middle = upsample_add(coarse, self.latlayer1(middle))
            fine = upsample_add(middle, self.latlayer2(fine))
        pyramid = {1: coarse, 2: middle, 4: fine}
        codes = [
            block(pyramid[self.pyramid_scale(index)]) for index, block in enumerate(self.styles)
        ]
        if self.progressive:
            codes[1:] = [codes[0] + offset for offset in codes[1:]]
        return paddle.stack(codes, axis=1)


def upsample_add(x: paddle.Tensor, lateral: paddle.Tensor) -> paddle.Tensor:
    """`lateral` plus x resized to its size (bilinear, corners aligned)."""
    return lateral + F.interpolate(x, lateral.shape[2:], mode="bilinear", align_corners=True)
