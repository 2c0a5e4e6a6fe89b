"""FIR resampling and equalised layers: the arithmetic that StyleGAN2 is made of.

Under mixed precision (`paddle.amp.auto_cast`) convolutions compute, and feature maps stay, in 16
bits. Filters, fully connected layers, demodulation and RGB images keep the parameters' precision:
eight bits of mantissa do not even name the 256 grey levels. See `exact`.

References: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), and for
the equalised learning rate "Progressive Growing of GANs" (2018), section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

LEAKY_SLOPE = 0.2
# Some of cuDNN's kernels take no larger batch.
_MOST_MAPS = 65_535
_ONE_TAP = np.eye(9).reshape(9, 1, 3, 3)
ACTIVATION_GAIN = math.sqrt(2.0)


def exact():
    """Return a context without mixed precision, for what 16 bits are too coarse for."""
    return paddle.amp.auto_cast(enable=False)


def fir_kernel(taps: Sequence[float], gain: float = 1.0) -> np.ndarray:
    """Separable FIR kernel [T, T] float32 from 1-D `taps`, its sum equal to `gain`.

    >>> fir_kernel([1, 3, 3, 1]).sum()
    np.float32(1.0)
    """
    taps = np.asarray(taps, np.float32)
    kernel = np.outer(taps, taps)
    return (kernel / kernel.sum() * np.float32(gain)).astype(np.float32)


def upfirdn2d(
    x: paddle.Tensor,
    kernel: paddle.Tensor,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
) -> paddle.Tensor:
    """Insert `up`-1 zeros after each pixel, pad, convolve with `kernel`, keep every `down`-th.

    Each step is linear and made of operators that have a second derivative in Paddle, which path
    length regularisation needs (`conv2d_transpose` and strided slices have none on the CPU).
    Computes in the kernel's precision; the result has that of `x`.

    Args:
        x: [N, C, H, W].
        kernel: [T, T]; a true convolution is computed, that is with the kernel flipped.
        padding: zeros before and after, the same for rows and columns.

    Returns:
        [N, C, (H*up + sum(padding) - T)//down + 1, likewise for W].
    """
    n, channels, height, width = x.shape
    if n > 1 and n * channels > _MOST_MAPS:
        step = max(1, _MOST_MAPS // channels)
        parts = [x[start : start + step] for start in range(0, n, step)]
        return paddle.concat([upfirdn2d(part, kernel, up, down, padding) for part in parts])
    before, after = padding
    with exact():
        y = x.astype(kernel.dtype).reshape([n * channels, 1, height, width])
        if up > 1:
            y = insert_zeros(y, up)
        weight = paddle.flip(kernel, axis=[0, 1]).reshape([1, 1, *kernel.shape])
        y = F.conv2d(F.pad(y, [before, after, before, after]), weight, stride=down)
    return y.reshape([n, channels, *y.shape[2:]]).astype(x.dtype)


def insert_zeros(x: paddle.Tensor, factor: int) -> paddle.Tensor:
    """[N, C, H, W] -> [N, C, H*factor, W*factor]: each pixel followed by `factor`-1 zeros."""
    n, channels, height, width = x.shape
    x = x.reshape([n, channels, height, 1, width, 1])
    x = F.pad(x, [0, 0, 0, 0, 0, 0, 0, factor - 1, 0, 0, 0, factor - 1])
    return x.reshape([n, channels, height * factor, width * factor])


def conv_upsample2d(
    x: paddle.Tensor, weight: paddle.Tensor, kernel: paddle.Tensor, impl: str = "fast"
) -> paddle.Tensor:
    """Convolve at twice the resolution: zero-insertion, `weight`, then the FIR `kernel`.

    Args:
        x: [N, I, H, W].
        weight: [O, I, K, K] with odd K.
        kernel: FIR [T, T] whose sum is 4 (it makes up for the inserted zeros).
        impl: `fast` uses a transposed convolution; `reference` spells it out with operators that
            have a second derivative; `phases` has one, too, and takes a third of the time, for
            3x3 weights and 4 taps. The results are equal.

    Returns:
        [N, O, 2*H, 2*W].
    """
    size = weight.shape[-1]
    if impl == "fast":
        x = F.conv2d_transpose(x, weight.transpose([1, 0, 2, 3]), stride=2)
    elif impl == "phases":
        return _upsample_by_phases(x, weight, kernel)
    elif impl == "reference":
        # A transposed convolution is a convolution of the zero-inserted input, the kernel flipped.
        x = insert_zeros(x, 2)[:, :, :-1, :-1]
        x = F.conv2d(x, paddle.flip(weight, axis=[2, 3]), padding=size - 1)
    else:
        raise ValueError(f"impl: expected fast, phases or reference, found {impl!r}")
    pad = (kernel.shape[0] - 2) - (size - 1)
    return upfirdn2d(x, kernel, padding=((pad + 1) // 2 + 1, pad // 2 + 1))


def _upsample_by_phases(
    x: paddle.Tensor, weight: paddle.Tensor, kernel: paddle.Tensor
) -> paddle.Tensor:
    """`conv_upsample2d` as one convolution at the resolution of `x`.

    Weight and FIR make one 6x6 kernel. Of its taps, every second one meets an inserted zero:
    which ones depends on whether the output's row and column are even, so each of these four
    phases is a 3x3 convolution of its own.
    """
    out, into = weight.shape[:2]
    with exact():
        # What each of the nine taps becomes, and by a matrix product all of them at once.
        taps = F.conv2d(
            paddle.to_tensor(_ONE_TAP, kernel.dtype, kernel.place),
            paddle.flip(kernel, axis=[0, 1]).reshape([1, 1, 4, 4]),
            padding=3,
        )
        taps = paddle.matmul(weight.reshape([out * into, 9]), taps.reshape([9, 36]))
    # [O, I, tap, phase, tap, phase], taps against the direction in which a convolution slides
    taps = paddle.flip(taps.reshape([out, into, 3, 2, 3, 2]), axis=[2, 4])
    taps = taps.transpose([0, 3, 5, 1, 2, 4]).reshape([out * 4, into, 3, 3])
    n, _, height, width = x.shape
    y = F.conv2d(x, taps, padding=1).reshape([n, out, 2, 2, height, width])
    return y.transpose([0, 1, 4, 2, 5, 3]).reshape([n, out, 2 * height, 2 * width])


def conv_downsample2d(
    x: paddle.Tensor, weight: paddle.Tensor, kernel: paddle.Tensor
) -> paddle.Tensor:
    """FIR-filter with `kernel` [T, T] (sum 1), then convolve `weight` [O, I, K, K] with stride 2.

    Returns [N, O, H/2, W/2] for even H and W.
    """
    pad = (kernel.shape[0] - 2) + (weight.shape[-1] - 1)
    x = upfirdn2d(x, kernel, padding=((pad + 1) // 2, pad // 2))
    return F.conv2d(x, weight, stride=2)


def upsample2d(x: paddle.Tensor, kernel: paddle.Tensor) -> paddle.Tensor:
    """Double the size of an image [N, C, H, W] with the FIR `kernel` [T, T] (sum 4)."""
    pad = kernel.shape[0] - 2
    return upfirdn2d(x, kernel, up=2, padding=((pad + 1) // 2 + 1, pad // 2))


def biased_leaky_relu(x: paddle.Tensor, bias: paddle.Tensor) -> paddle.Tensor:
    """sqrt(2) * leaky_relu(x + bias, 0.2), the bias along axis 1 of [N, C] or [N, C, H, W]."""
    bias = bias.reshape([1, -1, *[1] * (x.ndim - 2)]).astype(x.dtype)
    return F.leaky_relu(x + bias, LEAKY_SLOPE) * ACTIVATION_GAIN


class BiasedLeakyReLU(nn.Layer):
    """`biased_leaky_relu` with a learned bias of `channels` values, zero at first."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = self.create_parameter(
            [channels], default_initializer=nn.initializer.Constant(0.0)
        )

    def forward(self, x):
        return biased_leaky_relu(x, self.bias)


