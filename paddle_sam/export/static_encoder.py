"""The pSp encoder as it runs at inference: image in, W+ offsets out, everything else constant.

What differs from `paddle_sam.networks.psp_encoder.GradualStyleEncoder`, none of it in the values:

- batch norm behind a convolution is folded into it (that before one is not: at the border its
  shift does not commute with the zero padding);
- the last 3x3 convolution of a map-to-style block sees 2x2 pixels and gives one, so that five of
  its nine taps only ever meet padding: it becomes a linear layer of the other four;
- the bilinear resizing of the pyramid is two products with a constant matrix, because Paddle's
  oneDNN kernel ignores `align_corners` (measured with 3.2.2).
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.export.folded import FoldedConv, FoldedLinear, constant, doubles
from paddle_sam.networks.psp_encoder import GradualStyleEncoder, MapToStyle
from paddle_sam.networks.residual_body import ResidualUnit, SqueezeExcite


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
