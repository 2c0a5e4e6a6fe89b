"""From an image file's pixels to a training batch, as the published training does it."""

from __future__ import annotations

import numpy as np
from PIL import Image


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 RGB [H, W, 3] to [size, size, 3]; bilinear with antialiasing, not cropped."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def flips(positions: np.ndarray, seed: int) -> np.ndarray:
    """Which samples of a training run are mirrored: booleans, each a function of its position.

    Args:
        positions: how many samples of the run come before each.
        seed: the run's seed.
    """
    return np.array([np.random.default_rng((seed, 1, p)).random() < 0.5 for p in positions], bool)


def mirrored(images: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Mirror the images [N, H, W, 3] for which `which` [N] is true."""
    return np.where(which[:, None, None, None], images[:, :, ::-1], images)


def shrunk(images: np.ndarray, size: int) -> np.ndarray:
    """Images [N, 3, R, R] reduced to [N, 3, size, size] by averaging squares of pixels."""
    n, channels, height, _ = images.shape
    factor = height // size
    if factor == 1:
        return images
    return images.reshape([n, channels, size, factor, size, factor]).mean(axis=(3, 5))
