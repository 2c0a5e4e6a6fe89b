"""Images to the features that FID, KID, precision and recall are computed from.

How images are brought to Inception's 299 pixels changes FID by several points (Parmar et al. 2022,
"On Aliased Resizing", arXiv 2104.11222), so it is one of two named ways, the same for all images.
AlexNet's features stand in where Inception's weights cannot be had; distances in them are
comparable with each other only, not with published FID or KID.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from PIL import Image

from paddle_sam.core.files import sha256
from paddle_sam.core.images import check_image, resize, to_network
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import locate
from paddle_sam.errors import ConfigError
from paddle_sam.metrics.feature_store import FeatureStore
from paddle_sam.metrics.options import CLEAN, RESIZINGS
from paddle_sam.networks.image_features import FEATURES, INPUT_SIZE, LPIPS, InceptionV3, load_lpips
from paddle_sam.networks.load import load

_ALEX_SMALLEST = 64  # AlexNet's poolings leave nothing of images much smaller
_ALEX_SIZE = 224  # of the images that AlexNet was trained on


class InceptionFeatures:
    """Computes the features of FID's Inception-v3.

    Args:
        network: the network, with its weights.
        weights_id: tells these weights from others in caches.
        resizing: `clean` (bicubic, antialiased, not rounded, as in clean-FID) or `legacy`
            (bilinear without antialiasing, as in pytorch-fid, to compare with older figures).
        batch_size: images per pass; changes speed and memory only.
    """

    def __init__(
        self,
        network: InceptionV3,
        weights_id: str,
        resizing: str = CLEAN,
        batch_size: int = 32,
    ):
        if resizing not in RESIZINGS:
            raise ConfigError(
                f"--resizing: expected one of {', '.join(RESIZINGS)}, found {resizing!r}"
            )
        if batch_size < 1:
            raise ConfigError(f"--batch_size: expected at least 1, found {batch_size}")
        self.network = network
        self.resizing = resizing
        self.batch_size = batch_size
        # Everything but the images that the features depend on.
        self.settings = {"weights": weights_id, "resizing": resizing, "features": FEATURES}

    @classmethod
    def from_file(
        cls, path: str | os.PathLike, device: str = "auto", **options
    ) -> InceptionFeatures:
        """Load the converted weights; `options` are those of the class.

        Raises:
            CheckpointError: the file is missing, damaged, or holds another network.
        """
        network = load(path, device=device, expect=InceptionV3, option="--inception_path")
        return cls(network, sha256(locate(path)), **options)

    @paddle.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 features [N, 2048] of uint8 RGB images [H, W, 3] of any sizes."""
        to_input = clean_input if self.resizing == CLEAN else legacy_input
        found = [np.zeros((0, FEATURES), np.float32)]
        for batch in batches(images, self.batch_size):
            x = np.stack([to_input(image) for image in batch])
            found.append(self.network(paddle.to_tensor(x)).numpy())
        return np.concatenate(found)


class AlexFeatures:
    """Computes the activations that LPIPS compares, averaged over the image.

    Args:
        network: LPIPS with AlexNet.
        size: height and width that images are brought to; None keeps images of one size as they
            are (at least 64 pixels).
        batch_size: images per pass; changes speed and memory only.
    """

    def __init__(self, network: LPIPS, size: int | None = None, batch_size: int = 32):
        self.network, self.size, self.batch_size = network, size, batch_size

    @paddle.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return features [N, 1152] of uint8 RGB images [H, W, 3]; their mean square is about 1."""
        size = self.size
        if size is None and min(images[0].shape[:2]) < _ALEX_SMALLEST:
            size = _ALEX_SMALLEST
        found = []
        for batch in batches(images, self.batch_size):
            batch = batch if size is None else [resize(image, size) for image in batch]
            taps = self.network.extract(paddle.to_tensor(to_network(batch)))
            # Activations have norm 1 at each pixel; the factor gives all layers equal weight.
            means = [tap.mean(axis=3).mean(axis=2) * math.sqrt(tap.shape[1]) for tap in taps]
            found.append(paddle.concat(means, axis=1).numpy())
        return np.concatenate(found)


def open_store(
    inception_path: str | os.PathLike, folder: str | os.PathLike, device: str = "auto", **options
) -> FeatureStore:
    """Return a store in `folder` of Inception features; for the rest see `from_file`."""
    features = InceptionFeatures.from_file(inception_path, device, **options)
    return FeatureStore(Path(folder), features, features.settings)


def open_alex_store(
    lpips_path: str | os.PathLike, folder: str | os.PathLike, batch_size: int = 32
) -> FeatureStore:
    """Return a store in `folder` of AlexNet's features of images brought to 224 pixels.

    Args:
        lpips_path: LPIPS weights that hold AlexNet.
        folder: where to keep features.
        batch_size: images per pass; changes speed and memory only.

    Raises:
        CheckpointError: the weights are missing, damaged, or not LPIPS.
    """
    features = AlexFeatures(load_lpips(lpips_path), _ALEX_SIZE, batch_size)
    settings = {"features": "AlexNet", "size": _ALEX_SIZE, "weights": sha256(locate(lpips_path))}
    return FeatureStore(Path(folder), features, settings)


def clean_input(image: np.ndarray) -> np.ndarray:
    """Return a uint8 RGB image [H, W, 3] as network input [3, 299, 299]: antialiased, in float.

    The range is that of the TensorFlow graph, (x - 128) / 128.
    """
    check_image("image", image)
    channels = [
        np.asarray(
            Image.fromarray(channel.astype(np.float32)).resize(
                (INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC
            )
        )
        for channel in np.moveaxis(image, -1, 0)
    ]
    return (np.stack(channels).clip(0, 255) - 128) / 128


def legacy_input(image: np.ndarray) -> np.ndarray:
    """Return a uint8 RGB image [H, W, 3] as network input [3, 299, 299]: bilinear, aliased.

    The range is that of the PyTorch port, 2 x / 255 - 1.
    """
    check_image("image", image)
    x = paddle.to_tensor(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    x = F.interpolate(x, [INPUT_SIZE, INPUT_SIZE], mode="bilinear", align_corners=False)
    return (2 * x[0] - 1).numpy()
