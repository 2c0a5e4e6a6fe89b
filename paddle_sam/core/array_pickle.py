"""NumPy arrays out of a pickle that may be hostile.

A pickle is a program that calls what it names. `numpy.ndarray` and `numpy.dtype` look harmless,
but `ndarray(1, object, buffer)` takes bytes of the file for addresses of Python objects, and a
dtype's `__setstate__` takes any layout. So what NumPy's pickles name is answered here by
stand-ins that make arrays of numbers, booleans and text, and nothing else.

Pickles can also ask for memory: four bytes make CPython's own reader fill 34 GB for its list of
remembered objects, which is why the one written in Python is used, and a few lines describe a
structure with more paths than atoms in the world, which whoever walks it never leaves.
"""

from __future__ import annotations

import itertools
import os
import pickle
import struct
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from paddle_sam.errors import CheckpointError

_KINDS = "biufcSU"
# Weight files and checkpoints, of which the largest known have 10,000 entries on 6 levels. A tensor
# may be stored once and named several times.
_MOST_ENTRIES = 1_000_000
_MOST_DEPTH = 64
_MOST_EXPANSION = 8


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
    """Hands out the bytes of a file, at most those that it has, and counts their CRC-32."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._left = os.fstat(stream.fileno()).st_size
        self.crc = 0

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._left:
            raise EOFError(f"{count} bytes are announced where {self._left} follow")
        return self._counted(self._stream.read(count))

    def readline(self) -> bytes:
        return self._counted(self._stream.readline(min(self._left, _LONGEST_LINE)))

    def rest(self, most: int) -> bytes:
        """Return what follows, at most so many bytes; they are not counted."""
        return self._stream.read(most)

    def _counted(self, data: bytes) -> bytes:
        self.crc = zlib.crc32(data, self.crc)
        self._left -= len(data)
        return data


_LONGEST_LINE = 1 << 16  # of a pickle of protocol 0: a number or the name of a class


class SafeUnpickler(pickle._Unpickler):
    """Python's unpickler without the ways to spend memory or to alter what it has found.

    Subclasses say in `find_class` what a pickle may name.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self):
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))  # not allocated before the bytes are there

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def load_build(self):
        if callable(self.stack[-2]):
            raise CheckpointError("it changes a class or function, which is not data")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


class ArrayUnpickler(SafeUnpickler):
    """Reads plain Python values and arrays; refuses whatever else the pickle names.

    Raises:
        CheckpointError: it names something that is not data. Nothing of that was called.
    """

    def find_class(self, module: str, name: str):
        if (module, name) not in ARRAY_GLOBALS:
            raise CheckpointError(f"it refers to {module}.{name}, which is not data")
        return ARRAY_GLOBALS[module, name]


class _Reconstructed:
    """Stands for an array of numbers or of objects, which its state tells: `value`."""

    def __setstate__(self, state):
        _, shape, kind, _, data = state
        if kind is _OBJECTS:
            if not isinstance(data, list) or len(data) != int(np.prod(shape)):
                raise CheckpointError("it holds an array of objects in another form than NumPy's")
            self.value = data if shape else data[0]
        else:
            self.value = _reconstruct()
            self.value.__setstate__(state)


class _Objects:
    """Stands for NumPy's type of Python objects."""

    def __setstate__(self, state):
        pass


_OBJECTS = _Objects()


class ObjectsUnpickler(ArrayUnpickler):
    """Reads arrays of Python objects too, as NumPy pickles them: lists of plain values."""

    def find_class(self, module: str, name: str):
        if (module, name) == ("numpy", "dtype"):
            return lambda kind, *_: _OBJECTS if kind in ("O", "O8") else _Type(kind)
        if name == "_reconstruct":
            return lambda *_: _Reconstructed()
        return super().find_class(module, name)


def read_objects(stream: BinaryIO) -> Any:
    """What an `.npy` file of Python objects holds: dicts and lists of plain values and arrays.

    Raises:
        CheckpointError: it names something that is not data. Damage raises nearly anything.
    """
    version = np.lib.format.read_magic(stream)
    first = version == (1, 0)
    read_header = (
        np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    )
    read_header(stream)
    walked = itertools.count()

    def unwrapped(value: Any, depth: int = 0) -> Any:
        if depth > _MOST_DEPTH or next(walked) > _MOST_ENTRIES:
            raise CheckpointError("it is nested too deeply, or has too many entries")
        if isinstance(value, _Reconstructed):
            return unwrapped(value.value, depth + 1)
        if isinstance(value, dict):
            return {key: unwrapped(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [unwrapped(item, depth + 1) for item in value]
        return value

    content = unwrapped(ObjectsUnpickler(CountedStream(stream)).load())
    check_size(content, os.fstat(stream.fileno()).st_size)
    return content


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
        if depth > _MOST_DEPTH:
            raise CheckpointError(f"it is nested deeper than {_MOST_DEPTH} levels")
        if entries > _MOST_ENTRIES:
            raise CheckpointError(f"it has more than {_MOST_ENTRIES:,} entries")
        if array_bytes > _MOST_EXPANSION * file_bytes + (1 << 20):
            raise CheckpointError(f"its arrays are many times larger than its {file_bytes:,} bytes")
        if isinstance(value, Mapping):
            waiting += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(item, depth + 1) for item in value]
