"""Weight files that version 0.1 wrote, one of each kind, still open.

tests/fixtures/weights holds them, compressed. Those called `_trained` are as a training wrote them,
the others went through the converter. Every value of a tensor is `value_of` its name.
"""

import lzma

import numpy as np
import pytest

import paddle_sam
from paddle_sam.convert.convert import convert_file, revert_file
from paddle_sam.core.weights import WeightFile, state_of
from tests import DEVICE, ROOT

FILES = sorted((ROOT / "tests" / "fixtures" / "weights").glob("*.xz"))
# Filters have their own values.
FIXED = (".kernel", "hpf.filter")
CONVERTED = ("psp", "sam", "stylegan2", "dex_vgg", "stargan2")


def value_of(name: str) -> float:
    return (sum(name.encode()) % 7 + 1) / 8


def unpacked(file, folder):
    path = folder / file.stem
    path.write_bytes(lzma.decompress(file.read_bytes()))
    return path


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.split(".")[0])
def test_an_old_file_opens_with_its_values(file, tmp_path):
    path = unpacked(file, tmp_path)
    stored = WeightFile.read(path)
    assert stored.kind == file.name.split(".")[0].removesuffix("_trained")
    for part in stored.networks:
        network = paddle_sam.load(path, part, device=DEVICE)
        tensors = state_of(network)
        assert tensors
        for name, array in tensors.items():
            if not name.endswith(FIXED):
                assert np.all(array == value_of(name)), name
    if stored.kind in ("sam", "psp"):
        assert stored.alignment == {"size": 32, "scale": 0.8, "offset": 0.2, "oversample": 4}
        assert stored.options
    if stored.kind == "stylegan2":
        generator = paddle_sam.load(path, device=DEVICE)
        np.testing.assert_array_equal(generator.latent_avg.numpy(), np.arange(16))


@pytest.mark.parametrize("name", CONVERTED)
def test_an_old_converted_file_goes_back_and_forth(name, tmp_path):
    (file,) = (file for file in FILES if file.name == f"{name}.pdparams.xz")
    path = unpacked(file, tmp_path)
    revert_file(path, tmp_path / "back.pt")
    convert_file(tmp_path / "back.pt", tmp_path / "again.pdparams")
    before, after = WeightFile.read(path), WeightFile.read(tmp_path / "again.pdparams")
    assert before.networks.keys() == after.networks.keys()
    for part, entry in before.networks.items():
        assert entry.arch == after.networks[part].arch
        for key, array in entry.state.items():
            np.testing.assert_array_equal(after.networks[part].state[key], array, key)
    assert (before.alignment, before.options) == (after.alignment, after.options)
