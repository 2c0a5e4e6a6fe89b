"""Which parameters a backward pass reached, and second derivatives against differences."""

from collections.abc import Callable

import paddle
import pytest
from paddle import nn

from paddle_sam.training.trainers import r1_penalty


def without_gradient(network: nn.Layer) -> list[str]:
    """Names of the trainable parameters that have no gradient, or one of zeros.

    The running statistics of batch norm are parameters to Paddle, but not trainable.
    """
    trainable = [(name, p) for name, p in network.named_parameters() if not p.stop_gradient]
    assert trainable
    return [name for name, p in trainable if p.grad is None or float(p.grad.abs().sum()) == 0]


def assert_r1_trains(discriminator: nn.Layer, score: Callable, images: paddle.Tensor) -> None:
    """R1's gradient by each weight equals finite differences; some operations have none, or wrong.

    `discriminator` and `images` in float64; `score` gives logits [N] of images. Biases are left
    out: the slopes depend on them only where a kink is crossed.
    """
    images.stop_gradient = False

    def penalty() -> paddle.Tensor:
        return r1_penalty(score(images), images).sum()

    penalty().backward()
    step = 1e-6
    for name, parameter in discriminator.named_parameters():
        if name.endswith("bias"):
            continue
        direction = paddle.randn(parameter.shape, "float64")
        value = parameter.clone().detach()
        parameter.set_value(value + step * direction)
        above = float(penalty())
        parameter.set_value(value - step * direction)
        below = float(penalty())
        parameter.set_value(value)
        found = float((parameter.grad * direction).sum())
        assert found == pytest.approx((above - below) / (2 * step), rel=1e-4), name
