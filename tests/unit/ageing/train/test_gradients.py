"""Gradients of a whole training step against finite differences, in float64.

At published size the comparison with the published code (tests/parity) can only bound them: there
float32 does not determine them. Here every loss and batch norm in train mode take part. There is no
way back: its input counts as constant, so the gradient is not the slope of what it adds.
"""

import dataclasses

import numpy as np
import paddle
import pytest

from tests.unit.training import tiny

# So small because of the many kinks: at 1e-6 the slope is off by half a percent.
STEP = 1e-8


@pytest.fixture(scope="module")
def trainer(files):
    """A tiny trainer that computes in float64, without random noise."""
    trainer = tiny.trainer(files, cycle_lambda=0.0)
    for layer in trainer.network.decoder.sublayers():
        if type(layer).__name__ == "NoiseInjection":
            layer.weight.set_value(paddle.zeros([1]))
    loss = trainer.loss
    for network in (trainer.network, loss.embedder, loss.age_regressor, loss.lpips):
        network.to(dtype="float64")
    loss.latent_avg = loss.latent_avg.astype("float64")
    return trainer


def step_loss(trainer) -> float:
    """The step's loss; adds its gradient."""
    losses = []
    trainer.amp.scale = lambda loss: losses.append(loss.item()) or loss
    batch = tiny.batch()
    batch = dataclasses.replace(batch, source=batch.source.astype("float64"))
    trainer.accumulate(batch, np.array([0.2, 0.7]))
    return sum(losses)


@pytest.mark.parametrize(
    "name",
    [
        "encoder.input_layer.0.weight",
        "encoder.input_layer.2._weight",
        "encoder.body.1.res_layer.1.weight",
        "encoder.body.3.res_layer.4.weight",
        "encoder.latlayer1.weight",
        "encoder.styles.0.convs.0.weight",
        "encoder.styles.7.linear.bias",
    ],
)
def test_gradients_are_the_slopes_of_the_loss(trainer, name):
    parameter = dict(trainer.network.named_parameters())[name]
    start = parameter.clone().detach()
    trainer.network.clear_gradients()
    step_loss(trainer)
    gradient = parameter.grad.numpy().copy()
    direction = np.random.default_rng(0).standard_normal(gradient.shape)
    losses = []
    for sign in (1, -1):
        parameter.set_value(start + sign * STEP * paddle.to_tensor(direction))
        losses.append(step_loss(trainer))
    parameter.set_value(start)
    slope = (losses[0] - losses[1]) / (2 * STEP)
    assert abs(slope) > 1e-4  # else it would prove nothing
    assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-5)
