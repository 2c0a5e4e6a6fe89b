"""Files of W+ codes, as projection writes them: an `.npz` of the code and the face it stands for.

Beside it lies a `.pd`, `{"latent_code": [L, D]}` as `paddle.save` writes it, which other programs
read. It holds no picture: where one is needed, `STEM-project.png` beside it is taken.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.core.files import atomic_path, read_arrays, write_arrays
from paddle_sam.core.images import check_image, read_image
from paddle_sam.core.weight_file import read_pickle
from paddle_sam.errors import CheckpointError, check_shape

BARE = ".pd"
_WRITER = "scripts/project.py writes such files"


@dataclasses.dataclass(frozen=True, eq=False)
class Latent:
    """A face as a code.

    w_plus: float32 [L, D]. crop: the aligned face it stands for, uint8 [S, S, 3], or None.
    projected: the crop is what a generator makes of the code, because the file holds no picture.
    """

    w_plus: np.ndarray
    crop: np.ndarray | None
    projected: bool = False


def picture_beside(path: str | os.PathLike, made_by: str = "project") -> Path:
    """Where projection, or inversion, leaves the picture that belongs to a file of a code."""
    path = Path(path)
    return path.with_name(f"{path.stem}-{made_by}.png")


def save_latent(
    path: str | os.PathLike, latent: Latent, extra: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write a code with its crop, and more arrays by name; its `.pd` gets the code alone."""
    arrays = {"w_plus": latent.w_plus, "crop": latent.crop, **(extra or {})}
    write_arrays(path, arrays, compress=True)
    with atomic_path(Path(path).with_suffix(BARE)) as temporary:
        paddle.save({"latent_code": paddle.to_tensor(latent.w_plus)}, str(temporary))


def read_latent(path: str | os.PathLike, codes: int, dim: int, shown: bool = True) -> Latent:
    """Read what `save_latent` wrote, for a model that takes `codes` codes of `dim` numbers.

    Args:
        path: the `.npz` or `.pd`.
        codes, dim: the shape of the code.
        shown: whether a crop is needed.

    Raises:
        CheckpointError: the file is missing, damaged, or belongs to another model.
    """
    bare = Path(path).suffix == BARE
    latent = _read_bare(Path(path)) if bare else _read_archive(path)
    if latent.w_plus.shape != (codes, dim):
        raise CheckpointError(
            f"{path}: holds a code of shape {list(latent.w_plus.shape)}, this model takes"
            f" {[codes, dim]}; project with the same --checkpoint_path"
        )
    if not np.isfinite(latent.w_plus).all():
        raise CheckpointError(f"{path}: the code holds values that are not numbers")
    if latent.crop is not None:
        check_shape(f"{path}: crop", latent.crop, (None, None, 3))
        check_image(f"{path}: crop", latent.crop)
    elif shown:
        raise CheckpointError(
            f"{path}: holds a code but not the face's picture; expected it in"
            f" {picture_beside(path)}, or give the photograph by --data_path"
        )
    return latent


def _read_archive(path: str | os.PathLike) -> Latent:
    arrays = read_arrays(path, _WRITER)
    if missing := [name for name in ("w_plus", "crop") if name not in arrays]:
        raise CheckpointError(f"{path}: lacks the array {missing[0]!r}; expected a projected face")
    return Latent(arrays["w_plus"].astype(np.float32), arrays["crop"])


def _read_bare(path: Path) -> Latent:
    content = read_pickle(path, str(path), _WRITER)
    code = content.get("latent_code") if isinstance(content, dict) else None
    if isinstance(code, tuple) and len(code) == 2:
        code = code[1]  # a tensor with its name
    if not isinstance(code, np.ndarray) or code.dtype.kind != "f":
        raise CheckpointError(f"{path}: holds no tensor latent_code; expected a projected face")
    pictures = [picture_beside(path, made_by) for made_by in ("project", "inversion")]
    crop = next((read_image(one) for one in pictures if one.is_file()), None)
    return Latent(np.asarray(code, np.float32), crop, projected=True)
