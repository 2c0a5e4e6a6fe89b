"""StyleGAN2 at sizes that take milliseconds; the published size is in tests/parity."""

import math

import numpy as np
import paddle
import pytest
import torch
import torch.nn.functional as tF

from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2 import (
    Generator,
    ModulatedConv2D,
    NoiseInjection,
    PixelNorm,
    published_channels,
)
from paddle_sam.networks.stylegan2_ops import code_count
from tests.unit.networks.gradients import without_gradient

CHANNELS = {4: 10, 8: 8, 16: 6, 32: 5, 64: 3}
DIM = 12


def make_generator(size=16, **options):
    paddle.seed(size)
    options = {"style_dim": DIM, "mapping_layers": 2, "channels": CHANNELS} | options
    generator = Generator(size, **options)
    for layer in [generator.conv1, *generator.convs]:
        layer.noise.weight.set_value(np.array([0.3], np.float32))  # starts at 0: no effect
    generator.eval()
    return generator


@pytest.fixture(scope="module")
def generator():
    return make_generator()


def z(n=2, seed=1):
    return paddle.to_tensor(np.random.default_rng(seed).normal(size=(n, DIM)).astype("float32"))


def render(generator, *styles, **options):
    with paddle.no_grad():
        return generator(list(styles), **({"randomize_noise": False} | options))


# --- modulated convolution -------------------------------------------------------------------


def per_sample_convolution(layer, x, w):
    """Equations 1 and 3 of the paper: every sample has weights of its own (torch, grouped)."""
    style = w @ (layer.modulation.weight.numpy() / math.sqrt(w.shape[1]))
    style = torch.from_numpy(style + layer.modulation.bias.numpy())
    weight = torch.from_numpy(layer.weight.numpy())
    out, into, size, _ = weight.shape
    weight = weight[None] / math.sqrt(into * size**2) * style[:, None, :, None, None]
    if layer.demodulate:
        weight = weight / (weight.pow(2).sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    n, _, height, width = x.shape
    x = torch.from_numpy(x).reshape(1, n * into, height, width)
    if not layer.resamples:
        y = tF.conv2d(x, weight.reshape(n * out, into, size, size), padding=size // 2, groups=n)
        return y.reshape(n, out, height, width).numpy()
    weight = weight.transpose(1, 2).reshape(n * into, out, size, size)
    y = tF.conv_transpose2d(x, weight, stride=2, groups=n)
    y = y.reshape(n * out, 1, 2 * height + 1, 2 * width + 1)
    kernel = torch.from_numpy(layer.kernel.numpy()).flip(0, 1)[None, None]
    y = tF.conv2d(tF.pad(y, (1, 1, 1, 1)), kernel)
    return y.reshape(n, out, 2 * height, 2 * width).numpy()


@pytest.mark.parametrize("fir", [None, (1, 3, 3, 1), (1, 2, 4, 1)], ids=["same", "up", "skewed"])
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_equals_weights_of_each_samples_own(fir, demodulate):
    paddle.seed(0)
    layer = ModulatedConv2D(5, 4, 3, DIM, demodulate=demodulate, fir=fir)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3, 5, 6, 7)).astype(np.float32)
    w = 2 * rng.normal(size=(3, DIM)).astype(np.float32)
    found = layer(paddle.to_tensor(x), paddle.to_tensor(w)).numpy()
    np.testing.assert_allclose(found, per_sample_convolution(layer, x, w), atol=2e-5)


def test_demodulation_gives_unit_variance():
    paddle.seed(0)
    layer = ModulatedConv2D(64, 8, 3, DIM)
    x = paddle.randn([2, 64, 24, 24])
    deviation = layer(x, 5 * paddle.randn([2, DIM])).numpy()[:, :, 1:-1, 1:-1].std(axis=(2, 3))
    np.testing.assert_allclose(deviation, 1.0, atol=0.15)


def test_demodulation_of_a_vanishing_style_is_finite():
    layer = ModulatedConv2D(3, 4, 3, DIM)
    layer.modulation.bias.set_value(np.zeros(3, np.float32))
    found = layer(paddle.ones([1, 3, 4, 4]), paddle.zeros([1, DIM])).numpy()
    np.testing.assert_array_equal(found, 0)


# --- mapping, noise --------------------------------------------------------------------------


def test_pixel_norm_by_hand():
    found = PixelNorm()(paddle.to_tensor([[3.0, 4.0], [0.0, 0.0]])).numpy()
    np.testing.assert_allclose(found, [[3 / math.sqrt(12.5), 4 / math.sqrt(12.5)], [0, 0]], 1e-6)


