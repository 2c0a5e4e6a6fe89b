"""Encoder and generator as they run at inference: everything that does not change is a constant.

The layers here are wrappers built from trained ones. They compute the same values with fewer
operations and hold constants only, so `paddle.jit.save` can freeze them; the trained layers keep
no export branches. Weights that need no folding are shared with the trained layer, not copied.

What differs from `GradualStyleEncoder`, none of it in the values:

- batch norm behind a convolution is folded into it (that before one is not: at the border its
  shift does not commute with the zero padding);
- the last 3x3 convolution of a map-to-style block sees 2x2 pixels and gives one, so that five of
  its nine taps only ever meet padding: it becomes a linear layer of the other four;
- the bilinear resizing of the pyramid is two products with a constant matrix, because Paddle's
  oneDNN kernel ignores `align_corners` (measured with 3.2.2).

And from `Generator`:

- weight and learning rate gains, the squared weights of the demodulation, noise strength times
  stored noise: constants;
- the gain sqrt(2) behind each activation moves into the weights of the layers that read it;
- the transposed convolution is asked for one row and column more than it produces (zeros, which
  is what the low-pass filter behind it reads there anyway): oneDNN has its fast kernel only for
  even sizes;
- the low-pass filter runs as a depthwise convolution.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.networks.face_networks import ResidualUnit, SqueezeExcite
from paddle_sam.networks.sam import GradualStyleEncoder, MapToStyle
from paddle_sam.networks.stylegan2 import Generator, ModulatedConv2D, StyledConv, ToRGB
from paddle_sam.networks.stylegan2_ops import ACTIVATION_GAIN, LEAKY_SLOPE, EqualLinear


class StaticEncoder(nn.Layer):
    """x [N, C, S, S] -> codes [N, L, D].

    Args:
        encoder: in eval mode.
        offset: [L, D], such as `latent_avg`, that is added.
        precision: `float32` or `bfloat16`, that the layer will be run in.
    """

    def __init__(
        self,
        encoder: GradualStyleEncoder,
        offset: paddle.Tensor | None = None,
        precision: str = "float32",
    ):
        super().__init__()
        conv, norm, prelu = encoder.input_layer
        self.input_conv = FoldedConv(conv, norm)
        self.input_prelu = prelu_for(prelu, precision)
        self.body, size = nn.LayerList(), encoder.input_size
        for unit in encoder.body:
            self.body.append(StaticUnit(unit, size, precision))
            size = self.body[-1].output_size
        self.taps = encoder.taps
        self.progressive = encoder.progressive
        smallest = encoder.input_size // 16
        channels = encoder.latlayer1.weight.shape[0]
        self.to_middle = BilinearDoubling(channels, smallest)
        self.to_fine = BilinearDoubling(channels, 2 * smallest)
        self.latlayer1 = encoder.latlayer1
        self.latlayer2 = encoder.latlayer2
        self.styles = nn.LayerList(
            [
                StaticMapToStyle(block, encoder.pyramid_scale(index))
                for index, block in enumerate(encoder.styles)
            ]
        )
        if offset is not None:
            self.register_buffer("offset", constant(offset.numpy()[None]))
        self.has_offset = offset is not None

    def forward(self, x):
        x = self.input_prelu(self.input_conv(x))
        tapped = []
        for index, unit in enumerate(self.body):
            x = unit(x)
            if index in self.taps:
                tapped.append(x)
        fine, middle, coarse = tapped
        middle = self.to_middle(coarse) + self.latlayer1(middle)
        fine = self.to_fine(middle) + self.latlayer2(fine)
        pyramid = {1: coarse, 2: middle, 4: fine}
        codes = [block(pyramid[block.scale]) for block in self.styles]
        if self.progressive:
            codes = [codes[0], *[codes[0] + offset for offset in codes[1:]]]
        codes = paddle.stack(codes, axis=1)
        return codes + self.offset if self.has_offset else codes


class BilinearDoubling(nn.Layer):
    """[N, channels, size, size] to twice the size, bilinear with aligned corners."""

    def __init__(self, channels: int, size: int):
        super().__init__()
        where = np.linspace(0, size - 1, 2 * size)
        weights = np.maximum(0, 1 - np.abs(where[:, None] - np.arange(size)))  # [2*size, size]
        self.register_buffer("rows", constant(weights))
        self.register_buffer("columns", constant(weights.T))
        self.channels, self.size = channels, size

    def forward(self, x):
        # Three axes, because oneDNN's product of a feature map in its channels-last layout is
        # wrong (measured with 3.2.2); flattening brings back the plain layout.
        x = x.flatten(1).reshape([-1, self.size, self.size])
        x = paddle.matmul(paddle.matmul(self.rows, x), self.columns)
        return x.reshape([-1, self.channels, 2 * self.size, 2 * self.size])


def prelu_for(prelu: nn.PReLU, precision: str) -> nn.Layer:
    """Return the form of `prelu` that is right, and fastest, in `precision`."""
    return SplitPReLU(prelu) if precision == "bfloat16" else prelu


class SplitPReLU(nn.Layer):
    """PReLU as a x + (1 - a) relu(x), the slopes a along axis 1.

    oneDNN's PReLU reads its float32 slopes as if they were bfloat16 (Paddle 3.2.2). Of the forms
    that are right this is the fastest.
    """

    def __init__(self, prelu: nn.PReLU):
        super().__init__()
        slope = doubles(prelu._weight).reshape(1, -1, 1, 1)
        self.register_buffer("slope", constant(slope))
        self.register_buffer("rest", constant(1 - slope))

    def forward(self, x):
        return self.slope * x + self.rest * F.relu(x)


class StaticUnit(nn.Layer):
    """A residual unit: batch norm, convolution, PReLU, folded convolution, gate; plus shortcut."""

    def __init__(self, unit: ResidualUnit, size: int, precision: str = "float32"):
        super().__init__()
        norm, conv1, prelu, conv2, norm2, *gate = unit.res_layer
        self.norm, self.conv1, self.prelu = norm, conv1, prelu_for(prelu, precision)
        self.conv2 = FoldedConv(conv2, norm2)
        self.output_size = size // self.conv2.stride[0]
        self.gate = StaticSqueezeExcite(gate[0], self.output_size) if gate else nn.Identity()
        shortcut = unit.shortcut_layer
        projected = isinstance(shortcut, nn.Sequential)
        self.shortcut = FoldedConv(*shortcut) if projected else shortcut

    def forward(self, x):
        y = self.gate(self.conv2(self.prelu(self.conv1(self.norm(x)))))
        return y + self.shortcut(x)


class StaticSqueezeExcite(nn.Layer):
    """Scale each channel by a gate computed from the channel means."""

    def __init__(self, gate: SqueezeExcite, size: int):
        super().__init__()
        self.fc1, self.fc2 = gate.fc1, gate.fc2
        self.block = 1 << (size.bit_length() // 2)
        self.blocks = size // self.block

    def forward(self, x):
        # In two steps: sums of few terms stay accurate, and oneDNN has a fast kernel for pooling
        # but only its reference one for means along an axis.
        means = F.avg_pool2d(F.avg_pool2d(x, self.block), self.blocks)
        return x * F.sigmoid(self.fc2(F.relu(self.fc1(means))))


class StaticMapToStyle(nn.Layer):
    """A feature map to one code: stride-2 convolutions, then two linear layers."""

    def __init__(self, block: MapToStyle, scale: int):
        super().__init__()
        self.scale = scale
        *convs, last, activation = block.convs
        self.convs = nn.Sequential(*convs)
        taps = doubles(last.weight)[:, :, 1:, 1:]  # [O, I, 2, 2]
        self.register_buffer("weight", constant(taps.reshape(taps.shape[0], -1).T))
        self.register_buffer("bias", constant(last.bias.numpy()))
        self.activation = activation
        self.linear = FoldedLinear(block.linear)

    def forward(self, x):
        x = F.linear(self.convs(x).flatten(1), self.weight, self.bias)
        return self.linear(self.activation(x))


class StaticDecoder(nn.Layer):
    """w_plus [N, L, D] -> images [N, 3, size, size], with the generator's stored noise."""

    def __init__(self, generator: Generator):
        super().__init__()
        noises = generator.noises.as_list()
        self.register_buffer("start", constant(generator.input.input.numpy()))
        self.conv1 = StaticStyledConv(generator.conv1, noises[0], input_gain=1.0)
        self.to_rgb1 = StaticToRGB(generator.to_rgb1)
        self.convs = nn.LayerList(
            [
                StaticStyledConv(conv, noise, input_gain=ACTIVATION_GAIN)
                for conv, noise in zip(generator.convs, noises[1:], strict=True)
            ]
        )
        self.to_rgbs = nn.LayerList([StaticToRGB(to_rgb) for to_rgb in generator.to_rgbs])

    def forward(self, w_plus):
        w = paddle.unbind(w_plus, axis=1)
        x = self.conv1(self.start, w[0])
        rgb = self.to_rgb1(x, w[1])
        for level, to_rgb in enumerate(self.to_rgbs):
            layer = 2 * level + 1
            x = self.convs[layer - 1](x, w[layer])
            x = self.convs[layer](x, w[layer + 1])
            rgb = to_rgb(x, w[layer + 2]) + to_rgb.upsample(rgb)
        return rgb


