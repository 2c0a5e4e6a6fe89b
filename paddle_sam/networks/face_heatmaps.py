"""The face alignment network of StarGAN v2: heat maps of 98 landmarks, and masks made of them.

A stacked hourglass with coordinate channels (Wang et al. 2019, "Adaptive Wing Loss", arXiv
1904.07399), of whose four published stages the first is used. Landmarks are in WFLW order.
Parameter names are those of the published `wing.ckpt`.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.errors import check_shape
from paddle_sam.networks.load import freeze

LANDMARKS = 98
_INPUT_SIZE = 256  # the coordinate channels are made for it
_HEATMAP_SIZE = 64
_HOURGLASS_DEPTH = 4

# What the two masks are made of: landmarks, how many pixels (of 256) their heat moves up, to which
# power it is raised, and whether the second mask has it too. Landmarks not named are left out:
# the ends of the chin line, of the eyebrows and of the lips.
_MASK_PARTS = (
    ([range(8, 25)], 0, 3, False),  # chin
    ([range(34, 46), range(47, 51)], -7, 2, False),  # eyebrows
    ([range(51, 52)], 0, 1, True),  # top of the nose
    ([range(52, 55)], 4, 1, True),  # bridge of the nose
    ([range(55, 60)], 8, 4, True),  # nostrils
    ([range(60, 76)], -8, 3, True),  # eyes
    ([range(60, 76)], -24, 1, True),  # below the eyes
    ([range(77, 82)], -8, 4, False),  # upper lip
    ([range(83, 88)], 8, 4, False),  # lower lip
    ([range(88, 96)], -2, 3, False),  # between the lips
    ([range(96, 98)], 0, 1, True),  # pupils
)


class ConvBlock(nn.Layer):
    """Three 3x3 convolutions before activation, their outputs joined, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        half, quarter = out_channels // 2, out_channels // 4
        self.bn1 = nn.BatchNorm2D(in_channels)
        self.conv1 = nn.Conv2D(in_channels, half, 3, padding=1, bias_attr=False)
        self.bn2 = nn.BatchNorm2D(half)
        self.conv2 = nn.Conv2D(half, quarter, 3, padding=1, bias_attr=False)
        self.bn3 = nn.BatchNorm2D(quarter)
        self.conv3 = nn.Conv2D(quarter, quarter, 3, padding=1, bias_attr=False)
        self.downsample = nn.Identity()
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.BatchNorm2D(in_channels),
                nn.ReLU(),
                nn.Conv2D(in_channels, out_channels, 1, bias_attr=False),
            )

    def forward(self, x):
        first = self.conv1(F.relu(self.bn1(x)))
        second = self.conv2(F.relu(self.bn2(first)))
        third = self.conv3(F.relu(self.bn3(second)))
        return paddle.concat([first, second, third], axis=1) + self.downsample(x)


