"""Weight files: strict loading, safe reading, whole writing."""

import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import paddle
import pytest
from paddle import nn

from paddle_sam.core.files import append_text, atomic_path, remove_leftovers
from paddle_sam.core.weight_file import load_strict, read_file, save_file
from paddle_sam.errors import CheckpointError, OutputError

CONTENT = {
    "kind": "test",
    "networks": {"net": {"state": {"w": np.arange(6, dtype=np.float16).reshape(2, 3)}}},
    "options": {"name": "a", "rate": np.float64(0.5), "list": [1, (2.5, None)], "on": True},
}


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1D(3)
        self.register_buffer("steps", paddle.zeros([1], dtype="int64"))
        self.register_buffer("constant", paddle.ones([2]), persistable=False)


def state(dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = {"linear.weight": (2, 3)} | dict.fromkeys(
        ("linear.bias", "norm.weight", "norm.bias", "norm._mean", "norm._variance"), (3,)
    )
    arrays = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    return arrays | {"steps": np.array([7])}


def assert_filled(net, expected):
    found = net.state_dict()
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), array.astype(found[name].numpy().dtype))


# --- load_strict -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("lazy", [False, True])
def test_every_tensor_is_copied_in_the_networks_own_type(dtype, lazy):
    if lazy:
        with paddle.LazyGuard():
            net = Net()
    else:
        net = Net()
    load_strict(net, state(dtype), "file")
    assert_filled(net, state(dtype))
    assert net.linear.weight.dtype == paddle.float32 and net.steps.dtype == paddle.int64
    net.eval()
    assert net.norm(net.linear(paddle.ones([1, 2]))).shape == [1, 3]


def test_tensors_of_paddle_are_taken_too():
    net = Net()
    load_strict(net, {name: paddle.to_tensor(v) for name, v in state().items()}, "file")
    assert_filled(net, state())


def test_consume_empties_the_state_and_otherwise_it_stays():
    arrays = state()
    load_strict(Net(), arrays, "file")
    assert arrays.keys() == state().keys()
    load_strict(Net(), arrays, "file", consume=True)
    assert arrays == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("norm._mean"), r"1 missing \(norm\._mean\)"),
        (lambda s: s.update(extra=np.zeros(1)), r"1 unknown to the network \(extra\)"),
        (
            lambda s: s.update({"linear.weight": np.zeros((3, 2), np.float32)}),
            r"1 of another shape \(linear\.weight: file \[3, 2\], network \[2, 3\]\)",
        ),
        (
            lambda s: s.update(constant=np.zeros(2)),
            r"1 unknown to the network \(constant\)",
        ),
        (
            lambda s: [s.pop(name) for name in list(s)[:4]],
            r"4 missing \(.*; .*; .*; \.\.\.\)",
        ),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, words):
    net, arrays = Net(), state()
    before = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    change(arrays)
    names = list(arrays)
    with pytest.raises(CheckpointError, match=f"^file: does not fit Net: tensors {words}"):
        load_strict(net, arrays, "file", consume=True)
    assert list(arrays) == names
    assert_filled(net, before)


def test_all_problems_are_reported_at_once():
    arrays = state() | {"extra": np.zeros(1), "steps": np.zeros(2)}
    del arrays["linear.bias"]
    with pytest.raises(CheckpointError, match="1 missing .* 1 unknown .* 1 of another shape"):
        load_strict(Net(), arrays, "file")


def test_tensors_that_may_be_missing_keep_their_value():
    net, arrays = Net(), state()
    del arrays["norm._mean"]
    net.norm._mean.set_value(np.full(3, 5, np.float32))
    load_strict(net, arrays, "file", missing=["norm._mean"])
    assert_filled(net, state() | {"norm._mean": np.full(3, 5.0)})
    with pytest.raises(CheckpointError, match="1 missing"):
        load_strict(net, {k: v for k, v in arrays.items() if k != "steps"}, "f", ["norm._mean"])


# --- save_file, read_file --------------------------------------------------------------------


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "new" / "net.pdparams"
    save_file(path, CONTENT)
    found = read_file(path)
    np.testing.assert_array_equal(
        found["networks"]["net"]["state"]["w"], CONTENT["networks"]["net"]["state"]["w"]
    )
    assert found["options"] == CONTENT["options"]
    assert (found["format"], found["format_version"]) == ("paddle_sam", 1)
    assert [file.name for file in path.parent.iterdir()] == ["net.pdparams"]


def test_paddle_opens_the_file_too(tmp_path):
    save_file(tmp_path / "net.pdparams", CONTENT)
    found = paddle.load(str(tmp_path / "net.pdparams"), return_numpy=True)
    np.testing.assert_array_equal(found["networks"]["net"]["state"]["w"][1], [3, 4, 5])


