import functools
import math

import numpy as np
import paddle
import pytest

from paddle_sam.errors import ConfigError
from paddle_sam.networks import stargan2
from tests.unit.networks.gradients import assert_r1_trains

TINY = {"img_size": 32, "max_conv_dim": 16, "base_dim": 8}


@pytest.fixture(autouse=True)
def _seed():
    paddle.seed(0)


def tiny_networks(w_hpf=1.0):
    return {
        "generator": stargan2.Generator(style_dim=6, w_hpf=w_hpf, **TINY),
        "mapping_network": stargan2.MappingNetwork(4, 6, num_domains=3, width=12),
        "style_encoder": stargan2.StyleEncoder(style_dim=6, num_domains=3, **TINY),
        "discriminator": stargan2.Discriminator(num_domains=3, **TINY),
    }


def outputs(networks, masks=None):
    """What each network gives for two samples, through all of them."""
    images, y = paddle.randn([2, 3, 32, 32]), paddle.to_tensor([2, 0])
    s = networks["mapping_network"](paddle.randn([2, 4]), y)
    fake = networks["generator"](images, s, masks)
    return {
        "style": s,
        "fake": fake,
        "encoded": networks["style_encoder"](fake, y),
        "logits": networks["discriminator"](fake, y),
    }


@pytest.mark.parametrize("w_hpf", [0.0, 1.0])
def test_shapes(w_hpf):
    found = {name: value.shape for name, value in outputs(tiny_networks(w_hpf)).items()}
    expected = {"style": [2, 6], "fake": [2, 3, 32, 32], "encoded": [2, 6], "logits": [2]}
    assert found == expected


@pytest.mark.parametrize(("img_size", "w_hpf", "blocks"), [(256, 1.0, 7), (256, 0.0, 6)])
def test_published_sizes(img_size, w_hpf, blocks):
    with paddle.LazyGuard():
        generator = stargan2.Generator(img_size, w_hpf=w_hpf)
    assert len(generator.encode) == len(generator.decode) == blocks
    assert generator.from_rgb.weight.shape == [64, 3, 3, 3]
    assert generator.decode[0].conv1.weight.shape == [512, 512, 3, 3]


@pytest.mark.parametrize("w_hpf", [0.0, 1.0])
def test_every_trained_parameter_gets_a_gradient(w_hpf):
    networks = tiny_networks(w_hpf)
    found = outputs(networks)
    (found["logits"].sum() + found["encoded"].square().sum()).backward()
    without = {
        f"{name}.{key}"
        for name, network in networks.items()
        for key, parameter in network.named_parameters()
        if not parameter.stop_gradient and parameter.grad is None
    }
    heads_not_asked = {
        f"{name}.{key}"
        for name in ("mapping_network", "style_encoder")
        for key, _ in networks[name].named_parameters()
        if key.startswith("unshared.1.")
    }
    assert without <= heads_not_asked
    frozen = {
        key
        for key, parameter in networks["generator"].named_parameters()
        if parameter.stop_gradient
    }
    unused_shortcuts = {"decode.3.conv1x1.weight"} if w_hpf else set()
    assert frozen == unused_shortcuts


def test_only_the_head_of_the_domain_counts():
    y = paddle.to_tensor([1, 0, 1])
    heads = paddle.arange(12, dtype="float32").reshape([3, 2, 2])
    assert stargan2.of_domain(heads, y).tolist() == [[2, 3], [4, 5], [10, 11]]
    assert stargan2.of_domain(heads[:, :, 0], y).tolist() == [2, 4, 10]


def test_r1_trains_the_discriminator():
    network = stargan2.Discriminator(32, num_domains=2, max_conv_dim=4, base_dim=4)
    network.to(dtype="float64")
    y = paddle.to_tensor([1, 0])
    assert_r1_trains(network, lambda x: network(x, y), paddle.randn([2, 3, 32, 32], "float64"))


def test_the_high_pass_filter_sees_edges_alone():
    high_pass = stargan2.HighPass(0.5)
    flat = paddle.full([1, 2, 5, 5], 3.0)
    assert float(high_pass(flat)[:, :, 1:-1, 1:-1].abs().max()) == 0
    point = paddle.zeros([1, 1, 5, 5])
    point[0, 0, 2, 2] = 1.0
    expected = 2 * np.array(stargan2.HIGH_PASS)
    np.testing.assert_array_equal(high_pass(point).numpy()[0, 0, 1:4, 1:4], expected)


