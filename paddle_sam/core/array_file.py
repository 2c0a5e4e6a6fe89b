"""NumPy archives (`.npz`) of plain arrays, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from paddle_sam.core.files import atomic_path
from paddle_sam.errors import CheckpointError


def read_arrays(path: str | os.PathLike, advice: str) -> dict[str, np.ndarray]:
    """The arrays of an archive by name; nothing in it is executed.

    Raises:
        CheckpointError: it is missing, damaged, or holds Python objects, which could run code; the
            message ends with `advice`.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; {advice}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # zip, header and array readers raise their own kinds
        raise CheckpointError(
            f"{path}: no NumPy archive, or one that is damaged or holds more than arrays ({error});"
            f" {advice}"
        ) from error


def write_arrays(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], compress: bool = False
) -> None:
    """Write arrays by name.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        (np.savez_compressed if compress else np.savez)(stream, **arrays)
