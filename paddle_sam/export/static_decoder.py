"""The generator as it runs at inference: W+ codes in, image out, everything else constant.

What differs from `paddle_sam.networks.stylegan2.Generator`, none of it in the values:

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

from paddle_sam.export.folded import FoldedLinear, constant, doubles
from paddle_sam.networks.stylegan2 import Generator, ModulatedConv2D, StyledConv, ToRGB
from paddle_sam.networks.stylegan2_ops import ACTIVATION_GAIN, LEAKY_SLOPE


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
        if conv.upsample:
            weight = weight.transpose(1, 0, 2, 3)
            self.low_pass = DepthwiseFIR(conv, weight.shape[1])
        self.register_buffer("weight", constant(weight))
        self.upsample = conv.upsample
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
