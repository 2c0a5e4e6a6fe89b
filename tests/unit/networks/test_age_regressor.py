"""DEX: the expectation by hand, and the slope of the age along every pixel.

The first Paddle port lost this gradient and trained without ageing; here it is compared with
torch's, on the weights of the embedded age regressor, with every parameter frozen.
"""

import numpy as np
import paddle
import pytest
import torch
import torch.nn.functional as tF

import paddle_sam
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import ConfigError
from paddle_sam.networks.face_networks import AgeRegressor, expected_age
from tests import DEVICE
from tests.unit.networks.gradients import without_gradient

TINY = {"input_size": 32, "widths": (4, 4, 6, 6, 8), "fc": 10}


@pytest.fixture(scope="module")
def embedded():
    network = paddle_sam.load(find_weight("age_mini"), device=DEVICE)
    for parameter in network.parameters():
        parameter.stop_gradient = True
    return network


def images(n=2, size=64, seed=0):
    """Smooth, so that they lie within what the network was trained on."""
    coarse = np.random.default_rng(seed).uniform(-1, 1, size=(n, 3, 6, 6)).astype(np.float32)
    return tF.interpolate(torch.from_numpy(coarse), size, mode="bicubic").clamp(-1, 1).numpy()


def torch_age(network, x):
    """The same arithmetic from torch's functions, on the same weights."""
    state = {name: torch.from_numpy(v.numpy()) for name, v in network.state_dict().items()}
    if x.shape[-1] != network.input_size:
        x = tF.interpolate(x, (network.input_size,) * 2, mode="bilinear", align_corners=False)
    for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
        for index in range(1, count + 1):
            name = f"conv{stage}_{index}"
            x = tF.relu(tF.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
        x = tF.max_pool2d(x, 2, 2)
    x = x.flatten(1)
    for name in ("fc6", "fc7"):
        x = tF.relu(x @ state[f"{name}.weight"] + state[f"{name}.bias"])
    logits = x @ state["fc8_101.weight"] + state["fc8_101.bias"]
    return (logits.softmax(1) * torch.arange(101.0)).sum(1)


def test_expected_age_by_hand():
    logits = np.full((3, 101), -1e9, np.float32)
    logits[0, 42] = logits[1, 0] = logits[2, [20, 60]] = 0.0
    np.testing.assert_allclose(
        expected_age(paddle.to_tensor(logits)).numpy(), [42, 0, 40], atol=1e-6
    )
    logits = np.zeros((1, 101), np.float32)
    logits[0, 100] = np.log(100.0)  # as likely as all the others together
    found = expected_age(paddle.to_tensor(logits)).item()
    assert found == pytest.approx(0.5 * 49.5 + 0.5 * 100, rel=1e-5)


def test_expected_age_of_large_logits_is_finite():
    assert expected_age(paddle.full([1, 101], 1e4)).item() == pytest.approx(50, rel=1e-5)


@pytest.mark.parametrize("size", [64, 96, 40])
def test_age_and_its_gradient_equal_torchs(embedded, size):
    values = images(size=size)
    x = paddle.to_tensor(values, stop_gradient=False)
    age = embedded.age(x)
    age.sum().backward()
    reference = torch.from_numpy(values).requires_grad_(True)
    expected = torch_age(embedded, reference)
    expected.sum().backward()
    np.testing.assert_allclose(age.numpy(), expected.detach().numpy(), atol=1e-3)
    slope = reference.grad.numpy()
    assert (np.abs(slope).max(axis=(1, 2, 3)) > 1e-3).all()
    np.testing.assert_allclose(x.grad.numpy(), slope, atol=1e-4 * np.abs(slope).max())


def test_the_gradient_is_the_difference_a_pixel_makes(embedded):
    values = images(1)
    x = paddle.to_tensor(values, stop_gradient=False)
    embedded.age(x).sum().backward()
    slope = x.grad.numpy()
    along = np.sign(slope) * np.random.default_rng(1).uniform(size=slope.shape)
    step = np.float32(1e-4)
    with paddle.no_grad():
        ages = [
            embedded.age(paddle.to_tensor((values + s * along).astype(np.float32))).item()
            for s in (step, -step)
        ]
    assert (ages[0] - ages[1]) / (2 * step) == pytest.approx((slope * along).sum(), rel=0.02)


def test_frozen_weights_get_no_gradient(embedded):
    x = paddle.to_tensor(images(), stop_gradient=False)
    embedded.age(x).sum().backward()
    assert all(parameter.grad is None for parameter in embedded.parameters())


def test_every_parameter_gets_a_gradient_when_trained():
    paddle.seed(0)
    network = AgeRegressor(**TINY)
    network.eval()  # dropout could silence one of so few units
    network.age(paddle.to_tensor(images(4, 32))).sum().backward()
    assert without_gradient(network) == []


def test_the_embedded_regressor_tells_faces_apart(embedded):
    with paddle.no_grad():
        ages = embedded.age(paddle.to_tensor(images(6))).numpy()
    assert ages.shape == (6,) and (ages > 0).all() and (ages < 100).all()
    assert np.ptp(ages) > 0.5


def test_dropout_works_in_training_only():
    paddle.seed(0)
    network = AgeRegressor(**TINY)
    x = paddle.to_tensor(images(1, 32))
    assert not np.array_equal(network(x).numpy(), network(x).numpy())
    network.eval()
    np.testing.assert_array_equal(network(x).numpy(), network(x).numpy())


def test_shapes_and_names():
    network = AgeRegressor(**TINY)
    assert network(paddle.zeros([3, 3, 32, 32])).shape == [3, 101]
    assert len(network.conv_names) == 13
    assert (network.conv_names[0], network.conv_names[-1]) == ("conv1_1", "conv5_3")
    assert {name.split(".")[0] for name in network.state_dict()} == {
        *network.conv_names,
        *("fc6", "fc7", "fc8_101"),
    }


def test_input_size_must_divide():
    with pytest.raises(ConfigError, match="input_size: expected a multiple of 32, found 100"):
        AgeRegressor(input_size=100)
