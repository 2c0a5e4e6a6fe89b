"""`paddle_sam.load`: what a file describes is built, filled and ready to use."""

import numpy as np
import paddle
import pytest

import paddle_sam
from paddle_sam.core.weights import NetworkEntry, WeightFile, find_weight
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.networks.face_networks import AgeRegressor, FaceEmbedder
from paddle_sam.networks.load import BUILDERS, build_empty
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Discriminator, Generator
from tests import DEVICE

ARCH = {"input_size": 32, "widths": [2, 2, 2, 2, 2], "fc": 3}


def numpy_state(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def write(path, *names, **facts):
    networks = {}
    for number, name in enumerate(names):
        paddle.seed(number)
        state = numpy_state(AgeRegressor(**ARCH))
        networks[name] = NetworkEntry("age_regressor", ARCH, state)
    WeightFile("test", networks, **facts).write(path)
    return path


def test_loads_what_was_saved_in_eval_mode(tmp_path):
    path = write(tmp_path / "net.pdparams", "net")
    network = paddle_sam.load(path, device=DEVICE)
    assert isinstance(network, AgeRegressor)
    assert not any(layer.training for layer in network.sublayers(include_self=True))
    want = WeightFile.read(path).networks["net"].state
    found = numpy_state(network)
    assert found.keys() == want.keys()
    assert all(np.array_equal(found[name], want[name]) for name in want)


def test_the_first_part_or_the_one_named(tmp_path):
    path = write(tmp_path / "net.pdparams", "first", "second")
    weights = [
        paddle_sam.load(path, part=part, device=DEVICE).fc6.weight.numpy()
        for part in (None, "first", "second")
    ]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[1], weights[2])
    with pytest.raises(ConfigError, match="net.pdparams: holds first, second, not 'g'"):
        paddle_sam.load(path, part="g", device=DEVICE)


@pytest.mark.parametrize(
    ("name", "part", "kind"),
    [
        ("sam_mini", None, SAM),
        ("age_mini", None, AgeRegressor),
        ("stylegan2_mini", None, Generator),
        ("stylegan2_mini", "d", Discriminator),
    ],
)
def test_the_shipped_files(name, part, kind):
    network = paddle_sam.load(find_weight(name), part=part, device=DEVICE)
    assert type(network) is kind
    assert all(np.isfinite(tensor.numpy()).all() for tensor in network.state_dict().values())


def test_generator_knows_the_mean_latent_of_its_file():
    network = paddle_sam.load(find_weight("stylegan2_mini"), device=DEVICE)
    assert network.latent_avg.shape == [network.style_dim]
    paddle.seed(0)
    estimate = network.mean_latent(4096)[0]
    distance = (estimate - network.latent_avg).norm() / network.latent_avg.norm()
    assert float(distance) < 0.2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (WeightFile("notes"), "holds no network; it is a 'notes' file"),
        (WeightFile("test", {}), "holds no network"),
        (
            WeightFile("test", {"a": NetworkEntry("vae", {}, {})}),
            "unknown network 'vae'; this version knows age_regressor, face_embedder, .*sam",
        ),
        (
            WeightFile("test", {"a": NetworkEntry("age_regressor", {"depth": 3}, {})}),
            "age_regressor cannot be built from its description",
        ),
        (
            WeightFile("test", {"a": NetworkEntry("age_regressor", ARCH, {})}),
            "net.pdparams: does not fit AgeRegressor: tensors 32 missing",
        ),
    ],
)
def test_files_that_describe_no_network(tmp_path, content, words):
    content.write(tmp_path / "net.pdparams")
    with pytest.raises(CheckpointError, match=words):
        paddle_sam.load(tmp_path / "net.pdparams", device=DEVICE)


def test_an_empty_network_holds_no_memory():
    """The fully connected layer of the published age network alone would take 400 MB."""
    network = build_empty("age_regressor", {})
    assert not network.fc6.weight._is_initialized()
    assert set(BUILDERS) >= {"sam", "stylegan2_generator", "stylegan2_discriminator"}


def test_unknown_device(tmp_path):
    path = write(tmp_path / "net.pdparams", "net")
    for device in ("tpu", "cpu:1", "gpu:x"):
        with pytest.raises(ConfigError, match="device: expected auto, cpu, gpu or gpu:N"):
            paddle_sam.load(path, device=device)


def test_embedder_goes_through_a_file(tmp_path):
    arch = {"input_size": 16, "units": [1, 1, 1, 1], "embedding_dim": 4, "head_affine": False}
    paddle.seed(0)
    network = FaceEmbedder(**arch)
    network.eval()
    entry = NetworkEntry("face_embedder", arch, numpy_state(network))
    WeightFile("test", {"id": entry}).write(tmp_path / "net.pdparams")
    x = paddle.randn([2, 3, 16, 16])
    found = paddle_sam.load(tmp_path / "net.pdparams", device=DEVICE)(x)
    np.testing.assert_array_equal(found.numpy(), network(x).numpy())