class StaticMapping(nn.Layer):
    """The mapping network, z [N, D] -> w [N, D].

    The mean square is written as a sum: Paddle's reduce_mean prints a line of its own under oneDNN.
    """

    def __init__(self, generator: Generator):
        super().__init__()
        self.layers = generator.style[1:]
        self.dim = generator.style_dim

    def forward(self, z):
        square = (z * z).sum(axis=1, keepdim=True) / self.dim
        return self.layers(z * paddle.rsqrt(square + 1e-8))


class StaticStyledConv(nn.Layer):
    """Modulated convolution, noise, bias and leaky ReLU without its gain, which readers apply."""

    def __init__(self, layer: StyledConv, noise: paddle.Tensor, input_gain: float):
        super().__init__()
        conv = layer.conv
        weight = doubles(conv.weight) * conv.weight_gain
        self.modulation = FoldedLinear(conv.modulation)
        self.register_buffer("power", constant((weight**2).sum(axis=(2, 3)).T))
        self.register_buffer("noise", constant(doubles(noise) * doubles(layer.noise.weight)))
        self.register_buffer("bias", constant(doubles(layer.activate.bias)[None, :, None, None]))
        weight = weight * input_gain
        if conv.resamples:
            weight = weight.transpose(1, 0, 2, 3)
            self.low_pass = DepthwiseFIR(conv, weight.shape[1])
        self.register_buffer("weight", constant(weight))
        self.upsample = conv.resamples
        self.padding = conv.padding

    def forward(self, x, w):
        style = self.modulation(w)
        x = x * style.unsqueeze([2, 3])
        if self.upsample:
            extra = self.low_pass.extra
            x = F.conv2d_transpose(x, self.weight, stride=2, output_padding=extra)
            x = self.low_pass(x)
        else:
            x = F.conv2d(x, self.weight, padding=self.padding)
        demodulation = paddle.rsqrt(paddle.matmul(style * style, self.power) + 1e-8)
        x = x * demodulation.unsqueeze([2, 3]) + self.noise
        return F.leaky_relu(x + self.bias, LEAKY_SLOPE)


