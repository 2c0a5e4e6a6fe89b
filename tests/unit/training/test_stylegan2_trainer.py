"""StyleGAN2's step on tiny networks, and runs of the command."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest

import paddle_sam
from paddle_sam.common.checkpoint_file import read_file, save_file
from paddle_sam.common.checks import CheckpointError, ConfigError, TrainingError
from paddle_sam.common.images import read_image, save_image
from paddle_sam.configs import stylegan2 as options
from paddle_sam.configs.base import check_resumable, parse
from paddle_sam.configs.stylegan2 import StyleGAN2Config
from paddle_sam.data.dataset import ImagePairs
from paddle_sam.data.loader import Batch
from paddle_sam.data.transforms import shrunk
from paddle_sam.models.lpips import LPIPS
from paddle_sam.training import stylegan2_trainer as module
from paddle_sam.training.distributed import World
from paddle_sam.training.stylegan2_draws import split_batch
from paddle_sam.training.stylegan2_networks import Archs, read_start
from paddle_sam.training.stylegan2_run import _judge, augmentation, spread
from paddle_sam.training.stylegan2_trainer import StyleGAN2Trainer, averaging
from scripts.train_stylegan2 import main
from tests.unit.training.comparing import assert_equal, records

ROOT = Path(__file__).resolve().parents[3]
TINY = StyleGAN2Config(
    resolution=16,
    latent_dim=6,
    mapping_layers=2,
    channel_base=96,
    channel_max=6,
    batch_size=4,
    mbstd_group=2,
    path_interval=2,
    r1_interval=2,
    r1_gamma=5.0,
    ada_kimg=1.0,
    g_lr=1e-3,
    d_lr=2e-3,
    total_kimg=0.024,
)


def make_trainer(augment="none", start=None, archs=None, **changes):
    config = dataclasses.replace(TINY, **changes)
    trainer = StyleGAN2Trainer(archs or Archs.of_config(config), config, augment, start)
    for layer in [trainer.generator.conv1, *trainer.generator.convs]:
        layer.noise.weight.set_value(np.array([0.1], np.float32))  # starts at 0: no effect
    return trainer


def batch(size=4, seed=0, resolution=16):
    images = np.random.default_rng(seed).uniform(-1, 1, (size, 3, resolution, resolution))
    return Batch(images.astype("float32"), None, tuple(Path(str(i)) for i in range(size)))


def state(trainer):
    return {
        f"{name}.{key}": value.copy()
        for name, entry in trainer.weights()["networks"].items()
        for key, value in entry["state"].items()
    }


# Losses and gradients, against another derivation in double precision


def softplus(x):
    return np.logaddexp(0, x)


class Double:
    """The trainer's networks in float64, judged by formulas written out once more."""

    def __init__(self, trainer, step):
        self.generator, self.discriminator = trainer.archs.build(trainer.generator.size)
        for own, theirs in (
            (self.generator, trainer.generator),
            (self.discriminator, trainer.discriminator),
        ):
            own.set_state_dict(theirs.state_dict())
            own.to(dtype="float64")
        self.trainer, self.step = trainer, step
        self.reals = paddle.to_tensor(batch().source[trainer.parts[0].places], "float64")

    def fakes(self, use, every=1):
        draws, part = self.trainer.draws, self.trainer.parts[0].every(every)
        generator = self.generator
        z = draws.latents(part, self.step, use, generator.style_dim)
        first = draws.first_style(part, self.step, use, generator.n_latent)
        w = [generator.style(paddle.to_tensor(z[:, side], "float64")) for side in (0, 1)]
        rows = [
            paddle.stack([w[0 if first[i, layer] else 1][i] for layer in range(first.shape[1])])
            for i in range(len(z))
        ]
        w_plus = paddle.stack(rows).detach()
        w_plus.stop_gradient = False
        sides = [buffer.shape[-1] for buffer in generator.noises.as_list()]
        noise = draws.normal(part, self.step, use, [sum(s * s for s in sides)]).numpy()
        noise = np.split(noise, np.cumsum([s * s for s in sides])[:-1], axis=1)
        noise = [
            paddle.to_tensor(n.reshape([-1, 1, s, s]), "float64")
            for n, s in zip(noise, sides, strict=True)
        ]
        return generator.synthesis(w_plus, noise)[0], w_plus

    def transform(self, use):
        trainer = self.trainer
        return trainer.draws.transform(
            trainer.parts[0], self.step, use, trainer.augment_p, trainer.generator.size
        )

    def score(self, images, use):
        return self.discriminator(self.transform(use)(images))[:, 0]

    def generator_loss(self):
        return softplus(-self.score(self.fakes(module._G)[0], module._G).numpy()).mean()

    def path_loss(self):
        images, w_plus = self.fakes(module._PATH, every=2)
        part = self.trainer.parts[0].every(2)
        y = self.trainer.draws.normal(part, self.step, module._PATH_NOISE, images.shape[1:])
        scaled = (images * y.astype("float64")).sum() / images.shape[-1]
        jacobian = paddle.grad(scaled, w_plus)[0].numpy()  # first derivative only
        lengths = np.sqrt(np.square(jacobian).sum(axis=2).mean(axis=1))
        return 2.0 * 2 * np.square(lengths - self.trainer.path_mean).mean()

    def discriminator_loss(self):
        fake = self.score(self.fakes(module._D_FAKE)[0], module._D_FAKE).numpy()
        real = self.score(self.reals, module._D_REAL).numpy()
        return softplus(fake).mean() + softplus(-real).mean()

    def r1_loss(self):
        images = self.reals.detach()
        images.stop_gradient = False
        gradient = paddle.grad(self.score(images, module._R1).sum(), images)[0].numpy()
        return 5.0 / 2 * np.square(gradient).sum(axis=(1, 2, 3)).mean() * 2


