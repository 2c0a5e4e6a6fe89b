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

# A branch is a chain of convolutions (name, channels, kernel, stride), begun by a pooling or not.
# Stride 1 keeps height and width; stride 2 pads nothing. A tuple of convolutions in a chain's
# place splits: both see the same input, and their outputs are joined.


def _block_a(pooled):
    return (
        (("branch1x1", 64, 1),),
        (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        ("mean", ("branch_pool", pooled, 1)),
    )


_BLOCK_B = (
    (("branch3x3", 384, 3, 2),),
    (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)),
    ("halve",),
)


def _block_c(width):
    return (
        (("branch1x1", 192, 1),),
        (
            ("branch7x7_1", width, 1),
            ("branch7x7_2", width, (1, 7)),
            ("branch7x7_3", 192, (7, 1)),
        ),
        (
            ("branch7x7dbl_1", width, 1),
            ("branch7x7dbl_2", width, (7, 1)),
            ("branch7x7dbl_3", width, (1, 7)),
            ("branch7x7dbl_4", width, (7, 1)),
            ("branch7x7dbl_5", 192, (1, 7)),
        ),
        ("mean", ("branch_pool", 192, 1)),
    )


_BLOCK_D = (
    (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)),
    (
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3, 2),
    ),
    ("halve",),
)


def _block_e(pooling):
    return (
        (("branch1x1", 320, 1),),
        (
            ("branch3x3_1", 384, 1),
            (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))),
        ),
        (
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pooling, ("branch_pool", 192, 1)),
    )


_BLOCKS = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _BLOCK_B,
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _BLOCK_D,
    "Mixed_7b": _block_e("mean"),
    "Mixed_7c": _block_e("max"),
}
_POOLINGS = {
    "mean": lambda x: F.avg_pool2d(x, 3, 1, 1, exclusive=True),
    "max": lambda x: F.max_pool2d(x, 3, 1, 1),
    "halve": lambda x: F.max_pool2d(x, 3, 2),
}


class ConvNormReLU(nn.Layer):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels, out_channels, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2D(in_channels, out_channels, kernel, stride, padding, bias_attr=False)
        self.bn = nn.BatchNorm2D(out_channels, epsilon=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Layer):
    """Branches side by side, as the tables above describe them; their outputs are joined."""

    def __init__(self, in_channels, branches):
        super().__init__()
        self.branches = branches
        self.out_channels = sum(self._build(branch, in_channels) for branch in branches)

    def forward(self, x):
        return paddle.concat([self._run(branch, x) for branch in self.branches], axis=1)

    def _build(self, branch, channels) -> int:
        """Make the convolutions of a branch; give its output channels."""
        for step in branch:
            if isinstance(step, str):
                continue
            split = step if isinstance(step[0], tuple) else (step,)
            for name, width, kernel, *stride in split:
                padding = 0 if stride else _same(kernel)
                setattr(self, name, ConvNormReLU(channels, width, kernel, *stride, padding=padding))
            channels = sum(width for _, width, *_ in split)
        return channels

    def _run(self, branch, x):
        for step in branch:
            if isinstance(step, str):
                x = _POOLINGS[step](x)
            elif isinstance(step[0], tuple):
                x = paddle.concat([getattr(self, name)(x) for name, *_ in step], axis=1)
            else:
                x = getattr(self, step[0])(x)
        return x


class InceptionV3(nn.Layer):
    """Images to the 2048 features that FID compares; frozen, in eval mode."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNormReLU(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = ConvNormReLU(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNormReLU(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNormReLU(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNormReLU(80, 192, 3)
        channels = 192
        for name, branches in _BLOCKS.items():
            block = Mixed(channels, branches)
            setattr(self, name, block)
            channels = block.out_channels
        freeze(self)
        self.eval()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x [N, 3, 299, 299] RGB in [-1, 1] -> features [N, 2048]."""
        check_shape("x", x, (None, 3, INPUT_SIZE, INPUT_SIZE))
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_POOLINGS["halve"](x)))
        x = _POOLINGS["halve"](x)
        for name in _BLOCKS:
            x = getattr(self, name)(x)
        return x.mean(axis=[2, 3])


def _same(kernel):
    return [size // 2 for size in kernel] if isinstance(kernel, tuple) else kernel // 2
