"""Plain data out of pickles that may be hostile: this package's, NumPy's and PyTorch's.

A pickle is a program that calls what it names. `numpy.ndarray` and `numpy.dtype` look harmless,
but `ndarray(1, object, buffer)` takes bytes of the file for addresses of Python objects, and a
dtype's `__setstate__` takes any layout. So what pickles of arrays name is answered here by
stand-ins that make arrays of numbers, booleans and text, and nothing else.

Pickles can also ask for memory: four bytes make CPython's own reader fill 34 GB for its list of
remembered objects, which is why the one written in Python is used, and a few lines describe a
structure with more paths than atoms in the world, which whoever walks it never leaves.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from paddle_sam.core.files import atomic_path, open_file
from paddle_sam.errors import CheckpointError, first_line

# How PyTorch's files begin: an archive, or before version 1.6 a pickle with this number.
TORCH_ZIP = b"PK\x03\x04"
TORCH_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
# What follows this package's pickles: this and the CRC-32 of every byte before. Files of version
# 0.1 lack it.
_CHECKSUM = b"PSAMCRC1"
_KINDS = "biufcSU"  # of NumPy: numbers, booleans and text
# Weight files and checkpoints, of which the largest known have 10,000 entries on 6 levels. A tensor
# may be stored once and named several times.
MOST_ENTRIES = 1_000_000
MOST_DEPTH = 64
_MOST_EXPANSION = 8
_LONGEST_LINE = 1 << 16  # of a pickle of protocol 0: a number or the name of a class


class _Type:
    """Stands for `numpy.dtype`."""

    def __init__(self, name: str, *_):
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in _KINDS:
            raise CheckpointError(f"it holds an array of type {name!r}, which is not plain data")

    def __setstate__(self, state):
        _, byte_order, subarray, names, fields, *_ = state
        if (subarray, names, fields) != (None, None, None):
            raise CheckpointError("it holds a structured array, which is not plain data")
        self.dtype = self.dtype.newbyteorder(byte_order)


class _Array(np.ndarray):
    """Stands for what `_reconstruct` makes: empty, until the pickle gives its content."""

    def __setstate__(self, state):
        version, shape, kind, fortran, data = state
        super().__setstate__((version, shape, kind.dtype, fortran, data))

    def __reduce_ex__(self, protocol):
        return np.asarray(self).__reduce_ex__(protocol)


def _no_array(*_):
    raise CheckpointError("it makes an array in a way that NumPy's own files do not")


def _reconstruct(*_) -> np.ndarray:
    return np.ndarray.__new__(_Array, (0,))


def _from_buffer(buffer, kind: _Type, shape, *order) -> np.ndarray:
    return np._core.numeric._frombuffer(buffer, kind.dtype, shape, *order)


def _scalar(kind: _Type, data: bytes) -> np.generic:
    return np.frombuffer(data, kind.dtype, count=1)[0]


# Under the module paths of NumPy 1 and 2.
ARRAY_GLOBALS = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _no_array,  # elsewhere only ever named to `_reconstruct`
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class CountedStream:
    """Hands out what follows in a stream, not more than there is, and counts the CRC-32 of it."""

    def __init__(self, stream: BinaryIO):
        start = stream.tell()
        self._stream, self.left, self.crc = stream, stream.seek(0, os.SEEK_END) - start, 0
        stream.seek(start)

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise EOFError(f"{count} bytes are announced where {self.left} follow")
        return self._counted(self._stream.read(count))

    def readline(self) -> bytes:
        return self._counted(self._stream.readline(min(self.left, _LONGEST_LINE)))

    def rest(self, most: int) -> bytes:
        """Return what follows, `most` bytes of it at most; they are not counted."""
        return self._stream.read(most)

    def _counted(self, data: bytes) -> bytes:
        self.crc = zlib.crc32(data, self.crc)
        self.left -= len(data)
        return data


class SafeUnpickler(pickle._Unpickler):
    """Python's unpickler without the ways to spend memory or to alter what it has found.

    admitted: what a pickle may name, with what stands for it: plain values and arrays.
    """

    admitted: Mapping[tuple[str, str], Callable] = ARRAY_GLOBALS
    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) not in self.admitted:
            raise CheckpointError(f"it refers to {module}.{name}, which is not data")
        return self.admitted[module, name]

    def load_bytearray8(self):
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))  # not allocated before the bytes are there

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def load_build(self):
        if callable(self.stack[-2]) or isinstance(self.stack[-2], np.dtype):
            raise CheckpointError("it changes a class, function or type, which is not data")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


def check_size(content: Any, file_bytes: int) -> None:
    """Refuse a structure that is larger than its file can justify.

    Args:
        content: nested containers, with arrays or tensors in them.
        file_bytes: size of the file that it was read from.

    Raises:
        CheckpointError: it is too deep, has too many entries (one that is reached in several ways
            counts each time), or arrays of many times the file's size.
    """
    entries, array_bytes = 0, 0
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        entries += 1
        array_bytes += int(getattr(value, "nbytes", 0))
        if depth > MOST_DEPTH:
            raise CheckpointError(f"it is nested deeper than {MOST_DEPTH} levels")
        if entries > MOST_ENTRIES:
            raise CheckpointError(f"it has more than {MOST_ENTRIES:,} entries")
        if array_bytes > _MOST_EXPANSION * file_bytes + (1 << 20):
            raise CheckpointError(f"its arrays are many times larger than its {file_bytes:,} bytes")
        if isinstance(value, Mapping):
            waiting += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(item, depth + 1) for item in value]


class _Counting:
    """Passes bytes on to a file and counts their CRC-32."""

    def __init__(self, stream: BinaryIO):
        self._stream, self.crc = stream, 0

    def write(self, data: bytes) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self._stream.write(data)


def write_pickle(path: str | os.PathLike, content: Any) -> None:
    """Write plain data and arrays for `read_pickle`, atomically.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        counted = _Counting(stream)
        pickle.dump(content, counted, protocol=5)  # older ones copy every array first
        stream.write(_CHECKSUM + counted.crc.to_bytes(4, "little"))


