"""What of a face counts: masks that lie beside photographs, and what the photographs show."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paddle_sam.core.images import read_image
from paddle_sam.core.listing import IMAGE_SUFFIXES
from paddle_sam.errors import ImageError
from paddle_sam.faces.alignment import AlignedFace
from paddle_sam.faces.paste import cut_plane


def mask_of(path: Path) -> Path | None:
    """The mask that belongs to an image, `NAME.mask.EXT` beside `NAME.EXT`, if there is one."""
    for suffix in (path.suffix, *IMAGE_SUFFIXES):
        if (mask := path.with_name(f"{path.stem}.mask{suffix}")).is_file():
            return mask
    return None


def is_mask(path: Path) -> bool:
    """Whether an image is the mask of another one beside it."""
    if not path.stem.endswith(".mask"):
        return False
    name = path.stem.removesuffix(".mask")
    suffixes = (path.suffix, *IMAGE_SUFFIXES)
    return any(path.with_name(name + suffix).is_file() for suffix in suffixes)


def face_mask(pixels: np.ndarray, face: AlignedFace, path: Path | None = None) -> np.ndarray:
    """What of a face's crop counts: float32 [S, S] in [0, 1].

    That is what the crop shows of the photograph, not what alignment continued it by; where a
    mask lies beside the photograph, only what that leaves white.

    Args:
        pixels: the photograph, uint8 [H, W, 3].
        face: cut from it.
        path: the photograph's file, if it is one.

    Raises:
        ImageError: the mask cannot be used, or nothing of the face is left.
    """
    plane = np.ones(pixels.shape[:2], np.float32)
    file = mask_of(path) if path else None
    if file is not None:
        mask = read_image(file)
        if mask.shape != pixels.shape:
            raise ImageError(
                f"{file}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its photograph"
                f" {pixels.shape[1]} x {pixels.shape[0]}; they have to be equal"
            )
        plane = mask[..., 0] / np.float32(255)
    mask = cut_plane(plane, face.quad, len(face.image))
    if mask.any():
        return mask
    if file is None:
        raise ImageError(f"{path or 'photograph'}: the face lies outside the photograph")
    raise ImageError(f"{file}: the mask leaves nothing of the face; white is what counts")
