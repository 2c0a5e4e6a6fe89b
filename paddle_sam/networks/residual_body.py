"""The improved-residual (IR) body shared by the pSp encoder and the face recognition networks.

ResNet units in the order batch norm, convolution, PReLU, convolution, batch norm (Deng et al.,
"ArcFace", 2019), with squeeze-and-excitation (Hu et al. 2018) in the IR-SE variant.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from paddle import nn

from paddle_sam.errors import ConfigError

PUBLISHED_WIDTHS = (64, 128, 256, 512)
PUBLISHED_UNITS = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 152: (3, 8, 36, 3)}


def input_layer(in_channels: int, width: int) -> nn.Sequential:
    """3x3 convolution, batch norm and PReLU that keep the image size."""
    return nn.Sequential(
        nn.Conv2D(in_channels, width, 3, padding=1, bias_attr=False),
        nn.BatchNorm2D(width),
        nn.PReLU(width),
    )


def residual_body(
    stem: int,
    widths: Sequence[int] = PUBLISHED_WIDTHS,
    units: Sequence[int] = PUBLISHED_UNITS[50],
    squeeze_excite: bool = True,
) -> nn.Sequential:
    """Stages of residual units; the first unit of each stage halves the resolution.

    Args:
        stem: channels that come in.
        widths: channels of each stage.
        units: residual units in each stage.
        squeeze_excite: IR-SE instead of IR.
    """
    layers, channels = [], stem
    for width, count in zip(widths, units, strict=True):
        for unit in range(count):
            stride = 2 if unit == 0 else 1
            layers.append(ResidualUnit(channels, width, stride, squeeze_excite))
            channels = width
    return nn.Sequential(*layers)


def stage_ends(units: Sequence[int]) -> list[int]:
    """Index in the body of the last unit of each stage.

    >>> stage_ends((3, 4, 14, 3))
    [2, 6, 20, 23]
    """
    return [total - 1 for total in accumulate(units)]


class ResidualUnit(nn.Layer):
    """One unit: the residual branch plus a shortcut, sampled where the channels stay."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, squeeze_excite: bool):
        super().__init__()
        if in_channels == out_channels:
            self.shortcut_layer = nn.MaxPool2D(1, stride) if stride > 1 else nn.Identity()
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2D(in_channels, out_channels, 1, stride, bias_attr=False),
                nn.BatchNorm2D(out_channels),
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2D(in_channels),
            nn.Conv2D(in_channels, out_channels, 3, 1, padding=1, bias_attr=False),
            nn.PReLU(out_channels),
            nn.Conv2D(out_channels, out_channels, 3, stride, padding=1, bias_attr=False),
            nn.BatchNorm2D(out_channels),
            *([SqueezeExcite(out_channels)] if squeeze_excite else []),
        )

    def forward(self, x):
        return self.res_layer(x) + self.shortcut_layer(x)


class SqueezeExcite(nn.Layer):
    """Scale each channel by a gate computed from the channel means."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        if channels < reduction:
            raise ConfigError(
                f"widths: squeeze-and-excitation needs at least {reduction} channels, found"
                f" {channels}"
            )
        self.fc1 = nn.Conv2D(channels, channels // reduction, 1, bias_attr=False)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2D(channels // reduction, channels, 1, bias_attr=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        # Paddle sums float32 in one running total, which over a whole map costs two digits that
        # the deep encoders amplify; row means first keep them.
        means = x.mean(axis=3, keepdim=True).mean(axis=2, keepdim=True)
        gate = self.fc1(means)
        return x * self.sigmoid(self.fc2(self.relu(gate)))
