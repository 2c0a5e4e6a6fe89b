import math

import numpy as np
import paddle
import pytest

from paddle_sam.training.trainers import (
    distance,
    diversity_weight,
    logistic,
    path_lengths,
    r1_penalty,
    r1_penalty_through,
)


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


class Halved:
    """A x: the left half of the images, doubled."""

    def __call__(self, images):
        return 2 * images[..., :2]

    def transposed(self, gradient):
        return 2 * paddle.concat([gradient, paddle.zeros_like(gradient)], axis=3)


def test_r1_through_a_linear_map_is_that_of_the_composition():
    """D(y) = w sum(y^2) of y = A x + 1: by x the gradient is 2 A^T (2 w y) and so on."""
    w = paddle.to_tensor(3.0, stop_gradient=False)
    seen = Halved()(paddle.randn([2, 3, 4, 4])) + 1
    seen.stop_gradient = False
    squares = seen.square().sum(axis=[1, 2, 3])
    penalty = r1_penalty_through(w * squares, seen, Halved())
    expected = 0.5 * 16 * 9 * squares.numpy()  # |2 * 2 w y|^2 / 2
    np.testing.assert_allclose(penalty.numpy(), expected, rtol=1e-5)
    penalty.sum().backward()
    assert float(w.grad) == pytest.approx(2 * expected.sum() / 3, rel=1e-5)


def test_path_lengths_of_a_linear_generator():
    """Pixel p of channel c is a . w_0 + b . w_1 for every p: J^T y = (a, b) sum(y)."""
    w_plus = paddle.randn([3, 2, 4])
    w_plus.stop_gradient = False
    scale = paddle.to_tensor(2.0, stop_gradient=False)
    value = scale * (w_plus[:, 0].sum(axis=1) + 3 * w_plus[:, 1].sum(axis=1))
    images = value.reshape([3, 1, 1, 1]).expand([3, 3, 4, 8])
    noise = paddle.randn([3, 3, 4, 8])
    lengths = path_lengths(images, w_plus, noise)
    total = noise.sum(axis=[1, 2, 3]).numpy() / math.sqrt(32)
    expected = 2 * np.abs(total) * math.sqrt((4 * 1 + 4 * 9) / 2)
    np.testing.assert_allclose(lengths.numpy(), expected, rtol=1e-5)
    lengths.sum().backward()
    assert float(scale.grad) == pytest.approx(expected.sum() / 2, rel=1e-5)


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
