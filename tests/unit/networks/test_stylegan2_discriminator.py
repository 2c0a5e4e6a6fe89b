"""StyleGAN2's discriminator at sizes that take milliseconds; 256 px is in tests/parity."""

import math

import numpy as np
import paddle
import pytest

from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2 import Discriminator, minibatch_stddev
from tests.unit.networks.gradients import assert_r1_trains, without_gradient

CHANNELS = {4: 10, 8: 8, 16: 6, 32: 5, 64: 3}


@pytest.mark.parametrize(("n", "group"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (8, 4)])
def test_minibatch_deviation_by_hand(n, group):
    x = np.random.default_rng(n).normal(size=(n, 3, 2, 2)).astype(np.float32)
    found = minibatch_stddev(paddle.to_tensor(x)).numpy()
    assert found.shape == (n, 4, 2, 2)
    np.testing.assert_array_equal(found[:, :3], x)
    for sample in range(n):
        members = [other for other in range(n) if other % (n // group) == sample % (n // group)]
        assert len(members) == group
        variance = x[members].astype(np.float64).var(axis=0)
        expected = np.sqrt(variance + 1e-8).mean()
        np.testing.assert_allclose(found[sample, 3], expected, rtol=1e-5)


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_discriminator_of_any_size(size):
    paddle.seed(0)
    discriminator = Discriminator(size, CHANNELS)
    for batch in (1, 3):
        scores = discriminator(paddle.randn([batch, 3, size, size]))
        assert scores.shape == [batch, 1]
        assert np.isfinite(scores.numpy()).all()


def test_every_parameter_of_the_discriminator_gets_a_gradient():
    discriminator = Discriminator(8, CHANNELS)
    images = paddle.randn([4, 3, 8, 8])
    images.stop_gradient = False
    discriminator(images).sum().backward()
    assert without_gradient(discriminator) == []
    assert float(images.grad.abs().min()) > 0


def test_r1_trains_the_discriminator():
    paddle.seed(0)
    network = Discriminator(8, CHANNELS)
    network.to(dtype="float64")
    images = paddle.randn([4, 3, 8, 8], "float64")
    assert_r1_trains(network, lambda x: network(x).squeeze(1), images)


def test_discriminator_by_its_parts():
    """Blocks are summed over sqrt(2), their skips have neither bias nor activation."""
    paddle.seed(0)
    block = Discriminator(8, CHANNELS).convs[1]
    x = paddle.randn([1, CHANNELS[8], 8, 8])
    expected = (block.conv2(block.conv1(x)) + block.skip(x)) / math.sqrt(2)
    np.testing.assert_allclose(block(x).numpy(), expected.numpy(), rtol=1e-6)
    np.testing.assert_allclose(block.skip(-x).numpy(), -block.skip(x).numpy(), atol=1e-6)


def test_discriminator_refuses_other_images():
    with pytest.raises(ConfigError, match=r"images: expected shape \[\*, 3, 8, 8\], found \[1, 3"):
        Discriminator(8, CHANNELS)(paddle.zeros([1, 3, 16, 16]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Discriminator(24), "size: expected a power of two of at least 8, found 24"),
        (lambda: Discriminator(8, {8: 4}), "channels: no entry for resolution 4 of size 8"),
    ],
)
def test_impossible_sizes(make, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        make()
