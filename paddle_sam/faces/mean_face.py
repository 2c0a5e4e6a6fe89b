"""StarGAN v2's crop of faces: turned, scaled and moved onto the mean face of CelebA-HQ.

Landmarks are the 98 of `FaceHeatmaps`, x and y in continuous coordinates (the first pixel covers
0..1). Unlike the published code, which stretches a photograph to a square before it looks for the
face, a photograph keeps its shape here and is sampled once, from its own pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from paddle_sam.core.images import check_image
from paddle_sam.errors import ImageError, check_shape
from paddle_sam.faces.alignment import cut_out

LANDMARKS = 98
MEAN_FACE_SIZE = 256  # pixels that the mean face's coordinates are in
_LEFT_EYE = [*range(60, 68), 96]
_RIGHT_EYE = [*range(68, 76), 97]
_MOUTH = [76, 82]
_SCALE_BY = [96, 97, *_MOUTH]  # pupils and corners of the mouth
_OVERSAMPLE = 4


def align_to_mean_face(
    image: np.ndarray,
    find_landmarks: Callable[[np.ndarray], np.ndarray],
    mean_face: np.ndarray,
    size: int,
) -> np.ndarray:
    """Cut the face out of a photograph that shows one, about in the middle.

    Args:
        image: uint8 RGB [H, W, 3].
        find_landmarks: gives the landmarks [98, 2] of a square uint8 image, in its pixels.
        mean_face: landmarks [98, 2] at 256 pixels.
        size: height and width of the crop.

    Raises:
        ImageError: what was found describes no face within the image.
    """
    check_image("image to align", image)
    check_shape("mean face", mean_face, (LANDMARKS, 2))
    square, corner = mirrored_to_square(image)
    landmarks = find_landmarks(square) - corner
    factor, shift = onto(landmarks, mean_face * (size / MEAN_FACE_SIZE))
    corners = np.array([0, 1j, 1 + 1j, 1]) * size
    quad = (corners - shift) / factor
    # `cut_out` counts from the centre of the first pixel.
    return cut_out(image, np.stack([quad.real, quad.imag], 1) - 0.5, size, _OVERSAMPLE).image


def onto(source: np.ndarray, target: np.ndarray) -> tuple[complex, complex]:
    """Give a and b of z -> a z + b, in the complex plane, that lays one face upon another.

    It brings the centres of all landmarks and the directions of the faces together; the scale is
    the mean, over pupils and corners of the mouth, of their distances from the centre in `target`
    relative to those in `source`.

    Raises:
        ImageError: the landmarks of `source` coincide.
    """
    z, w = _complex(source), _complex(target)
    turn = _direction(w) / abs(_direction(w))
    before, arms = _direction(z), np.abs(z[_SCALE_BY] - z.mean())
    if not (abs(before) > 0 and arms.min() > 0):
        raise ImageError("the landmarks of the face coincide, so it has no direction")
    scale = (np.abs(w[_SCALE_BY] - w.mean()) / arms).mean()
    factor = scale * turn / (before / abs(before))
    return factor, w.mean() - factor * z.mean()


def mirrored_to_square(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Continue an image by its mirror image to a square; also give where its corner went."""
    height, width = image.shape[:2]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    pad = ((top, side - height - top), (left, side - width - left), (0, 0))
    return np.pad(image, pad, "symmetric"), np.array([left, top])


def _direction(z: np.ndarray) -> complex:
    """The face's right, from its eyes and, turned by 90 degrees, from eyes and mouth."""
    left, right = z[_LEFT_EYE].mean(), z[_RIGHT_EYE].mean()
    mouth = z[_MOUTH].mean()
    upwards = (left + right) / 2 - mouth
    return (right - left) + upwards * 1j


def _complex(points: np.ndarray) -> np.ndarray:
    check_shape("landmarks", points, (LANDMARKS, 2))
    return points[:, 0] + 1j * points[:, 1]
