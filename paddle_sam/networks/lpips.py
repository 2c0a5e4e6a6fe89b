"""LPIPS, the learned perceptual distance between images (Zhang et al. 2018, arXiv 1801.03924).

    d(x, y) = sum_l mean_hw  w_l . (f_l(x) - f_l(y))^2

f_l are the activations of layer l of a classification network, divided at each pixel by their
norm over channels, and w_l the learned non-negative channel weights, version 0.1 (eq. 1).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from paddle_sam.core.files import read_arrays
from paddle_sam.core.weight_file import WeightFile, load_strict
from paddle_sam.core.weights import locate
from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.frozen import freeze
from paddle_sam.networks.stylegan2_ops import exact

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
            setattr(self, f"lin{index}", _ChannelWeights(channels))
        freeze(self)


class LPIPS(LpipsFeatures):
    """LPIPS with frozen weights; carries gradients to both images.

    Args:
        backbone: `alex` (AlexNet, what SAM trains with) or `vgg` (VGG16).

    Parameters have the published names: `features.N.weight|bias` and `lin{k}.model.1.weight`.
    """

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
                weights = getattr(self, f"lin{index}")
                total = total + weights((a - b).square()).mean(axis=[1, 2, 3])
        return total

    def forward(self, x: paddle.Tensor, y: paddle.Tensor) -> paddle.Tensor:
        """Distance [N] between images x and y, both [N, 3, H, W], RGB in [-1, 1]."""
        return self.distance(self.extract(x), self.extract(y))


def unit_norm(x: paddle.Tensor, eps: float = 1e-10) -> paddle.Tensor:
    """x [N, C, H, W] divided at each pixel by its norm over channels plus `eps`.

    Where all channels are zero the result is zero, and so is the gradient: there the root is
    taken of 1 instead, since d sqrt(s)/ds at 0 is infinite and would turn the gradient into NaN.
    """
    square = x.square().sum(axis=1, keepdim=True)
    return x / (paddle.where(square > 0, square, paddle.ones_like(square)).sqrt() + eps)


class _ChannelWeights(nn.Layer):
    """The learned 1x1 convolution to one channel; nested as its published name says."""

    def __init__(self, channels: int):
        super().__init__()
        # Place 0 is a dropout in the published layout; it has no part in a frozen loss.
        convolution = nn.Conv2D(channels, 1, 1, bias_attr=False)
        self.model = nn.Sequential(nn.Identity(), convolution)

    def forward(self, x):
        return self.model(x)


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
        arrays = read_arrays(path, f"get it with: python scripts/download_weights.py {name}")
        return {key: array for key, array in arrays.items() if key not in ("mean", "std")}
    entries = WeightFile.read(path).networks.values()
    return {name: array for entry in entries for name, array in entry.state.items()}
