"""How near generated images come to real ones, measured while a generator is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import paddle

from paddle_sam.common.images import resize, to_network
from paddle_sam.losses.lpips import load_lpips
from paddle_sam.metrics.fid import fid, kid
from paddle_sam.metrics.inception_features import InceptionFeatures
from paddle_sam.models.lpips import LPIPS

_SMALLEST = 64  # AlexNet's poolings leave nothing of images much smaller
Extract = Callable[[Sequence[np.ndarray]], np.ndarray]


class AlexFeatures:
    """AlexNet's features of images, for where Inception's weights cannot be had.

    The activations that LPIPS compares, averaged over the image: what is in it, not where.
    Distances in them are comparable with each other only, not with published FID or KID.

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


class GeneratedQuality:
    """Compares what a generator makes with real images; call it as often as it is trained.

    Args:
        name: of the measure.
        extract: uint8 images of a batch -> features [N, D].
        distance: of features of real and generated images.
        reals: gives batches of real images, uint8 [N, H, W, 3]; read once, at the first call.
        images: most images of each kind.
    """

    def __init__(
        self,
        name: str,
        extract: Extract,
        distance: Callable[[np.ndarray, np.ndarray], float],
        reals: Callable[[], Iterable[np.ndarray]],
        images: int,
    ):
        self.name = name
        self._extract = extract
        self._distance = distance
        self._reals = reals
        self._images = images
        self._real_features: np.ndarray | None = None

    @classmethod
    def fid(cls, inception_path: str, device: str, reals, images: int) -> GeneratedQuality:
        """Frechet distance of Inception features."""
        return cls("fid", InceptionFeatures.from_file(inception_path, device), fid, reals, images)

    @classmethod
    def kid_alex(cls, lpips_path: str, reals, images: int) -> GeneratedQuality:
        """Kernel distance of AlexNet features, over all images at once."""

        def distance(real: np.ndarray, made: np.ndarray) -> float:
            return kid(real, made, subsets=1, subset_size=images)[0]

        return cls("kid_alex", AlexFeatures(load_lpips(lpips_path)), distance, reals, images)

    def __call__(self, fakes: Callable[[int], Iterator[np.ndarray]]) -> dict[str, float]:
        """The measure of images from `fakes`, under its name and as `loss` (smaller is better).

        `fakes` gives, for a number of images, batches of so many, uint8 [N, H, W, 3].
        """
        if self._real_features is None:
            self._real_features = self._features(self._reals())
        made = self._features(fakes(self._images))
        value = self._distance(self._real_features, made)
        return {self.name: value, "loss": value}

    def _features(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        found, count = [], 0
        for batch in batches:
            batch = batch[: self._images - count]
            count += len(batch)
            if len(batch):
                found.append(self._extract(list(batch)))
            if count >= self._images:
                break
        return np.concatenate(found)