def slope(network, loss, directions):
    """Derivative of `loss()` by all weights of `network` along `directions`, by differences."""
    found = []
    for sign in (1, -1):
        for name, parameter in network.named_parameters():
            parameter.set_value(parameter + sign * 1e-6 * paddle.to_tensor(directions[name]))
        found.append(loss())
        for name, parameter in network.named_parameters():
            parameter.set_value(parameter - sign * 1e-6 * paddle.to_tensor(directions[name]))
    return (found[0] - found[1]) / 2e-6


@pytest.mark.parametrize(
    ("term", "augment_p"),
    [
        ("generator_loss", 0.6),
        ("path_penalty", 0.0),
        ("discriminator_loss", 0.6),
        ("r1", 0.0),
        ("r1", 0.6),
    ],
)
def test_losses_and_gradients_equal_differences_in_double_precision(term, augment_p):
    trainer = make_trainer("fixed", augment_p=augment_p)
    trainer.path_mean = 0.03
    step, part = 3, trainer.parts[0]
    own = "generator" if term in ("generator_loss", "path_penalty") else "discriminator"
    network = getattr(trainer, own)
    reals = () if own == "generator" else (batch().source,)
    loss, _ = getattr(trainer, f"_{term}")(part, step, *reals)
    loss.backward()

    double = Double(trainer, step)
    names = {"path_penalty": "path_loss", "r1": "r1_loss"}
    independent = getattr(double, names.get(term, term))
    assert float(loss) == pytest.approx(independent(), rel=2e-5)
    rng = np.random.default_rng(1)
    for group in ("weight", "bias"):  # gradients of biases are of another size
        directions = {
            name: rng.normal(size=p.shape) * (name.endswith(group) or "input" in name)
            for name, p in network.named_parameters()
        }
        if term == "path_penalty" or own == "generator":
            # The mapping network is left out: the independent path starts at its codes.
            directions = {n: d * (not n.startswith("style.")) for n, d in directions.items()}
        expected = slope(getattr(double, own), independent, directions)
        found = sum(
            float((p.grad.astype("float64") * paddle.to_tensor(directions[name])).sum())
            for name, p in network.named_parameters()
            if p.grad is not None
        )
        if own == "generator" and term == "generator_loss":
            assert abs(expected) > 1e-6
        assert found == pytest.approx(expected, rel=2e-3, abs=2e-6)


def test_every_parameter_is_trained_and_the_other_network_is_not():
    trainer = make_trainer("fixed", augment_p=0.5)
    for term, own, other in (
        ("_generator_loss", trainer.generator, trainer.discriminator),
        ("_discriminator_loss", trainer.discriminator, trainer.generator),
    ):
        reals = (batch().source,) if own is trainer.discriminator else ()
        with module._held(other):
            getattr(trainer, term)(trainer.parts[0], 0, *reals)[0].backward()
        for _, parameter in own.named_parameters():
            assert parameter.grad is not None
        assert all(p.grad is None for p in other.parameters())
        own.clear_gradients(set_to_zero=False)
    assert not any(p.stop_gradient for p in trainer.discriminator.parameters())