def test_noise_is_scaled_and_shared_by_the_channels():
    layer = NoiseInjection()
    layer.weight.set_value(np.array([0.5], np.float32))
    noise = paddle.arange(4.0).reshape([1, 1, 2, 2])
    found = layer(paddle.ones([2, 3, 2, 2]), noise).numpy()
    np.testing.assert_allclose(found, np.tile(1 + np.arange(4).reshape(2, 2) / 2, (2, 3, 1, 1)))
    paddle.seed(1)
    random = layer(paddle.zeros([4, 2, 16, 16])).numpy()
    assert random.std() == pytest.approx(0.5, rel=0.1)
    np.testing.assert_array_equal(random[:, 0], random[:, 1])
    assert not np.array_equal(random[0], random[1])


# --- generator -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_sizes_and_channel_tables(size):
    generator = make_generator(size)
    assert generator.n_codes == code_count(size) == 2 * int(math.log2(size)) - 2
    image, latents, features = render(generator, z(), return_latents=True, return_features=True)
    assert image.shape == [2, 3, size, size]
    assert latents.shape == [2, generator.n_codes, DIM]
    assert features.shape == [2, CHANNELS[size], size, size]
    assert np.isfinite(image.numpy()).all()
    assert float(image.std()) > 0.01
    noises = [noise.shape[-1] for noise in generator.noises.as_list()]
    assert noises == [4, *sorted(2 * [2**k for k in range(3, size.bit_length())])]


def test_published_channels():
    assert published_channels(1024) == {
        **dict.fromkeys((4, 8, 16, 32, 64), 512),
        **{128: 256, 256: 128, 512: 64, 1024: 32},
    }
    assert published_channels(128, channel_multiplier=1) == {
        **dict.fromkeys((4, 8, 16, 32), 512),
        **{64: 256, 128: 128},
    }


def test_w_and_w_plus_are_the_same_where_all_codes_are(generator):
    w = generator.style(z())
    from_z = render(generator, z())
    from_w = render(generator, w, input_is_latent=True)
    w_plus = w.unsqueeze(1).expand([-1, generator.n_codes, -1])
    np.testing.assert_array_equal(from_z.numpy(), from_w.numpy())
    np.testing.assert_array_equal(
        from_w.numpy(), render(generator, w_plus, input_is_latent=True).numpy()
    )


def test_each_sample_is_rendered_for_itself(generator):
    both = render(generator, z())
    alone = render(generator, z()[1:])
    np.testing.assert_allclose(both.numpy()[1:], alone.numpy(), atol=1e-5)
    assert np.abs(both.numpy()[0] - both.numpy()[1]).max() > 0.01


@pytest.mark.parametrize("index", [1, 3, 5])
def test_style_mixing_takes_codes_before_and_after_the_index(generator, index):
    first, second = z(seed=1), z(seed=2)
    image, codes = render(generator, first, second, inject_index=index, return_latents=True)
    codes = codes.numpy()
    np.testing.assert_array_equal(codes[:, index - 1], generator.style(first).numpy())
    np.testing.assert_array_equal(codes[:, index], generator.style(second).numpy())
    assert (codes[:, :index] == codes[:, :1]).all() and (codes[:, index:] == codes[:, -1:]).all()
    again = render(generator, paddle.to_tensor(codes), input_is_latent=True)
    np.testing.assert_array_equal(image.numpy(), again.numpy())


def test_every_code_changes_the_image(generator):
    codes = generator.style(z()).unsqueeze(1).tile([1, generator.n_codes, 1])
    image = render(generator, codes, input_is_latent=True).numpy()
    for index in range(generator.n_codes):
        changed = codes.clone()
        changed[:, index] += 1.0
        other = render(generator, changed, input_is_latent=True).numpy()
        assert np.abs(image - other).max() > 1e-3, index


def test_the_last_code_moves_colours_only(generator):
    """The last code belongs to the last RGB layer: the features stay."""
    codes = generator.style(z()).unsqueeze(1).tile([1, generator.n_codes, 1])
    changed = codes.clone()
    changed[:, -1] += 1.0
    options = {"input_is_latent": True, "return_features": True}
    _, before = render(generator, codes, **options)
    _, after = render(generator, changed, **options)
    np.testing.assert_array_equal(before.numpy(), after.numpy())


def test_mixing_w_plus_keeps_each_code_in_its_place(generator):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 1, generator.n_codes, DIM)).astype(np.float32)
    styles = [paddle.to_tensor(codes) for codes in (first, second)]
    options = {"input_is_latent": True, "inject_index": 2, "return_latents": True}
    _, codes = render(generator, *styles, **options)
    np.testing.assert_array_equal(codes.numpy()[:, :2], first[:, :2])
    np.testing.assert_array_equal(codes.numpy()[:, 2:], second[:, 2:])


