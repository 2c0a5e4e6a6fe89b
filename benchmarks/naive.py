"""The reference's arithmetic as written down there, one age at a time, in Paddle or torch.

Convolution weights are modulated and demodulated per sample and run as a grouped convolution, the
up-sampling filter is a convolution of zero-inserted or transposed-convolved maps, batch norm is a
layer of its own, and the frozen pSp encoder runs again for every age. `ops` is a small table of
functions, so that one implementation serves both libraries.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from paddle_sam.networks.sam import SAM

GAIN = 2**0.5


@dataclass(frozen=True)
class Ops:
    """What the arithmetic needs of a library: its functional module and two spellings."""

    functional: ModuleType
    tensor: object  # NumPy array -> tensor
    cat: object
    stack: object
    rsqrt: object


def paddle_ops() -> Ops:
    import paddle
    import paddle.nn.functional as functional

    return Ops(functional, paddle.to_tensor, paddle.concat, paddle.stack, paddle.rsqrt)


def torch_ops() -> Ops:
    import torch
    import torch.nn.functional as functional

    return Ops(functional, torch.from_numpy, torch.cat, torch.stack, torch.rsqrt)


class NaiveSAM:
    """`network`'s weights under the reference's arithmetic; called with an image and an age.

    `training` has batch norm take the batch's statistics.
    """

    def __init__(self, network: SAM, ops: Ops, training: bool = False):
        self.ops, self.f, self.training = ops, ops.functional, training
        self.weights = {n: ops.tensor(v.numpy()) for n, v in network.state_dict().items()}
        taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32)
        self.fir = ops.tensor((taps / taps.sum() * 4)[None, None])
        self.network = network

    def __call__(self, image, age: float):
        """image [1, 3, S, S] -> image [1, 3, R, R]."""
        plane = image[:, :1] * 0 + age / 100
        codes = self.encode("encoder", self.ops.cat([image, plane], 1))
        codes = codes + self.encode("pretrained_encoder", image) + self.weights["latent_avg"]
        return self.decode(codes)

    # --- encoder ---

    def encode(self, name: str, x):
        encoder, body = getattr(self.network, name), f"{name}.body"
        x = self.f.conv2d(x, self.weights[f"{name}.input_layer.0.weight"], padding=1)
        x = self.prelu(f"{name}.input_layer.2", self.norm(f"{name}.input_layer.1", x))
        tapped = []
        for index, unit in enumerate(encoder.body):
            stride = unit.res_layer[3]._stride[0]
            x = self.unit(f"{body}.{index}", x, stride)
            if index in encoder.taps:
                tapped.append(x)
        fine, middle, coarse = tapped
        middle = self.up_add(coarse, self.conv(f"{name}.latlayer1", middle))
        fine = self.up_add(middle, self.conv(f"{name}.latlayer2", fine))
        pyramid = {1: coarse, 2: middle, 4: fine}
        codes = []
        for index in range(encoder.n_codes):
            codes.append(
                self.style(f"{name}.styles.{index}", pyramid[encoder.pyramid_scale(index)])
            )
        return self.ops.stack(codes, 1)

    def unit(self, name: str, x, stride: int):
        y = self.norm(f"{name}.res_layer.0", x)
        y = self.f.conv2d(y, self.weights[f"{name}.res_layer.1.weight"], padding=1)
        y = self.prelu(f"{name}.res_layer.2", y)
        y = self.f.conv2d(y, self.weights[f"{name}.res_layer.3.weight"], stride=stride, padding=1)
        y = self.norm(f"{name}.res_layer.4", y)
        gate = self.f.adaptive_avg_pool2d(y, 1)
        gate = self.f.relu(self.f.conv2d(gate, self.weights[f"{name}.res_layer.5.fc1.weight"]))
        gate = self.f.conv2d(gate, self.weights[f"{name}.res_layer.5.fc2.weight"])
        y = y * self.f.sigmoid(gate)
        projection = self.weights.get(f"{name}.shortcut_layer.0.weight")
        if projection is None:
            return y + (self.f.max_pool2d(x, 1, stride) if stride > 1 else x)
        shortcut = self.f.conv2d(x, projection, stride=stride)
        return y + self.norm(f"{name}.shortcut_layer.1", shortcut)

    def style(self, name: str, x):
        index = 0
        while (key := f"{name}.convs.{index}") + ".weight" in self.weights:
            x = self.f.leaky_relu(self.conv(key, x, stride=2, padding=1), 0.01)
            index += 2
        return self.linear(f"{name}.linear", x.reshape([x.shape[0], -1]))

    def up_add(self, x, lateral):
        size = list(lateral.shape[2:])
        return lateral + self.f.interpolate(x, size=size, mode="bilinear", align_corners=True)

    # --- generator ---

    def decode(self, codes):
        name, w = "decoder", [codes[:, index] for index in range(codes.shape[1])]
        x = self.styled(f"{name}.conv1", self.weights[f"{name}.input.input"], w[0], 0, up=False)
        rgb = self.rgb(f"{name}.to_rgb1", x, w[1])
        for level in range(len(self.network.decoder.to_rgbs)):
            layer = 2 * level + 1
            x = self.styled(f"{name}.convs.{layer - 1}", x, w[layer], layer, up=True)
            x = self.styled(f"{name}.convs.{layer}", x, w[layer + 1], layer + 1, up=False)
            below = rgb
            rgb = self.rgb(f"{name}.to_rgbs.{level}", x, w[layer + 2]) + self.upsample(below)
        return rgb

    def styled(self, name: str, x, w, noise: int, up: bool):
        weight = self.modulated(f"{name}.conv", w, demodulate=True)
        if up:
            x = (
                self.f.conv_transpose2d(x, weight.swapaxes(0, 1), stride=2)
                if hasattr(self.f, "conv_transpose2d")
                else self.f.conv2d_transpose(x, weight.transpose([1, 0, 2, 3]), stride=2)
            )
            x = self.filter(x, (1, 1, 1, 1))
        else:
            x = self.f.conv2d(x, weight, padding=1)
        strength = self.weights[f"{name}.noise.weight"]
        x = x + strength * self.weights[f"decoder.noises.noise_{noise}"]
        bias = self.weights[f"{name}.activate.bias"].reshape([1, -1, 1, 1])
        return self.f.leaky_relu(x + bias, 0.2) * GAIN

    def rgb(self, name: str, x, w):
        weight = self.modulated(f"{name}.conv", w, demodulate=False)
        return self.f.conv2d(x, weight) + self.weights[f"{name}.bias"]

    def modulated(self, name: str, w, demodulate: bool):
        """Weights [O, I, K, K] of the one sample: with several, groups of one convolution."""
        weight = self.weights[f"{name}.weight"]
        style = self.linear(f"{name}.modulation", w).reshape([1, -1, 1, 1])
        gain = 1 / (weight.shape[1] * weight.shape[2] ** 2) ** 0.5
        weight = weight * gain * style
        if demodulate:
            power = (weight * weight).sum([1, 2, 3])
            weight = weight * self.ops.rsqrt(power + 1e-8).reshape([-1, 1, 1, 1])
        return weight

    def upsample(self, x):
        n, c, h, w = x.shape
        inserted = x.reshape([n, c, h, 1, w, 1])
        inserted = self.ops.cat([inserted, inserted * 0], 3)
        inserted = self.ops.cat([inserted, inserted * 0], 5).reshape([n, c, 2 * h, 2 * w])
        return self.filter(inserted, (2, 1, 2, 1))

    def filter(self, x, padding):
        n, c, h, w = x.shape
        padded = self.f.pad(x.reshape([n * c, 1, h, w]), list(padding))
        x = self.f.conv2d(padded, self.fir)
        return x.reshape([n, c, *x.shape[2:]])

    # --- layers ---

    def conv(self, name: str, x, **options):
        return self.f.conv2d(
            x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **options
        )

    def linear(self, name: str, x):
        """An equalised linear layer; all that are used here have a multiplier of one."""
        weight = self.weights[f"{name}.weight"]
        return x @ (weight * (1 / weight.shape[0] ** 0.5)) + self.weights[f"{name}.bias"]

    def norm(self, name: str, x):
        names = ("_mean", "_variance", "weight", "bias")
        statistics = (self.weights[f"{name}.{leaf}"] for leaf in names)
        return self.f.batch_norm(x, *statistics, training=self.training)

    def prelu(self, name: str, x):
        return self.f.prelu(x, self.weights[f"{name}._weight"])
