"""Between a photograph and the crop of a face: masks cut like the face, faces put back.

Quads are those of `AlignedFace`: corners [4, 2], x and y in the photograph's continuous
coordinates, top left, bottom left, bottom right, top right of a square.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import map_coordinates

from paddle_sam.core.images import check_image, resize
from paddle_sam.errors import ConfigError, check_shape

MASK_SAMPLES = 4  # of a mask, along each side of a crop's pixel
ROUNDNESS = 3  # of the pasted square: 2 is a circle, more is squarer


def cut_plane(plane: np.ndarray, quad: np.ndarray, size: int) -> np.ndarray:
    """Cut a plane [H, W] of the photograph like the face: float32 [size, size].

    What lies outside the photograph is 0, so a plane of ones gives where the crop shows it.
    """
    check_shape("plane", plane, (None, None))
    fine = size * MASK_SAMPLES
    across = (np.arange(fine) + 0.5) / fine
    top_left, bottom_left, _, top_right = np.asarray(quad, np.float64)
    down = top_left + across[:, None] * (bottom_left - top_left)
    points = down[:, None] + across[:, None] * (top_right - top_left)
    rows, columns = points[..., 1] - 0.5, points[..., 0] - 0.5
    # Beyond half a pixel outside nothing is left of the photograph; up to there it ends sharply.
    height, width = plane.shape
    inside = (rows >= -0.5) & (rows <= height - 0.5) & (columns >= -0.5) & (columns <= width - 0.5)
    sampled = map_coordinates(plane.astype(np.float32), [rows, columns], order=1, mode="nearest")
    cells = (sampled * inside).reshape(size, MASK_SAMPLES, size, MASK_SAMPLES)
    return cells.mean(axis=(1, 3), dtype=np.float32)


def paste_back(
    photo: np.ndarray,
    images: Sequence[np.ndarray],
    quads: Sequence[np.ndarray],
    feather: float = 0.15,
) -> np.ndarray:
    """Put aligned faces back where they were cut out; returns a new uint8 [H, W, 3] photograph.

    Pixels outside the quads, and on their edges, are those of `photo`, bit for bit.

    Args:
        photo: uint8 [H, W, 3].
        images: one uint8 [*, *, 3] square for each face, of any size.
        quads: where each belongs.
        feather: width of the border, as a share of the square's side, over which a face fades in.
    """
    check_image("photograph", photo)
    if not 0 < feather <= 0.5:
        raise ConfigError(f"feather: expected more than 0 and at most 0.5, found {feather}")
    result = photo.copy()
    for image, quad in zip(images, quads, strict=True):
        _paste(result, image, np.asarray(quad, np.float64), feather)
    return result


def _paste(photo: np.ndarray, image: np.ndarray, quad: np.ndarray, feather: float) -> None:
    check_image("face", image)
    height, width = photo.shape[:2]
    left, top = np.maximum(np.floor(quad.min(0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(quad.max(0)), (width, height)).astype(int)
    if left >= right or top >= bottom:
        return
    top_left, bottom_left, _, top_right = quad
    axes = np.stack([top_right - top_left, bottom_left - top_left], axis=1)
    x, y = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
    centres = np.stack([x, y], axis=-1) - top_left
    u, v = np.moveaxis(centres @ np.linalg.inv(axes).T, -1, 0)  # 0 to 1 across the square

    weight = _fade(u, v, feather)
    # Lanczos to the size it will have, so that neither enlarging nor reducing shows.
    side = max(round(float(np.hypot(*axes[:, 0]))), 1)
    sized = resize(image, side).astype(np.float32)
    where = [v * side - 0.5, u * side - 0.5]
    face = np.stack(
        [map_coordinates(sized[..., c], where, order=1, mode="nearest") for c in range(3)], axis=-1
    )
    region = photo[top:bottom, left:right]
    blended = region + weight[..., None] * (face - region)
    touched = weight > 0
    region[touched] = np.rint(blended[touched]).clip(0, 255).astype(np.uint8)


def _fade(u: np.ndarray, v: np.ndarray, feather: float) -> np.ndarray:
    """0 on the square's edges and outside, 1 from `feather` inwards, a smooth step between.

    The corners, where a crop shows more of the background than of the face, are rounded off.
    """
    from_centre = (np.abs(2 * u - 1) ** ROUNDNESS + np.abs(2 * v - 1) ** ROUNDNESS) ** (
        1 / ROUNDNESS
    )
    inwards = ((1 - from_centre) / (2 * feather)).clip(0, 1)
    return inwards * inwards * (3 - 2 * inwards)