# Parts of a batch


def gradients_of(trainer, term):
    network = trainer.generator if term in ("_generator_loss", "_path_penalty") else None
    reals = () if network is not None else (batch(8).source,)
    network = network or trainer.discriminator
    values = {}
    for part in trainer.parts:
        loss, logged = getattr(trainer, term)(part, 2, *reals)
        (loss * part.share).backward()
        for name, value in logged.items():
            values[name] = values.get(name, 0) + part.share * float(value)
    return {n: p.grad.numpy() for n, p in network.named_parameters() if p.grad is not None}, values


@pytest.mark.parametrize("term", ["_generator_loss", "_path_penalty", "_discriminator_loss", "_r1"])
def test_accumulated_gradients_are_those_of_the_whole_batch(term):
    changes = {"batch_size": 8, "augment_p": 0.5}
    whole, values = gradients_of(make_trainer("fixed", **changes), term)
    parts, logged = gradients_of(make_trainer("fixed", accumulate=4, **changes), term)
    assert logged == pytest.approx(values, rel=1e-4, abs=1e-6)
    for name, gradient in whole.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(parts[name], gradient, atol=2e-4 * scale + 1e-9, err_msg=name)


def test_parts_hold_whole_groups_in_the_discriminators_order():
    config = dataclasses.replace(TINY, batch_size=16, mbstd_group=4)
    whole = split_batch(config, 4, World())[0].places
    groups = [set(whole[first::4]) for first in range(4)]  # as minibatch_stddev takes them
    assert groups == [{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}, {12, 13, 14, 15}]
    parts = split_batch(dataclasses.replace(config, accumulate=2), 4, World(1, 2))
    assert [(set(part.places), part.share) for part in parts] == [
        ({8, 9, 10, 11}, 0.5),
        ({12, 13, 14, 15}, 0.5),
    ]
    for changes in ({"accumulate": 3}, {"accumulate": 8}):
        with pytest.raises(ConfigError, match="batch_size: 16 images cannot be computed in"):
            split_batch(dataclasses.replace(config, **changes), 4, World())
    assert len(split_batch(dataclasses.replace(config, batch_size=3), 4, World())[0].places) == 3


# A step


def test_a_step_logs_losses_scores_and_progress():
    trainer = make_trainer("ada", augment_p=0.25)
    logged = trainer.train_step(batch(), 0)
    assert set(logged) == {
        *("G/loss", "G/path_penalty", "G/path_length", "D/loss", "D/score_real", "D/score_fake"),
        *("D/sign_real", "D/r1", "augment_p", "size", "kimg", "loss"),
    }
    assert logged["kimg"] == 0.004
    assert trainer.path_mean == pytest.approx(0.01 * logged["G/path_length"])
    later = trainer.train_step(batch(), 1)
    assert not {"G/path_penalty", "D/r1"} & set(later)  # lazy: every second step


def test_lazy_regularisation_corrects_the_optimizers():
    trainer = make_trainer()
    for name, rate in (("g", 1e-3), ("d", 2e-3)):
        optimizer = trainer.optimizers[name]
        assert optimizer.get_lr() == pytest.approx(rate * 2 / 3)
        assert optimizer._beta2 == pytest.approx(0.99 ** (2 / 3))
    plain = make_trainer(r1_gamma=0.0)
    assert plain.optimizers["d"].get_lr() == 2e-3
    assert "D/r1" not in plain.train_step(batch(), 0)


def test_the_average_forgets_by_half_in_its_half_life():
    config = dataclasses.replace(TINY, ema_kimg=0.4, ema_rampup=0.05)
    assert averaging(config, 10**6) ** 100 == pytest.approx(0.5)  # 400 images are 100 steps
    assert averaging(config, 1000) ** 50 == pytest.approx(0.5)  # 5% of 4000 images
    assert averaging(config, 0) == 0
    assert averaging(dataclasses.replace(config, ema_rampup=0.0), 0) ** 100 == pytest.approx(0.5)
    trainer = make_trainer()
    trainer.train_step(batch(), 0)
    for mean, value in zip(
        trainer.average.parameters(), trainer.generator.parameters(), strict=True
    ):
        np.testing.assert_array_equal(mean.numpy(), value.numpy())


