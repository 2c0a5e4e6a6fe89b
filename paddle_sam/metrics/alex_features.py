"""AlexNet's features of images, for where Inception's weights cannot be had.

Distances in them are comparable with each other only, not with published FID or KID.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.core.files import sha256
from paddle_sam.core.images import resize, to_network
from paddle_sam.core.weights import locate
from paddle_sam.metrics.feature_store import FeatureStore
from paddle_sam.networks.lpips import LPIPS
from paddle_sam.networks.lpips_weights import load_lpips

_SMALLEST = 64  # AlexNet's poolings leave nothing of images much smaller
_SIZE = 224  # of the images that AlexNet was trained on


class AlexFeatures:
    """The activations that LPIPS compares, averaged over the image: what is in it, not where.

    Args:
        network: LPIPS with AlexNet.
    """

    def __init__(self, network: LPIPS):
        self.network = network

    @paddle.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Features [N, 1152] of uint8 RGB images [H, W, 3] of one size, about 1 in the square."""
        if min(images[0].shape[:2]) < _SMALLEST:
            images = [resize(image, _SMALLEST) for image in images]
        taps = self.network.extract(paddle.to_tensor(to_network(images)))
        # Activations have norm 1 at each pixel; the factor makes layers of all widths alike.
        means = [tap.mean(axis=3).mean(axis=2) * math.sqrt(tap.shape[1]) for tap in taps]
        return paddle.concat(means, axis=1).numpy()


def open_alex_store(
    lpips_path: str | os.PathLike, folder: str | os.PathLike, batch_size: int = 32
) -> FeatureStore:
    """AlexNet's features of images of any sizes, brought to 224 pixels, that are kept in `folder`.

    Args:
        lpips_path: LPIPS weights that hold AlexNet.
        folder: where to keep features.
        batch_size: images per pass; changes speed and memory only.

    Raises:
        CheckpointError: the weights are missing, damaged, or no LPIPS.
    """
    features = AlexFeatures(load_lpips(lpips_path))

    def extract(images: Sequence[np.ndarray]) -> np.ndarray:
        starts = range(0, len(images), batch_size)
        batches = (images[start : start + batch_size] for start in starts)
        return np.concatenate([features([resize(i, _SIZE) for i in batch]) for batch in batches])

    settings = {"features": "AlexNet", "size": _SIZE, "weights": sha256(locate(lpips_path))}
    return FeatureStore(Path(folder), extract, settings)
