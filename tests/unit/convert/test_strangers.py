"""Files of other projects are refused by what they are."""

import pickle

import numpy as np
import pytest
import torch

from paddle_sam.convert.convert import convert_file
from paddle_sam.errors import CheckpointError
from tests.parity import nvidia_files
from tests.parity.nvidia_files import PersistentModule, TensorFlowNetwork

ONE = torch.zeros(1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {"hypernet.conv.0.weight": ONE, "x": ONE}}, "HyperStyle"),
        ({"g_running": {"generator.progression.0.conv1.0.conv.weight_orig": ONE}}, "StyleGAN, the"),
        ({"g_synthesis.blocks.4x4.const": ONE, "g_mapping.dense0.weight": ONE}, "StyleGAN, the"),
        ({"synthesis.input.freqs": ONE, "mapping.fc0.weight": ONE}, "of StyleGAN3"),
        ({"G_ema": {"synthesis.L0_36_512.weight": ONE}}, "of StyleGAN3"),
        ({"GAN": {"S.net.0.weight": ONE}}, "lucidrains"),
        ({"params_ema": {"stylegan_decoder.style_mlp.1.weight": ONE}}, "BasicSR or GFPGAN"),
        ({"from_rgb.weight": ONE, "encode.0.conv1.weight": ONE}, "StarGAN v2 alone; .*folder"),
        ({"encoder.input_layer.0.weight": ONE}, "no decoder"),
        ({}, "holds nothing"),
        ({"model": {"layer.weight": ONE}}, "another project .*model.layer.weight"),
    ],
)
def test_it_is_refused_by_name(tmp_path, content, words):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=f"x.pt: .*{words}"):
        convert_file(tmp_path / "x.pt", tmp_path / "x.pdparams")
    assert not (tmp_path / "x.pdparams").exists()


def test_the_first_stylegan_and_the_third_as_nvidia_pickles_them(tmp_path):
    third = {"G_ema": PersistentModule({"synthesis.input.freqs": ONE, "mapping.w_avg": ONE})}
    first = TensorFlowNetwork({"G_synthesis/4x4/Const/StyleMod/weight": np.zeros(1, "f4")})
    for content, words in (
        (third, "x.pkl: G_ema: a network of StyleGAN3"),
        ((first, first, first), "x.pkl: G: a network of StyleGAN, not of StyleGAN2"),
    ):
        nvidia_files.write(tmp_path / "x.pkl", content)
        with pytest.raises(CheckpointError, match=words):
            convert_file(tmp_path / "x.pkl", tmp_path / "x.pdparams")


def test_a_generator_pickled_by_itself_is_code(tmp_path):
    """As PTI saves what it tuned: the whole module, and whoever opens it runs its code."""
    torch.save(torch.nn.Linear(2, 2), tmp_path / "tuned.pt")
    with pytest.raises(CheckpointError, match="tuned.pt: refused: it holds more than weights"):
        convert_file(tmp_path / "tuned.pt", tmp_path / "x.pdparams")
    (tmp_path / "tuned.pkl").write_bytes(pickle.dumps(torch.nn.Linear(2, 2)))
    with pytest.raises(CheckpointError, match="tuned.pkl: refused: it refers to torch"):
        convert_file(tmp_path / "tuned.pkl", tmp_path / "x.pdparams")
