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
from paddle_sam.core.weights import NetworkEntry, WeightFile, load_strict
from paddle_sam.errors import CheckpointError, OutputError
from tests.unit.training.comparing import assert_equal


def weight_file(**facts):
    options = {"name": "a", "rate": np.float64(0.5), "list": [1, (2.5, None)], "on": True}
    entry = NetworkEntry("net", {"size": 4}, {"w": np.arange(6, dtype=np.float16).reshape(2, 3)})
    return WeightFile("test", {"net": entry}, **{"options": options, **facts})


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


# --- WeightFile ---------------------------------------------------------------------------


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "new" / "net.pdparams"
    facts = {
        "latent_avg": np.arange(3, dtype=np.float32),
        "alignment": {"size": 64},
        "source": {"file": "net.pt"},
        "training": {"step": 3},
    }
    weight_file(**facts).write(path)
    found, want = WeightFile.read(path), weight_file(**facts)
    assert_equal(found, want)
    assert found.label == str(path)
    content = pickle.loads(path.read_bytes())
    assert (content["format"], content["format_version"]) == ("paddle_sam", 1)
    assert [file.name for file in path.parent.iterdir()] == ["net.pdparams"]


def test_what_a_file_does_not_say_is_none(tmp_path):
    path = tmp_path / "net.pdparams"
    weight_file(options=None).write(path)
    assert set(pickle.loads(path.read_bytes())) == {"format", "format_version", "kind", "networks"}
    assert WeightFile.read(path).options is None


def test_paddle_opens_the_file_too(tmp_path):
    weight_file().write(tmp_path / "net.pdparams")
    found = paddle.load(str(tmp_path / "net.pdparams"), return_numpy=True)
    np.testing.assert_array_equal(found["networks"]["net"]["state"]["w"][1], [3, 4, 5])


def test_the_kind_and_the_option_are_checked(tmp_path):
    weight_file().write(tmp_path / "net.pdparams")
    assert WeightFile.read(tmp_path / "net.pdparams", kinds=("sam", "test")).kind == "test"
    with pytest.raises(CheckpointError, match="weights: .*net.pdparams: holds test, expected sam"):
        WeightFile.read(tmp_path / "net.pdparams", "--weights", ("sam",))
    with pytest.raises(CheckpointError, match="weights: .*no such file.*download_weights.py dex"):
        WeightFile.read(tmp_path / "none.pdparams", "--weights", usual="dex")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": 3}, "'kind' is of type int, expected str"),
        ({"networks": []}, "'networks' is of type list, expected dict"),
        ({"networks": {"a": 1}}, "a: expected the description of a network"),
        ({"networks": {1: {}}}, "1: expected the description of a network"),
        ({"networks": {"a": {"state": 1}}}, "a: its entry 'state' is of type int"),
        ({"networks": {"a": {"state": {"w": 1.0}}}}, "a: expected an array as w, found float"),
        ({"networks": {"a": {"arch": "x"}}}, "a: its entry 'arch' is of type str"),
        ({"latent_avg": [1.0]}, "'latent_avg' is of type list, expected ndarray"),
        ({"alignment": "ffhq"}, "'alignment' is of type str, expected dict"),
        ({"options": 1}, "'options' is of type int"),
        ({"training": 1}, "'training' is of type int"),
        ({"source": 1}, "'source' is of type int"),
    ],
)
def test_entries_of_another_type_are_named(tmp_path, change, words):
    path = tmp_path / "net.pdparams"
    content = {"format": "paddle_sam", "format_version": 1, "kind": "test", "networks": {}}
    path.write_bytes(pickle.dumps(content | change))
    with pytest.raises(CheckpointError, match=f"net.pdparams: .*{words}"):
        WeightFile.read(path)


def test_the_first_array_that_is_not_finite_is_named():
    file = weight_file(training={"optimizer": {"m": np.zeros(2), "n": np.array([1, np.inf])}})
    assert file.not_finite() == "training/optimizer/n"
    file.networks["net"].state["w"][0, 0] = np.nan
    assert file.not_finite() == "net/w"
    assert weight_file().not_finite() is None


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
    weight_file().write(path)
    before = path.read_bytes()
    with pytest.raises(seen):
        weight_file(training={"big": np.zeros(100_000), "then": Unwritable(error)}).write(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["net.pdparams"]


def test_a_write_cut_by_the_systems_end_leaves_the_old_file(tmp_path):
    """Only the final rename touches the file: a process that dies before it changes nothing."""
    path = tmp_path / "net.pdparams"
    weight_file().write(path)
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
    with pytest.raises(OutputError, match="could not be written .*Is a directory"):
        append_text(tmp_path, "to a folder")


def test_readable_by_others_as_any_new_file(tmp_path):
    weight_file().write(tmp_path / "a")
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
        WeightFile.read(path)


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
        WeightFile.read(path)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_named(tmp_path, share):
    path = tmp_path / "net.pdparams"
    weight_file(training={"big": np.zeros(10_000)}).write(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        WeightFile.read(path)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        WeightFile.read(tmp_path / "none")
    with pytest.raises(CheckpointError, match="could not be read"):
        WeightFile.read(tmp_path)


def test_writing_holds_a_copy_of_one_array_at_a_time(tmp_path):
    state = {f"w{number}": np.ones((1000, 1000), np.float32).T for number in range(5)}
    file = WeightFile("test", {"net": NetworkEntry("net", {}, state)})
    tracemalloc.start()
    file.write(tmp_path / "net.pdparams")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000  # of 20 MB
