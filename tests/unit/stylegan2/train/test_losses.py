"""StyleGAN2's losses and gradients: against another derivation, and in parts of a batch."""

import dataclasses

import numpy as np
import paddle
import pytest

from paddle_sam.errors import ConfigError
from paddle_sam.networks.load import held
from paddle_sam.networks.stylegan2 import Discriminator, Generator
from paddle_sam.stylegan2.train import trainer as losses
from paddle_sam.stylegan2.train.draws import Draws, split_batch
from paddle_sam.training.distributed import World
from tests.unit.stylegan2.train.tiny import TINY, batch, make_trainer

# Losses and gradients, against another derivation in double precision


def softplus(x):
    return np.logaddexp(0, x)


def make_step(trainer, number, images):
    return losses.Step(trainer, Draws(trainer.options, number), images.tensors()[0])


class Double:
    """The trainer's networks in float64, judged by formulas written out once more."""

    def __init__(self, trainer, step):
        size = trainer.generator.size
        self.generator = Generator(**trainer.archs.at("g", size))
        self.discriminator = Discriminator(**trainer.archs.at("d", size))
        for own, theirs in (
            (self.generator, trainer.generator),
            (self.discriminator, trainer.discriminator),
        ):
            own.set_state_dict(theirs.state_dict())
            own.to(dtype="float64")
        self.trainer, self.draws = trainer, Draws(trainer.options, step)
        self.reals = paddle.to_tensor(batch().source[trainer.parts[0].places], "float64")

    def fakes(self, use, every=1):
        draws, part = self.draws, self.trainer.parts[0].every(every)
        generator = self.generator
        z = draws.latents(part, use, generator.style_dim)
        first = draws.first_style(part, use, generator.n_codes)
        w = [generator.style(paddle.to_tensor(z[:, side], "float64")) for side in (0, 1)]
        rows = [
            paddle.stack([w[0 if first[i, layer] else 1][i] for layer in range(first.shape[1])])
            for i in range(len(z))
        ]
        w_plus = paddle.stack(rows).detach()
        w_plus.stop_gradient = False
        sides = [buffer.shape[-1] for buffer in generator.noises.as_list()]
        noise = draws.normal(part, use, [sum(s * s for s in sides)]).numpy()
        noise = np.split(noise, np.cumsum([s * s for s in sides])[:-1], axis=1)
        noise = [
            paddle.to_tensor(n.reshape([-1, 1, s, s]), "float64")
            for n, s in zip(noise, sides, strict=True)
        ]
        return generator.synthesis(w_plus, noise)[0], w_plus

    def transform(self, use):
        trainer = self.trainer
        size = trainer.generator.size
        return self.draws.transform(trainer.parts[0], use, trainer.augment_p, size)

    def score(self, images, use):
        return self.discriminator(self.transform(use)(images))[:, 0]

    def generator_loss(self):
        return softplus(-self.score(self.fakes(losses.G)[0], losses.G).numpy()).mean()

    def path_loss(self):
        images, w_plus = self.fakes(losses.PATH, every=2)
        part = self.trainer.parts[0].every(2)
        y = self.draws.normal(part, losses.PATH_NOISE, images.shape[1:])
        scaled = (images * y.astype("float64")).sum() / images.shape[-1]
        jacobian = paddle.grad(scaled, w_plus)[0].numpy()  # first derivative only
        lengths = np.sqrt(np.square(jacobian).sum(axis=2).mean(axis=1))
        return 2.0 * 2 * np.square(lengths - self.trainer.path_mean).mean()

    def discriminator_loss(self):
        fake = self.score(self.fakes(losses.D_FAKE)[0], losses.D_FAKE).numpy()
        real = self.score(self.reals, losses.D_REAL).numpy()
        return softplus(fake).mean() + softplus(-real).mean()

    def r1_loss(self):
        images = self.reals.detach()
        images.stop_gradient = False
        gradient = paddle.grad(self.score(images, losses.R1).sum(), images)[0].numpy()
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


def group_of(name):
    if name.startswith("style."):
        return "mapping"
    return "bias" if name.endswith("bias") else "weight"


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
    loss, _ = getattr(losses, term)(make_step(trainer, step, batch()), part)
    loss.backward()

    double = Double(trainer, step)
    names = {"path_penalty": "path_loss", "r1": "r1_loss"}
    independent = getattr(double, names.get(term, term))
    assert float(loss) == pytest.approx(independent(), rel=2e-5)
    rng = np.random.default_rng(1)
    # Gradients of weights, biases and the mapping network are of different sizes.
    for group in ("weight", "bias", "mapping")[: 3 if own == "generator" else 2]:
        directions = {
            name: rng.normal(size=p.shape) * (group_of(name) == group)
            for name, p in network.named_parameters()
        }
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
        (losses.generator_loss, trainer.generator, trainer.discriminator),
        (losses.discriminator_loss, trainer.discriminator, trainer.generator),
    ):
        with held(other):
            term(make_step(trainer, 0, batch()), trainer.parts[0])[0].backward()
        for _, parameter in own.named_parameters():
            assert parameter.grad is not None
        assert all(p.grad is None for p in other.parameters())
        own.clear_gradients(set_to_zero=False)
    assert not any(p.stop_gradient for p in trainer.discriminator.parameters())


# Parts of a batch


def gradients_of(trainer, term):
    generates = term in (losses.generator_loss, losses.path_penalty)
    network = trainer.generator if generates else trainer.discriminator
    values = {}
    for part in trainer.parts:
        loss, logged = term(make_step(trainer, 2, batch(8)), part)
        (loss * part.share).backward()
        for name, value in logged.items():
            values[name] = values.get(name, 0) + part.share * float(value)
    return {n: p.grad.numpy() for n, p in network.named_parameters() if p.grad is not None}, values


@pytest.mark.parametrize(
    "term", [losses.generator_loss, losses.path_penalty, losses.discriminator_loss, losses.r1]
)
def test_accumulated_gradients_are_those_of_the_whole_batch(term):
    changes = {"batch_size": 8, "augment_p": 0.5}
    whole, values = gradients_of(make_trainer("fixed", **changes), term)
    parts, logged = gradients_of(make_trainer("fixed", accumulate=4, **changes), term)
    assert logged == pytest.approx(values, rel=1e-4, abs=1e-6)
    for name, gradient in whole.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(parts[name], gradient, atol=2e-4 * scale + 1e-9, err_msg=name)


def test_a_step_in_parts_is_a_step_of_the_whole_batch():
    whole, parts = (
        make_trainer("fixed", batch_size=8, augment_p=0.5, accumulate=count).train_step(batch(8), 0)
        for count in (1, 4)
    )
    assert parts == pytest.approx(whole, rel=1e-2, abs=1e-3)


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