def test_the_sign_statistic_moves_p_every_few_steps():
    trainer = make_trainer("ada", augment_p=0.5, ada_target=-2.0, ada_interval=2)
    found = [trainer.train_step(batch(), step)["augment_p"] for step in range(4)]
    assert found == pytest.approx([0.5, 0.508, 0.508, 0.516])  # 8 images of 1000
    fixed = make_trainer("fixed", augment_p=0.5, ada_target=-2.0, ada_interval=1)
    assert fixed.train_step(batch(), 0)["augment_p"] == 0.5
    assert make_trainer("none", augment_p=0.5).augment_p == 0


def test_a_loss_that_is_no_number_stops_before_it_does_harm():
    trainer = make_trainer()
    before = state(trainer)
    bad = dataclasses.replace(batch(), source=np.full((4, 3, 16, 16), np.nan, "float32"))
    with pytest.raises(TrainingError, match="step 8: D/loss is nan"):
        trainer.train_step(bad, 7)
    for name, value in state(trainer).items():
        if name.startswith("d."):
            np.testing.assert_array_equal(value, before[name])


def test_snapshots_hold_the_average_and_the_mean_code(tmp_path):
    trainer = make_trainer()
    trainer.train_step(batch(), 0)
    save_file(tmp_path / "network.pdparams", trainer.snapshot())
    network = paddle_sam.load(tmp_path / "network.pdparams", device="cpu")
    assert network.latent_avg.shape == [6]
    z = np.random.default_rng(3).standard_normal([4000, 6], np.float32)
    mean = trainer.average.style(paddle.to_tensor(z)).mean(axis=0)
    np.testing.assert_allclose(network.latent_avg.numpy(), mean.numpy(), atol=0.05)
    assert set(trainer.snapshot()["networks"]) == {"g_ema"}
    assert set(trainer.weights()["networks"]) == {"g_ema", "g", "d"}
    np.testing.assert_array_equal(trainer.panel(), trainer.panel())
    assert trainer.panel().shape == (8 * 16, 8 * 16, 3)


# Growth and transfer


def test_images_are_reduced_by_averaging():
    image = np.arange(16, dtype="float32").reshape(1, 1, 4, 4)
    np.testing.assert_array_equal(shrunk(image, 2), [[[[2.5, 4.5], [10.5, 12.5]]]])
    assert shrunk(image, 4) is image


def test_a_grown_generator_first_renders_the_same_enlarged():
    trainer = make_trainer(stages="8:0.008")
    assert trainer.generator.size == 8
    trainer.train_step(batch(), 0)
    z = paddle.randn([2, 6])
    before = trainer.average([z], randomize_noise=False)
    trainer._enter_size(16, trainer._entries())
    assert (trainer.generator.size, trainer.discriminator.size) == (16, 16)
    after = trainer.average([z], randomize_noise=False)
    smooth = trainer.average.to_rgbs[1]
    expected = module_upsample(before, smooth.kernel)
    bias = smooth.bias.numpy()
    np.testing.assert_allclose(after.numpy(), expected + bias, atol=1e-5)
    assert trainer.train_step(batch(), 2)["size"] == 16
    assert any(float(p.abs().sum()) > 0 for p in trainer.generator.to_rgbs[1].parameters())


def module_upsample(images, kernel):
    from paddle_sam.models.stylegan2_ops import upsample2d

    return upsample2d(images, kernel).numpy()


def test_layers_of_the_discriminator_keep_their_resolution_when_it_grows():
    small = make_trainer(stages="8:0.008")
    entries = small._entries()
    big = make_trainer(start=entries)
    old, new = entries["d"]["state"], big.discriminator.state_dict()
    moved = {"convs.1.conv1.conv.weight": "convs.2.conv1.conv.weight"}
    for theirs, ours in {**moved, "final_linear.0.weight": "final_linear.0.weight"}.items():
        np.testing.assert_array_equal(new[ours].numpy(), old[theirs])
    back = make_trainer(start=big._entries(), stages="8:0.008")
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
    big = make_trainer(start=small._entries(), **wide)
    before = small.discriminator(paddle.to_tensor(shrunk(waves(32), 8))).numpy()
    after = big.discriminator(paddle.to_tensor(waves(32))).numpy()
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()
    z = paddle.randn([1, 6])
    coarse = small.average([z], randomize_noise=False).numpy()
    fine = shrunk(big.average([z], randomize_noise=False).numpy(), 8)
    assert np.abs(fine - coarse)[:, :, 2:-2, 2:-2].mean() < 0.2 * np.abs(coarse).mean()


