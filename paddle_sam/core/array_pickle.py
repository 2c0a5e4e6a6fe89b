"""NumPy arrays out of a pickle that may be hostile.

A pickle is a program that calls what it names. `numpy.ndarray` and `numpy.dtype` look harmless,
but `ndarray(1, object, buffer)` takes bytes of the file for addresses of Python objects, and a
dtype's `__setstate__` takes any layout. So what NumPy's pickles name is answered here by
stand-ins that make arrays of numbers, booleans and text, and nothing else.
"""

from __future__ import annotations

import pickle

import numpy as np

from paddle_sam.errors import CheckpointError

_KINDS = "biufcSU"


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


class ArrayUnpickler(pickle.Unpickler):
    """Reads plain Python values and arrays; refuses whatever else the pickle names.

    Raises:
        CheckpointError: it names something that is not data. Nothing of that was called.
    """

    def find_class(self, module: str, name: str):
        if (module, name) not in ARRAY_GLOBALS:
            raise CheckpointError(f"it refers to {module}.{name}, which is not data")
        return ARRAY_GLOBALS[module, name]