class CoordConv(nn.Layer):
    """Convolution that also sees where it is: row and column in [-1, 1] and the radius in [0, 1].

    Args:
        size: height and width of the input.
        in_channels, out_channels: without the three coordinates.
        kernel_size, stride, padding: of the convolution.
    """

    def __init__(self, size, in_channels, out_channels, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2D(in_channels + 3, out_channels, kernel_size, stride, padding)
        line = np.linspace(-1, 1, size, dtype=np.float32)
        row, column = np.meshgrid(line, line, indexing="ij")
        radius = np.hypot(row, column)
        coordinates = np.stack([row, column, radius / radius.max()])[None]
        self.register_buffer("coordinates", paddle.to_tensor(coordinates), persistable=False)

    def forward(self, x):
        coordinates = self.coordinates.expand([x.shape[0], -1, -1, -1])
        return self.conv(paddle.concat([x, coordinates], axis=1))


class Hourglass(nn.Layer):
    """Features halved `depth` times and brought back, with a block across at each size."""

    def __init__(self, channels: int, depth: int = _HOURGLASS_DEPTH):
        super().__init__()
        self.depth = depth
        self.coordconv = CoordConv(_HEATMAP_SIZE, channels, channels, 1)
        for level in range(depth, 0, -1):
            names = (f"b1_{level}", f"b2_{level}", f"b3_{level}")
            for name in names if level > 1 else (*names, "b2_plus_1"):
                setattr(self, name, ConvBlock(channels, channels))

    def forward(self, x):
        return self._level(self.depth, self.coordconv(x))

    def _level(self, level, x):
        across = getattr(self, f"b1_{level}")(x)
        low = getattr(self, f"b2_{level}")(F.avg_pool2d(x, 2))
        low = self._level(level - 1, low) if level > 1 else self.b2_plus_1(low)
        low = getattr(self, f"b3_{level}")(low)
        return across + F.interpolate(low, scale_factor=2, mode="nearest")


class FaceHeatmaps(nn.Layer):
    """Face image to heat maps of its 98 landmarks; frozen.

    Args:
        channels: of the hourglass, 256 in the published network.
    """

    title = "StarGAN v2's face alignment network"
    usual = "wing"

    def __init__(self, channels: int = 256):
        super().__init__()
        self.conv1 = CoordConv(_INPUT_SIZE, 3, channels // 4, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2D(channels // 4)
        self.conv2 = ConvBlock(channels // 4, channels // 2)
        self.conv3 = ConvBlock(channels // 2, channels // 2)
        self.conv4 = ConvBlock(channels // 2, channels)
        self.m0 = Hourglass(channels)
        self.top_m_0 = ConvBlock(channels, channels)
        self.conv_last0 = nn.Conv2D(channels, channels, 1)
        self.bn_end0 = nn.BatchNorm2D(channels)
        self.l0 = nn.Conv2D(channels, LANDMARKS + 1, 1)  # the last is the face's outline
        freeze(self)
        self.eval()

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """images [N, 3, H, W] in [-1, 1], any size -> heat maps [N, 98, 64, 64].

        Heat maps are about in [0, 1], one at a landmark.
        """
        check_shape("images", images, (None, 3, None, None))
        with paddle.no_grad():
            x = F.interpolate(images, size=[_INPUT_SIZE] * 2, mode="bilinear") * 0.5 + 0.5
            x = F.relu(self.bn1(self.conv1(x)))
            x = F.avg_pool2d(self.conv2(x), 2)
            x = self.conv4(self.conv3(x))
            x = self.top_m_0(self.m0(x))
            x = F.relu(self.bn_end0(self.conv_last0(x)))
            return self.l0(x)[:, :LANDMARKS]

    def landmarks(self, images: paddle.Tensor) -> np.ndarray:
        """images [N, 3, H, W] in [-1, 1] -> float64 [N, 98, 2], x and y.

        Coordinates are continuous: the first pixel covers 0..1, so its centre is at 0.5.
        """
        height, width = images.shape[2:]
        scale = np.array([width, height]) / _HEATMAP_SIZE
        return landmarks_from_heatmaps(self(images).numpy()) * scale

    def masks(self, images: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """images [N, 3, H, W] in [-1, 1] -> two masks [N, 1, 256, 256] for `stargan2.Generator`."""
        size = [_INPUT_SIZE] * 2
        heatmaps = F.interpolate(self(images), size=size, mode="bilinear", align_corners=True)
        return masks_from_heatmaps(heatmaps)


class MeanFace(nn.Layer):
    """Where the 98 landmarks of the average aligned CelebA-HQ face are: x and y at 256 pixels."""

    title = "StarGAN v2's mean face"
    usual = "celeba_lm_mean"

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", paddle.zeros([LANDMARKS, 2]))


def landmarks_from_heatmaps(heatmaps: np.ndarray) -> np.ndarray:
    """Heat maps [N, L, h, w] -> float64 [N, L, 2], x and y in continuous coordinates.

    The centre of the hottest pixel, moved by a quarter towards the warmer neighbour in x and in y
    (not on the border).
    """
    check_shape("heatmaps", heatmaps, (None, None, None, None))
    n, landmarks, height, width = heatmaps.shape
    y, x = np.divmod(heatmaps.reshape(n, landmarks, -1).argmax(axis=2), width)
    inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    # On the border any neighbour inside will do, as it does not count.
    xi, yi = x.clip(1, width - 2), y.clip(1, height - 2)
    image, landmark = np.ogrid[:n, :landmarks]
    towards_x = heatmaps[image, landmark, yi, xi + 1] - heatmaps[image, landmark, yi, xi - 1]
    towards_y = heatmaps[image, landmark, yi + 1, xi] - heatmaps[image, landmark, yi - 1, xi]
    towards = np.sign(np.stack([towards_x, towards_y], axis=2).astype(np.float64))
    return np.stack([x, y], axis=2) + 0.5 + 0.25 * towards * inside[..., None]


def masks_from_heatmaps(heatmaps: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Heat maps [N, 98, 256, 256] -> two masks [N, 1, 256, 256] in [0, 1].

    The first covers chin, eyebrows, nose, eyes and mouth; the second nose and eyes alone.
    """
    check_shape("heatmaps", heatmaps, (None, LANDMARKS, _INPUT_SIZE, _INPUT_SIZE))
    x = paddle.where(heatmaps < 0.1, paddle.zeros_like(heatmaps), heatmaps)
    low, high = x.amin(axis=[2, 3], keepdim=True), x.amax(axis=[2, 3], keepdim=True)
    x = (x - low) / (high - low + 1e-6)
    whole = centre = 0.0
    for landmarks, up, power, in_centre in _MASK_PARTS:
        part = paddle.concat([x[:, these.start : these.stop] for these in landmarks], axis=1)
        heat = (paddle.roll(part, -up, axis=2) ** power).sum(axis=1, keepdim=True)
        whole = whole + heat
        centre = centre + heat if in_centre else centre
    return whole.clip(0, 1), centre.clip(0, 1)