def test_a_grown_discriminator_first_gives_the_scores_of_the_smaller_one():
    """Of smooth images: it reduces them with its own filter, not by averaging squares."""
    small = make_trainer(stages="8:0.008")
    for layer in small.discriminator.sublayers():
        if hasattr(layer, "bias"):
            layer.bias.set_value(0.3 * paddle.randn(layer.bias.shape))
    big = make_trainer(start=small._entries())
    images = waves(16)
    before = small.discriminator(paddle.to_tensor(shrunk(images, 8))).numpy()
    after = big.discriminator(paddle.to_tensor(images)).numpy()
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()
    # Inside, where no border is near, it is the same up to the filters' difference.
    features = small.discriminator.convs[0](paddle.to_tensor(shrunk(images, 8))).numpy()
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
    trainer = StyleGAN2Trainer(Archs.of_config(config), config)
    trainer.train_step(batch(resolution=8), 0)
    path = tmp_path_factory.mktemp("start") / "other.pdparams"
    save_file(path, trainer.weights())
    return path


def test_transfer_takes_the_networks_of_the_file_at_another_size(pretrained):
    start, new = read_start(dataclasses.replace(TINY, init_from=str(pretrained)))
    assert new == "layers that depend on the size, 8 px there, 16 here"
    archs = Archs.of_entries(start, TINY)
    assert archs.generator["channels"] == {4: 5, 8: 5, 16: 2}
    assert archs.generator["style_dim"] == 7
    trainer = make_trainer(archs=archs, start=start)
    theirs = start["g"]["state"]
    np.testing.assert_array_equal(
        trainer.generator.state_dict()["conv1.conv.weight"].numpy(), theirs["conv1.conv.weight"]
    )
    ema = trainer.average.state_dict()["style.1.weight"].numpy()
    np.testing.assert_array_equal(ema, start["g_ema"]["state"]["style.1.weight"])
    assert trainer.train_step(batch(), 0)["size"] == 16


def test_transfer_without_a_discriminator_begins_with_a_new_one(pretrained, tmp_path):
    config = dataclasses.replace(TINY, resolution=8, init_from=str(pretrained), freeze_d=1)
    whole, new = read_start(config)
    assert new == ""
    content = read_file(pretrained)
    content["networks"] = {"g_ema": content["networks"]["g_ema"]}
    path = tmp_path / "generator.pdparams"
    save_file(path, content)
    start, new = read_start(dataclasses.replace(config, init_from=str(path), freeze_d=0))
    assert new == "the discriminator, which the file does not have"
    with pytest.raises(ConfigError, match="--freeze_d: would freeze layers that begin anew"):
        read_start(dataclasses.replace(config, init_from=str(path)))
    archs = Archs.of_entries(start, config)
    assert archs.discriminator["channels"] == whole["d"]["arch"]["channels"]
    trainer = make_trainer(archs=archs, start=start, resolution=8)
    np.testing.assert_array_equal(
        trainer.generator.state_dict()["style.1.weight"].numpy(),
        start["g_ema"]["state"]["style.1.weight"],
    )


def test_files_that_are_no_start_are_refused(pretrained, tmp_path):
    content = read_file(pretrained)
    content["networks"]["g"]["state"].pop("style.1.weight")
    save_file(tmp_path / "cut.pdparams", content)
    config = dataclasses.replace(TINY, init_from=str(tmp_path / "cut.pdparams"))
    with pytest.raises(CheckpointError, match="g is not complete.*style.1.weight"):
        read_start(config)
    entry = {"network": "age_regressor", "arch": {}, "state": {}}
    save_file(tmp_path / "age.pdparams", {"kind": "dex_vgg", "networks": {"dex_vgg": entry}})
    with pytest.raises(ConfigError, match="--init_from: .*age.pdparams holds no StyleGAN2"):
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
    with pytest.raises(ConfigError, match="--freeze_d: the discriminator has 3 stages at 16 px"):
        make_trainer(freeze_d=4, init_from="file")


