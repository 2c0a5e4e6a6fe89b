"""StyleGAN2 discriminator (Karras et al. 2020, config F), of any power-of-two size.

Parameter names follow the published PyTorch checkpoints where they can, like the generator's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import paddle
from paddle import nn

from paddle_sam.errors import check_shape
from paddle_sam.networks.stylegan2 import DEFAULT_FIR, PixelNorm, check_labels, published_channels
from paddle_sam.networks.stylegan2_ops import (
    BiasedLeakyReLU,
    EqualConv2D,
    EqualLinear,
    exact,
    resolution_levels,
)


class ConvLayer(nn.Layer):
    """Equalised convolution with bias and leaky ReLU; `fir` halves the resolution."""

    def __init__(self, in_channels, out_channels, kernel_size, fir=None, activate=True):
        super().__init__()
        self.conv = EqualConv2D(in_channels, out_channels, kernel_size, fir)
        self.activate = BiasedLeakyReLU(out_channels) if activate else nn.Identity()

    def forward(self, x):
        return self.activate(self.conv(x))


class ResidualBlock(nn.Layer):
    """Two 3x3 convolutions beside a 1x1 skip, both halving the resolution, summed / sqrt(2)."""

    def __init__(self, in_channels, out_channels, fir):
        super().__init__()
        self.conv1 = ConvLayer(in_channels, in_channels, 3)
        self.conv2 = ConvLayer(in_channels, out_channels, 3, fir)
        self.skip = ConvLayer(in_channels, out_channels, 1, fir, activate=False)

    def forward(self, x):
        return (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2.0)


def minibatch_stddev(x: paddle.Tensor, group_size: int = 4) -> paddle.Tensor:
    """Append one channel: the deviation over a group of samples, averaged over C, H and W.

    [N, C, H, W] -> [N, C+1, H, W]. Sample i belongs to the group of all i modulo N/G, where G is
    the largest divisor of N that is not above `group_size` ("Progressive Growing", section 3).
    """
    n, channels, height, width = x.shape
    group = next(size for size in range(min(n, group_size), 0, -1) if n % size == 0)
    y = x.reshape([group, n // group, channels, height, width])
    y = y - y.mean(axis=0, keepdim=True)
    deviation = paddle.sqrt((y * y).mean(axis=0) + 1e-8).mean(axis=[1, 2, 3])
    feature = deviation.tile([group]).reshape([n, 1, 1, 1]).expand([n, 1, height, width])
    return paddle.concat([x, feature], axis=1)


class Discriminator(nn.Layer):
    """StyleGAN2 discriminator: residual blocks, minibatch deviation, two linear layers.

    Args:
        size: image height and width, a power of two of at least 8.
        channels: feature channels at each resolution; None takes the published ones (config F).
        fir: taps of the low-pass filter of the down-sampling.
        group_size: samples in a minibatch deviation group.
        classes: of a conditional network, which takes labels too; 0 for none.
        image_channels: C of the images: 3 for RGB, 1 for grey.
        mapping_layers: fully connected layers between a conditional network's labels and its score.
    """

    def __init__(
        self,
        size: int,
        channels: Mapping[int, int] | None = None,
        fir: Sequence[float] = DEFAULT_FIR,
        group_size: int = 4,
        classes: int = 0,
        image_channels: int = 3,
        mapping_layers: int = 8,
    ):
        super().__init__()
        self.classes = classes
        self.image_channels = image_channels
        channels = channels or published_channels(size)
        resolutions = resolution_levels(size, channels)[::-1]
        self.size = size
        self.group_size = group_size
        self.convs = nn.Sequential(
            ConvLayer(image_channels, channels[size], 1),
            *[
                ResidualBlock(channels[high], channels[low], fir)
                for high, low in zip(resolutions[:-1], resolutions[1:], strict=True)
            ],
        )
        self.final_conv = ConvLayer(channels[4] + 1, channels[4], 3)
        self.final_linear = nn.Sequential(
            EqualLinear(channels[4] * 16, channels[4], activate=True),
            EqualLinear(channels[4], channels[4] if classes else 1),
        )
        if classes:
            self.embed = EqualLinear(classes, channels[4])
            self.mapping = nn.Sequential(
                PixelNorm(),
                *[
                    EqualLinear(channels[4], channels[4], lr_mul=0.01, activate=True)
                    for _ in range(mapping_layers)
                ],
            )

    def forward(self, images: paddle.Tensor, labels: paddle.Tensor | None = None) -> paddle.Tensor:
        """images [N, C, size, size] in [-1, 1] -> scores (logits) [N, 1].

        A conditional network also takes labels [N, classes]; its score is the scalar product of
        the images' features and the mapped labels (Miyato and Koyama 2018), / sqrt(features).
        """
        check_shape("images", images, (None, self.image_channels, self.size, self.size))
        check_labels(labels, self.classes, images.shape[0])
        x = self.convs(images)
        with exact():
            x = minibatch_stddev(x.astype(self.final_conv.conv.weight.dtype), self.group_size)
            x = self.final_conv(x)
            # Not flatten(), which has no second derivative; R1 needs it.
            x = self.final_linear(x.reshape([x.shape[0], -1]))
            if labels is None:
                return x
            wanted = self.mapping(self.embed(labels))
            return (x * wanted).sum(axis=1, keepdim=True) / math.sqrt(x.shape[1])
