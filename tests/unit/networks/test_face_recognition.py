"""Face embeddings: unit length, both variants, and a gradient that a frozen network passes on."""

import numpy as np
import paddle
import pytest

from paddle_sam.errors import ConfigError
from paddle_sam.networks.face_networks import FaceEmbedder
from tests.unit.networks.gradients import without_gradient

TINY = {"input_size": 32, "units": (1, 1, 1, 1), "embedding_dim": 6}
VARIANTS = {
    "ir_se50": {},
    "curricularface": {"squeeze_excite": False, "head_affine": False, "dropout": 0.4},
}


@pytest.fixture(scope="module", params=VARIANTS)
def embedder(request):
    paddle.seed(0)
    network = FaceEmbedder(**TINY, **VARIANTS[request.param])
    network.eval()
    return network


def images(n=2):
    values = np.random.default_rng(n).uniform(-1, 1, size=(n, 3, 32, 32))
    return paddle.to_tensor(values.astype("float32"))


def test_embeddings_have_unit_length(embedder):
    found = embedder(images(3)).numpy()
    assert found.shape == (3, 6)
    np.testing.assert_allclose((found**2).sum(axis=1), 1, rtol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_samples_do_not_mix(embedder):
    x = images(3)
    np.testing.assert_allclose(embedder(x[2:]).numpy(), embedder(x).numpy()[2:], atol=1e-5)


def test_norm_is_taken_of_the_head(embedder):
    x = images()
    head = embedder.output_layer(embedder.body(embedder.input_layer(x))).numpy()
    expected = head / np.sqrt((head**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(embedder(x).numpy(), expected, rtol=1e-5)


def test_affine_parameters_of_the_head():
    names = {
        name: {key for key in FaceEmbedder(**TINY, **options).state_dict() if "layer.4." in key}
        for name, options in VARIANTS.items()
    }
    statistics = {"output_layer.4._mean", "output_layer.4._variance"}
    # Paddle keeps a constant scale and offset among the parameters where torch has none.
    assert statistics <= names["curricularface"] <= names["ir_se50"]
    assert {"output_layer.4.weight", "output_layer.4.bias"} <= names["ir_se50"]


def test_gradient_reaches_the_pixels_through_frozen_weights():
    """Right, too: the similarity of two faces against finite differences, in float64."""
    paddle.seed(0)
    network = FaceEmbedder(**TINY)
    network.to(dtype="float64")
    network.eval()
    for parameter in network.parameters():
        parameter.stop_gradient = True
    x, other = images(1).astype("float64"), network(images(2)[:1].astype("float64")).detach()

    def similarity(x):
        return (network(x) * other).sum()

    x.stop_gradient = False
    similarity(x).backward()
    gradient = x.grad.numpy()
    assert (np.abs(gradient).max(axis=(2, 3)) > 1e-6).all()
    rng = np.random.default_rng(0)
    for _ in range(3):
        along = paddle.to_tensor(rng.normal(size=x.shape))
        with paddle.no_grad():
            difference = similarity(x + 1e-7 * along) - similarity(x - 1e-7 * along)
        expected = difference.item() / 2e-7
        assert (gradient * along.numpy()).sum() == pytest.approx(expected, rel=1e-3)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_trainable_parameter_gets_a_gradient(variant):
    paddle.seed(0)
    network = FaceEmbedder(**TINY, **VARIANTS[variant])
    (network(images(4)) * paddle.randn([4, 6])).sum().backward()
    assert without_gradient(network) == []


def test_published_size_of_the_head():
    with paddle.LazyGuard():
        network = FaceEmbedder()
    assert network.output_layer[3].weight.shape == [25088, 512]


def test_other_sizes_are_refused(embedder):
    with pytest.raises(ConfigError, match=r"x: expected shape \[\*, 3, 32, 32\], found \[1, 3, 64"):
        embedder(paddle.zeros([1, 3, 64, 64]))
