"""How near generated images come to real ones, measured while a generator is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from paddle_sam.metrics.features import AlexFeatures, InceptionFeatures, fid, kid
from paddle_sam.networks.image_features import load_lpips

Extract = Callable[[Sequence[np.ndarray]], np.ndarray]


class GeneratedQuality:
    """Compares what a generator makes with real images; call it as often as it is trained.

    Args:
        name: of the measure.
        extract: uint8 images of a batch -> features [N, D].
        distance: of features of real and generated images.
        reals: returns batches of real images, uint8 [N, H, W, 3]; read once, at the first call.
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

        `fakes(n)` yields batches of n images in all, uint8 [N, H, W, 3].
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
