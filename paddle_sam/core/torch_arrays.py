"""PyTorch's files as NumPy arrays, without PyTorch: for codes and directions, which are small.

Nothing in a file is executed: its pickle may name tensors, their storages and plain containers.
"""

from __future__ import annotations

import collections
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paddle_sam.core.array_pickle import ARRAY_GLOBALS, CountedStream, SafeUnpickler, check_size
from paddle_sam.core.files import open_file
from paddle_sam.core.weight_file import TORCH_LEGACY, TORCH_ZIP
from paddle_sam.errors import CheckpointError

STORAGE_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


class Refused(Exception):
    """A pickle names something that is not data."""


def rebuild_tensor(storage, offset, size, stride, *_) -> np.ndarray:
    """A tensor as a view of its storage; raises `Refused` if it reaches outside."""
    if not isinstance(storage, np.ndarray):
        raise Refused("a tensor without a storage")
    storage = np.ravel(storage)  # a pickle may give rows, or one number repeated without memory
    item = storage.itemsize
    return np.lib.stride_tricks.as_strided(
        _checked_window(storage, offset, size, stride), size, [s * item for s in stride]
    )


def _checked_window(storage, offset, size, stride):
    """The part of `storage` from `offset`, once the strides are known to stay inside it."""
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min([offset, *stride, *size], default=0) < 0 or (0 not in size and last >= storage.size):
        raise Refused("a tensor that reaches outside its storage")
    return storage[offset:]


def latin1(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 spell bytes."""
    if encoding != "latin1":
        raise Refused(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


_ADMITTED = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): latin1,
    **ARRAY_GLOBALS,
}


class _Unpickler(SafeUnpickler):
    """Asks `storage(type, key, count)` for the array behind a tensor."""

    def __init__(self, stream, storage: Callable[[np.dtype, str, int], np.ndarray]):
        super().__init__(stream)
        self._storage = storage

    def find_class(self, module, name):
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        if module in ("torch", "torch.storage") and name in STORAGE_TYPES:
            return np.dtype(STORAGE_TYPES[name])
        raise Refused(f"{module}.{name}")

    def persistent_load(self, pid):
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise Refused(f"persistent id {kind!r}")
        return self._storage(dtype, str(key), int(count))


def read_torch_arrays(path: str | os.PathLike) -> Any:
    """Return what a `.pt` file holds, its tensors as arrays.

    Raises:
        CheckpointError: it is missing, damaged, no such file, or holds more than data.
    """
    path = Path(path)
    try:
        with open_file(path) as stream:
            start = stream.read(64)
            stream.seek(0)
            if start.startswith(TORCH_ZIP):
                content = _from_archive(stream)
            elif TORCH_LEGACY in start:
                content = _from_stream(stream, path.stat().st_size)
            else:
                raise CheckpointError("it is not a PyTorch file")
        check_size(content, path.stat().st_size)
        return content
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except Refused as error:
        raise CheckpointError(f"{path}: refused: it refers to {error}, not to data") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: refused: {error}") from None
    except Exception as error:  # damaged pickles and archives raise nearly every exception
        raise CheckpointError(
            f"{path}: truncated or damaged, or not a PyTorch file ({type(error).__name__}:"
            f" {str(error)[:120]}); fetch it again"
        ) from error


def _from_archive(stream) -> Any:
    """The layout since PyTorch 1.6: a zip archive of a pickle, and a member for each storage."""
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        packed = any(one.compress_type != zipfile.ZIP_STORED for one in members)
        if packed or sum(one.file_size for one in members) > os.fstat(stream.fileno()).st_size:
            raise CheckpointError("its members are packed or overlap, as PyTorch's never do")
        (name,) = (one.filename for one in members if one.filename.endswith("/data.pkl"))
        root = name.removesuffix("data.pkl")

        def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
            array = np.frombuffer(archive.read(f"{root}data/{key}"), dtype)
            if len(array) != count:
                raise EOFError("a storage is cut short")
            return array

        return _Unpickler(archive.open(name), storage).load()


def _from_stream(stream, file_bytes: int) -> Any:
    """The layout before: pickles of a number, version, system, the object and its keys, data."""
    storages: dict[str, np.ndarray] = {}
    left = [file_bytes]

    def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
        if key not in storages:
            if not 0 <= count * dtype.itemsize <= left[0]:
                raise EOFError("its storages are larger than the file")
            left[0] -= count * dtype.itemsize
            storages[key] = np.zeros(count, dtype)  # filled below; tensors are views of it
        return storages[key]

    counted = CountedStream(stream)
    for _ in range(3):
        _Unpickler(counted, storage).load()
    content = _Unpickler(counted, storage).load()
    keys = _Unpickler(counted, storage).load()
    if sorted(map(str, keys)) != sorted(storages):
        raise pickle.UnpicklingError("its list of storages is another")
    for key in keys:
        array = storages[str(key)]
        (count,) = struct.unpack("<q", counted.read(8))
        if count != array.size:
            raise EOFError("a storage is cut short")
        array[:] = np.frombuffer(counted.read(array.nbytes), array.dtype)
    return content
