"""Blending by layers: which array comes from where, and files that ageing and sampling open."""

import numpy as np
import pytest

import paddle_sam
from paddle_sam.core.weights import WeightFile, find_weight
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2_ops import noise_resolutions
from paddle_sam.stylegan2.blend import blended, layer_resolution
from scripts.blend import main
from tests import DEVICE
from tests.unit.ageing.tiny import save_generator, tiny_generator


def state(seed, size=32):
    return {name: t.numpy() for name, t in tiny_generator(size, seed=seed).state_dict().items()}


def test_every_array_comes_from_the_generator_of_its_resolution():
    low, high = state(0), state(1)
    found = blended(low, high, 16)
    taken = {True: set(), False: set()}
    for name, array in found.items():
        source = high if layer_resolution(name) >= 16 else low
        np.testing.assert_array_equal(array, source[name])
        taken[source is high].add(name.split(".")[0] + "." + name.split(".")[1])
    # 4 px: input, conv1, to_rgb1; 8 px: convs 0 and 1, to_rgbs 0; 16 px: convs 2 and 3, to_rgbs 1.
    assert {"convs.2", "convs.3", "convs.4", "convs.5", "to_rgbs.1", "to_rgbs.2"} <= taken[True]
    assert {"convs.0", "convs.1", "to_rgbs.0", "conv1.conv", "style.1"} <= taken[False]
    np.testing.assert_array_equal(blended(low, high, 16, mapping="high")["style.1.weight"],
                                  high["style.1.weight"])  # fmt: skip


def test_layers_are_swapped_within_a_resolution():
    """At layer 2 the first convolution of 8 px is low, the second and its RGB layer are high."""
    low, high = state(0), state(1)
    found = blended(low, high, 32, layer=2)
    first = ("input", "conv1", "to_rgb1", "convs.0.", "noises.noise_0", "noises.noise_1", "style.")
    for name, array in found.items():
        np.testing.assert_array_equal(array, (low if name.startswith(first) else high)[name])
    for layer, resolution in ((1, 8), (3, 16), (5, 32)):
        want = blended(low, high, resolution)
        for name, array in blended(low, high, 32, layer=layer).items():
            np.testing.assert_array_equal(array, want[name])
    name = "convs.3.conv.weight"  # layer 4, a quarter and an octave above the border
    share = 1 / (1 + np.exp(-1.25))
    found = blended(low, high, 32, width=1.0, layer=2)[name]
    np.testing.assert_allclose(found, (1 - share) * low[name] + share * high[name], atol=1e-6)
    with pytest.raises(ConfigError, match="layer: expected 1 to 6, found 7"):
        blended(low, high, 32, layer=7)


def test_noise_belongs_to_its_layer():
    for index, resolution in enumerate(noise_resolutions(64)):
        assert layer_resolution(f"noises.noise_{index}") == resolution


def test_a_width_mixes_layers():
    low, high = state(0), state(1)
    found = blended(low, high, 16, width=1.0)
    name = "convs.2.conv.weight"  # of 16 px, half an octave above the border
    share = 1 / (1 + np.exp(-0.5))
    want = (1 - share) * low[name] + share * high[name]
    np.testing.assert_allclose(found[name], want, atol=1e-6)


def test_what_does_not_fit_is_explained():
    with pytest.raises(CheckpointError, match="differ in shape"):
        blended(state(0, 64), state(1, 32), 16)
    for resolution in (4, 24, 64):
        with pytest.raises(ConfigError, match=f"resolution: .*8 to 32, found {resolution}"):
            blended(state(0), state(1), resolution)


def test_the_command_blends_generators(tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        save_generator(tmp_path / f"{name}.pdparams", tiny_generator(seed=seed))
    out = tmp_path / "out" / "c.pdparams"
    given = ["--low", str(tmp_path / "a.pdparams"), "--high", str(tmp_path / "b.pdparams")]
    given += ["--resolution", "16", "--seeds", "0,1", "--device", DEVICE, "--output", str(out)]
    assert main(given) == 0
    assert str(out) in capsys.readouterr().out and out.with_suffix(".png").is_file()
    found = paddle_sam.load(out, device=DEVICE).state_dict()
    np.testing.assert_array_equal(found["convs.2.conv.weight"].numpy(),
                                  state(1)["convs.2.conv.weight"])  # fmt: skip
    assert WeightFile.read(out).latent_avg is not None
    assert main(given[2:]) == 2
    assert "--low: name" in capsys.readouterr().err


def test_the_decoder_of_sam_is_blended(tmp_path, capsys):
    sam, out = find_weight("sam_mini"), tmp_path / "blended.pdparams"
    file = WeightFile.read(sam)
    decoder = file.entry().below("decoder.")
    changed = {name: array + 0.01 for name, array in decoder.items()}
    entry = file.entry()
    generator = WeightFile("stylegan2", {"g_ema": type(entry)(
        "stylegan2_generator", entry.arch["decoder"], changed)})  # fmt: skip
    generator.latent_avg = np.zeros(entry.arch["decoder"]["style_dim"], np.float32)
    generator.write(tmp_path / "g.pdparams")
    given = ["--low", str(sam), "--high", str(tmp_path / "g.pdparams"), "--output", str(out)]
    assert main([*given, "--seeds", "0", "--device", DEVICE]) == 0
    network = paddle_sam.load(out, device=DEVICE, expect=SAM)
    found = network.state_dict()
    for name, offset in (("convs.0.conv.weight", 0), ("convs.4.conv.weight", 0.01)):
        np.testing.assert_allclose(
            found[f"decoder.{name}"].numpy(), decoder[name] + offset, atol=1e-6
        )
    assert main([*given, "--mapping", "high"]) == 2
    assert "--mapping high" in capsys.readouterr().err
    assert main([*given[2:], "--low", str(find_weight("age_mini"))]) == 2
    assert "has no StyleGAN2 generator" in capsys.readouterr().err
