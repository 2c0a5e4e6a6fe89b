"""Weight files: written whole or not at all, read without running code, loaded strictly.

A `.pdparams` file of this package is a pickled dict of plain Python values and NumPy arrays
(`paddle.load` opens it too). Reading it admits those types and nothing else, so a file from an
unknown source can do no harm.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Mapping, MutableMapping
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.core.array_pickle import ArrayUnpickler
from paddle_sam.core.files import atomic_path
from paddle_sam.errors import CheckpointError

FORMAT = "paddle_sam"
FORMAT_VERSION = 1
# Protocol 5 writes arrays from their own memory; older ones copy every array first.
PICKLE_PROTOCOL = 5

# How PyTorch's files begin: an archive, or before version 1.6 a pickle with this number.
TORCH_ZIP = b"PK\x03\x04"
TORCH_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"


def save_file(path: str | os.PathLike, content: Mapping) -> None:
    """Write `content` (plain values and NumPy arrays) to `path`, atomically.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        header = {"format": FORMAT, "format_version": FORMAT_VERSION}
        pickle.dump(header | dict(content), stream, protocol=PICKLE_PROTOCOL)


def read_file(path: str | os.PathLike) -> dict:
    """Read what `save_file` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, of another kind, or holds more than data.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            content = ArrayUnpickler(stream).load()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: refused: {error}") from None
    except (OSError, MemoryError) as error:
        raise CheckpointError(f"{path}: could not be read: {error}") from error
    except Exception as error:  # damaged pickles raise nearly every exception there is
        raise CheckpointError(f"{path}: {_diagnosis(path)}") from error
    ours = isinstance(content, dict) and content.get("format") == FORMAT
    if not ours or not isinstance(content.get("format_version"), int):
        raise CheckpointError(
            f"{path}: not a weight file of paddle_sam. {_diagnosis(path, damaged=False)}"
        )
    if content["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: written in format {content['format_version']}, this version reads"
            f" {FORMAT_VERSION}; update paddle_sam"
        )
    return content


def _diagnosis(path: Path, damaged: bool = True) -> str:
    """Say what a file that is not ours seems to be, from its first bytes."""
    with path.open("rb") as stream:
        start = stream.read(512)
    if not start:
        return "the file is empty; fetch or convert it again"
    if start.lstrip()[:1] == b"<":
        return "this is a web page, not a weight file; the download failed, fetch it again"
    convert = f"convert it first: python convert/convert_weights.py {path}"
    if start.startswith(TORCH_ZIP) or TORCH_LEGACY in start:
        return f"this is a PyTorch file; {convert}"
    if damaged:
        return "the file is truncated or damaged; fetch or convert it again"
    return f"If it is a published checkpoint, {convert}"


def load_strict(
    layer: paddle.nn.Layer,
    state: MutableMapping[str, np.ndarray | paddle.Tensor],
    source: str,
    missing: Collection[str] = (),
    consume: bool = False,
) -> None:
    """Copy `state` into `layer`; every tensor must find its place with its exact shape.

    Tensors are converted to the type of their target. Works on a layer built under
    `paddle.LazyGuard`, whose parameters have no memory until they are filled here.

    Args:
        layer: the network.
        state: arrays by the names of `layer.state_dict()`.
        source: where the state comes from, for messages.
        missing: names that may be absent; they keep their value.
        consume: empty `state` on the way, so that weights are not held twice.

    Raises:
        CheckpointError: a tensor is missing, unknown, or has another shape. Nothing was copied.
    """
    targets = layer.state_dict()
    check_fit(targets, state, f"{source}: does not fit {type(layer).__name__}", missing)
    for name in list(state):
        value = state.pop(name) if consume else state[name]
        value = value.numpy() if isinstance(value, paddle.Tensor) else value
        targets[name].set_value(value.astype(_numpy_type(targets[name]), copy=False))


def check_fit(targets: Mapping, state: Mapping, prefix: str, missing: Collection[str] = ()) -> None:
    """Raise `CheckpointError`, its message begun by `prefix`, unless names and shapes agree."""
    problems = {
        "missing": [name for name in targets if name not in state and name not in missing],
        "unknown to the network": [name for name in state if name not in targets],
        "of another shape": [
            f"{name}: file {list(value.shape)}, network {list(targets[name].shape)}"
            for name, value in state.items()
            if name in targets and list(targets[name].shape) != list(value.shape)
        ],
    }
    found = [
        f"{len(names)} {kind} ({'; '.join(names[:3])}{'; ...' if len(names) > 3 else ''})"
        for kind, names in problems.items()
        if names
    ]
    if found:
        raise CheckpointError(f"{prefix}: tensors {', '.join(found)}")


def _numpy_type(tensor: paddle.Tensor) -> str:
    return str(tensor.dtype).rpartition(".")[2]
