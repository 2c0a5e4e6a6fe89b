"""Inception-v3 as the Frechet Inception Distance is defined by it.

The TensorFlow graph of 2015-12-05 in its published PyTorch conversion
(`pt_inception-2015-12-05-6726825d.pth`), whose names the layers have. It differs from
torchvision's Inception-v3: the averages of its branches leave padding out, and the last block
takes the maximum there.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.errors import check_shape
from paddle_sam.networks.frozen import freeze

INPUT_SIZE = 299
FEATURES = 2048


class ConvNormReLU(nn.Layer):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels, out_channels, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2D(in_channels, out_channels, kernel, stride, padding, bias_attr=False)
        self.bn = nn.BatchNorm2D(out_channels, epsilon=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def same(in_channels, out_channels, kernel):
    """Return a `ConvNormReLU` that keeps height and width."""
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return ConvNormReLU(in_channels, out_channels, kernel, padding=[side // 2 for side in sides])


def mean_pool(x):
    return F.avg_pool2d(x, 3, 1, 1, exclusive=True)


def max_pool(x):
    return F.max_pool2d(x, 3, 1, 1)


def halve(x):
    return F.max_pool2d(x, 3, 2)


class BlockA(nn.Layer):
    """1x1, 5x5, two 3x3 and pooling, at 35x35 pixels; returns 224 + `pooled` channels."""

    def __init__(self, channels, pooled):
        super().__init__()
        self.branch1x1 = same(channels, 64, 1)
        self.branch5x5_1 = same(channels, 48, 1)
        self.branch5x5_2 = same(48, 64, 5)
        self.branch3x3dbl_1 = same(channels, 64, 1)
        self.branch3x3dbl_2 = same(64, 96, 3)
        self.branch3x3dbl_3 = same(96, 96, 3)
        self.branch_pool = same(channels, pooled, 1)

    def forward(self, x):
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pool = self.branch_pool(mean_pool(x))
        return paddle.concat([self.branch1x1(x), five, double, pool], axis=1)


class BlockB(nn.Layer):
    """35x35 to 17x17 pixels; returns 480 + `channels` channels."""

    def __init__(self, channels):
        super().__init__()
        self.branch3x3 = ConvNormReLU(channels, 384, 3, 2)
        self.branch3x3dbl_1 = same(channels, 64, 1)
        self.branch3x3dbl_2 = same(64, 96, 3)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3, 2)

    def forward(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return paddle.concat([self.branch3x3(x), double, halve(x)], axis=1)


class BlockC(nn.Layer):
    """1x1, 7x7 and two 7x7 as rows and columns, and pooling, at 17x17 pixels; 768 channels."""

    def __init__(self, width):
        super().__init__()
        self.branch1x1 = same(768, 192, 1)
        self.branch7x7_1 = same(768, width, 1)
        self.branch7x7_2 = same(width, width, (1, 7))
        self.branch7x7_3 = same(width, 192, (7, 1))
        self.branch7x7dbl_1 = same(768, width, 1)
        self.branch7x7dbl_2 = same(width, width, (7, 1))
        self.branch7x7dbl_3 = same(width, width, (1, 7))
        self.branch7x7dbl_4 = same(width, width, (7, 1))
        self.branch7x7dbl_5 = same(width, 192, (1, 7))
        self.branch_pool = same(768, 192, 1)

    def forward(self, x):
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pool = self.branch_pool(mean_pool(x))
        return paddle.concat([self.branch1x1(x), seven, double, pool], axis=1)


class BlockD(nn.Layer):
    """17x17 to 8x8 pixels, 768 to 1280 channels."""

    def __init__(self):
        super().__init__()
        self.branch3x3_1 = same(768, 192, 1)
        self.branch3x3_2 = ConvNormReLU(192, 320, 3, 2)
        self.branch7x7x3_1 = same(768, 192, 1)
        self.branch7x7x3_2 = same(192, 192, (1, 7))
        self.branch7x7x3_3 = same(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvNormReLU(192, 192, 3, 2)

    def forward(self, x):
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return paddle.concat([three, self.branch7x7x3_4(seven), halve(x)], axis=1)


class BlockE(nn.Layer):
    """1x1, 3x3 and two 3x3 split into row and column, and `pool`, at 8x8 pixels; 2048 channels."""

    def __init__(self, channels, pool):
        super().__init__()
        self.branch1x1 = same(channels, 320, 1)
        self.branch3x3_1 = same(channels, 384, 1)
        self.branch3x3_2a = same(384, 384, (1, 3))
        self.branch3x3_2b = same(384, 384, (3, 1))
        self.branch3x3dbl_1 = same(channels, 448, 1)
        self.branch3x3dbl_2 = same(448, 384, 3)
        self.branch3x3dbl_3a = same(384, 384, (1, 3))
        self.branch3x3dbl_3b = same(384, 384, (3, 1))
        self.branch_pool = same(channels, 192, 1)
        self.pool = pool

    def forward(self, x):
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            *(self.branch3x3_2a(three), self.branch3x3_2b(three)),
            *(self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)),
            self.branch_pool(self.pool(x)),
        ]
        return paddle.concat(branches, axis=1)


class InceptionV3(nn.Layer):
    """Images to the 2048 features that FID compares; frozen, in eval mode."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNormReLU(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = ConvNormReLU(32, 32, 3)
        self.Conv2d_2b_3x3 = same(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvNormReLU(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNormReLU(80, 192, 3)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(128)
        self.Mixed_6c = BlockC(160)
        self.Mixed_6d = BlockC(160)
        self.Mixed_6e = BlockC(192)
        self.Mixed_7a = BlockD()
        self.Mixed_7b = BlockE(1280, mean_pool)
        self.Mixed_7c = BlockE(2048, max_pool)
        freeze(self)
        self.eval()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x [N, 3, 299, 299] RGB in [-1, 1] -> features [N, 2048]."""
        check_shape("x", x, (None, 3, INPUT_SIZE, INPUT_SIZE))
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halve(x))))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_7a(self.Mixed_6e(self.Mixed_6d(x)))
        return self.Mixed_7c(self.Mixed_7b(x)).mean(axis=[2, 3])
