"""StyleGAN2's networks: growth, transfer, frozen stages."""

import dataclasses

import numpy as np
import paddle
import pytest

from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.imagesets.loader import to_device
from paddle_sam.networks.stylegan2_ops import upsample2d
from paddle_sam.stylegan2.train.growth import Archs, read_start
from paddle_sam.stylegan2.train.trainer import StyleGAN2Trainer
from tests.unit.stylegan2.train.tiny import TINY, batch, make_trainer, state


def test_a_grown_generator_first_renders_the_same_enlarged():
    trainer = make_trainer(stages="8:0.008")
    assert trainer.generator.size == 8
    trainer.train_step(batch(), 0)
    z = paddle.randn([2, 6])
    before = trainer.average([z], randomize_noise=False)
    trainer.enter_size(16, trainer.state.entries())
    assert (trainer.generator.size, trainer.discriminator.size) == (16, 16)
    after = trainer.average([z], randomize_noise=False)
    smooth = trainer.average.to_rgbs[1]
    expected = upsample2d(before, smooth.kernel).numpy()
    bias = smooth.bias.numpy()
    np.testing.assert_allclose(after.numpy(), expected + bias, atol=1e-5)
    assert trainer.train_step(batch(), 2)["size"] == 16
    assert any(float(p.abs().sum()) > 0 for p in trainer.generator.to_rgbs[1].parameters())


def test_layers_of_the_discriminator_keep_their_resolution_when_it_grows():
    small = make_trainer(stages="8:0.008")
    entries = small.state.entries()
    big = make_trainer(start=entries)
    old, new = entries["d"].state, big.discriminator.state_dict()
    moved = {"convs.1.conv1.conv.weight": "convs.2.conv1.conv.weight"}
    for theirs, ours in {**moved, "final_linear.0.weight": "final_linear.0.weight"}.items():
        np.testing.assert_array_equal(new[ours].numpy(), old[theirs])
    back = make_trainer(start=big.state.entries(), stages="8:0.008")
    for name, value in back.discriminator.state_dict().items():
        same = np.array_equal(value.numpy(), old[name])
        assert same or name.startswith("convs.0."), name


def waves(size):
    x, y = np.meshgrid(*[np.linspace(-1, 1, size)] * 2)
    found = [np.sin(x + phase) * np.cos(2 * y - phase) for phase in range(6)]
    return np.stack(found).reshape([2, 3, size, size]).astype("float32")


def test_networks_grow_by_several_doublings():
    wide = {"channel_base": 192, "resolution": 32}
    small = make_trainer(stages="8:0.008", **wide)
    big = make_trainer(start=small.state.entries(), **wide)
    before = small.discriminator(to_device(waves(32), size=8)).numpy()
    after = big.discriminator(paddle.to_tensor(waves(32))).numpy()
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()
    z = paddle.randn([1, 6])
    coarse = small.average([z], randomize_noise=False).numpy()
    fine = to_device(big.average([z], randomize_noise=False).numpy(), size=8).numpy()
    assert np.abs(fine - coarse)[:, :, 2:-2, 2:-2].mean() < 0.2 * np.abs(coarse).mean()