class Full(Exception):
    pass


class Unwritable:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


@pytest.mark.parametrize(
    ("error", "seen"), [(OSError(28, "No space left"), OutputError), (Full(), Full)]
)
def test_a_failed_write_leaves_the_old_file(tmp_path, error, seen):
    path = tmp_path / "net.pdparams"
    save_file(path, CONTENT)
    before = path.read_bytes()
    with pytest.raises(seen):
        save_file(path, {"big": np.zeros(100_000), "then": Unwritable(error)})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["net.pdparams"]


def test_a_write_cut_by_the_systems_end_leaves_the_old_file(tmp_path):
    """Only the final rename touches the file: a process that dies before it changes nothing."""
    path = tmp_path / "net.pdparams"
    save_file(path, CONTENT)
    before = path.read_bytes()
    code = (
        "import os, sys; from pathlib import Path; Path.replace = lambda *_: os._exit(9);"
        "from paddle_sam.core.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary: temporary.write_bytes(b'half')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == 9
    assert path.read_bytes() == before


def test_what_a_kill_left_can_be_cleared_away(tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr("pathlib.Path.unlink", lambda self, missing_ok=False: None)
        with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a" / "b.jpg"):
            raise ZeroDivisionError
    (left,) = (tmp_path / "a").iterdir()
    others = [tmp_path / name for name in ("b.jpg", ".notes.tmp", ".b.tmp.jpg")]
    for path in others:
        path.write_bytes(b"")
    remove_leftovers(tmp_path)
    assert not left.exists()
    assert all(path.exists() for path in others)


def test_text_is_appended_or_the_reason_is_told(tmp_path):
    for line in ("eins\n", "zwei\u00e4\n"):
        append_text(tmp_path / "a.txt", line)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "eins\nzwei\u00e4\n"
    with pytest.raises(OutputError, match="could not be written .*Free some space"):
        append_text(tmp_path, "to a folder")


def test_readable_by_others_as_any_new_file(tmp_path):
    save_file(tmp_path / "a", CONTENT)
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


class Runs:
    def __reduce__(self):
        return exec, ("raise SystemExit('the file was executed')",)


class Addresses:
    """NumPy takes these bytes for pointers to Python objects."""

    def __reduce__(self):
        return np.ndarray, ((1,), "O", b"A" * 8)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Runs(), "refused: it refers to builtins.exec, which is not data"),
        ({"networks": Addresses()}, "refused: it makes an array in a way"),
        ({"networks": np.array([1, "a"], object)}, "refused: it .*"),
        ({"device": paddle.CPUPlace}, "refused: it refers to .*CPUPlace"),
    ],
)
def test_files_that_hold_more_than_data_are_refused(tmp_path, content, words):
    path = tmp_path / "net.pdparams"
    path.write_bytes(pickle.dumps(content, 5))
    with pytest.raises(CheckpointError, match=words):
        read_file(path)


TORCH_LEGACY = pickle.dumps(119547037146038801333356, protocol=2)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty; fetch or convert it again"),
        (b"\n <!DOCTYPE html>", "this is a web page, not a weight file"),
        (b"PK\x03\x04....", "this is a PyTorch file; convert it first: python convert/conv"),
        (TORCH_LEGACY, "not a weight file of paddle_sam. this is a PyTorch file; convert it"),
        (b"\x80\x05garbage", "the file is truncated or damaged"),
        (pickle.dumps({"w": 1}), "not a weight file.*If it is a published checkpoint, convert"),
        (pickle.dumps([1]), "not a weight file of paddle_sam"),
        (
            pickle.dumps({"format": "paddle_sam", "format_version": 2}),
            "written in format 2, this version reads 1; update paddle_sam",
        ),
        (pickle.dumps({"format": "paddle_sam"}), "not a weight file of paddle_sam"),
    ],
)
def test_other_files_are_named(tmp_path, data, words):
    path = tmp_path / "net.pdparams"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"net.pdparams: {words}"):
        read_file(path)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_named(tmp_path, share):
    path = tmp_path / "net.pdparams"
    save_file(path, CONTENT | {"big": np.zeros(10_000)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_file(path)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_file(tmp_path / "none")
    with pytest.raises(CheckpointError, match="could not be read"):
        read_file(tmp_path)


def test_writing_holds_a_copy_of_one_array_at_a_time(tmp_path):
    content = {f"w{number}": np.ones((1000, 1000), np.float32).T for number in range(5)}
    tracemalloc.start()
    save_file(tmp_path / "net.pdparams", content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000  # of 20 MB
