"""Conditional StyleGAN2 and other channel counts, against the formulas written out in NumPy."""

import numpy as np
import paddle
import pytest

from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2 import Discriminator, Generator

CHANNELS = {4: 8, 8: 8, 16: 4}
CLASSES, DIM = 3, 6


@pytest.fixture(scope="module")
def generator():
    paddle.seed(0)
    network = Generator(16, DIM, 2, CHANNELS, classes=CLASSES, image_channels=1)
    network.eval()
    return network


@pytest.fixture(scope="module")
def discriminator():
    paddle.seed(1)
    network = Discriminator(16, CHANNELS, classes=CLASSES, image_channels=1, mapping_layers=2)
    network.eval()
    return network


def inputs(n=4):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, DIM)).astype(np.float32), np.eye(CLASSES, dtype=np.float32)[
        np.arange(n) % CLASSES
    ]


def norm(x):
    return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-8)


def linear(layer, x, lr_mul, activate=True):
    """y = x W lr_mul / sqrt(in) + b lr_mul, then sqrt(2) leaky ReLU."""
    weight, bias = (t.numpy().astype(np.float64) for t in (layer.weight, layer.bias))
    y = x @ weight * (lr_mul / np.sqrt(weight.shape[0])) + bias * lr_mul
    return np.where(y < 0, 0.2 * y, y) * np.sqrt(2) if activate else y


def test_the_mapping_network_takes_z_and_the_embedded_label(generator):
    z, labels = inputs()
    found = generator.map_latents(paddle.to_tensor(z), paddle.to_tensor(labels)).numpy()
    x = np.concatenate([norm(z), norm(linear(generator.embed, labels, 1.0, False))], axis=1)
    for layer in list(generator.style)[1:]:
        x = linear(layer, x, 0.01)
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-6)


def test_a_mix_of_classes_lies_between_them(generator):
    z, _ = inputs(1)
    codes = [
        generator.map_latents(paddle.to_tensor(z), paddle.to_tensor([label])).numpy()
        for label in ([1.0, 0, 0], [0, 1.0, 0], [0.5, 0.5, 0])
    ]
    assert np.abs(codes[0] - codes[1]).max() > 1e-3
    assert all(np.abs(codes[2] - one).max() > 1e-4 for one in codes[:2])


def test_scores_are_the_product_of_features_and_mapped_labels(discriminator):
    images = np.random.default_rng(1).standard_normal((4, 1, 16, 16)).astype(np.float32)
    _, labels = inputs()
    found = discriminator(paddle.to_tensor(images), paddle.to_tensor(labels)).numpy()
    features = []
    hook = discriminator.final_linear[1].register_forward_post_hook(
        lambda layer, given, output: features.append(output.numpy())
    )
    discriminator(paddle.to_tensor(images), paddle.to_tensor(labels))
    hook.remove()
    x = norm(linear(discriminator.embed, labels, 1.0, False))
    for layer in list(discriminator.mapping)[1:]:
        x = linear(layer, x, 0.01)
    want = (features[0] * x).sum(axis=1, keepdims=True) / np.sqrt(CHANNELS[4])
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)


def test_every_parameter_gets_a_gradient(generator, discriminator):
    z, labels = map(paddle.to_tensor, inputs())
    image = generator([z], labels=labels)
    assert image.shape == [4, 1, 16, 16]
    discriminator(image, labels).sum().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and np.abs(parameter.grad.numpy()).max() > 0, name


def test_the_average_code_is_that_of_all_classes(generator):
    z = np.random.RandomState(0).randn(600, DIM).astype(np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[np.arange(600) % CLASSES]
    want = generator.map_latents(paddle.to_tensor(z), paddle.to_tensor(labels)).numpy().mean(0)
    np.testing.assert_allclose(generator.mean_latent(600).numpy()[0], want, atol=1e-5)


def test_labels_that_do_not_fit_are_refused(generator, discriminator):
    z, labels = map(paddle.to_tensor, inputs())
    with pytest.raises(ConfigError, match="labels: this network is conditional"):
        generator.map_latents(z)
    with pytest.raises(ConfigError, match="labels"):
        generator.map_latents(z, labels[:2])
    with pytest.raises(ConfigError, match="labels: this network is conditional"):
        discriminator(paddle.zeros([2, 1, 16, 16]))
    with pytest.raises(ConfigError, match="labels: this network is not conditional"):
        Generator(16, DIM, 2, CHANNELS).map_latents(z, labels)


def test_unconditional_networks_have_the_parameters_they_had():
    names = set(Generator(16, DIM, 2, CHANNELS).state_dict())
    assert not [name for name in names if "embed" in name]
    assert Generator(16, DIM, 2, CHANNELS).style[1].weight.shape == [DIM, DIM]
