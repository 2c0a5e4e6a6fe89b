"""StyleGAN2's training step on tiny networks."""

import dataclasses

import numpy as np
import paddle
import pytest

import paddle_sam
from paddle_sam.errors import ConfigError, TrainingError
from paddle_sam.stylegan2.train.trainer import averaging
from tests import DEVICE
from tests.unit.stylegan2.train.tiny import TINY, batch, make_trainer


def test_a_step_logs_losses_scores_and_progress():
    trainer = make_trainer("ada", augment_p=0.25)
    logged = trainer.train_step(batch(), 0)
    assert set(logged) == {
        *("G/loss", "G/path_penalty", "G/path_length", "D/loss", "D/score_real", "D/score_fake"),
        *("D/sign_real", "D/r1", "augment_p", "size", "kimg", "loss"),
    }
    assert logged["kimg"] == 0.004
    assert trainer.path_mean == pytest.approx(0.01 * logged["G/path_length"])
    later = trainer.train_step(batch(), 1)  # has no penalties; those of the step before are shown
    for name in ("G/path_penalty", "G/path_length", "D/r1"):
        assert later[name] == logged[name]
        assert trainer.train_step(batch(), 2)[name] != logged[name]


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
    assert averaging(config, 4 * 10**6) ** 100 == pytest.approx(0.5)  # 400 images are 100 steps
    assert averaging(config, 4000) ** 50 == pytest.approx(0.5)  # 5% of 4000 images
    assert averaging(config, 0) == 0
    assert averaging(dataclasses.replace(config, ema_rampup=0.0), 0) ** 100 == pytest.approx(0.5)
    trainer = make_trainer()
    trainer.train_step(batch(), 0)
    for mean, value in zip(
        trainer.average.parameters(), trainer.generator.parameters(), strict=True
    ):
        np.testing.assert_allclose(mean.numpy(), value.numpy(), rtol=3e-7)


def test_the_sign_statistic_moves_p_every_few_steps():
    trainer = make_trainer("ada", augment_p=0.5, ada_target=-2.0, ada_interval=2)
    found = [trainer.train_step(batch(), step)["augment_p"] for step in range(4)]
    assert found == pytest.approx([0.5, 0.508, 0.508, 0.516])  # 8 images of 1000
    fixed = make_trainer("fixed", augment_p=0.5, ada_target=-2.0, ada_interval=1)
    assert fixed.train_step(batch(), 0)["augment_p"] == 0.5
    assert make_trainer("none", augment_p=0.5).augment_p == 0


def test_a_loss_that_is_not_a_number_stops_the_run():
    trainer = make_trainer()
    bad = dataclasses.replace(batch(), source=np.full((4, 3, 16, 16), np.nan, "float32"))
    with pytest.raises(TrainingError, match="step 8: D/loss is nan"):
        trainer.train_step(bad, 7)


def test_snapshots_hold_the_average_and_the_mean_code(tmp_path):
    trainer = make_trainer()
    trainer.train_step(batch(), 0)
    trainer.state.weights(["g_ema"]).write(tmp_path / "network.pdparams")
    network = paddle_sam.load(tmp_path / "network.pdparams", device=DEVICE)
    assert network.latent_avg.shape == [6]
    z = np.random.default_rng(3).standard_normal([4000, 6], np.float32)
    mean = trainer.average.style(paddle.to_tensor(z)).mean(axis=0)
    np.testing.assert_allclose(network.latent_avg.numpy(), mean.numpy(), atol=0.05)
    assert list(trainer.state.weights(["g_ema"]).networks) == ["g_ema"]
    assert list(trainer.state.weights().networks) == ["g_ema", "g", "d"]
    np.testing.assert_array_equal(trainer.panel(), trainer.panel())
    assert trainer.panel().shape == (8 * 16, 8 * 16, 3)


def test_sixteen_bits_are_for_gpus():
    with pytest.raises(ConfigError, match="amp: Paddle has 16-bit training on GPUs only"):
        make_trainer(amp=True)


def test_the_discriminator_repeats_with_images_of_its_own():
    trainer = make_trainer("fixed", augment_p=0.3, d_repeats=2, r1_gamma=0.0)
    steps = {"g": 0, "d": 0}
    for name, optimizer in trainer.optimizers.items():

        def counted(name=name, step=optimizer.step):
            steps[name] += 1
            step()

        optimizer.step = counted
    seen = []
    trainer.phases = [
        dataclasses.replace(phase, loss=_watched(phase.loss, seen)) for phase in trainer.phases
    ]
    images = batch(8)
    logged = trainer.train_step(images, 1)
    assert steps == {"g": 1, "d": 2}
    assert logged["kimg"] == 0.016  # two steps of twice four
    whole = images.tensors()[0].numpy()
    for repeat in (0, 1):
        np.testing.assert_array_equal(np.sort(seen[1 + repeat], 0), np.sort(whole[repeat::2], 0))
    again = make_trainer("fixed", augment_p=0.3, d_repeats=2, r1_gamma=0.0, accumulate=2)
    assert again.train_step(images, 1) == pytest.approx(logged, rel=1e-2, abs=1e-3)


def _watched(loss, seen):
    def watched(step, part):
        seen.append(step.real(part).numpy())
        return loss(step, part)

    return watched


def test_rates_follow_the_stages():
    trainer = make_trainer(stages="8:0.008", stage_rates="8:0.004")
    assert trainer.learning_rate == 0.004
    assert trainer.optimizers["d"].get_lr() == pytest.approx(0.004 * 2 / 3)
    for step in range(3):
        trainer.train_step(batch(), step)
    assert (trainer.generator.size, trainer.learning_rate) == (16, 1e-3)
    assert trainer.optimizers["d"].get_lr() == pytest.approx(2e-3 * 2 / 3)


def test_what_depends_on_progress_changes_every_few_steps():
    trainer = make_trainer(stages="8:0.004", minibatch_repeats=3)
    sizes = [trainer.train_step(batch(), step)["size"] for step in range(4)]
    assert sizes == [8, 8, 8, 16]