def test_every_layer_reads_its_own_code(generator):
    """An RGB layer shares its code with the convolution that follows it."""
    expected = {generator.conv1: 0, generator.to_rgb1: 1}
    for level, to_rgb in enumerate(generator.to_rgbs):
        expected[generator.convs[2 * level]] = 2 * level + 1
        expected[generator.convs[2 * level + 1]] = 2 * level + 2
        expected[to_rgb] = 2 * level + 3
    codes = paddle.randn([1, generator.n_codes, DIM])
    seen = {}
    hooks = [
        layer.conv.register_forward_pre_hook(
            lambda _, given, layer=layer: seen.__setitem__(layer, given[1].numpy())
        )
        for layer in expected
    ]
    render(generator, codes, input_is_latent=True)
    for hook in hooks:
        hook.remove()
    for layer, index in expected.items():
        np.testing.assert_array_equal(seen[layer], codes.numpy()[:, index])


def test_random_mixing_uses_every_index(generator):
    found = set()
    for seed in range(40):
        paddle.seed(seed)
        _, codes = render(generator, z(1, 1), z(1, 2), return_latents=True)
        codes = codes.numpy()[0]
        found.add(int((codes == codes[0]).all(axis=1).sum()))
    assert found == set(range(1, generator.n_codes))


def test_truncation_formula(generator):
    average = paddle.to_tensor(np.linspace(-1, 1, DIM, dtype=np.float32))
    options = {"truncation": 0.7, "return_latents": True}
    for latent in (average, average.unsqueeze(0)):
        _, codes = render(generator, z(), truncation_latent=latent, **options)
        w = generator.style(z()).numpy()
        expected = average.numpy() + 0.7 * (w - average.numpy())
        np.testing.assert_allclose(codes.numpy()[:, 2], expected, rtol=1e-5, atol=1e-6)


def test_mean_latent_is_the_mean_of_w(generator):
    paddle.seed(5)
    found = generator.mean_latent(1500)
    drawn = paddle.randn([3]).numpy()
    paddle.seed(5)  # the caller's random numbers are left alone
    np.testing.assert_array_equal(drawn, paddle.randn([3]).numpy())
    np.testing.assert_array_equal(found.numpy(), generator.mean_latent(1500).numpy())
    z = np.random.RandomState(0).randn(1500, DIM).astype(np.float32)
    expected = generator.style(paddle.to_tensor(z)).numpy().mean(axis=0)
    assert found.shape == [1, DIM] and found.stop_gradient
    np.testing.assert_allclose(found.numpy()[0], expected, atol=1e-5)


def test_stored_noise_repeats_and_random_noise_does_not(generator):
    np.testing.assert_array_equal(render(generator, z()).numpy(), render(generator, z()).numpy())
    random = [render(generator, z(), randomize_noise=True).numpy() for _ in range(2)]
    assert np.abs(random[0] - random[1]).max() > 0.01
    again = make_generator()
    again.set_state_dict(generator.state_dict())
    np.testing.assert_array_equal(render(generator, z()).numpy(), render(again, z()).numpy())


def test_a_list_of_noise_replaces_the_stored_one(generator):
    stored = generator.noises.as_list()
    image = render(generator, z())
    given = render(generator, z(), noise=stored, randomize_noise=True)
    np.testing.assert_array_equal(image.numpy(), given.numpy())
    for index in range(len(stored)):
        other = [noise if i != index else -noise for i, noise in enumerate(stored)]
        changed = render(generator, z(), noise=other).numpy()
        assert np.abs(changed - image.numpy()).max() > 1e-3, index
    paddle.seed(0)
    partly = render(generator, z(), noise=[None, *stored[1:]]).numpy()
    assert np.abs(partly - image.numpy()).max() > 1e-3


def test_every_parameter_of_the_generator_gets_a_gradient():
    generator = make_generator(8)
    generator.train()
    generator([z()]).square().sum().backward()
    assert without_gradient(generator) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Generator(48), "size: expected a power of two of at least 8, found 48"),
        (lambda: Generator(4), "size: expected a power of two of at least 8, found 4"),
        (
            lambda: Generator(16, channels={4: 8, 16: 8}),
            "channels: no entry for resolution 8 of size 16",
        ),
    ],
)
def test_impossible_sizes(make, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        make()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g([z()], truncation=0.5), "truncation_latent: needed when truncation psi"),
        (lambda g: g([z(), z(), z()]), "styles: expected one or two tensors, found 3"),
        (lambda g: g([]), "styles: expected one or two tensors, found 0"),
        (
            lambda g: g([paddle.zeros([2, 5, DIM])], input_is_latent=True),
            r"w_plus: expected shape \[\*, 6, 12\], found \[2, 5, 12\]",
        ),
        (lambda g: g([z()], noise=[None] * 4), "noise: expected 5 images, one a layer, found 4"),
    ],
)
def test_impossible_inputs(generator, call, message):
    with pytest.raises(ConfigError, match=message):
        call(generator)
