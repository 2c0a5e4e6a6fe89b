"""Files of W+ codes, as projection writes them: plain arrays in an `.npz`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from paddle_sam.core.files import read_arrays, write_arrays
from paddle_sam.core.images import check_image
from paddle_sam.errors import CheckpointError, check_shape


@dataclasses.dataclass(frozen=True, eq=False)
class Latent:
    """A face as a code.

    w_plus: float32 [L, D]. crop: the aligned face it stands for, uint8 [S, S, 3].
    """

    w_plus: np.ndarray
    crop: np.ndarray


def save_latent(
    path: str | os.PathLike, latent: Latent, extra: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write a code with its crop, and further arrays by name."""
    arrays = {"w_plus": latent.w_plus, "crop": latent.crop, **(extra or {})}
    write_arrays(path, arrays, compress=True)


def read_latent(path: str | os.PathLike, codes: int, dim: int) -> Latent:
    """Read what `save_latent` wrote, for a model that takes `codes` codes of `dim` numbers.

    Raises:
        CheckpointError: the file is missing, damaged, or belongs to another model.
    """
    arrays = read_arrays(path, "scripts/project.py writes such files")
    if missing := [name for name in ("w_plus", "crop") if name not in arrays]:
        raise CheckpointError(f"{path}: lacks the array {missing[0]!r}; expected a projected face")
    latent = Latent(arrays["w_plus"].astype(np.float32), arrays["crop"])
    if latent.w_plus.shape != (codes, dim):
        raise CheckpointError(
            f"{path}: holds a code of shape {list(latent.w_plus.shape)}, this model takes"
            f" {[codes, dim]}; project with the same --checkpoint_path"
        )
    if not np.isfinite(latent.w_plus).all():
        raise CheckpointError(f"{path}: the code holds values that are not numbers")
    check_shape(f"{path}: crop", latent.crop, (None, None, 3))
    check_image(f"{path}: crop", latent.crop)
    return latent
