import numpy as np
import paddle
import pytest
from paddle import nn

from paddle_sam.training.trainers import average_together, averaged_copy, update_average


def test_the_average_moves_a_share_of_the_way():
    network = nn.Linear(2, 2)
    average = averaged_copy(network)
    before = average.weight.numpy()
    network.weight.set_value(before + 1)
    update_average(average, network, 0.9)
    np.testing.assert_allclose(average.weight.numpy(), before + 0.1, atol=1e-6)
    update_average(average, network, 0.9)
    np.testing.assert_allclose(average.weight.numpy(), before + 0.19, atol=1e-6)
    np.testing.assert_array_equal(network.weight.numpy(), before + 1)


@pytest.mark.parametrize("size, steps", [(1.0, 1), (0.05, 100)])
def test_averages_moved_by_one_operator_are_those_of_single_operations(size, steps):
    """Within 1e-7, or of the largest weight's size; both forms round alike, which adds up."""
    rng = np.random.default_rng(0)
    network = nn.Sequential(nn.Linear(20, 30), nn.Conv2D(3, 40, 3))
    for parameter in network.parameters():
        parameter.set_value((size * rng.normal(size=parameter.shape)).astype("float32"))
    average = averaged_copy(network)
    together = [mean.clone() for mean in average.parameters()]
    space = [paddle.zeros_like(mean) for mean in together]
    exact = [mean.numpy().astype("float64") for mean in together]
    for _ in range(steps):
        for parameter in network.parameters():
            moved = parameter.numpy() + 0.1 * size * rng.normal(size=parameter.shape)
            parameter.set_value(moved.astype("float32"))
        values = [parameter.numpy() for parameter in network.parameters()]
        average_together(together, [p.detach() for p in network.parameters()], 0.998, space)
        update_average(average, network, 0.998)
        exact = [0.998 * one + 0.002 * value for one, value in zip(exact, values, strict=True)]
        for parameter, value in zip(network.parameters(), values, strict=True):
            np.testing.assert_array_equal(parameter.numpy(), value)
    for one, other, right in zip(together, average.parameters(), exact, strict=True):
        largest = 1e-7 * max(1, np.abs(right).max())
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=largest)
        np.testing.assert_allclose(one.numpy(), right, rtol=0, atol=largest)


def test_the_copy_is_apart_frozen_and_in_eval_mode():
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    average = averaged_copy(network)
    assert network.training and not average.training and not average[1].training
    assert all(parameter.stop_gradient for parameter in average.parameters())
    assert not any(parameter.stop_gradient for parameter in network.parameters())
    network[0].weight.set_value(paddle.zeros([2, 2]))
    assert float(average[0].weight.abs().sum()) > 0
