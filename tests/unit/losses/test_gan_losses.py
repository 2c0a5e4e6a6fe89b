import math

import numpy as np
import paddle
import pytest

from paddle_sam.losses.gan import distance, diversity_weight, logistic, r1_penalty


def test_logistic_is_binary_cross_entropy():
    logits = np.array([-3.0, 0.0, 2.0], "float32")
    probability = 1 / (1 + np.exp(-logits))
    found = logistic(paddle.to_tensor(logits), real=True).numpy()
    np.testing.assert_allclose(found, -np.log(probability), rtol=1e-5)
    found = logistic(paddle.to_tensor(logits), real=False).numpy()
    np.testing.assert_allclose(found, -np.log(1 - probability), rtol=1e-5)
    assert float(logistic(paddle.to_tensor(0.0), real=True)) == pytest.approx(math.log(2))


def test_logistic_stays_finite_far_out():
    logits = paddle.to_tensor([-500.0, 500.0], stop_gradient=False)
    loss = logistic(logits, real=True)
    assert loss.tolist() == [500.0, 0.0]
    loss.sum().backward()
    assert logits.grad.tolist() == [-1.0, 0.0]


def test_r1_of_a_quadratic_is_known_and_trains_the_discriminator():
    """D(x) = w sum(x^2): the gradient is 2 w x, the penalty 2 w^2 sum(x^2)."""
    w = paddle.to_tensor(3.0, stop_gradient=False)
    images = paddle.randn([2, 3, 4, 4])
    images.stop_gradient = False
    squares = images.square().sum(axis=[1, 2, 3])
    penalty = r1_penalty(w * squares, images)
    np.testing.assert_allclose(penalty.numpy(), 18 * squares.numpy(), rtol=1e-5)
    penalty.sum().backward()
    assert float(w.grad) == pytest.approx(12 * float(squares.sum()), rel=1e-5)


def test_distance_is_the_mean_absolute_difference_per_image():
    left = paddle.to_tensor([[[1.0, -2.0]], [[0.0, 0.0]]])
    assert distance(left, paddle.zeros_like(left)).tolist() == [1.5, 0.0]
    styles = paddle.to_tensor([[3.0, 5.0]])
    assert distance(styles, styles - 2).tolist() == [2.0]


def test_diversity_fades_in_a_straight_line():
    weights = [diversity_weight(1.0, step, 100) for step in range(130)]
    assert weights[0] == 1.0
    assert weights[50] == 0.5
    assert weights[100:] == [0.0] * 30
    np.testing.assert_allclose(np.diff(weights[:101]), -0.01)