# Options


def config_of(*argv):
    return parse(StyleGAN2Config, argv, "", options.PRESETS, options.implied)


def test_presets_follow_resolution_and_batch():
    auto = config_of("--resolution", "256")
    assert (auto.batch_size, auto.channel_base, auto.mapping_layers) == (16, 16384, 2)
    assert auto.r1_gamma == pytest.approx(0.0002 * 256**2 / 16)
    large = config_of("--resolution", "1024", "--batch_size", "8")
    assert (large.g_lr, large.d_lr, large.channel_base) == (0.002, 0.002, 32768)
    assert large.r1_gamma == pytest.approx(0.0002 * 1024**2 / 8)
    assert large.ema_kimg == 2.5
    paper = config_of("--preset", "stylegan2")
    assert (paper.r1_gamma, paper.d_lr, paper.mapping_layers) == (10.0, 0.002, 8)
    assert config_of("--preset", "mini", "--r1_gamma", "3").r1_gamma == 3
    assert config_of() == StyleGAN2Config(mapping_layers=2, channel_base=16384)


def test_sixteen_bits_are_for_gpus():
    with pytest.raises(ConfigError, match="--amp: Paddle has 16-bit training on GPUs only"):
        make_trainer(amp=True)


def test_small_sets_are_augmented():
    assert augmentation(TINY, 1000) == "ada"
    assert augmentation(TINY, 200_000) == "none"
    assert augmentation(dataclasses.replace(TINY, augment="fixed"), 200_000) == "fixed"


def test_stages_follow_the_images_trained_on():
    config = dataclasses.replace(TINY, resolution=32, stages="8:0.008,16:0.004")
    assert [config.size_at(step) for step in range(5)] == [8, 8, 16, 32, 32]
    assert config.steps(0.008) == 2
    # A stage may be made longer while it lasts.
    check_resumable(config, dataclasses.replace(config, stages="8:0.008,16:0.04"), Path("run"))
    assert config.steps(0.0) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 48}, "resolution: expected a power of two, found 48"),
        ({"style_mixing": 1.5}, "style_mixing: expected at most 1, found 1.5"),
        ({"augment_p": 2.0}, "augment_p: expected at most 1"),
        ({"resume": "newest"}, "resume: expected latest or a step, found 'newest'"),
        ({"stages": "8"}, "stages: expected SIZE:KIMG,..., found '8'"),
        ({"stages": "16:1"}, "stages: expected rising powers of two from 8 and below --resolution"),
        ({"freeze_d": 1}, "freeze_d: expected with --init_from and without --stages"),
        ({"augment_ops": "blit,noise"}, "augment_ops: expected some of .*, found 'noise'"),
    ],
)
def test_options_that_cannot_work(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **changes)


# The command


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(6):
        coarse = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        save_image(folder / f"{index}.png", coarse)
    return folder


