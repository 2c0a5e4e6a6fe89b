"""Networks by whose features images are compared: Inception-v3 for FID, LPIPS, ResNet-50.

Inception-v3 is the TensorFlow graph of 2015-12-05 in its published PyTorch conversion
(`pt_inception-2015-12-05-6726825d.pth`), whose names the layers have. torchvision's network has
the same layers and other weights; its averages count padding, and its last block takes an average
where the graph takes the maximum.

LPIPS is the learned perceptual distance (Zhang et al. 2018, arXiv 1801.03924):

    d(x, y) = sum_l mean_hw  w_l . (f_l(x) - f_l(y))^2

f_l are the activations of layer l of a classification network, divided at each pixel by their
norm over channels, and w_l the learned non-negative channel weights, version 0.1 (eq. 1).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.core.files import read_arrays
from paddle_sam.core.weights import WeightFile, command_for, load_strict, locate
from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.load import freeze
from paddle_sam.networks.stylegan2_ops import exact

INPUT_SIZE = 299
FEATURES = 2048
# The statistics of ImageNet, for images in [-1, 1].
IMAGE_MEAN = (-0.030, -0.088, -0.188)
IMAGE_STD = (0.458, 0.448, 0.450)

# A layer is a convolution (output channels, kernel, stride, padding) with its ReLU, or a pooling.
# The activations compared are those before each pooling and the last, for VGG; all for AlexNet.
_POOL_ALEX = (3, 2)
_POOL_VGG = (2, 2)
_LAYERS = {
    "alex": (
        *((64, 11, 4, 2), _POOL_ALEX, (192, 5, 1, 2), _POOL_ALEX),
        *((384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)),
    ),
    "vgg": (
        *((64, 3, 1, 1),) * 2,
        *(_POOL_VGG, *((128, 3, 1, 1),) * 2),
        *(_POOL_VGG, *((256, 3, 1, 1),) * 3),
        *(_POOL_VGG, *((512, 3, 1, 1),) * 3),
        *(_POOL_VGG, *((512, 3, 1, 1),) * 3),
    ),
}
# Positions, in the published numbering, of the activations that are compared.
_TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
_TAP_CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}


class ConvNormReLU(nn.Layer):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels, out_channels, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2D(in_channels, out_channels, kernel, stride, padding, bias_attr=False)
        self.bn = nn.BatchNorm2D(out_channels, epsilon=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def same(in_channels, out_channels, kernel):
    """Return a `ConvNormReLU` that keeps height and width."""
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return ConvNormReLU(in_channels, out_channels, kernel, padding=[side // 2 for side in sides])


mean_pool = functools.partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, exclusive=True)
padded_mean_pool = functools.partial(mean_pool, exclusive=False)
max_pool = functools.partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
halve = functools.partial(F.max_pool2d, kernel_size=3, stride=2)


class BlockA(nn.Layer):
    """1x1, 5x5, two 3x3 and `pool`, at 35x35 pixels; returns 224 + `pooled` channels."""

    def __init__(self, channels, pooled, pool):
        super().__init__()
        self.branch1x1 = same(channels, 64, 1)
        self.branch5x5_1 = same(channels, 48, 1)
        self.branch5x5_2 = same(48, 64, 5)
        self.branch3x3dbl_1 = same(channels, 64, 1)
        self.branch3x3dbl_2 = same(64, 96, 3)
        self.branch3x3dbl_3 = same(96, 96, 3)
        self.branch_pool = same(channels, pooled, 1)
        self.pool = pool

    def forward(self, x):
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pool = self.branch_pool(self.pool(x))
        return paddle.concat([self.branch1x1(x), five, double, pool], axis=1)


class BlockB(nn.Layer):
    """35x35 to 17x17 pixels; returns 480 + `channels` channels."""

    def __init__(self, channels):
        super().__init__()
        self.branch3x3 = ConvNormReLU(channels, 384, 3, 2)
        self.branch3x3dbl_1 = same(channels, 64, 1)
        self.branch3x3dbl_2 = same(64, 96, 3)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3, 2)

    def forward(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return paddle.concat([self.branch3x3(x), double, halve(x)], axis=1)


class BlockC(nn.Layer):
    """1x1, 7x7 and two 7x7 as rows and columns, and `pool`, at 17x17 pixels; 768 channels."""

    def __init__(self, width, pool):
        super().__init__()
        self.branch1x1 = same(768, 192, 1)
        self.branch7x7_1 = same(768, width, 1)
        self.branch7x7_2 = same(width, width, (1, 7))
        self.branch7x7_3 = same(width, 192, (7, 1))
        self.branch7x7dbl_1 = same(768, width, 1)
        self.branch7x7dbl_2 = same(width, width, (7, 1))
        self.branch7x7dbl_3 = same(width, width, (1, 7))
        self.branch7x7dbl_4 = same(width, width, (7, 1))
        self.branch7x7dbl_5 = same(width, 192, (1, 7))
        self.branch_pool = same(768, 192, 1)
        self.pool = pool

    def forward(self, x):
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pool = self.branch_pool(self.pool(x))
        return paddle.concat([self.branch1x1(x), seven, double, pool], axis=1)


class BlockD(nn.Layer):
    """17x17 to 8x8 pixels, 768 to 1280 channels."""

    def __init__(self):
        super().__init__()
        self.branch3x3_1 = same(768, 192, 1)
        self.branch3x3_2 = ConvNormReLU(192, 320, 3, 2)
        self.branch7x7x3_1 = same(768, 192, 1)
        self.branch7x7x3_2 = same(192, 192, (1, 7))
        self.branch7x7x3_3 = same(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvNormReLU(192, 192, 3, 2)

    def forward(self, x):
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return paddle.concat([three, self.branch7x7x3_4(seven), halve(x)], axis=1)


class BlockE(nn.Layer):
    """1x1, 3x3 and two 3x3 split into row and column, and `pool`, at 8x8 pixels; 2048 channels."""

    def __init__(self, channels, pool):
        super().__init__()
        self.branch1x1 = same(channels, 320, 1)
        self.branch3x3_1 = same(channels, 384, 1)
        self.branch3x3_2a = same(384, 384, (1, 3))
        self.branch3x3_2b = same(384, 384, (3, 1))
        self.branch3x3dbl_1 = same(channels, 448, 1)
        self.branch3x3dbl_2 = same(448, 384, 3)
        self.branch3x3dbl_3a = same(384, 384, (1, 3))
        self.branch3x3dbl_3b = same(384, 384, (3, 1))
        self.branch_pool = same(channels, 192, 1)
        self.pool = pool

    def forward(self, x):
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            *(self.branch3x3_2a(three), self.branch3x3_2b(three)),
            *(self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)),
            self.branch_pool(self.pool(x)),
        ]
        return paddle.concat(branches, axis=1)


class InceptionV3(nn.Layer):
    """Images to the 2048 features that FID compares; frozen, in eval mode.

    Args:
        torchvision: pool as torchvision's network does, whose input is normalised by ImageNet's
            statistics; otherwise as the TensorFlow graph, whose input is in [-1, 1].
    """

    title = "Inception-v3"
    usual = "inception"

    def __init__(self, torchvision: bool = False):
        super().__init__()
        self.torchvision = torchvision
        mean = padded_mean_pool if torchvision else mean_pool
        self.Conv2d_1a_3x3 = ConvNormReLU(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = ConvNormReLU(32, 32, 3)
        self.Conv2d_2b_3x3 = same(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvNormReLU(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNormReLU(80, 192, 3)
        self.Mixed_5b = BlockA(192, 32, mean)
        self.Mixed_5c = BlockA(256, 64, mean)
        self.Mixed_5d = BlockA(288, 64, mean)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(128, mean)
        self.Mixed_6c = BlockC(160, mean)
        self.Mixed_6d = BlockC(160, mean)
        self.Mixed_6e = BlockC(192, mean)
        self.Mixed_7a = BlockD()
        self.Mixed_7b = BlockE(1280, mean)
        self.Mixed_7c = BlockE(2048, mean if torchvision else max_pool)
        freeze(self)
        self.eval()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x [N, 3, 299, 299] RGB -> features [N, 2048]."""
        check_shape("x", x, (None, 3, INPUT_SIZE, INPUT_SIZE))
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halve(x))))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_7a(self.Mixed_6e(self.Mixed_6d(x)))
        return self.Mixed_7c(self.Mixed_7b(x)).mean(axis=[2, 3])


