"""Photographs with pasted faces, written with what their files hold beside the colours."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from paddle_sam.core.files import atomic_path
from paddle_sam.core.images import save_image


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