def read_pickle(path: Path, label: str, advice: str) -> Any:
    """Read a pickle of plain data and arrays; nothing in it is executed.

    Args:
        path: the file.
        label: what messages begin with.
        advice: what they add where there is no such file.

    Raises:
        CheckpointError: it is missing, damaged, or holds more than data.
    """
    try:
        with open_file(path) as stream:
            counted = CountedStream(stream)
            content = SafeUnpickler(counted).load()
            stored = counted.rest(len(_CHECKSUM) + 5)
        check_size(content, path.stat().st_size)
    except FileNotFoundError:
        raise CheckpointError(f"{label}: there is no such file. {advice}") from None
    except CheckpointError as error:
        if "torch_utils.persistence" in str(error) or "dnnlib" in str(error):
            raise CheckpointError(
                f"{label}: an NVIDIA network pickle; convert it first:"
                f" python convert/convert_weights.py {path}"
            ) from None
        raise CheckpointError(f"{label}: refused: {error}") from None
    except (OSError, MemoryError) as error:
        raise CheckpointError(f"{label}: could not be read: {error}") from error
    except Exception as error:  # damaged pickles raise nearly every exception there is
        raise CheckpointError(f"{label}: {diagnosis(path)}") from error
    if stored and stored != _CHECKSUM + counted.crc.to_bytes(4, "little"):
        raise CheckpointError(
            f"{label}: the file is damaged: its content does not have the checksum that it was"
            " written with; fetch or convert it again, or resume from another checkpoint"
        )
    return content


def diagnosis(path: Path, damaged: bool = True) -> str:
    """Say what a file that is not ours seems to be, from its first bytes."""
    with open_file(path) as stream:
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


@contextlib.contextmanager
def refusing(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever reading a file of a `kind` raises into a `CheckpointError` that names it."""
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: refused: {error}") from None
    except Exception as error:  # damaged pickles and archives raise nearly every exception
        if reason := getattr(error, "strerror", None):
            raise CheckpointError(f"{path}: could not be read: {reason}") from error
        raise CheckpointError(
            f"{path}: truncated or damaged, or not {kind} ({first_line(error)}); fetch it again"
        ) from error


_STORAGES = {
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
# What names a storage's type in a pickle -> its type.
STORAGE_TYPES = {
    (module, name): np.dtype(kind)
    for module in ("torch", "torch.storage")
    for name, kind in _STORAGES.items()
}


def rebuild_tensor(storage, offset, size, stride, *_) -> np.ndarray:
    """A tensor as a view of its storage; refused if it reaches outside."""
    # A storage may lie in rows; one number that is repeated without memory is a tensor, of which
    # another would need the memory.
    if not isinstance(storage, np.ndarray) or not storage.flags.c_contiguous:
        raise CheckpointError("it holds a tensor without a storage")
    storage = storage.ravel()
    item = storage.itemsize
    return np.lib.stride_tricks.as_strided(
        _checked_window(storage, offset, size, stride), size, [s * item for s in stride]
    )


def _checked_window(storage, offset, size, stride):
    """The part of `storage` from `offset`, once the strides are known to stay inside it."""
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min([offset, *stride, *size], default=0) < 0 or (0 not in size and last >= storage.size):
        raise CheckpointError("it holds a tensor that reaches outside its storage")
    return storage[offset:]


def latin1(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 spell bytes."""
    if encoding != "latin1":
        raise CheckpointError(f"it encodes text as {encoding}, which is not data")
    return text.encode("latin1")


def container(kind: Callable) -> Callable:
    """Return `kind`, to be made of containers: an array may have more items than memory holds."""

    def make(items=()):
        if not isinstance(items, list | tuple | set | frozenset):
            raise CheckpointError("it takes apart what is not a list, which data never do")
        return kind(items)

    return make


TENSOR_GLOBALS = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): container(tuple),
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): latin1,
    **ARRAY_GLOBALS,
    **STORAGE_TYPES,
}


