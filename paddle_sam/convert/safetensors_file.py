"""Checkpoints as safetensors: tensors by name and nothing that could be executed.

Such a file is flat. The dicts of a checkpoint become the first part of the names, and what is not a
tensor goes into the file's metadata as JSON, under `KEY`. A tensor of several names is written
once; the metadata says what the other names stand for, as `safetensors.torch.save_model` does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paddle_sam.core.files import atomic_path, open_file
from paddle_sam.core.pickles import refusing
from paddle_sam.errors import CheckpointError

SUFFIX = ".safetensors"
KEY = "paddle_sam"
# First parts of names that stand for networks in files of others.
_NETWORKS = ("g_ema", "g", "d", "generator", "mapping_network", "style_encoder", "discriminator")


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError:
        raise CheckpointError(
            'safetensors: needed to convert such files; pip install -e ".[convert]"'
        ) from None
    return safetensors


def read_safetensors(path: str | os.PathLike) -> dict[str, Any]:
    """Return the content of a file as a PyTorch checkpoint would hold it.

    Raises:
        CheckpointError: missing, damaged, or of another kind.
    """
    path, library = Path(path), _safetensors()
    with refusing(path, "a safetensors file"):
        with open_file(path):  # refuses pipes and devices
            pass
        with library.safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        tensors |= {
            name: tensors[kept]
            for name, kept in metadata.items()
            if name not in tensors and kept in tensors
        }
        notes = json.loads(metadata.get(KEY, "{}"))
        nested, plain = notes.get("nested"), dict(notes.get("plain", {}))
    networks = _NETWORKS if nested is None else nested
    content: dict[str, Any] = dict(plain)
    for name, array in tensors.items():
        first, _, rest = name.partition(".")
        if rest and first in networks:
            content.setdefault(first, {})[rest] = array
        else:
            content[name] = array
    return content


def write_safetensors(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write the content of a PyTorch checkpoint, atomically.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    library = _safetensors()
    named, plain, nested = {}, {}, []
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            named[key] = value
        elif isinstance(value, Mapping) and any(isinstance(v, np.ndarray) for v in value.values()):
            nested.append(key)
            named |= {f"{key}.{name}": array for name, array in value.items()}
        else:
            plain[key] = value
    metadata = {KEY: json.dumps({"nested": nested, "plain": plain}, default=str)}
    first: dict[int, str] = {}
    for name, array in named.items():
        if (kept := first.setdefault(id(array), name)) != name:
            metadata[name] = kept
    tensors = {name: np.ascontiguousarray(named[name]) for name in first.values()}
    with atomic_path(path) as temporary:
        library.numpy.save_file(tensors, temporary, metadata=metadata)
