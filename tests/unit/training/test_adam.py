import numpy as np
import paddle
from paddle import nn

from paddle_sam.training.optimizers import averaged_copy, update_average


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


def test_the_copy_is_apart_frozen_and_in_eval_mode():
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    average = averaged_copy(network)
    assert network.training and not average.training and not average[1].training
    assert all(parameter.stop_gradient for parameter in average.parameters())
    assert not any(parameter.stop_gradient for parameter in network.parameters())
    network[0].weight.set_value(paddle.zeros([2, 2]))
    assert float(average[0].weight.abs().sum()) > 0
