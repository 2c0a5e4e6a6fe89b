"""StyleGAN2 generator (Karras et al. 2020, config F), of any power-of-two size.

Shapes: z [N, D] and w [N, D] (D the style dimension), w_plus [N, L, D] with L = 2*log2(size) - 2
codes, images [N, 3, size, size] in about [-1, 1]. Parameter names follow the published PyTorch
checkpoints where they can, so that a key of one can be read in the other.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.core.device import device_of
from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.stylegan2_ops import (
    MEAN_SAMPLES,
    BiasedLeakyReLU,
    EqualLinear,
    average_code,
    code_count,
    conv_upsample2d,
    exact,
    fir_kernel,
    mix_latents,
    resolution_levels,
    upsample2d,
)

DEFAULT_FIR = (1.0, 3.0, 3.0, 1.0)


def published_channels(size: int, channel_multiplier: int = 2) -> dict[int, int]:
    """Channels at each resolution up to `size` of the published networks (config F: 2)."""
    full = {4: 512, 8: 512, 16: 512, 32: 512}
    full |= {64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}
    return {
        resolution: channels * (channel_multiplier if resolution > 32 else 1)
        for resolution, channels in full.items()
        if resolution <= size
    }


def check_labels(labels: paddle.Tensor | None, classes: int, batch: int) -> None:
    """Raise `ConfigError` unless labels are [batch, classes], or None if there are no classes."""
    if labels is None and classes:
        raise ConfigError(f"labels: this network is conditional, expected [{batch}, {classes}]")
    if labels is not None:
        if not classes:
            raise ConfigError("labels: this network is not conditional, expected none")
        check_shape("labels", labels, (batch, classes))


class PixelNorm(nn.Layer):
    """Scale each row of [N, D] to unit mean square."""

    def forward(self, x):
        return x * paddle.rsqrt((x * x).mean(axis=1, keepdim=True) + 1e-8)


class ModulatedConv2D(nn.Layer):
    """Convolution whose weights are modulated, and demodulated, by a style (section 2.2).

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
        super().__init__()
        self.weight = self.create_parameter(
            [out_channels, in_channels, kernel_size, kernel_size],
            default_initializer=nn.initializer.Normal(0.0, 1.0),
        )
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.modulation = EqualLinear(style_dim, in_channels, bias_init=1.0)
        self.demodulate = demodulate
        self.padding = kernel_size // 2
        self.upsample = fir is not None
        self.upsample_impl = "fast"
        if self.upsample:
            kernel = paddle.to_tensor(fir_kernel(fir, gain=4.0))
            self.register_buffer("kernel", kernel, persistable=False)

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
        if self.upsample:
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


class NoiseInjection(nn.Layer):
    """Add noise [N or 1, 1, H, W], scaled by one learned weight."""

    def __init__(self):
        super().__init__()
        self.weight = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, x, noise=None):
        if noise is None:
            noise = paddle.randn([x.shape[0], 1, *x.shape[2:]], self.weight.dtype).to(device_of(x))
        return x + (self.weight * noise).astype(x.dtype)


