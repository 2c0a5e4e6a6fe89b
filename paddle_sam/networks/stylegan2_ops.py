"""What StyleGAN2 is made of: FIR resampling, equalised and modulated layers, and its W+ codes.

Under mixed precision (`paddle.amp.auto_cast`) convolutions compute, and feature maps stay, in 16
bits. Filters, fully connected layers, demodulation and RGB images keep the parameters' precision:
eight bits of mantissa do not even name the 256 grey levels. See `exact`.

References: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), and for
the equalised learning rate "Progressive Growing of GANs" (2018), section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.errors import ConfigError, check_shape

LEAKY_SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2.0)
MEAN_SAMPLES = 10_000  # random codes whose mean stands for the average code
_MOST_MAPS = 65_535  # some of cuDNN's kernels take no larger batch


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
            paddle.to_tensor(np.eye(9).reshape(9, 1, 3, 3), kernel.dtype, kernel.place),
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
        self.bias = self.create_parameter([channels], is_bias=True)

    def forward(self, x):
        return biased_leaky_relu(x, self.bias)


class EqualLinear(nn.Layer):
    """Linear layer with equalised learning rate: y = x W * (lr_mul / sqrt(in)) + b * lr_mul.

    Args:
        in_features, out_features: sizes of the last axis; the weight is stored [in, out].
        bias_init: starting value of the bias.
        lr_mul: learning rate multiplier; the stored weight has deviation 1 / lr_mul.
        activate: apply sqrt(2) * leaky_relu(., 0.2) to the result.
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
        in_channels, out_channels, kernel_size: odd kernels keep H and W.
        fir: taps of the low-pass filter; when given, the convolution also halves the resolution.
        fir_gain: sum of the filter.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        fir: Sequence[float] | None = None,
        fir_gain: float = 1.0,
    ):
        super().__init__()
        self.weight = self.create_parameter(
            [out_channels, in_channels, kernel_size, kernel_size],
            default_initializer=nn.initializer.Normal(0.0, 1.0),
        )
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.padding = kernel_size // 2
        self.resamples = fir is not None
        if fir is not None:
            kernel = paddle.to_tensor(fir_kernel(fir, fir_gain))
            self.register_buffer("kernel", kernel, persistable=False)

    def forward(self, x):
        weight = self.weight * self.weight_gain
        if self.resamples:
            return conv_downsample2d(x, weight, self.kernel)
        return F.conv2d(x, weight, padding=self.padding)


class ModulatedConv2D(EqualConv2D):
    """Equalised convolution whose weights are modulated, and demodulated, by a style (section 2.2).

    Modulation scales the input channels by s = A(w) and demodulation scales the output channels
    by 1 / sqrt(sum (s W)^2 + 1e-8). Both are applied to the activations, which is the same
    arithmetic, so that the whole batch shares one convolution with constant weights.

    Args:
        in_channels, out_channels, kernel_size: of the convolution, which keeps H and W.
        style_dim: D.
        demodulate: normalise the output's scale (off in the RGB layers).
        fir: taps of the low-pass filter; when given, the layer doubles the resolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        style_dim: int,
        demodulate: bool = True,
        fir: Sequence[float] | None = None,
    ):
        super().__init__(in_channels, out_channels, kernel_size, fir, fir_gain=4.0)
        self.modulation = EqualLinear(style_dim, in_channels, bias_init=1.0)
        self.demodulate = demodulate
        self.upsample_impl = "fast"

    def forward(self, x, w):
        """x [N, I, H, W], w [N, D] -> [N, O, H, W], or twice the size when up-sampling."""
        style = self.modulation(w)
        weight = self.weight * self.weight_gain
        if self.demodulate:
            with exact():
                power = paddle.matmul(style**2, (weight**2).sum(axis=[2, 3]), transpose_y=True)
            demodulation = paddle.rsqrt(power + 1e-8)
            if x.dtype != weight.dtype:  # 16 bits: float16 ends at 65,504
                style, weight, demodulation = _in_range(style, weight, demodulation)
        x = x * style.unsqueeze([2, 3]).astype(x.dtype)
        if self.resamples:
            x = conv_upsample2d(x, weight, self.kernel, self.upsample_impl)
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        if self.demodulate:
            x = x * demodulation.unsqueeze([2, 3]).astype(x.dtype)
        return x


def _in_range(style, weight, demodulation):
    """Scale styles and weights to 1 at most, which demodulation [N, O] makes up for.

    The factors cancel in the result, so their gradients do, too.
    """
    styles = style.detach().abs().max(axis=1, keepdim=True)
    weights = weight.detach().abs().amax(axis=[1, 2, 3], keepdim=True)
    return style / styles, weight / weights, demodulation * styles * weights.reshape([1, -1])


class PixelNorm(nn.Layer):
    """Scale each row of [N, D] to unit mean square."""

    def forward(self, x):
        return x * paddle.rsqrt((x * x).mean(axis=1, keepdim=True) + 1e-8)


def log2(name: str, size: int, least: int) -> int:
    """Base-2 logarithm of a size; raises `ConfigError` unless it is a power of two from `least`."""
    exponent = int(size).bit_length() - 1
    if size < least or 1 << exponent != size:
        raise ConfigError(f"{name}: expected a power of two of at least {least}, found {size}")
    return exponent


def code_count(size: int) -> int:
    """Number of W+ codes of a generator of `size` pixels: 2 log2(size) - 2 (18 at 1024)."""
    return 2 * log2("size", size, 8) - 2


def resolution_levels(size: int, channels: Mapping[int, int]) -> list[int]:
    """Every resolution 4, 8, ..., size of a network, all of which `channels` must have."""
    resolutions = [1 << exponent for exponent in range(2, log2("size", size, 8) + 1)]
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

    >>> style_ranges(64)
    {'coarse': range(0, 2), 'middle': range(2, 4), 'fine': range(4, 10)}

    Raises:
        ConfigError: the generator is too small to have three ranges.
    """
    codes = code_count(size)
    if size < 16:
        raise ConfigError(f"style ranges: expected a generator of 16 px or more, found {size}")
    width = 2 * min(codes // 2 // 3, 2)
    middle = range(width, 2 * width)
    return {"coarse": range(width), "middle": middle, "fine": range(middle.stop, codes)}


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
    """Mean float32 [D] of w = `map_latents`(z) over `samples` random z [N, D], always the same."""
    random = np.random.RandomState(0)
    total = np.zeros(style_dim)
    for start in range(0, samples, 1000):
        z = random.randn(min(1000, samples - start), style_dim).astype(np.float32)
        total += map_latents(paddle.to_tensor(z)).numpy().sum(axis=0, dtype=np.float64)
    return (total / samples).astype(np.float32)


def seed_latents(seeds: Sequence[int], dim: int) -> np.ndarray:
    """z float32 [N, D], each from a random generator of its own.

    >>> both, alone = seed_latents([3, 8], 512), seed_latents([8], 512)
    >>> bool((both[1] == alone[0]).all())
    True

    Raises:
        ConfigError: a seed is not one of NumPy's.
    """
    if wrong := [seed for seed in seeds if not 0 <= seed < 1 << 32]:
        raise ConfigError(f"seed: expected 0 to {(1 << 32) - 1}, found {wrong[0]}")
    return np.stack([np.random.RandomState(seed).randn(dim) for seed in seeds]).astype(np.float32)


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
    weight = paddle.to_tensor(shares, codes.dtype, codes.place).reshape([1, n_codes, 1])
    return weight * inject_latent + (1.0 - weight) * codes
