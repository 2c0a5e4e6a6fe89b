"""Arithmetic shared by the inference forms of the networks: what is constant is folded once.

The layers here are wrappers built from trained ones. They compute the same values with fewer
operations and hold constants only, so `paddle.jit.save` can freeze them; the trained layers keep
no export branches. Weights that need no folding are shared with the trained layer, not copied.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.networks.stylegan2_ops import EqualLinear


def constant(values: np.ndarray) -> paddle.Tensor:
    """A float32 tensor of `values`, folded in float64."""
    return paddle.to_tensor(np.ascontiguousarray(values, dtype=np.float32))


def doubles(tensor: paddle.Tensor) -> np.ndarray:
    """The values of a parameter, to fold without rounding twice."""
    return tensor.numpy().astype(np.float64)


class FoldedLinear(nn.Layer):
    """`EqualLinear` without activation, its gains multiplied in: y = x W + b."""

    def __init__(self, linear: EqualLinear):
        super().__init__()
        self.register_buffer("weight", constant(doubles(linear.weight) * linear.weight_gain))
        self.register_buffer("bias", constant(doubles(linear.bias) * linear.lr_mul))

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class FoldedConv(nn.Layer):
    """A convolution and the batch norm behind it as one convolution with bias."""

    def __init__(self, conv: nn.Conv2D, norm: nn.BatchNorm2D):
        super().__init__()
        scale, shift = affine_of(norm)
        weight = doubles(conv.weight) * scale[:, None, None, None]
        self.register_buffer("weight", constant(weight))
        self.register_buffer("bias", constant(shift))
        self.stride = conv._stride
        self.padding = conv._padding

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


def affine_of(norm: nn.BatchNorm2D) -> tuple[np.ndarray, np.ndarray]:
    """Batch norm in eval mode as y = scale x + shift, both [C]."""
    scale = doubles(norm.weight) / np.sqrt(doubles(norm._variance) + norm._epsilon)
    return scale, doubles(norm.bias) - doubles(norm._mean) * scale
