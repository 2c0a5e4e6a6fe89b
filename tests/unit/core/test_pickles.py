"""Arrays come through whole; a file that has NumPy build anything else is refused."""

import io
import pickle
import struct

import numpy as np
import pytest
import torch

from paddle_sam.core.pickles import SafeUnpickler, read_torch_stream
from paddle_sam.errors import CheckpointError


def through(value, protocol=5):
    return SafeUnpickler(io.BytesIO(pickle.dumps(value, protocol))).load()


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments, state=None):
        self.answer = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.answer


ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float16": np.ones(3, np.float16),
    "big endian": np.arange(3, dtype=">i4"),
    "bool": np.array([True, False]),
    "complex": np.array([1j]),
    "text": np.array(["ab", "c"]),
    "bytes": np.array([b"ab"]),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "every second": np.arange(12.0).reshape(3, 4)[:, ::2],
    "mirrored": np.arange(4)[::-1],
    "empty": np.zeros((0, 3)),
    "scalar array": np.array(3.5),
}


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_through(name, protocol):
    want, found = ARRAYS[name], through(ARRAYS[name], protocol)
    # NumPy turns other byte orders into the machine's.
    assert found.dtype.newbyteorder("=") == want.dtype.newbyteorder("=")
    assert found.shape == want.shape
    np.testing.assert_array_equal(found, want)
    again = through(found)  # whatever stood in for it does not get into new files
    np.testing.assert_array_equal(again, want)


def test_names_of_numpy_1():
    data = pickle.dumps([np.arange(3)[::-1], np.float32(2)], 4)
    data = data.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    array, scalar = SafeUnpickler(io.BytesIO(data[:2] + data[11:])).load()  # without the frame
    assert (array.tolist(), scalar) == ([2, 1, 0], 2)


@pytest.mark.parametrize("scalar", [np.float64(0.1), np.int64(-3), np.bool_(True), np.str_("a")])
def test_scalars_come_through(scalar):
    found = through(scalar)
    assert found == scalar and type(found) is type(scalar)


@pytest.mark.parametrize(
    "hostile",
    [
        Calls(np.ndarray, (1,), "O", b"A" * 8),
        Calls(np.dtype, "O"),
        Calls(np.dtype, "f4,O"),
        Calls(np.dtype, "V8", state=(3, "|", None, ("a",), {"a": ("O", 0)}, 8, 1, 0)),
        Calls(np.dtype, "f8", state=(3, "<", None, ("a",), {"a": ("O", 0)}, 8, 1, 0)),
        Calls(np.dtype, "f8", state=(3, "<", ("O", (1,)), None, None, 8, 1, 0)),
        np.array([print], object),
        np.zeros(1, "f4,f4"),
    ],
    ids=["addresses", "objects", "mixed", "void", "disguised", "subarray", "array", "structured"],
)
def test_everything_else_is_refused(hostile):
    with pytest.raises(CheckpointError, match="not plain data|in a way that NumPy's own files do"):
        through(hostile)


def test_a_buffer_shorter_than_its_shape_is_refused():
    array = np._core.numeric._frombuffer
    with pytest.raises(ValueError):
        through(Calls(array, b"\0" * 4, np.dtype("f8"), (100,), "C"))


def legacy(count: int) -> io.BytesIO:
    """A storage of two numbers, which claims to have `count`, as PyTorch before 1.6 saved it."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", count, None) if value is io else None

    stream = io.BytesIO()
    for value in (119547037146038801333356, 1001, {}, io, ["0"]):
        Pickler(stream, 2).dump(value)
    stream.write(struct.pack("<q", 2) + np.array([1, 2], "<f4").tobytes())
    stream.seek(0)
    return stream


def test_a_storage_cannot_be_larger_than_its_file():
    assert read_torch_stream(legacy(2)).tolist() == [1, 2]
    with pytest.raises(EOFError, match="larger than the file"):
        read_torch_stream(legacy(10**12))
    with pytest.raises(EOFError, match="cut short"):
        read_torch_stream(legacy(3))


def test_a_type_cannot_be_changed():
    for change in (b"}b.", b"(K\x03X\x01\0\0\0|NNNtb."):
        data = io.BytesIO(b"\x80\x02ctorch\nFloatStorage\n" + change)
        with pytest.raises(CheckpointError, match="it changes a class, function or type"):
            read_torch_stream(data)
