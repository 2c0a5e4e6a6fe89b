"""Checkpoints as safetensors, in and out."""

import lzma

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_model

from convert.convert_weights import main as convert_weights
from paddle_sam.convert.convert import convert_file, revert_file
from paddle_sam.convert.safetensors_file import read_safetensors, write_safetensors
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import CheckpointError
from tests import ROOT


def stored(kind, folder):
    packed = ROOT / "tests" / "fixtures" / "weights" / f"{kind}.pdparams.xz"
    path = folder / f"{kind}.pdparams"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path


def assert_same(left, right):
    assert (left.kind, left.alignment, left.options) == (right.kind, right.alignment, right.options)
    assert left.networks.keys() == right.networks.keys()
    for name, entry in left.networks.items():
        assert entry.arch == right.networks[name].arch
        assert entry.state.keys() == right.networks[name].state.keys()
        for key, array in entry.state.items():
            np.testing.assert_array_equal(array, right.networks[name].state[key], key)


@pytest.mark.parametrize("kind", ["sam", "psp", "stylegan2", "stargan2", "dex_vgg"])
def test_out_and_in_again(tmp_path, kind):
    path = stored(kind, tmp_path)
    flags = ["--reverse", "--safetensors", "--output", str(tmp_path / "out")]
    assert convert_weights([str(path), *flags]) == 0
    out = tmp_path / "out" / f"{kind}.safetensors"
    assert all(isinstance(array, np.ndarray) for array in load_file(out).values())
    convert_file(out, tmp_path / "again.pdparams")
    assert_same(WeightFile.read(tmp_path / "again.pdparams"), WeightFile.read(path))


@pytest.mark.parametrize("form", ["state dict alone", "below g_ema"])
def test_a_flat_generator_of_others(tmp_path, form):
    path = stored("stylegan2", tmp_path)
    revert_file(path, tmp_path / "x.pt")
    state = torch.load(tmp_path / "x.pt", weights_only=True)["g_ema"]
    prefix = "g_ema." if form == "below g_ema" else ""
    arrays = {prefix + name: tensor.numpy() for name, tensor in state.items()}
    save_file(arrays, tmp_path / "y.safetensors")
    convert_file(tmp_path / "y.safetensors", tmp_path / "y.pdparams")
    found = WeightFile.read(tmp_path / "y.pdparams").entry("g_ema")
    want = WeightFile.read(path).entry("g_ema")
    assert found.arch == want.arch
    for name, array in want.state.items():
        np.testing.assert_array_equal(found.state[name], array)


def test_a_tensor_of_several_names_is_in_the_file_once(tmp_path):
    """As `save_model` writes it: `load_model` fills the other names."""
    weight, bias = np.arange(6, dtype=np.float32).reshape(3, 2), np.ones(3, np.float32)
    content = {"a.weight": weight, "a.bias": bias, "b.c.weight": weight, "b.c.bias": bias}
    write_safetensors(tmp_path / "x.safetensors", content)
    assert load_file(tmp_path / "x.safetensors").keys() == {"a.weight", "a.bias"}
    found = read_safetensors(tmp_path / "x.safetensors")
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in content.items()
    }
    common = torch.nn.Linear(2, 3)
    model = torch.nn.ModuleDict({"b": torch.nn.ModuleDict({"c": common}), "a": common})
    assert load_model(model, tmp_path / "x.safetensors") == (set(), [])
    np.testing.assert_array_equal(model["b"]["c"].weight.detach().numpy(), weight)


@pytest.mark.parametrize(
    "damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"\xff" * 64, lambda d: d[:4]]
)
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": np.zeros(100)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="x.safetensors: .*not a safetensors file"):
        convert_file(path, tmp_path / "y.pdparams")
    with pytest.raises(CheckpointError, match="none.safetensors: there is no such file"):
        convert_file(tmp_path / "none.safetensors", tmp_path / "y.pdparams")
