"""Read PyTorch files as NumPy arrays, and write them. The only module that imports torch.

Files are opened with `weights_only`, so that nothing in them is executed, and mapped into memory
where the format allows, so that tensors are read when they are used.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paddle_sam.core.files import atomic_path, open_file
from paddle_sam.core.pickles import TORCH_LEGACY, TORCH_ZIP, check_members, check_size, refusing
from paddle_sam.errors import CheckpointError, first_line


def _torch():
    try:
        import torch
    except ImportError:
        raise CheckpointError(
            'torch: needed to convert PyTorch files; pip install -e ".[convert]"'
        ) from None
    return torch


def read_torch(path: str | os.PathLike) -> dict:
    """Return the top-level dict of a torch file, its tensors as NumPy arrays of the same type.

    Raises:
        CheckpointError: missing, truncated, a web page, not a torch file, or it holds code.
    """
    content = read_torch_value(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: expected a dict of tensors, found {type(content).__name__}: a checkpoint of"
            " another project"
        )
    return content


def read_torch_value(path: str | os.PathLike) -> Any:
    """Return whatever a torch file holds, a lone tensor for example; see `read_torch`."""
    path = Path(path)
    start = _first_bytes(path)
    torch = _torch()
    allowed = [argparse.Namespace, *_numpy_scalar_types()]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what concerns the file becomes an error below
            content = torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                mmap=start.startswith(TORCH_ZIP),
            )
    except Exception as error:  # torch reports damage as RuntimeError, EOFError, ValueError, ...
        if code := re.search(r"GLOBAL ([\w.]+)|(TorchScript)", str(error)):
            raise CheckpointError(
                f"{path}: refused: it holds more than weights ({code[1] or code[2]})"
            ) from error
        # What torch says of an unreadable pickle is advice to execute it.
        what = "pickle" if isinstance(error, pickle.UnpicklingError) else first_line(error)
        raise CheckpointError(
            f"{path}: a PyTorch file that is truncated or damaged ({path.stat().st_size:,} bytes:"
            f" {what}); fetch it again"
        ) from error
    try:
        check_size(content, path.stat().st_size)
        return _to_numpy(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: refused: {error}") from None
    except (TypeError, RuntimeError) as error:  # sparse, quantised, 8-bit floats, ...
        raise CheckpointError(
            f"{path}: holds a tensor of a kind that no published network has"
            f" ({first_line(error)}): a checkpoint of another project"
        ) from error


def write_torch(path: str | os.PathLike, content: Mapping) -> None:
    """Write a (nested) dict to `path`, its NumPy arrays as torch tensors, atomically.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    torch = _torch()
    with atomic_path(path) as temporary:
        try:
            torch.save(_to_torch(content, torch, {}), temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(f"PyTorch: {first_line(error)}") from error


def _first_bytes(path: Path) -> bytes:
    """The first bytes of a file that looks like a torch file; raises for what does not."""
    with refusing(path, "a PyTorch file"), open_file(path) as stream:
        start = stream.read(64)
    if not start:
        raise CheckpointError(f"{path}: the file is empty; fetch it again")
    if start.lstrip()[:1] == b"<":
        raise CheckpointError(
            f"{path}: this is a web page saved under a weight file's name, what a failed download"
            " leaves (Google Drive does this when a file is too popular); fetch it by hand"
        )
    if not start.startswith(TORCH_ZIP) and TORCH_LEGACY not in start:
        raise CheckpointError(
            f"{path}: not a PyTorch file (it begins with {start[:8].hex(' ')}); expected a .pt or"
            " .pth checkpoint"
        )
    if start.startswith(TORCH_ZIP):
        _check_archive(path)
    return start


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            # The code of TorchScript is packed: PyTorch refuses it before it reads any member.
            if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
                check_members(archive, path.stat().st_size)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: refused: {error}") from None
    except (zipfile.BadZipFile, OSError, ValueError):  # PyTorch says what is wrong with it
        pass


def _numpy_scalar_types() -> list:
    return [np._core.multiarray.scalar, np.dtype, *[type(np.dtype(t)) for t in "fdeilqB?"]]


def _to_numpy(value):
    torch = _torch()
    if isinstance(value, torch.Tensor):
        value = value.detach()
        # NumPy has no bfloat16; float32 holds every one of its values.
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return {key: _to_numpy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_numpy(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    plain = value is None or isinstance(value, (bool, int, float, str, bytes))
    return value if plain else str(value)  # a torch.device among the options, for example


def _to_torch(value, torch, made: dict):
    """Tensors for arrays; of an array that has several names the same one, written once."""
    if isinstance(value, np.ndarray):
        if id(value) not in made:
            array = value if value.flags.writeable else value.copy()
            made[id(value)] = torch.from_numpy(array).contiguous()
        return made[id(value)]
    if isinstance(value, Mapping):
        return {key: _to_torch(item, torch, made) for key, item in value.items()}
    return value
