"""The face crop of recognition networks: five points moved onto ArcFace's template."""

from __future__ import annotations

import numpy as np
from PIL import Image

from paddle_sam.core.images import check_image
from paddle_sam.errors import ImageError, check_shape

SIZE = 112
# Eyes, tip of the nose and corners of the mouth, x and y in a crop of 112 pixels, first pixel 0.
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """68 landmarks [68, 2] -> centres of the eyes, tip of the nose, corners of the mouth [5, 2]."""
    check_shape("landmarks", landmarks, (68, 2))
    eyes = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])


def align_five_points(image: np.ndarray, points: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Cut out a face: uint8 RGB [H, W, 3] and its five points [5, 2] -> uint8 [size, size, 3].

    By the similarity (turn, scale, shift) that brings the points closest to the template, in the
    least squares sense. Large faces are reduced before they are sampled, so nothing is aliased.

    Raises:
        ImageError: the points coincide.
    """
    check_image("image", image)
    check_shape("points", points, (5, 2))
    span = np.ptp(points, axis=0).max()
    if not span > 0:
        raise ImageError("the five points of the face coincide, so it has no direction")
    wanted = (TEMPLATE + 0.5) * (size / SIZE)
    # Edges count from here on: the first pixel covers 0..1.
    found = np.asarray(points, np.float64) + 0.5
    reduction = max(int(span / np.ptp(wanted, axis=0).max()), 1)
    picture = Image.fromarray(image)
    if reduction > 1:
        reduced = [max(round(side / reduction), 1) for side in picture.size]
        found = found * reduced / picture.size
        picture = picture.resize(reduced, Image.Resampling.LANCZOS)
    crop = picture.transform(
        (size, size),
        Image.Transform.AFFINE,
        tuple(similarity_between(wanted, found).ravel()),  # the picture's place of the crop's
        Image.Resampling.BICUBIC,
    )
    return np.array(crop)


def similarity_between(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Turn, scale and shift [2, 3] that take points [N, 2] `left` closest to `right`.

    In the complex plane such a map is z -> a z + b, and least squares give a and b at once.
    """
    z, w = (points[:, 0] + 1j * points[:, 1] for points in (left, right))
    centred = z - z.mean()
    a = (centred.conj() * (w - w.mean())).sum() / np.square(np.abs(centred)).sum()
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
