"""Sampling and figures of a conditional, grey generator."""

import numpy as np
import paddle
import pytest

from paddle_sam.core.images import read_image
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.stylegan2.generator import StyleGenerator, as_rgb
from paddle_sam.stylegan2.parsing import parse_label
from scripts.figures import main as figures
from scripts.sample import main as sample
from tests import DEVICE

ARCH = {
    "size": 16, "style_dim": 6, "mapping_layers": 2, "channels": {4: 8, 8: 8, 16: 4},
    "classes": 3, "image_channels": 1,
}  # fmt: skip


@pytest.fixture
def weights(tmp_path):
    paddle.seed(0)
    entry = NetworkEntry.of("stylegan2_generator", ARCH, Generator(**ARCH))
    file = WeightFile("stylegan2", {"g_ema": entry}, latent_avg=np.zeros(6, np.float32))
    file.write(tmp_path / "c.pdparams")
    return tmp_path / "c.pdparams"


def test_samples_of_a_class_and_of_a_mix(weights, tmp_path, capsys):
    found = {}
    for name, label in (("one", "0"), ("other", "2"), ("mix", "0:1,2:1")):
        given = ["--checkpoint_path", str(weights), "--seeds", "5", "--truncation", "1"]
        assert sample([*given, "--label", label, "--exp_dir", str(tmp_path / name)]) == 0
        found[name] = read_image(tmp_path / name / "samples" / "seed0005.png")
        np.testing.assert_array_equal(found[name][..., 0], found[name][..., 2])  # grey
    assert (found["one"] != found["other"]).any() and (found["mix"] != found["one"]).any()
    assert sample([*given, "--exp_dir", str(tmp_path / "none")]) == 2
    assert "--label: " in capsys.readouterr().err
    assert sample([*given, "--label", "1", "--exp_dir", str(tmp_path / "one")]) == 2
    assert "label was '0', is '1'" in capsys.readouterr().err


def test_a_figure_has_a_column_for_each_class(weights, tmp_path, capsys):
    given = ["--checkpoint_path", str(weights), "--figures", "classes", "--class_seeds", "1,2"]
    given += ["--tile_size", "16", "--exp_dir", str(tmp_path)]
    assert figures(given) == 0
    figure = read_image(tmp_path / "figures" / "classes.png")
    assert figure.shape == (12 + 2 * 16, 8 + 3 * 16, 3)
    generator = StyleGenerator.open(weights, DEVICE, "eager")
    third = generator.of_class(parse_label("2", 3))
    want = third.render(third.seed_codes([2], 0.7))[0]
    assert np.abs(figure[28:, 40:].astype(int) - want).max() <= 1
    assert figures(["--figures", "classes", "--exp_dir", str(tmp_path)]) == 2
    assert "this model is not conditional" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["3", "x", "0,1", "0:0", "-1"])
def test_labels_that_cannot_be_are_explained(text):
    with pytest.raises(ConfigError, match="label: "):
        parse_label(text, 3)


def test_channels_as_a_viewer_shows_them():
    opaque, clear = np.ones((1, 4, 1, 1)), np.array([0.0, 0.5, -1.0, -1.0]).reshape(1, 4, 1, 1)
    np.testing.assert_array_equal(as_rgb(clear).ravel(), [1, 1, 1])  # white paper
    opaque[0, :3, 0, 0] = [-1, 0, 1]
    np.testing.assert_array_equal(as_rgb(opaque).ravel(), [-1, 0, 1])
    assert as_rgb(np.zeros((2, 1, 4, 4))).shape == (2, 3, 4, 4)
    with pytest.raises(ConfigError, match="1, 3 or 4 channels to show, found 2"):
        as_rgb(np.zeros((1, 2, 4, 4)))
