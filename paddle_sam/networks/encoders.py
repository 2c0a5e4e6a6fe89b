"""Encoders of pSp and ReStyle beside the usual one: other bodies, and codes from the last layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.face_networks import (
    PUBLISHED_UNITS,
    PUBLISHED_WIDTHS,
    GradualStyleEncoder,
    input_layer,
    residual_body,
)
from paddle_sam.networks.stylegan2_ops import EqualLinear

RESNET34_UNITS = (3, 4, 6, 3)
INPUTS = (32, 4096)


class ResNetStyleEncoder(GradualStyleEncoder):
    """The body of ResNet34 (He et al. 2015), as ReStyle has it for other things than faces."""

    @staticmethod
    def _layers(in_channels, stem, widths, units, squeeze_excite):
        return resnet_layers(in_channels, stem, widths, units)


def resnet_layers(
    in_channels: int, stem: int, widths: Sequence[int], units: Sequence[int]
) -> tuple[nn.Sequential, nn.Sequential]:
    """The first layer of a ResNet, which halves the size and has PReLU, and its stages."""
    layers, channels = [], stem
    for stage, (width, count) in enumerate(zip(widths, units, strict=True)):
        for unit in range(count):
            layers.append(BasicUnit(channels, width, 2 if stage and unit == 0 else 1))
            channels = width
    return input_layer(in_channels, stem, kernel=7, stride=2), nn.Sequential(*layers)


class BasicUnit(nn.Layer):
    """A unit of ResNet34: two convolutions with batch norm; ReLU after the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2D(in_channels, out_channels, 3, stride, padding=1, bias_attr=False)
        self.bn1 = nn.BatchNorm2D(out_channels)
        self.conv2 = nn.Conv2D(out_channels, out_channels, 3, padding=1, bias_attr=False)
        self.bn2 = nn.BatchNorm2D(out_channels)
        self.downsample = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2D(in_channels, out_channels, 1, stride, bias_attr=False),
                nn.BatchNorm2D(out_channels),
            )

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class LastLayerEncoder(nn.Layer):
    """An IR-SE body whose last map gives all codes at once (pSp's ablation, paper section 4.1).

    Args:
        one_code: one code is predicted, from the mean of the map, and repeated: the image is
            inverted into W. Otherwise the map, pooled to 7x7, gives L codes.
        input_size, in_channels, n_styles, style_dim, stem, widths, units, squeeze_excite, rows: as
            of `GradualStyleEncoder`.
    """

    POOLED = 7

    def __init__(
        self,
        one_code: bool,
        input_size: int = 256,
        in_channels: int = 3,
        n_styles: int = 18,
        style_dim: int = 512,
        stem: int = 64,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        units: Sequence[int] = PUBLISHED_UNITS[50],
        squeeze_excite: bool = True,
        rows: int | None = None,
    ):
        super().__init__()
        if not INPUTS[0] <= input_size <= INPUTS[1]:
            raise ConfigError(
                f"input_size: expected {INPUTS[0]} to {INPUTS[1]}, found {input_size}"
            )
        if rows is not None and not 0 < rows <= input_size:
            raise ConfigError(f"rows: expected 1 to {input_size}, found {rows}")
        self.one_code = one_code
        self.rows = input_size if rows is None else rows
        self.input_size, self.in_channels = input_size, in_channels
        self.n_codes, self.style_dim = n_styles, style_dim
        self.input_layer = input_layer(in_channels, stem)
        self.body = residual_body(stem, widths, units, squeeze_excite)
        width = widths[-1]
        if not one_code:
            self.output_layer_2 = nn.Sequential(
                nn.BatchNorm2D(width),
                nn.AdaptiveAvgPool2D(self.POOLED),
                nn.Flatten(),
                nn.Linear(width * self.POOLED**2, style_dim),
            )
        features, codes = (width, 1) if one_code else (style_dim, n_styles)
        self.linear = EqualLinear(features, codes * style_dim)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x [N, in_channels, rows, input_size] in [-1, 1] -> codes [N, L, D]."""
        check_shape("x", x, (None, self.in_channels, self.rows, self.input_size))
        x = self.body(self.input_layer(x))
        x = x.mean(axis=3).mean(axis=2) if self.one_code else self.output_layer_2(x)
        codes = self.linear(x).reshape([x.shape[0], -1, self.style_dim])
        return codes.expand([-1, self.n_codes, -1])


def build_other(arch: Mapping) -> ResNetStyleEncoder | LastLayerEncoder:
    """Build the encoder that a description is of, which names `one_code` or `resnet`."""
    if "one_code" in arch:
        return LastLayerEncoder(**arch)
    return ResNetStyleEncoder(**{name: arch[name] for name in arch if name != "resnet"})