class StyledConv(nn.Layer):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU."""

    def __init__(self, in_channels, out_channels, style_dim, fir=None):
        super().__init__()
        self.conv = ModulatedConv2D(in_channels, out_channels, 3, style_dim, fir=fir)
        self.noise = NoiseInjection()
        self.activate = BiasedLeakyReLU(out_channels)

    def forward(self, x, w, noise=None):
        return self.activate(self.noise(self.conv(x, w), noise))


class ToRGB(nn.Layer):
    """Features to an RGB image, added to the up-sampled image of the resolution below."""

    def __init__(self, in_channels, style_dim, fir=None, out_channels=3):
        super().__init__()
        self.conv = ModulatedConv2D(in_channels, out_channels, 1, style_dim, demodulate=False)
        self.bias = self.create_parameter(
            [1, out_channels, 1, 1], default_initializer=nn.initializer.Constant(0.0)
        )
        if fir is not None:
            kernel = paddle.to_tensor(fir_kernel(fir, gain=4.0))
            self.register_buffer("kernel", kernel, persistable=False)

    def forward(self, x, w, skip=None):
        with exact():
            rgb = self.conv(x.astype(self.bias.dtype), w) + self.bias
        return rgb if skip is None else rgb + upsample2d(skip, self.kernel)


class ConstantInput(nn.Layer):
    """The learned 4x4 start of the synthesis network."""

    def __init__(self, channels: int):
        super().__init__()
        self.input = self.create_parameter(
            [1, channels, 4, 4], default_initializer=nn.initializer.Normal(0.0, 1.0)
        )

    def forward(self, batch: int):
        return self.input.expand([batch, -1, -1, -1])


class NoiseBuffers(nn.Layer):
    """One fixed noise image [1, 1, R, R] for each layer, so that a code always gives one image."""

    def __init__(self, resolutions: Sequence[int]):
        super().__init__()
        for index, resolution in enumerate(resolutions):
            self.register_buffer(f"noise_{index}", paddle.randn([1, 1, resolution, resolution]))

    def as_list(self) -> list[paddle.Tensor]:
        return [getattr(self, f"noise_{index}") for index in range(len(self._buffers))]


class Generator(nn.Layer):
    """StyleGAN2 generator with skip connections: mapping network f and synthesis network g.

    Args:
        size: image height and width, a power of two of at least 8.
        style_dim: D, the size of z and w.
        mapping_layers: fully connected layers of the mapping network.
        channels: feature channels at each resolution; None takes the published ones (config F).
        fir: taps of the low-pass filter of the up-sampling.
        lr_mlp: learning rate multiplier of the mapping network.
        classes: of a conditional network, whose mapping network takes labels too; 0 for none.
        image_channels: C of the images: 3 for RGB, 1 for grey.

    `latent_avg` is the mean of w over the training distribution ([D] tensor) where the weight
    file knows it, else None; `mean_latent` estimates it.
    """

    def __init__(
        self,
        size: int,
        style_dim: int = 512,
        mapping_layers: int = 8,
        channels: Mapping[int, int] | None = None,
        fir: Sequence[float] = DEFAULT_FIR,
        lr_mlp: float = 0.01,
        classes: int = 0,
        image_channels: int = 3,
    ):
        super().__init__()
        channels = channels or published_channels(size)
        resolutions = resolution_levels(size, channels)
        self.size = size
        self.classes = classes
        self.image_channels = image_channels
        self.style_dim = style_dim
        self.n_codes = code_count(size)
        self.latent_avg = None
        self.style = nn.Sequential(
            PixelNorm(),
            *[
                EqualLinear(width, style_dim, lr_mul=lr_mlp, activate=True)
                for width in [
                    style_dim * (2 if classes else 1),
                    *[style_dim] * (mapping_layers - 1),
                ]
            ],
        )
        if classes:
            self.embed = EqualLinear(classes, style_dim)
        self.input = ConstantInput(channels[4])
        self.conv1 = StyledConv(channels[4], channels[4], style_dim)
        self.to_rgb1 = ToRGB(channels[4], style_dim, out_channels=image_channels)
        self.convs = nn.LayerList()
        self.to_rgbs = nn.LayerList()
        for low, high in zip(resolutions[:-1], resolutions[1:], strict=True):
            self.convs.append(StyledConv(channels[low], channels[high], style_dim, fir))
            self.convs.append(StyledConv(channels[high], channels[high], style_dim))
            self.to_rgbs.append(ToRGB(channels[high], style_dim, fir, image_channels))
        self.noises = NoiseBuffers([4, *[r for r in resolutions[1:] for _ in range(2)]])

    @property
    def output_size(self) -> int:
        """Height and width of the images, as SAM and exported networks call it."""
        return self.size

    def map_latents(self, z: paddle.Tensor, labels: paddle.Tensor | None = None) -> paddle.Tensor:
        """Return the codes w [N, D] of z [N, D], by the mapping network.

        Args:
            labels: [N, classes] of a conditional network: one-hot, or shares of several classes.

        Raises:
            ConfigError: labels are missing, or the network is not conditional.
        """
        check_labels(labels, self.classes, z.shape[0])
        if labels is None:
            return self.style(z)
        norm, *layers = self.style
        x = paddle.concat([norm(z), norm(self.embed(labels))], axis=1)
        for layer in layers:
            x = layer(x)
        return x

    def render(self, codes: paddle.Tensor) -> paddle.Tensor:
        """Return the images [N, C, size, size] of W+ codes [N, L, D], with the stored noise."""
        return self.synthesis(codes, self.noises.as_list())[0]

    def mean_latent(self, samples: int = MEAN_SAMPLES) -> paddle.Tensor:
        """Mean [1, D] of w over `samples` random z, in turn of each class; see `average_code`."""

        def mapped(z: paddle.Tensor) -> paddle.Tensor:
            if not self.classes:
                return self.map_latents(z)
            labels = np.eye(self.classes, dtype=np.float32)[np.arange(len(z)) % self.classes]
            return self.map_latents(z, paddle.to_tensor(labels, place=z.place))

        return paddle.to_tensor(average_code(mapped, self.style_dim, samples)[None])

    @contextlib.contextmanager
    def second_derivatives(self) -> Iterator[None]:
        """Within this context, render with twice-differentiable operators (slower)."""
        layers = [layer for layer in self.sublayers() if getattr(layer, "upsample", False)]
        for layer in layers:
            phases = layer.weight.shape[-1] == 3 and layer.kernel.shape[0] == 4
            layer.upsample_impl = "phases" if phases else "reference"
        try:
            yield
        finally:
            for layer in layers:
                layer.upsample_impl = "fast"

    def forward(
        self,
        styles: Sequence[paddle.Tensor],
        input_is_latent: bool = False,
        inject_index: int | None = None,
        truncation: float = 1.0,
        truncation_latent: paddle.Tensor | None = None,
        noise: Sequence[paddle.Tensor | None] | None = None,
        randomize_noise: bool = True,
        return_latents: bool = False,
        return_features: bool = False,
        labels: paddle.Tensor | None = None,
    ):
        """Render styles.

        Args:
            styles: one tensor, or two to mix: z [N, D]; with `input_is_latent` w [N, D] or
                w_plus [N, L, D].
            input_is_latent: skip the mapping network.
            inject_index: with two styles, the first code taken from the second; None draws it
                uniformly from 1..L-1.
            truncation: psi; w' = w_avg + psi (w - w_avg).
            truncation_latent: w_avg [D] or [1, D]; needed when psi is not 1.
            noise: one image or None (random) per layer; overrides `randomize_noise`.
            randomize_noise: fresh noise, else the stored buffers.
            return_latents: also return w_plus [N, L, D].
            return_features: also return the last feature map [N, C, size, size].
            labels: see `map_latents`.

        Returns:
            images [N, 3, size, size], or a tuple beginning with them.
        """
        latents = list(styles)
        if not input_is_latent:
            latents = [self.map_latents(z, labels) for z in styles]
        if truncation != 1.0:
            if truncation_latent is None:
                raise ConfigError("truncation_latent: needed when truncation psi is not 1")
            latents = [truncation_latent + truncation * (w - truncation_latent) for w in latents]
        w_plus = self._mix(latents, inject_index)
        if noise is None:
            noise = [None] * (self.n_codes - 1) if randomize_noise else self.noises.as_list()
        image, features = self.synthesis(w_plus, noise)
        extras = [w_plus] * return_latents + [features] * return_features
        return (image, *extras) if extras else image

    def synthesis(self, w_plus: paddle.Tensor, noise: Sequence[paddle.Tensor | None]):
        """w_plus [N, L, D] and L-1 noise images (None: random) -> (images, last features)."""
        check_shape("w_plus", w_plus, (None, self.n_codes, self.style_dim))
        if len(noise) != self.n_codes - 1:
            raise ConfigError(
                f"noise: expected {self.n_codes - 1} images, one a layer, found {len(noise)}"
            )
        w = w_plus.unbind(axis=1)
        x = self.conv1(self.input(w_plus.shape[0]), w[0], noise[0])
        rgb = self.to_rgb1(x, w[1])
        for level, to_rgb in enumerate(self.to_rgbs):
            layer = 2 * level + 1
            x = self.convs[layer - 1](x, w[layer], noise[layer])
            x = self.convs[layer](x, w[layer + 1], noise[layer + 1])
            rgb = to_rgb(x, w[layer + 2], rgb)
        return rgb, x

    def _mix(self, latents: list[paddle.Tensor], inject_index: int | None) -> paddle.Tensor:
        if len(latents) not in (1, 2):
            raise ConfigError(f"styles: expected one or two tensors, found {len(latents)}")
        tiled = [
            w.unsqueeze(1).expand([-1, self.n_codes, -1]) if w.ndim == 2 else w for w in latents
        ]
        if len(tiled) == 1:
            return tiled[0]
        if inject_index is None:
            inject_index = paddle.randint(1, self.n_codes, [1]).item()
        return mix_latents(tiled[0], range(inject_index, self.n_codes), tiled[1])


def modulated_layers(generator: Generator) -> list[tuple[int, ModulatedConv2D]]:
    """Every modulated convolution in the order of rendering, and the code that drives each.

    After the convolutions of a resolution comes its layer to RGB, which does not demodulate.
    """
    layers = [(0, generator.conv1), (1, generator.to_rgb1)]
    for level, to_rgb in enumerate(generator.to_rgbs):
        convs = generator.convs[2 * level : 2 * level + 2]
        layers += zip(range(2 * level + 1, 2 * level + 4), (*convs, to_rgb), strict=True)
    return [(code, layer.conv) for code, layer in layers]