def test_a_grown_discriminator_first_gives_the_scores_of_the_smaller_one():
    """Of smooth images: it reduces them with its own filter, not by averaging squares."""
    small = make_trainer(stages="8:0.008")
    for layer in small.discriminator.sublayers():
        if hasattr(layer, "bias"):
            layer.bias.set_value(0.3 * paddle.randn(layer.bias.shape))
    big = make_trainer(start=small.state.entries())
    images = waves(16)
    before = small.discriminator(to_device(images, size=8)).numpy()
    after = big.discriminator(paddle.to_tensor(images)).numpy()
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()
    # Inside, where no border is near, it is the same up to the filters' difference.
    features = small.discriminator.convs[0](to_device(images, size=8)).numpy()
    passed = big.discriminator.convs[1](big.discriminator.convs[0](paddle.to_tensor(images)))
    np.testing.assert_allclose(
        passed.numpy()[:, :, 2:-2, 2:-2], features[:, :, 2:-2, 2:-2], atol=0.05
    )
    trainable = big.discriminator
    trainable(paddle.to_tensor(images)).sum().backward()
    assert float(trainable.convs[1].skip.conv.weight.grad.abs().sum()) > 0


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A file of another model: 8 px, other widths."""
    config = dataclasses.replace(TINY, resolution=8, channel_max=5, latent_dim=7, seed=5)
    trainer = StyleGAN2Trainer(Archs.of_options(config), config)
    trainer.train_step(batch(resolution=8), 0)
    path = tmp_path_factory.mktemp("start") / "other.pdparams"
    trainer.state.weights().write(path)
    return path


def test_transfer_takes_the_networks_of_the_file_at_another_size(pretrained):
    start, new = read_start(dataclasses.replace(TINY, init_from=str(pretrained)))
    assert new == "size-dependent layers (file 8 px, run 16 px)"
    archs = Archs.of_entries(start, TINY)
    assert archs.generator["channels"] == {4: 5, 8: 5, 16: 2}
    assert archs.generator["style_dim"] == 7
    trainer = make_trainer(archs=archs, start=start)
    theirs = start["g"].state
    np.testing.assert_array_equal(
        trainer.generator.state_dict()["conv1.conv.weight"].numpy(), theirs["conv1.conv.weight"]
    )
    ema = trainer.average.state_dict()["style.1.weight"].numpy()
    np.testing.assert_array_equal(ema, start["g_ema"].state["style.1.weight"])
    assert trainer.train_step(batch(), 0)["size"] == 16


def test_transfer_without_a_discriminator_begins_with_a_new_one(pretrained, tmp_path):
    config = dataclasses.replace(TINY, resolution=8, init_from=str(pretrained), freeze_d=1)
    whole, new = read_start(config)
    assert new == ""
    content = WeightFile.read(pretrained)
    content.networks = {"g_ema": content.networks["g_ema"]}
    path = tmp_path / "generator.pdparams"
    content.write(path)
    start, new = read_start(dataclasses.replace(config, init_from=str(path), freeze_d=0))
    assert new == "the discriminator, which the file does not hold"
    with pytest.raises(ConfigError, match="freeze_d: would freeze"):
        read_start(dataclasses.replace(config, init_from=str(path)))
    archs = Archs.of_entries(start, config)
    assert archs.discriminator["channels"] == whole["d"].arch["channels"]
    trainer = make_trainer(archs=archs, start=start, resolution=8)
    np.testing.assert_array_equal(
        trainer.generator.state_dict()["style.1.weight"].numpy(),
        start["g_ema"].state["style.1.weight"],
    )


def test_files_that_are_no_start_are_refused(pretrained, tmp_path):
    content = WeightFile.read(pretrained)
    content.networks["g"].state.pop("style.1.weight")
    content.write(tmp_path / "cut.pdparams")
    config = dataclasses.replace(TINY, init_from=str(tmp_path / "cut.pdparams"))
    with pytest.raises(CheckpointError, match="g is not complete.*style.1.weight"):
        read_start(config)
    entry = NetworkEntry("age_regressor", {}, {})
    WeightFile("dex_vgg", {"dex_vgg": entry}).write(tmp_path / "age.pdparams")
    with pytest.raises(ConfigError, match="init_from: .*age.pdparams: holds no StyleGAN2"):
        read_start(dataclasses.replace(TINY, init_from=str(tmp_path / "age.pdparams")))


def test_frozen_stages_are_never_updated():
    trainer = make_trainer(freeze_d=2, init_from="file")
    before = state(trainer)
    for step in range(2):
        trainer.train_step(batch(), step)
    after = state(trainer)
    changed = {n[2:] for n in before if n[:2] == "d." and not np.array_equal(before[n], after[n])}
    frozen = [n for n in changed if n.startswith(("convs.0.", "convs.1."))]
    assert frozen == []
    assert {"convs.2.conv1.conv.weight", "final_linear.1.weight"} <= changed
    with pytest.raises(ConfigError, match="freeze_d: the discriminator has 3 stages at 16 px"):
        make_trainer(freeze_d=4, init_from="file")
