"""Networks that look at a face: recognition (whose face), apparent age, and encoders' bodies.

Recognition and the encoder of pSp share a body of improved-residual (IR) units: batch norm,
convolution, PReLU, convolution, batch norm (Deng et al., "ArcFace", 2019), with
squeeze-and-excitation (Hu et al. 2018) in the IR-SE variant. ReStyle has the body of ResNet34 (He
et al. 2015) for other things than faces.

- Recognition has two sets of weights: IR-SE50 (ArcFace) supervises training, so it must carry
  gradients to its input; CurricularFace IR-101 (Huang et al. 2020) judges results independently.
- DEX is a VGG-16 that reads the apparent age as an expectation over 101 classes (Rothe et al.,
  "Deep expectation of real and apparent age from a single image", 2018):
  age = sum_{j=0..100} j * softmax(logits)_j.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.core.device import constant_beside
from paddle_sam.errors import ConfigError, check_shape

PUBLISHED_WIDTHS = (64, 128, 256, 512)
PUBLISHED_UNITS = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 152: (3, 8, 36, 3)}
RESNET34_UNITS = (3, 4, 6, 3)
# The part of a 256 px FFHQ crop that shows the face without its surroundings.
FACE_ROWS = (35, 223)
FACE_COLUMNS = (32, 220)
FACE_IMAGE_SIZE = 256
CONVS_PER_STAGE = (2, 2, 3, 3, 3)
AGE_CLASSES = 101


def input_layer(in_channels: int, width: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm and PReLU; with the defaults they keep the image size."""
    return nn.Sequential(
        nn.Conv2D(in_channels, width, kernel, stride, padding=kernel // 2, bias_attr=False),
        nn.BatchNorm2D(width),
        nn.PReLU(width),
    )


def residual_body(
    stem: int,
    widths: Sequence[int] = PUBLISHED_WIDTHS,
    units: Sequence[int] = PUBLISHED_UNITS[50],
    squeeze_excite: bool = True,
) -> nn.Sequential:
    """Stages of residual units; the first unit of each stage halves the resolution.

    Args:
        stem: channels that come in.
        widths: channels of each stage.
        units: residual units in each stage.
        squeeze_excite: IR-SE instead of IR.
    """
    layers, channels = [], stem
    for width, count in zip(widths, units, strict=True):
        for unit in range(count):
            stride = 2 if unit == 0 else 1
            layers.append(ResidualUnit(channels, width, stride, squeeze_excite))
            channels = width
    return nn.Sequential(*layers)


class ResidualUnit(nn.Layer):
    """One unit: the residual branch plus a shortcut, sampled where the channels stay."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, squeeze_excite: bool):
        super().__init__()
        if in_channels == out_channels:
            self.shortcut_layer = nn.MaxPool2D(1, stride) if stride > 1 else nn.Identity()
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2D(in_channels, out_channels, 1, stride, bias_attr=False),
                nn.BatchNorm2D(out_channels),
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2D(in_channels),
            nn.Conv2D(in_channels, out_channels, 3, 1, padding=1, bias_attr=False),
            nn.PReLU(out_channels),
            nn.Conv2D(out_channels, out_channels, 3, stride, padding=1, bias_attr=False),
            nn.BatchNorm2D(out_channels),
            *([SqueezeExcite(out_channels)] if squeeze_excite else []),
        )

    def forward(self, x):
        return self.res_layer(x) + self.shortcut_layer(x)


class SqueezeExcite(nn.Layer):
    """Scale each channel by a gate computed from the channel means."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        if channels < reduction:
            raise ConfigError(
                f"widths: squeeze-and-excitation needs at least {reduction} channels, found"
                f" {channels}"
            )
        self.fc1 = nn.Conv2D(channels, channels // reduction, 1, bias_attr=False)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2D(channels // reduction, channels, 1, bias_attr=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        # Paddle sums float32 in one running total, which over a whole map costs two digits that
        # the deep encoders amplify; row means first keep them.
        means = x.mean(axis=3, keepdim=True).mean(axis=2, keepdim=True)
        gate = self.fc1(means)
        return x * self.sigmoid(self.fc2(self.relu(gate)))


def resnet_layers(
    in_channels: int, stem: int, widths: Sequence[int], units: Sequence[int]
) -> tuple[nn.Sequential, nn.Sequential]:
    """The first layer of a ResNet, which halves the size and has PReLU, and its stages."""
    layers, channels = [], stem
    for stage, (width, count) in enumerate(zip(widths, units, strict=True)):
        for unit in range(count):
            layers.append(BasicUnit(channels, width, 2 if stage and unit == 0 else 1))
            channels = width
    return input_layer(in_channels, stem, kernel=7, stride=2), nn.Sequential(*layers)


class BasicUnit(nn.Layer):
    """A unit of ResNet34: two convolutions with batch norm; ReLU after the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2D(in_channels, out_channels, 3, stride, padding=1, bias_attr=False)
        self.bn1 = nn.BatchNorm2D(out_channels)
        self.conv2 = nn.Conv2D(out_channels, out_channels, 3, padding=1, bias_attr=False)
        self.bn2 = nn.BatchNorm2D(out_channels)
        self.downsample = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2D(in_channels, out_channels, 1, stride, bias_attr=False),
                nn.BatchNorm2D(out_channels),
            )

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class FaceEmbedder(nn.Layer):
    """Face crop to an identity embedding of unit length.

    Args:
        input_size: height and width of the crop, 112 in the published networks.
        units: residual units of the four stages.
        squeeze_excite: IR-SE body (IR-SE50) instead of IR (CurricularFace).
        head_affine: whether the last batch norm has a scale and an offset.
        dropout: drop probability before the linear layer; inactive in eval mode.
        embedding_dim: length of the embedding.
    """

    title = "a face recognition network"
    usual = "ir_se50"

    def __init__(
        self,
        input_size: int = 112,
        units: Sequence[int] = PUBLISHED_UNITS[50],
        squeeze_excite: bool = True,
        head_affine: bool = True,
        dropout: float = 0.6,
        embedding_dim: int = 512,
    ):
        super().__init__()
        if input_size < 16 or input_size % 16:
            raise ConfigError(f"input_size: expected a multiple of 16, found {input_size}")
        self.input_size = input_size
        width = PUBLISHED_WIDTHS[0]
        channels = PUBLISHED_WIDTHS[-1]
        self.input_layer = input_layer(3, width)
        self.body = residual_body(width, PUBLISHED_WIDTHS, units, squeeze_excite)
        affine = None if head_affine else False
        self.output_layer = nn.Sequential(
            nn.BatchNorm2D(channels),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(channels * (input_size // 16) ** 2, embedding_dim),
            nn.BatchNorm1D(embedding_dim, weight_attr=affine, bias_attr=affine),
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x [N, 3, input_size, input_size] RGB in [-1, 1] -> embeddings [N, E], unit L2 norm.

        The cosine similarity of two faces is the dot product of their embeddings.
        """
        check_shape("x", x, (None, 3, self.input_size, self.input_size))
        x = self.output_layer(self.body(self.input_layer(x)))
        x = x.astype(self.output_layer[3].weight.dtype)  # also under mixed precision
        return x / paddle.sqrt((x * x).sum(axis=1, keepdim=True))


def face_region(images: paddle.Tensor) -> paddle.Tensor:
    """Cut images [N, C, S, S] to the face: rows 35:223, columns 32:220 at S = 256, scaled else."""
    size = images.shape[-1]
    top, bottom, left, right = (
        round(edge * size / FACE_IMAGE_SIZE) for edge in (*FACE_ROWS, *FACE_COLUMNS)
    )
    return images[:, :, top:bottom, left:right]


def cosine(left: paddle.Tensor, right: paddle.Tensor) -> paddle.Tensor:
    """Inner products [N] of unit embeddings [N, E]: their cosine similarity."""
    return (left * right).sum(axis=1)


class AgeRegressor(nn.Layer):
    """DEX VGG. `forward` returns logits, `age` returns years; both carry gradients to the image.

    Args:
        input_size: height and width of the network's input, a multiple of 32; `age` resizes to it.
        widths: channels of the five stages.
        fc: width of the two hidden linear layers.
    """

    title = "an age regressor"
    usual = "dex"

    def __init__(
        self,
        input_size: int = 224,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        fc: int = 4096,
    ):
        super().__init__()
        if input_size % 32:
            raise ConfigError(f"input_size: expected a multiple of 32, found {input_size}")
        self.input_size = input_size
        self.conv_names = []
        channels = 3
        for stage, (width, count) in enumerate(zip(widths, CONVS_PER_STAGE, strict=True), start=1):
            for index in range(1, count + 1):
                self.conv_names.append(f"conv{stage}_{index}")
                setattr(self, self.conv_names[-1], nn.Conv2D(channels, width, 3, padding=1))
                channels = width
        self.fc6 = nn.Linear(channels * (input_size // 32) ** 2, fc)
        self.fc7 = nn.Linear(fc, fc)
        self.fc8_101 = nn.Linear(fc, AGE_CLASSES)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x [N, 3, input_size, input_size] RGB in [-1, 1] -> logits [N, 101] of ages 0..100."""
        stage = "1"
        for name in self.conv_names:
            if name[4] != stage:
                x, stage = F.max_pool2d(x, 2), name[4]
            x = F.relu(getattr(self, name)(x))
        x = F.max_pool2d(x, 2).flatten(1)
        x = self.dropout(F.relu(self.fc6(x)))
        x = self.dropout(F.relu(self.fc7(x)))
        return self.fc8_101(x).astype(self.fc8_101.weight.dtype)  # also under mixed precision

    def age(self, images: paddle.Tensor) -> paddle.Tensor:
        """images [N, 3, H, W] RGB in [-1, 1], any size -> apparent age [N] in years (0 to 100).

        Resizing is bilinear without antialiasing, as the published ageing loss does it.
        """
        size = [self.input_size, self.input_size]
        if list(images.shape[2:]) != size:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return expected_age(self(images))


def expected_age(logits: paddle.Tensor) -> paddle.Tensor:
    """Logits [N, 101] -> expectation of the age [N] in years.

    >>> round(expected_age(paddle.zeros([1, 101])).item(), 3)
    50.0
    """
    years = constant_beside(logits, np.arange, AGE_CLASSES)
    return (F.softmax(logits, axis=1) * years).sum(axis=1)
