"""Between a photograph and the crop of a face: masks cut like the face, faces put back and saved.

Quads are those of `AlignedFace`: corners [4, 2], x and y in the photograph's continuous
coordinates, top left, bottom left, bottom right, top right of a square.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps
from scipy.ndimage import map_coordinates

from paddle_sam.core.files import atomic_path
from paddle_sam.core.images import check_image, resize, save_image
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


@dataclass(frozen=True, eq=False)
class Patch:
    """What a face becomes in its photograph.

    quad: corners [4, 2], where it belongs. values: the face, uint8 [R, R, 3], or, with a mask,
    what is added to the photograph, float32 [R, R, 3] in grey levels. mask: float32 [M, M], how
    much of it. shift: how far the photograph moves before that, float32 [G, G, 2], across and down
    in sides of the square; see `moved`.
    """

    quad: np.ndarray
    values: np.ndarray
    mask: np.ndarray | None = None
    shift: np.ndarray | None = None


def paste_back(
    photo: np.ndarray,
    images: Sequence[np.ndarray],
    quads: Sequence[np.ndarray],
    feather: float = 0.15,
) -> np.ndarray:
    """Put aligned faces, uint8 [*, *, 3], back where they were cut out. See `paste`."""
    return paste(photo, list(map(Patch, quads, images)), feather)


def paste(photo: np.ndarray, patches: Sequence[Patch], feather: float = 0.15) -> np.ndarray:
    """Put faces into their photograph; returns a new uint8 [H, W, 3] photograph.

    Each pixel belongs to the nearest face, by its distance from the centre relative to the side of
    the square, so faces that stand close together do not overwrite each other, in whatever order
    they come. Pixels outside the quads, and on their edges, are those of `photo`, bit for bit.

    Args:
        photo: uint8 [H, W, 3].
        patches: one for each face.
        feather: width of the border, as a share of the square's side, over which a face fades in.
    """
    check_image("photograph", photo)
    if not 0 < feather <= 0.5:
        raise ConfigError(f"feather: expected more than 0 and at most 0.5, found {feather}")
    result = photo.copy()
    for patch in patches:
        if patch.mask is None:
            check_image("face", patch.values)
        neighbours = [other.quad for other in patches if other is not patch]
        _paste(result, photo, patch, neighbours, feather)
    return result


def _paste(
    result: np.ndarray,
    photo: np.ndarray,
    patch: Patch,
    neighbours: Sequence[np.ndarray],
    feather: float,
) -> None:
    quad = np.asarray(patch.quad, np.float64)
    height, width = photo.shape[:2]
    left, top = np.maximum(np.floor(quad.min(0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(quad.max(0)), (width, height)).astype(int)
    if left >= right or top >= bottom:
        return
    x, y = np.arange(left, right) + 0.5, (np.arange(top, bottom) + 0.5)[:, None]
    u, v = _across(quad, x, y)
    weight = _fade(u, v, feather)
    own = _distance(quad, x, y)
    for other in neighbours:
        weight *= _smooth((_distance(np.asarray(other, np.float64), x, y) - own) / feather)
    place = _place(quad, left, top)
    # Lanczos to the size it will have, so that neither enlarging nor reducing shows.
    side = max(round(_side(quad)), 1)
    region, share = photo[top:bottom, left:right], weight
    if patch.mask is None:
        change = _sampled(resize(patch.values, side).astype(np.float32), place, weight.shape)
        change -= region
    else:
        change = _sampled(resampled(patch.values, side), place, weight.shape)
        share = weight * _sampled(patch.mask[..., None], place, weight.shape)[..., 0]
    if patch.shift is not None:
        sides = np.stack([quad[3] - quad[0], quad[1] - quad[0]])
        shift = _sampled(resampled(patch.shift, side), place, weight.shape) @ sides
        region = moved(region, weight[..., None] * shift)
    touched = weight > 0
    blended = region + share[..., None] * change
    result[top:bottom, left:right][touched] = np.rint(blended[touched]).clip(0, 255)


def moved(picture: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return a picture [H, W, C] whose contents moved by `shift`, float32 [H, W, C], bilinear.

    `shift` [H, W, 2] is in pixels, across and down, at the places that they come to.
    """
    down, across = np.indices(picture.shape[:2], np.float32)
    places = [down - shift[..., 1], across - shift[..., 0]]
    planes = np.moveaxis(picture.astype(np.float32, copy=False), -1, 0)
    planes = [map_coordinates(plane, places, order=1, mode="nearest") for plane in planes]
    return np.stack(planes, axis=-1)


def resampled(plane: np.ndarray, side: int) -> np.ndarray:
    """Resize float32 [S, S, C] to [side, side, C], larger or smaller, by Lanczos' filter.

    In one thread: those of a matrix product would wait for the networks' threads, which stay awake
    for a while after their work.
    """
    if len(plane) == side:
        return plane
    result = np.empty((plane.shape[2], side, side), np.float32)
    for channel, values in enumerate(np.moveaxis(plane, -1, 0)):
        picture = Image.fromarray(np.ascontiguousarray(values))
        result[channel] = picture.resize((side, side), Image.Resampling.LANCZOS)
    return np.moveaxis(result, 0, -1)