def test_without_a_skip_the_generator_equals_its_definition():
    """The published faces model has the skip; this is the other half, written out in torch."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    generator = stargan2.Generator(32, style_dim=6, max_conv_dim=16, w_hpf=0, base_dim=8)
    rng = np.random.default_rng(0)
    for parameter in generator.parameters():
        parameter.set_value(rng.normal(0.2, 0.3, parameter.shape).astype("float32"))
    w = {name: torch.from_numpy(value.numpy()) for name, value in generator.state_dict().items()}

    def conv(x, name, padding=1):
        return functional.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), padding=padding)

    def norm(x, name):
        return functional.instance_norm(x, weight=w[f"{name}.scale"], bias=w[f"{name}.bias"])

    def adain(x, s, name):
        gamma, beta = (s @ w[f"{name}.fc.weight"] + w[f"{name}.fc.bias"]).chunk(2, dim=1)
        return (1 + gamma[..., None, None]) * functional.instance_norm(x) + beta[..., None, None]

    def active(x):
        return functional.leaky_relu(x, 0.2)

    def shortcut(x, name):
        return conv(x, f"{name}.conv1x1", 0) if f"{name}.conv1x1.weight" in w else x

    x = rng.normal(size=(2, 3, 32, 32)).astype("float32")
    s = rng.normal(size=(2, 6)).astype("float32")
    h, style = conv(torch.from_numpy(x), "from_rgb"), torch.from_numpy(s)
    for index, halve in enumerate((True, False, False)):
        name = f"encode.{index}"
        resize = (lambda t: functional.avg_pool2d(t, 2)) if halve else (lambda t: t)
        r = resize(conv(active(norm(h, f"{name}.norm1")), f"{name}.conv1"))
        r = conv(active(norm(r, f"{name}.norm2")), f"{name}.conv2")
        h = (resize(shortcut(h, name)) + r) / 2**0.5
    for index, double in enumerate((False, False, True)):
        name = f"decode.{index}"
        factor = 2 if double else 1
        resize = functools.partial(functional.interpolate, scale_factor=factor, mode="nearest")
        r = conv(resize(active(adain(h, style, f"{name}.norm1"))), f"{name}.conv1")
        r = conv(active(adain(r, style, f"{name}.norm2")), f"{name}.conv2")
        h = (shortcut(resize(h), name) + r) / 2**0.5
    expected = conv(active(norm(h, "to_rgb.0")), "to_rgb.2", 0).numpy()
    found = generator(paddle.to_tensor(x), paddle.to_tensor(s)).numpy()
    assert np.abs(found - expected).max() < 1e-4 * expected.std()


def test_masks_say_where_the_source_shows_through():
    generator = tiny_networks()["generator"]
    s = paddle.randn([1, 6])
    images = paddle.randn([1, 3, 32, 32])
    nothing = [paddle.zeros([1, 1, 256, 256])] * 2
    plain = generator(images, s)
    np.testing.assert_array_equal(generator(images, s, nothing), plain)
    left = nothing[0].clone()
    left[:, :, :, :128] = 1.0
    changed = (generator(images, s, [left, nothing[1]]) != plain).numpy()[0].any(axis=0)
    assert changed[:, :15].all()
    ignored = generator(images, s, [nothing[0], left])
    np.testing.assert_array_equal(ignored, plain)  # the second mask is for 64 and 128 pixels


def test_weights_start_as_he_proposed():
    network = stargan2.MappingNetwork(16, 64, num_domains=1)
    weight = network.shared[2].weight
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / 512), rel=0.02)
    block = stargan2.ResidualBlock(64, 64)
    assert float(block.conv1.weight.std()) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert float(block.conv1.bias.abs().max()) == 0


def test_errors_say_what_was_expected():
    networks = tiny_networks(0.0)
    images, s = paddle.zeros([1, 3, 32, 32]), paddle.zeros([1, 6])
    with pytest.raises(ConfigError, match="built with w_hpf 0"):
        networks["generator"](images, s, [paddle.zeros([1, 1, 32, 32])] * 2)
    with pytest.raises(ConfigError, match=r"images: expected shape \[\*, 3, 32, 32\]"):
        networks["generator"](paddle.zeros([1, 3, 64, 64]), s)
    with pytest.raises(ConfigError, match="power of two of at least 32, found 48"):
        stargan2.Generator(48)
    with pytest.raises(ConfigError, match=r"z: expected shape \[\*, 4\]"):
        networks["mapping_network"](paddle.zeros([1, 5]), paddle.zeros([1], "int64"))
