"""StyleGAN2: generator and discriminator (Karras et al. 2020, config F), of any power-of-two size.

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
from paddle import nn

from paddle_sam.core.device import device_of
from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.stylegan2_ops import (
    MEAN_SAMPLES,
    BiasedLeakyReLU,
    EqualConv2D,
    EqualLinear,
    ModulatedConv2D,
    PixelNorm,
    average_code,
    code_count,
    exact,
    fir_kernel,
    mix_latents,
    noise_resolutions,
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


def mapping(inputs: int, width: int, layers: int, lr_mul: float = 0.01) -> nn.Sequential:
    """Mapping network [N, inputs] -> [N, width]: pixel norm and fully connected layers."""
    widths = [inputs, *[width] * (layers - 1)]
    linear = [EqualLinear(size, width, lr_mul=lr_mul, activate=True) for size in widths]
    return nn.Sequential(PixelNorm(), *linear)


class NoiseInjection(nn.Layer):
    """Add noise [N or 1, 1, H, W], scaled by one learned weight."""

    def __init__(self):
        super().__init__()
        self.weight = self.create_parameter([1], is_bias=True)

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
        self.bias = self.create_parameter([1, out_channels, 1, 1], is_bias=True)
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

    title = "a StyleGAN2 generator"

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
        self.size = self.output_size = size  # SAM and exported networks have the second name
        self.n_codes, self.style_dim = code_count(size), style_dim
        self.classes, self.image_channels = classes, image_channels
        self.latent_avg = None
        self.style = mapping(style_dim * (2 if classes else 1), style_dim, mapping_layers, lr_mlp)
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
        self.noises = NoiseBuffers(noise_resolutions(size))

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
        layers = [layer for _, layer in modulated_layers(self) if layer.resamples]
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
        size, channels, classes, image_channels: as of `Generator`.
        fir: taps of the low-pass filter of the down-sampling.
        group_size: samples in a minibatch deviation group.
        mapping_layers: fully connected layers between a conditional network's labels and its score.
    """

    title = "a StyleGAN2 discriminator"

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
        channels = channels or published_channels(size)
        resolutions = resolution_levels(size, channels)[::-1]
        self.size, self.group_size = size, group_size
        self.classes, self.image_channels = classes, image_channels
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
            self.mapping = mapping(channels[4], channels[4], mapping_layers)

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
