import numpy as np
import paddle
import pytest

from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.networks.image_features import LPIPS, load_lpips, unit_norm

CONVOLUTIONS = {"alex": (0, 3, 6, 8, 10), "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
TAPS = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}


def _weights(backbone):
    """Random weights of the published names and shapes, scaled to keep activations alive."""
    rng = np.random.default_rng(0)
    state = {}
    for name, tensor in LPIPS(backbone).state_dict().items():
        value = rng.normal(size=tensor.shape) / np.sqrt(max(1, np.prod(tensor.shape[1:])) / 2)
        state[name] = (np.abs(value) if name.startswith("lin") else value).astype("float32")
    return state


def _images(seed, size=64):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, size=(2, 3, size, size)).astype("float32")


def _torch_distance(state, backbone, x, y):
    """LPIPS from its definition, independent of the package."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    state = {name: torch.from_numpy(value) for name, value in state.items()}
    first = {"stride": 4, "padding": 2} if backbone == "alex" else {"padding": 1}
    pool_before = {"alex": (3, 6), "vgg": (5, 10, 17, 24)}[backbone]

    def activations(images):
        mean = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
        std = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
        h, found = (torch.from_numpy(images) - mean) / std, []
        for index in CONVOLUTIONS[backbone]:
            if index in pool_before:
                h = functional.max_pool2d(h, 3 if backbone == "alex" else 2, 2)
            weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
            same = {"padding": weight.shape[-1] // 2}
            h = functional.relu(functional.conv2d(h, weight, bias, **(same if index else first)))
            if index in TAPS[backbone]:
                found.append(h / (h.pow(2).sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    return sum(
        functional.conv2d((a - b) ** 2, state[f"lin{k}.model.1.weight"]).mean((1, 2, 3))
        for k, (a, b) in enumerate(zip(activations(x), activations(y), strict=True))
    ).numpy()


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_equals_the_definition(backbone, tmp_path):
    state = _weights(backbone)
    np.savez(tmp_path / "weights.npz", **state)
    network = load_lpips(tmp_path / "weights.npz")
    x, y = _images(1), _images(2)
    found = network(paddle.to_tensor(x), paddle.to_tensor(y)).numpy()
    expected = _torch_distance(state, backbone, x, y)
    assert expected.shape == (2,)
    assert expected.min() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_activations_can_be_kept():
    network = LPIPS("alex")
    x, y = paddle.to_tensor(_images(1)), paddle.to_tensor(_images(2))
    kept = network.extract(x)
    np.testing.assert_array_equal(network.distance(kept, network.extract(y)), network(x, y))
    np.testing.assert_array_equal(network.distance(kept, kept), [0, 0])


def test_gradient_reaches_the_images_and_no_weight():
    network = LPIPS("alex")
    x = paddle.to_tensor(_images(1), stop_gradient=False)
    network(x, paddle.to_tensor(_images(2))).sum().backward()
    assert float(x.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_unit_norm_by_hand():
    x = paddle.to_tensor([3.0, 4.0]).reshape([1, 2, 1, 1])
    np.testing.assert_allclose(unit_norm(x).flatten().numpy(), [0.6, 0.8], rtol=1e-6)


def test_gradient_is_finite_where_all_channels_are_zero():
    x = paddle.to_tensor(np.zeros((1, 3, 2, 2), "float32"), stop_gradient=False)
    y = unit_norm(x)
    y.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    np.testing.assert_array_equal(y.numpy(), 0)


def test_file_may_hold_the_published_buffers(tmp_path):
    state = _weights("alex") | {"mean": np.zeros(3), "std": np.ones(3)}
    np.savez(tmp_path / "weights.npz", **state)
    assert load_lpips(tmp_path / "weights.npz").backbone == "alex"


def test_names_the_command_that_fetches_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="download_weights.py lpips_vgg"):
        load_lpips(tmp_path / "lpips_vgg.npz")


def test_refuses_a_damaged_file(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"PK\x03\x04 half a download")
    with pytest.raises(CheckpointError, match="damaged"):
        load_lpips(tmp_path / "weights.npz")


def test_refuses_incomplete_weights(tmp_path):
    state = _weights("alex")
    del state["lin3.model.1.weight"]
    np.savez(tmp_path / "weights.npz", **state)
    with pytest.raises(CheckpointError, match="1 missing .lin3.model.1.weight"):
        load_lpips(tmp_path / "weights.npz")


def test_refuses_an_unknown_backbone():
    with pytest.raises(ConfigError, match="alex or vgg, found 'squeeze'"):
        LPIPS("squeeze")