class EqualLinear(nn.Layer):
    """Linear layer with equalised learning rate: y = x W * (lr_mul / sqrt(in)) + b * lr_mul.

    Args:
        in_features: size of the input's last axis.
        out_features: size of the output's last axis.
        bias_init: starting value of the bias.
        lr_mul: learning rate multiplier; the stored weight has deviation 1 / lr_mul.
        activate: apply sqrt(2) * leaky_relu(., 0.2) to the result.

    The weight is stored [in, out], as `paddle.nn.Linear` does.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_init: float = 0.0,
        lr_mul: float = 1.0,
        activate: bool = False,
    ):
        super().__init__()
        self.weight = self.create_parameter(
            [in_features, out_features],
            default_initializer=nn.initializer.Normal(0.0, 1.0 / lr_mul),
        )
        self.bias = self.create_parameter(
            [out_features], default_initializer=nn.initializer.Constant(bias_init)
        )
        self.weight_gain = lr_mul / math.sqrt(in_features)
        self.lr_mul = lr_mul
        self.activate = activate

    def forward(self, x):
        with exact():
            x = F.linear(x.astype(self.weight.dtype), self.weight * self.weight_gain)
        bias = self.bias * self.lr_mul
        return biased_leaky_relu(x, bias) if self.activate else x + bias


class EqualConv2D(nn.Layer):
    """Convolution with equalised learning rate (weight deviation 1, scaled by 1/sqrt(fan in)).

    Args:
        in_channels, out_channels, kernel_size: as in `paddle.nn.Conv2D`; odd kernels keep H and W.
        fir: taps of the low-pass filter; when given, the convolution also halves the resolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        fir: Sequence[float] | None = None,
    ):
        super().__init__()
        self.weight = self.create_parameter(
            [out_channels, in_channels, kernel_size, kernel_size],
            default_initializer=nn.initializer.Normal(0.0, 1.0),
        )
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.padding = kernel_size // 2
        self.downsample = fir is not None
        if self.downsample:
            self.register_buffer("kernel", paddle.to_tensor(fir_kernel(fir)), persistable=False)

    def forward(self, x):
        weight = self.weight * self.weight_gain
        if self.downsample:
            return conv_downsample2d(x, weight, self.kernel)
        return F.conv2d(x, weight, padding=self.padding)
