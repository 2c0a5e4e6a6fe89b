"""DEX: a VGG-16 that reads a face's apparent age as an expectation over 101 classes.

Rothe et al., "Deep expectation of real and apparent age from a single image" (2018):
age = sum_{j=0..100} j * softmax(logits)_j.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.errors import ConfigError

CONVS_PER_STAGE = (2, 2, 3, 3, 3)
AGE_CLASSES = 101


class AgeRegressor(nn.Layer):
    """DEX VGG. `forward` returns logits, `age` returns years; both carry gradients to the image.

    Args:
        input_size: height and width of the network's input, a multiple of 32; `age` resizes to it.
        widths: channels of the five stages.
        fc: width of the two hidden linear layers.
    """

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
    years = paddle.arange(AGE_CLASSES, dtype=logits.dtype)
    return (F.softmax(logits, axis=1) * years).sum(axis=1)