class LpipsFeatures(nn.Layer):
    """The convolutions of AlexNet or VGG16, whose activations LPIPS compares.

    Args:
        backbone: `alex` (AlexNet, what SAM trains with) or `vgg` (VGG16).

    Parameters have the published names, `features.N.weight|bias`, and are frozen.
    """

    def __init__(self, backbone: str = "alex"):
        super().__init__()
        if backbone not in _LAYERS:
            raise ConfigError(f"LPIPS: expected backbone alex or vgg, found {backbone!r}")
        self.backbone = backbone
        self.features = _feature_layers(_LAYERS[backbone])
        self.register_buffer("mean", _per_channel(IMAGE_MEAN), persistable=False)
        self.register_buffer("std", _per_channel(IMAGE_STD), persistable=False)
        freeze(self)

    def extract(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        """Images [N, 3, H, W], RGB in [-1, 1] -> five activations [N, C, h, w] of unit norm.

        The activations of an image that is compared more than once need computing only once.
        """
        check_shape("images", images, (None, 3, None, None))
        x = (images - self.mean) / self.std
        taps = _TAPS[self.backbone]
        found = []
        for position, layer in enumerate(self.features):
            x = layer(x)
            if position in taps:
                found.append(unit_norm(x.astype(self.mean.dtype)))
        return found


class LpipsWeights(nn.Layer):
    """The learned channel weights of LPIPS, published as `lin{k}.model.1.weight`; frozen."""

    def __init__(self, backbone: str = "alex"):
        super().__init__()
        for index, channels in enumerate(_TAP_CHANNELS[backbone]):
            # Place 0 is a dropout in the published layout; it has no part in a frozen loss.
            model = nn.Sequential(nn.Identity(), nn.Conv2D(channels, 1, 1, bias_attr=False))
            setattr(self, f"lin{index}", nn.LayerDict({"model": model}))
        freeze(self)


class LPIPS(LpipsFeatures):
    """LPIPS with frozen weights; carries gradients to both images. For `backbone` see above."""

    def __init__(self, backbone: str = "alex"):
        super().__init__(backbone)
        for name, weights in LpipsWeights(backbone).named_children():
            setattr(self, name, weights)

    def distance(
        self, left: Sequence[paddle.Tensor], right: Sequence[paddle.Tensor]
    ) -> paddle.Tensor:
        """Distance [N] between what `extract` gave for two batches."""
        total = 0.0
        with exact():
            for index, (a, b) in enumerate(zip(left, right, strict=True)):
                weights = getattr(self, f"lin{index}")["model"]
                total = total + weights((a - b).square()).mean(axis=[1, 2, 3])
        return total

    def forward(self, x: paddle.Tensor, y: paddle.Tensor) -> paddle.Tensor:
        """Distance [N] between images x and y, both [N, 3, H, W], RGB in [-1, 1]."""
        return self.distance(self.extract(x), self.extract(y))


class SelfSupervisedFeatures(nn.Layer):
    """ResNet-50 without its last layer, such as MoCo v2 or DINO trains: what an image shows.

    Where there is no network of identities, pSp and e4e compare these features (Tov et al. 2021,
    section 5.3), of images resized to 224 px by the nearest pixel, as published.
    """

    title = "self-supervised features"

    def __init__(self):
        super().__init__()
        from paddle.vision.models.resnet import BottleneckBlock, ResNet

        self.body = ResNet(BottleneckBlock, 50, num_classes=0)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """images [N, 3, H, W] in [-1, 1] -> features [N, 2048] of length 1."""
        images = F.interpolate(images, [224, 224], mode="nearest")
        return F.normalize(self.body(images).flatten(1))


def unit_norm(x: paddle.Tensor, eps: float = 1e-10) -> paddle.Tensor:
    """x [N, C, H, W] divided at each pixel by its norm over channels plus `eps`.

    Where all channels are zero the result is zero, and so is the gradient: there the root is
    taken of 1 instead, since d sqrt(s)/ds at 0 is infinite and would turn the gradient into NaN.
    """
    square = x.square().sum(axis=1, keepdim=True)
    return x / (paddle.where(square > 0, square, paddle.ones_like(square)).sqrt() + eps)


def _feature_layers(layers: Sequence[tuple[int, ...]]) -> nn.Sequential:
    channels, built = 3, []
    for layer in layers:
        if len(layer) == 2:
            built.append(nn.MaxPool2D(*layer))
        else:
            width, kernel, stride, padding = layer
            built += [nn.Conv2D(channels, width, kernel, stride, padding), nn.ReLU()]
            channels = width
    return nn.Sequential(*built)


def _per_channel(values: Sequence[float]) -> paddle.Tensor:
    return paddle.to_tensor(values, "float32").reshape([1, 3, 1, 1])


def load_lpips(path: str | os.PathLike, lin: str | os.PathLike | None = None) -> LPIPS:
    """Build the LPIPS whose weights `path` holds, AlexNet or VGG16, in eval mode.

    Args:
        path: an `.npz` of arrays under the published names (`scripts/download_weights.py` makes
            it), or a converted `.pdparams` file of the features.
        lin: the converted `.pdparams` file of the channel weights, where `path` has none.

    Raises:
        CheckpointError: a file is missing, damaged, or holds something else.
    """
    state = {}
    for part in filter(None, (path, lin)):
        state |= _read(locate(part))
    network = LPIPS("vgg" if "features.28.weight" in state else "alex")
    load_strict(network, state, str(path), consume=True)
    network.eval()
    return network


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        name = path.stem if path.stem in ("lpips_alex", "lpips_vgg") else "lpips_alex"
        arrays = read_arrays(path, f"get it with: {command_for(name)}")
        return {key: array for key, array in arrays.items() if key not in ("mean", "std")}
    entries = WeightFile.read(path).networks.values()
    return {name: array for entry in entries for name, array in entry.state.items()}