class _TorchUnpickler(SafeUnpickler):
    """Asks `storage(type, key, count)` for the array behind a tensor."""

    admitted = TENSOR_GLOBALS

    def __init__(self, stream, storage: Callable[[np.dtype, str, int], np.ndarray]):
        super().__init__(stream)
        self._storage = storage

    def persistent_load(self, pid):
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise CheckpointError(f"it refers to {kind!r}, which is not data")
        return self._storage(dtype, str(key), int(count))


def read_torch_arrays(path: str | os.PathLike) -> Any:
    """Return what a `.pt` file holds, its tensors as arrays: for codes and directions.

    PyTorch is not needed, and nothing in the file is executed.

    Raises:
        CheckpointError: it is missing, damaged, not such a file, or holds more than data.
    """
    path = Path(path)
    with refusing(path, "a PyTorch file"):
        with open_file(path) as stream:
            start = stream.read(64)
            stream.seek(0)
            if start.startswith(TORCH_ZIP):
                content = _from_archive(stream)
            elif TORCH_LEGACY in start:
                content = read_torch_stream(stream)
            else:
                raise CheckpointError("it is not a PyTorch file")
        check_size(content, path.stat().st_size)
        return content


def _from_archive(stream) -> Any:
    """The layout since PyTorch 1.6: a zip archive of a pickle, and a member for each storage."""
    with zipfile.ZipFile(stream) as archive:
        check_members(archive, os.fstat(stream.fileno()).st_size)
        (name,) = (one for one in archive.namelist() if one.endswith("/data.pkl"))
        root = name.removesuffix("data.pkl")

        def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
            array = np.frombuffer(archive.read(f"{root}data/{key}"), dtype)
            if len(array) != count:
                raise EOFError("a storage is cut short")
            return array

        return _TorchUnpickler(archive.open(name), storage).load()


def check_members(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Raise unless the members of an archive lie in it as they are and side by side.

    So PyTorch writes them. Packed or overlapping ones could be of any size when they are read.
    """
    members = archive.infolist()
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > file_bytes:
        raise CheckpointError("its members are packed or overlap, as PyTorch's never do")


def read_torch_stream(stream: BinaryIO) -> Any:
    """Read the layout before 1.6, which is also that of storages within pickles of modules.

    It is pickles of a number, a version, a system, the object and the keys of its storages, whose
    data follow. Damage raises nearly anything.
    """
    storages: dict[str, np.ndarray] = {}
    counted = CountedStream(stream)
    room = counted.left

    def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
        nonlocal room
        if key not in storages:
            if not 0 <= count * dtype.itemsize <= room:
                raise EOFError("its storages are larger than the file")
            room -= count * dtype.itemsize
            storages[key] = np.zeros(count, dtype)  # filled below; tensors are views of it
        return storages[key]

    for _ in range(3):
        _TorchUnpickler(counted, storage).load()
    content = _TorchUnpickler(counted, storage).load()
    keys = _TorchUnpickler(counted, storage).load()
    if sorted(map(str, keys)) != sorted(storages):
        raise pickle.UnpicklingError("its list of storages is another")
    for key in keys:
        array = storages[str(key)]
        (count,) = struct.unpack("<q", counted.read(8))
        if count != array.size:
            raise EOFError("a storage is cut short")
        array[:] = np.frombuffer(counted.read(array.nbytes), array.dtype)
    return content
