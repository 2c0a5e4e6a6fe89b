"""Images to the Inception features that FID, KID, precision and recall are computed from.

How images are brought to 299 pixels changes FID by several points (Parmar et al. 2022, "On
Aliased Resizing", arXiv 2104.11222), so it is one of two named ways, and the same for all images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from PIL import Image

from paddle_sam.core.files import sha256
from paddle_sam.core.images import check_image
from paddle_sam.core.weights import locate
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.metrics.feature_store import FeatureStore
from paddle_sam.metrics.options import CLEAN, RESIZINGS
from paddle_sam.networks.inception import FEATURES, INPUT_SIZE, InceptionV3
from paddle_sam.networks.load import load


class InceptionFeatures:
    """Computes features of images.

    Args:
        network: the Inception-v3 of FID, with its weights.
        weights_id: what tells these weights from others, for caches.
        resizing: `clean` (bicubic, antialiased, not rounded: what clean-FID made the standard) or
            `legacy` (bilinear without antialiasing, as pytorch-fid does it, to compare with
            figures published before).
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
        """Load the converted weights and make the extractor; `options` are those of the class.

        Raises:
            CheckpointError: the file is missing, damaged, or holds another network.
        """
        path = locate(path)
        if not path.is_file():
            raise CheckpointError(
                f"{path}: FID's Inception-v3 is missing. Get it with: python"
                " scripts/download_weights.py inception, and convert it with: python"
                " convert/convert_weights.py pretrained_models/pt_inception-2015-12-05-6726825d.pth"
                " (StarGAN v2's commands do without it with --no_fid)"
            )
        network = load(path, device=device)
        if not isinstance(network, InceptionV3):
            raise CheckpointError(
                f"{path}: expected FID's Inception-v3, found {type(network).__name__}"
            )
        return cls(network, sha256(path), **options)

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Give float32 features [N, 2048] of uint8 RGB images [H, W, 3], of any sizes."""
        batches = [self._features(batch) for batch in _batches(images, self.batch_size)]
        return np.concatenate(batches) if batches else np.zeros((0, FEATURES), np.float32)

    def _features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        to_input = clean_input if self.resizing == CLEAN else legacy_input
        with paddle.no_grad():
            return self.network(paddle.to_tensor(np.stack([to_input(i) for i in images]))).numpy()


def open_store(
    inception_path: str | os.PathLike, folder: str | os.PathLike, device: str = "auto", **options
) -> FeatureStore:
    """Inception features that are kept in `folder`; for the rest see `from_file`."""
    features = InceptionFeatures.from_file(inception_path, device, **options)
    return FeatureStore(Path(folder), features, features.settings)


def clean_input(image: np.ndarray) -> np.ndarray:
    """A uint8 RGB image [H, W, 3] as network input [3, 299, 299]: antialiased, in float.

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
    """A uint8 RGB image [H, W, 3] as network input [3, 299, 299]: bilinear, aliased.

    The range is that of the PyTorch port, 2 x / 255 - 1.
    """
    check_image("image", image)
    x = paddle.to_tensor(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    x = F.interpolate(x, [INPUT_SIZE, INPUT_SIZE], mode="bilinear", align_corners=False)
    return (2 * x[0] - 1).numpy()


def _batches(images: Sequence[np.ndarray], size: int) -> Iterator[Sequence[np.ndarray]]:
    return (images[start : start + size] for start in range(0, len(images), size))