def _side(quad: np.ndarray) -> float:
    return float(np.hypot(*(quad[3] - quad[0])))


def _across(quad: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points of the photograph lie in the square: 0 to 1 across and down."""
    (a, b, c), (d, e, f) = _place(quad, 0, 0)
    return a * x + b * y + c, d * x + e * y + f


def _place(quad: np.ndarray, left: int, top: int) -> np.ndarray:
    """The affine map [2, 3] from the photograph, counted from left and top, to the unit square."""
    top_left, bottom_left, _, top_right = quad
    turn = np.linalg.inv(np.stack([top_right - top_left, bottom_left - top_left], axis=1))
    return np.column_stack([turn, turn @ (np.array([left, top]) - top_left)])


def _distance(quad: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """From the square's centre, in its sides."""
    centre = quad.mean(axis=0)
    return np.hypot(x - centre[0], y - centre[1]) / _side(quad)


def _sampled(values: np.ndarray, place: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A square's values [R, R, C] at the pixels of a region of the photograph, bilinear.

    `place` maps the region to the unit square.
    """
    size = len(values)
    inner = np.pad(values, ((1, 1), (1, 1), (0, 0)), "edge")  # bilinear up to the square's edge
    data = tuple((place * size + [[0, 0, 1], [0, 0, 1]]).ravel())
    planes = [
        Image.fromarray(np.ascontiguousarray(inner[..., c], dtype=np.float32)).transform(
            shape[::-1], Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
        )
        for c in range(values.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _fade(u: np.ndarray, v: np.ndarray, feather: float) -> np.ndarray:
    """0 on the square's edges and outside, 1 from `feather` inwards, a smooth step between.

    The corners, where a crop shows more of the background than of the face, are rounded off.
    """
    from_centre = (np.abs(2 * u - 1) ** ROUNDNESS + np.abs(2 * v - 1) ** ROUNDNESS) ** (
        1 / ROUNDNESS
    )
    return _smooth((1 - from_centre) / (2 * feather))


def _smooth(x: np.ndarray) -> np.ndarray:
    """A smooth step from 0 at 0 to 1 at 1."""
    x = x.clip(0, 1)
    return x * x * (3 - 2 * x)


def save_pasted(path: Path, original: Path | None, before: np.ndarray, after: np.ndarray) -> None:
    """Write a photograph with changed pixels as PNG: transparency, EXIF and colour profile stay.

    Pixels that did not change keep the numbers of the original file. What changed is brought into
    the original's colour space. Colours of 16 bits become 8, which is all that Pillow reads.

    Args:
        path: to write, `.png`.
        original: the photograph's file, or None.
        before: as it was read, uint8 sRGB [H, W, 3], upright, transparency on white.
        after: the same with its faces changed.

    Raises:
        OutputError: the system refused to write.
    """
    picture = original and _same_picture(original, before)
    if picture is None:
        save_image(path, after)
        return
    changed = (before != after).any(axis=-1)
    colours = np.array(picture.convert("RGB"))
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    inserted = after
    if alpha is not None:  # take the white away that transparency was laid on
        share = np.asarray(alpha, np.float32)[..., None] / 255
        inserted = (after - 255 * (1 - share)) / np.maximum(share, 1 / 255)
        inserted = np.rint(inserted).clip(0, 255).astype(np.uint8)
    profile = picture.info.get("icc_profile")
    if profile:
        inserted = _from_srgb(inserted, profile)
    colours[changed] = inserted[changed]
    result = Image.fromarray(colours)
    if alpha is not None:
        result.putalpha(alpha)
    extra = {"icc_profile": profile} if profile else {}
    with atomic_path(path) as temporary:
        result.save(temporary, "PNG", exif=picture.getexif(), **extra)


def has_deep_colours(path: Path) -> bool:
    """Whether a file has more than 8 bits a channel, of which `save_pasted` keeps 8."""
    with Image.open(path) as image:
        return any(re.search(";(16|32)", str(tile[3])) for tile in image.tile)


def _same_picture(original: Path, before: np.ndarray) -> Image.Image | None:
    """The original as RGB or RGBA, upright; None where its colours are not such numbers."""
    with Image.open(original) as image:
        picture = ImageOps.exif_transpose(image)
        info = dict(image.info)
    if picture.mode in ("P", "PA", "LA") and picture.has_transparency_data:
        picture = picture.convert("RGBA")
    if picture.mode not in ("RGB", "RGBA") or picture.size != before.shape[1::-1]:
        return None
    picture.info["icc_profile"] = info.get("icc_profile")
    return picture


def _from_srgb(colours: np.ndarray, profile: bytes) -> np.ndarray:
    """sRGB colours in the space of a profile; as they are where it cannot be used."""
    try:
        target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        source = ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(Image.fromarray(colours), source, target)
        return np.asarray(image)
    except (ImageCms.PyCMSError, OSError):
        return colours