def command(data, folder, **changes):
    values = dataclasses.asdict(TINY) | {
        "train_data": str(data),
        "exp_dir": str(folder),
        "device": "cpu",
        "num_workers": 0,
        "augment_p": 0.3,
        "stages": "8:0.008",
        "log_kimg": 0.004,
        "snapshot_kimg": 0.008,
        "save_kimg": 0.012,
        "keep_checkpoints": 0,
        **changes,
    }
    flags = []
    for name, value in values.items():
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        else:
            flags += [f"--{name}", str(value)]
    return [str(ROOT / "scripts" / "train_stylegan2.py"), *flags]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def train(data, folder, launch=(), **changes):
    return subprocess.run(
        [sys.executable, *launch, *command(data, folder, **changes)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )


def checkpoint(folder, step):
    content = read_file(folder / "checkpoints" / f"iteration_{step}.pdparams")
    content["training"].pop("elapsed")
    content.pop("options")
    return content


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """Six steps without a break: two at 8 px, four at 16."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    done = train(data, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(data, straight, tmp_path):
    """Broken within the first stage, and after it; the second time the workers change, too."""
    assert main(command(data, tmp_path, total_kimg=0.004)[1:]) == 0
    for kimg in (0.012, 0.024):
        done = train(data, tmp_path, total_kimg=kimg, num_workers=int(kimg > 0.02))
        assert done.returncode == 0, done.stderr
    assert_equal(checkpoint(tmp_path, 6), checkpoint(straight, 6))
    assert records(tmp_path) == records(straight)
    assert [r["size"] for r in records(straight)] == [8, 8, 16, 16, 16, 16]
    assert records(straight)[-1]["augment_p"] != 0.3


def test_a_signal_stops_a_run_with_a_checkpoint(data, straight, tmp_path):
    process = subprocess.Popen(
        [sys.executable, *command(data, tmp_path, total_kimg=100)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    )
    while not (tmp_path / "stats.jsonl").exists() or not records(tmp_path):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in errors
    last = records(tmp_path)[-1]["step"]
    assert checkpoint(tmp_path, last)["training"]["step"] == last
    for ours, theirs in zip(records(tmp_path), records(straight), strict=False):
        assert ours == theirs


def test_what_a_run_leaves(straight):
    # Fewer than a thousand images: every snapshot replaces the one before.
    network = paddle_sam.load(straight / "snapshots" / "network_000000.pdparams", device="cpu")
    assert network.size == 16
    grid = read_image(straight / "samples" / "fakes_000000.png")
    assert grid.shape == (8 * 16, 8 * 16, 3)
    assert (straight / "checkpoints" / "iteration_3.pdparams").exists()
    assert not (straight / "checkpoints" / "best_model.pdparams").exists()
    panels = sorted(path.stem for path in (straight / "images/train/faces").iterdir())
    assert panels == ["0000001", "0000002", "0000004", "0000006"]
    judge = paddle_sam.load(straight / "checkpoints" / "iteration_6.pdparams", "d", device="cpu")
    assert judge.size == 16


def test_measures_are_taken_all_over_the_data(data, tmp_path):
    lpips = {name: tensor.numpy() for name, tensor in LPIPS("alex").state_dict().items()}
    np.savez(tmp_path / "lpips.npz", **lpips)
    images = ImagePairs(str(data))
    assert spread(images, 3).sources == [images.sources[index] for index in (0, 2, 5)]
    assert spread(images, 100).sources == images.sources
    config = dataclasses.replace(
        TINY, metric="kid_alex", metric_images=4, lpips_path=str(tmp_path / "lpips.npz")
    )
    trainer = make_trainer()
    trainer.judge = _judge(config, images)
    found = trainer.evaluate(())
    assert set(found) == {"kid_alex", "loss"}
    assert found == trainer.evaluate(())
    assert make_trainer().evaluate(()) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"g_lr": 0.1}, "--g_lr was 0.001, is 0.1"),
        ({"resume": "4"}, "iteration_4.pdparams does not exist; the latest checkpoint is"),
        (
            {"resolution": 32, "stages": "", "exp_dir": "new"},
            "has 16 x 16 pixels, expected squares",
        ),
        ({"train_data": "nowhere", "exp_dir": "new"}, "nowhere: there is no such file or folder"),
        ({"init_from": "no.pdparams", "exp_dir": "new"}, "no.pdparams: there is no such file"),
        ({"metric": "kid_alex", "lpips_path": "no.npz", "exp_dir": "new"}, "download_weights.py"),
    ],
)
def test_runs_that_cannot_start_say_why(data, straight, tmp_path, capsys, changes, message):
    if changes.get("exp_dir"):
        changes = {**changes, "exp_dir": str(tmp_path / "new")}
    before = sorted(straight.rglob("*"))
    assert main(command(data, straight, **changes)[1:]) == 2
    assert message in capsys.readouterr().err
    assert sorted(straight.rglob("*")) == before
    assert not (tmp_path / "new").exists()


def test_two_processes_equal_one(data, straight, tmp_path):
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    launch += ["--log_dir", str(tmp_path / "logs")]
    done = train(data, tmp_path / "run", launch)
    assert done.returncode == 0, done.stdout + done.stderr
    for one, two in zip(records(straight), records(tmp_path / "run"), strict=True):
        for name in ("G/loss", "D/loss", "D/r1", "G/path_length", "augment_p"):
            if name in one:
                assert two[name] == pytest.approx(one[name], rel=5e-3, abs=1e-3), name
