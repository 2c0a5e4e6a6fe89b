"""Published files that are NumPy archives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from paddle_sam.common.checks import CheckpointError
from paddle_sam.common.files import atomic_path


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an archive.

    Raises:
        CheckpointError: it is damaged, or holds Python objects, which could run code.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # zip, header and array readers raise their own kinds
        raise CheckpointError(
            f"{path}: a NumPy archive that is damaged or holds more than arrays ({error}); fetch it"
            " again"
        ) from error


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to `path`, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)
