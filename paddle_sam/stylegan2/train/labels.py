"""Classes of training images, for conditional networks (`--cond`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import ImageSource, open_image_set


@dataclasses.dataclass(frozen=True)
class Labels:
    """The class of each image.

    by_image: class numbers from 0 on. numbers: those of all images, in their order and as often as
    they are trained on. classes: how many there are.
    """

    by_image: Mapping[ImageSource, int]
    numbers: np.ndarray
    classes: int

    def of(self, images: Iterable[ImageSource]) -> np.ndarray:
        """One-hot labels of images, float32 [N, classes]."""
        return self.one_hot([self.by_image[image] for image in images])

    def one_hot(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """One-hot labels of classes, float32 [N, classes]."""
        return np.eye(self.classes, dtype=np.float32)[np.asarray(numbers, np.int64)]


def read_labels(sets: Iterable[tuple[str, Sequence[ImageSource], int]]) -> Labels:
    """The classes that archives state, of data sets (path, images, weight).

    Raises:
        ConfigError: one states none, or all images are of one class.
    """
    by_image: dict[ImageSource, int] = {}
    numbers: list[int] = []
    for path, images, weight in sets:
        found = open_image_set(path)
        if found.labels is None:
            raise ConfigError(
                f"--cond: {path} states no classes of its images; make it with"
                " scripts/prepare_dataset.py --labels folders"
            )
        by_image |= dict(zip(found.images, found.labels, strict=True))
        numbers += [by_image[image] for image in images] * weight
    classes = max(numbers) + 1
    if classes < 2:
        raise ConfigError("--cond: expected at least two classes, found one")
    return Labels(by_image, np.asarray(numbers), classes)
