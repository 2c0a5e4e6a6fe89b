"""Checkpoints of other Paddle projects, written by `paddle.save` as those do."""

import numpy as np
import paddle
import pytest

from paddle_sam.convert.convert import convert_file, revert_file
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import CheckpointError


def as_theirs(state):
    """Tensors as PaddleGAN and paddle-SAM keep them: modulated weights [1, O, I, K, K]."""
    modulated = [name for name in state if name.endswith("conv.weight") and "input" not in name]
    return {
        name: paddle.to_tensor(array[None] if name in modulated else array)
        for name, array in state.items()
        if not name.endswith("kernel") and name != "latent_avg"
    }


def assert_same(found, want):
    assert found.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(found[name], array, name)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["sam", "psp"])
def test_sam_and_psp_of_paddle_sam(weights, tmp_path, kind, nested):
    file = weights(kind)
    entry = file.entry()
    state = as_theirs(entry.state)
    if nested:
        parts: dict = {}
        for name, tensor in state.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        state = parts
    arch = {"encoder": {"units": [1, 1, 1, 1]}}
    content = {"state_dict": state, "opts": file.options, "arch": arch}
    content["latent_avg"] = paddle.to_tensor(entry.state["latent_avg"])
    paddle.save(content, str(tmp_path / "theirs.pdparams"))
    convert_file(tmp_path / "theirs.pdparams", tmp_path / "ours.pdparams")
    found = WeightFile.read(tmp_path / "ours.pdparams")
    assert (found.kind, found.entry().arch) == (file.kind, entry.arch)
    assert_same(found.entry().state, entry.state)
    revert_file(tmp_path / "ours.pdparams", tmp_path / "back.pt")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_generator_of_paddlegan(weights, tmp_path, wrapped):
    entry = weights("stylegan2").entry("g_ema")
    state = as_theirs(entry.state)
    paddle.save({"g_ema": state} if wrapped else state, str(tmp_path / "theirs.pdparams"))
    convert_file(tmp_path / "theirs.pdparams", tmp_path / "ours.pdparams")
    found = WeightFile.read(tmp_path / "ours.pdparams").entry("g_ema")
    assert found.arch == entry.arch
    assert_same(found.state, entry.state)


def test_an_age_regressor(weights, tmp_path):
    entry = weights("dex_vgg").entry()
    state = {n.replace("fc8_101", "fc8-101"): paddle.to_tensor(a) for n, a in entry.state.items()}
    paddle.save({"state_dict": state}, str(tmp_path / "theirs.pdparams"))
    convert_file(tmp_path / "theirs.pdparams", tmp_path / "ours.pdparams")
    assert_same(WeightFile.read(tmp_path / "ours.pdparams").entry().state, entry.state)


def test_another_projects_file_is_named(tmp_path):
    paddle.save(paddle.nn.Linear(2, 3).state_dict(), str(tmp_path / "x.pdparams"))
    with pytest.raises(CheckpointError, match="x.pdparams: .*another project.*weight, bias"):
        convert_file(tmp_path / "x.pdparams", tmp_path / "y.pdparams")
