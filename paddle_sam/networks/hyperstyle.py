"""HyperStyle: changes of a generator's weights, predicted for one photograph.

Alaluf et al., "HyperStyle: StyleGAN Inversion with HyperNetworks for Real Image Editing" (2022). A
photograph x is inverted to a code w, which then stays. A network reads x beside what is rendered so
far and predicts for the weights of layer l a factor of each, whose offsets add up over the steps:

    theta'_l = theta_l * (1 + Delta_l)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import paddle
from paddle import nn

from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.face_networks import PUBLISHED_WIDTHS, RESNET34_UNITS, resnet_layers
from paddle_sam.networks.sam import pool, without_margins
from paddle_sam.networks.stylegan2 import Generator, modulated_layers
from paddle_sam.networks.stylegan2_ops import EqualLinear


class HyperNetwork(nn.Layer):
    """A photograph and its rendering to offsets of a generator's weights.

    Args:
        shapes: of the weights [O, I, K, K] that are changed, by the number of their layer.
        shared: layers whose offsets one large common layer makes; they have `features` channels.
        separable: of the other 3x3 layers, offsets are products of two vectors a pixel; otherwise
            those of a channel pair are the same at all pixels.
        in_channels, stem, widths, units: of the body, ResNet34.
        inner: channels within the blocks of shared layers, and within the others.
        features: that each block sums the body's map up to.
    """

    def __init__(
        self,
        shapes: Mapping[int, Sequence[int]],
        shared: Sequence[int] = (),
        separable: bool = False,
        in_channels: int = 6,
        stem: int = 64,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        units: Sequence[int] = RESNET34_UNITS,
        inner: Sequence[int] = (128, 256),
        features: int = 512,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.input_layer, self.body = resnet_layers(in_channels, stem, widths, units)
        self.shared_weight_hypernet = SharedOffsets(features)
        self.refinement_blocks = nn.LayerDict()
        for number, shape in shapes.items():
            if number in shared and list(shape) != [features, features, 3, 3]:
                raise ConfigError(
                    f"shared: layer {number} has weights {list(shape)}, the common layer makes"
                    f" {[features, features, 3, 3]}"
                )
            block = (
                SharedBlock(widths[-1], inner[0], features)
                if number in shared
                else LayerBlock(shape, separable, widths[-1], inner[1], features)
            )
            self.refinement_blocks[str(number)] = block

    def forward(self, x: paddle.Tensor) -> dict[int, paddle.Tensor]:
        """x [N, in_channels, H, W] in [-1, 1] -> offsets [N, O, I, K, K] by layer."""
        check_shape("x", x, (None, self.in_channels, None, None))
        x = self.body(self.input_layer(x))
        found = {int(number): block(x) for number, block in self.refinement_blocks.items()}
        for number, block in self.refinement_blocks.items():
            if isinstance(block, SharedBlock):
                found[int(number)] = self.shared_weight_hypernet(found[int(number)])
        return found


def _summing(in_channels: int, inner: int, features: int, strides: Sequence[int]) -> nn.Sequential:
    """Convolutions with leaky ReLU, of which the last has `features` channels."""
    layers = []
    for number, stride in enumerate(strides, start=1):
        width = features if number == len(strides) else inner
        layers += [nn.Conv2D(in_channels, width, 3, stride, padding=1), nn.LeakyReLU(0.01)]
        in_channels = width
    return nn.Sequential(*layers)


class SharedBlock(nn.Layer):
    """A map [N, C, 16, 16] to the features [N, F] of which the common layer makes offsets."""

    def __init__(self, in_channels: int, inner: int, features: int):
        super().__init__()
        self.convs = _summing(in_channels, inner, features, (1, 2, 2, 2, 2))
        self.linear = EqualLinear(features, features)

    def forward(self, x):
        return self.linear(self.convs(x).flatten(1))


class SharedOffsets(nn.Layer):
    """Features [N, F] to offsets [N, F, F, 3, 3], by two linear layers with the axes between."""

    def __init__(self, features: int):
        super().__init__()
        self.features = features
        for number, width in (("1", features * 9), ("2", features * features)):
            for name, shape in (("w", [features, width]), ("b", [width])):
                setattr(self, name + number, self.create_parameter(shape))

    def forward(self, x):
        size = self.features
        x = (paddle.matmul(x, self.w2) + self.b2).reshape([-1, size, size])
        # As published, [F, F * 9] is read as [F, F, 3, 3] as it lies.
        return (paddle.matmul(x, self.w1) + self.b1).reshape([-1, size, size, 3, 3])


class LayerBlock(nn.Layer):
    """A map [N, C, 16, 16] to offsets [N, O, I, K, K] of one layer; see `HyperNetwork`."""

    def __init__(
        self, shape: Sequence[int], separable: bool, in_channels: int, inner: int, features: int
    ):
        super().__init__()
        self.shape = out_channels, channels, kernel, _ = list(shape)
        separable = separable and kernel > 1
        repeated = kernel > 1 and not separable
        strides = (2, 2, 2) if repeated else (2, 2, 2, 2)
        self.convs = _summing(in_channels, inner, features, strides)
        if separable:
            self.output = nn.Sequential(SeparableOffsets(shape, features))
        else:
            pooled = [nn.AdaptiveAvgPool2D(1)] if repeated else []
            self.output = nn.Sequential(*pooled, nn.Conv2D(features, out_channels * channels, 1))

    def forward(self, x):
        x = self.output(self.convs(x))
        if x.ndim == 4:
            x = x.reshape([-1, *self.shape[:2], 1, 1])
        return x.expand([-1, *self.shape])


class SeparableOffsets(nn.Layer):
    """Features [N, F, 1, 1] to offsets [N, O, I, K, K], at each pixel a product of two vectors."""

    def __init__(self, shape: Sequence[int], features: int):
        super().__init__()
        self.shape = out_channels, channels, kernel, _ = list(shape)
        self.make_kernel_in = nn.Linear(features, kernel * kernel * channels)
        self.make_kernel_out = nn.Linear(features, kernel * kernel * out_channels)
        self.kernel_linear_in = nn.Linear(channels, channels)
        self.kernel_linear_out = nn.Linear(out_channels, out_channels)

    def forward(self, x):
        out_channels, channels, kernel, _ = self.shape
        x = x.flatten(1)
        inner = self.make_kernel_in(x).reshape([-1, kernel, kernel, 1, channels])
        outer = self.make_kernel_out(x).reshape([-1, kernel, kernel, out_channels, 1])
        x = self.kernel_linear_in(paddle.matmul(outer, inner))
        x = self.kernel_linear_out(x.transpose([0, 1, 2, 4, 3]))
        return x.transpose([0, 4, 3, 1, 2])


class HyperStyle(nn.Layer):
    """A generator, and the network that tunes it for a photograph.

    Args:
        hypernet: reads a photograph and its rendering, both [N, 3, S, S].
        decoder: what is tuned; it is left as it is.
        input_size: S.
        iterations: steps of tuning.

    `latent_avg` [L, D] is what the encoder of photographs, which is a network of its own, adds its
    codes to.
    """

    title = "HyperStyle's network"

    def __init__(
        self, hypernet: HyperNetwork, decoder: Generator, input_size: int = 256, iterations: int = 5
    ):
        super().__init__()
        if hypernet.in_channels != 6:
            raise ConfigError(
                "in_channels: HyperStyle reads a photograph and its rendering, 6 channels; found"
                f" {hypernet.in_channels}"
            )
        self.hypernet, self.decoder = hypernet, decoder
        self.input_size, self.iterations = input_size, iterations
        self.register_buffer("latent_avg", paddle.zeros([decoder.n_codes, decoder.style_dim]))

    def tune(
        self, image: paddle.Tensor, codes: paddle.Tensor, steps: int = 0
    ) -> Iterator[tuple[paddle.Tensor, Generator]]:
        """Tune a copy of the generator for one photograph, without gradients.

        Args:
            image: [1, 3, S, S] in [-1, 1]; of a wide one the rows between its margins.
            codes: what it was inverted to, [1, L, D].
            steps: instead of `iterations`, if given.

        Yields:
            after each step what the codes render, [1, 3, G, G], and the generator: the same object
            each time.
        """
        check_shape("image", image, (1, 3, None, None))
        with paddle.no_grad():
            tuned = copy.deepcopy(self.decoder)
            layers = list(zip(modulated_layers(tuned), modulated_layers(self.decoder), strict=True))
            rendered, total = self.decoder.render(codes), {}
            for _ in range(steps or self.iterations):
                small = pool(rendered, self.input_size)
                small = without_margins(small, image.shape[2], self.input_size)
                both = paddle.concat([image, small], axis=1)
                for number, offset in self.hypernet(both).items():
                    total[number] = total.get(number, 0.0) + offset[0]
                    (_, layer), (_, original) = layers[number]
                    layer.weight.set_value(original.weight * (1 + total[number]))
                rendered = tuned.render(codes)
                yield rendered, tuned


def build_hyperstyle(
    hypernet: Mapping, decoder: Mapping, layers: Sequence[int], **options: int
) -> HyperStyle:
    """HyperStyle from the constructor arguments of its parts.

    Args:
        layers: numbers of the generator's modulated convolutions that are tuned.
        options: `input_size` and `iterations`.
    """
    generator = Generator(**decoder)
    weights = [layer.weight for _, layer in modulated_layers(generator)]
    if not layers or not set(layers) <= set(range(len(weights))):
        raise ConfigError(
            f"layers: this generator has 0 to {len(weights) - 1}, found {list(layers)}"
        )
    shapes = {number: list(weights[number].shape) for number in layers}
    return HyperStyle(HyperNetwork(shapes, **hypernet), generator, **options)