class DepthwiseFIR(nn.Layer):
    """The low-pass filter behind an up-sampling convolution.

    `extra` is how many rows and columns of zeros it wants behind those of the convolution.
    """

    def __init__(self, conv: ModulatedConv2D, channels: int):
        super().__init__()
        kernel = conv.kernel.numpy()[::-1, ::-1]
        self.register_buffer("kernel", constant(np.tile(kernel, (channels, 1, 1, 1))))
        self.channels = channels
        pad = (kernel.shape[0] - 2) - (conv.weight.shape[-1] - 1)  # as in `conv_upsample2d`
        before, after = (pad + 1) // 2 + 1, pad // 2 + 1
        self.extra = min(after, 1)
        self.padding = [before, after - self.extra, before, after - self.extra]

    def forward(self, x):
        return F.conv2d(x, self.kernel, padding=self.padding, groups=self.channels)


class StaticToRGB(nn.Layer):
    """Features to RGB, and the filter that doubles the image of the resolution below."""

    def __init__(self, layer: ToRGB):
        super().__init__()
        conv = layer.conv
        weight = doubles(conv.weight) * conv.weight_gain * ACTIVATION_GAIN
        self.modulation = FoldedLinear(conv.modulation)
        self.register_buffer("weight", constant(weight))
        self.register_buffer("bias", constant(doubles(layer.bias).reshape(-1)))
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            # Zero insertion and FIR together are a transposed convolution with the FIR's taps.
            self.register_buffer("kernel", constant(np.tile(kernel.numpy(), (3, 1, 1, 1))))
            self.crop = (kernel.shape[0] - 1) // 2

    def forward(self, x, w):
        return F.conv2d(x * self.modulation(w).unsqueeze([2, 3]), self.weight, self.bias)

    def upsample(self, rgb):
        return F.conv2d_transpose(rgb, self.kernel, stride=2, padding=self.crop, groups=3)


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
