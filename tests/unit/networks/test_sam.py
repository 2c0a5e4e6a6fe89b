"""The composite network: what is added to what, what is replaced, what carries a gradient."""

import numpy as np
import paddle
import pytest

from paddle_sam.errors import ConfigError
from paddle_sam.networks.sam import SAM, GradualStyleEncoder, add_age_plane
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.networks.stylegan2_ops import mix_latents
from tests.unit.networks.gradients import without_gradient

DIM, STYLES = 16, 8
ENCODER = {
    "n_styles": STYLES,
    "style_dim": DIM,
    "stem": 4,
    "widths": (16, 16, 16, DIM),
    "units": (1, 1, 1, 1),
    "squeeze_excite": False,
}


def make_sam(start="encoded_w_plus", pretrained=True, in_channels=4, size=32):
    paddle.seed(3)
    network = SAM(
        GradualStyleEncoder(32, in_channels, **ENCODER),
        Generator(size, DIM, 2, {4: 8, 8: 6, 16: 4, 32: 4}),
        GradualStyleEncoder(32, 3, **ENCODER) if pretrained else None,
        start,
    )
    network.latent_avg.set_value(
        np.random.default_rng(1).normal(size=(STYLES, DIM)).astype("float32")
    )
    network.eval()
    return network


@pytest.fixture(scope="module")
def network():
    return make_sam()


def faces(n=2, channels=3, size=32):
    values = np.random.default_rng(n).uniform(-1, 1, size=(n, channels, size, size))
    return paddle.to_tensor(values.astype("float32"))


def aged(n=2, age=30.0):
    return add_age_plane(faces(n), paddle.full([n], age))


def forward(network, x, **options):
    with paddle.no_grad():
        return network(x, **{"randomize_noise": False} | options)


def codes_of(network, x, **options):
    return forward(network, x, return_latents=True, **options)[1].numpy()


# --- the start of the code -------------------------------------------------------------------


def test_code_is_offset_plus_frozen_code_plus_average(network):
    x = aged()
    with paddle.no_grad():
        offset, frozen = network.encoder(x), network.pretrained_encoder(x[:, :3])
    expected = (offset + frozen + network.latent_avg).numpy()
    np.testing.assert_allclose(codes_of(network, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", ["latent_avg", "zero"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_other_starts_do_without_the_frozen_encoder(start, pretrained):
    network = make_sam(start, pretrained)
    x = aged()
    with paddle.no_grad():
        expected = network.encoder(x) + (network.latent_avg if start == "latent_avg" else 0)
    np.testing.assert_allclose(codes_of(network, x), expected.numpy(), rtol=1e-5, atol=1e-6)
    known = network.invert(x[:, :3])
    assert known.shape == [2, STYLES, DIM] and known.stop_gradient
    np.testing.assert_array_equal(network.encode(x, known).numpy(), codes_of(network, x))


def test_psp_is_the_same_network_with_three_channels():
    network = make_sam("latent_avg", pretrained=False, in_channels=3)
    assert forward(network, faces()).shape == [2, 3, 32, 32]


def test_inverting_once_gives_what_forward_gives(network):
    face = faces(1)
    with paddle.no_grad():
        inverted = network.invert(face)
        np.testing.assert_allclose(
            inverted.numpy(), (network.pretrained_encoder(face) + network.latent_avg).numpy()
        )
        for age in (0.0, 55.0):
            x = add_age_plane(face, paddle.to_tensor([age]))
            codes = network.encode(x, inverted)
            image, _ = network.decode(codes, randomize_noise=False)
            np.testing.assert_array_equal(codes.numpy(), codes_of(network, x))
            np.testing.assert_array_equal(image.numpy(), forward(network, x).numpy())


def test_age_plane_is_age_over_100():
    images = faces(3)
    x = add_age_plane(images, paddle.to_tensor([0, 25, 100]))  # whole years are integers
    assert x.shape == [3, 4, 32, 32] and x.dtype == images.dtype
    np.testing.assert_array_equal(x.numpy()[:, :3], images.numpy())
    for sample, value in enumerate([0.0, 0.25, 1.0]):
        np.testing.assert_array_equal(x.numpy()[sample, 3], np.float32(value))


def test_age_changes_the_result(network):
    young, old = (forward(network, aged(age=age)).numpy() for age in (5.0, 90.0))
    assert np.abs(young - old).max() > 1e-3


# --- rendering -------------------------------------------------------------------------------


def test_resize_pools_to_the_input_size():
    network = make_sam()
    whole = forward(network, aged(), resize=False).numpy()
    np.testing.assert_array_equal(forward(network, aged()).numpy(), whole)  # 32 already
    network.input_size = 8
    pooled = forward(network, aged()).numpy()
    expected = whole.reshape(2, 3, 8, 4, 8, 4).mean(axis=(3, 5))
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


def test_returned_latents_render_the_image(network):
    image, codes = forward(network, aged(), return_latents=True, resize=False)
    assert codes.shape == [2, STYLES, DIM]
    with paddle.no_grad():
        again = network.decoder([codes], input_is_latent=True, randomize_noise=False)
    np.testing.assert_array_equal(image.numpy(), again.numpy())


def test_input_code_is_a_z_that_is_mapped(network):
    z = paddle.randn([2, DIM])
    image, codes = forward(network, z, input_code=True, return_latents=True, resize=False)
    with paddle.no_grad():
        expected = network.decoder([z], randomize_noise=False)
        np.testing.assert_array_equal(codes.numpy()[:, 0], network.decoder.style(z).numpy())
    np.testing.assert_array_equal(image.numpy(), expected.numpy())


def test_random_noise_is_the_default(network):
    x = aged()
    np.testing.assert_array_equal(forward(network, x).numpy(), forward(network, x).numpy())
    for layer in [network.decoder.conv1, *network.decoder.convs]:
        layer.noise.weight.set_value(np.array([0.5], np.float32))
    with paddle.no_grad():
        difference = network(x) - network(x)
    assert float(difference.abs().max()) > 1e-3


# --- latent mask -----------------------------------------------------------------------------


def test_masked_codes_become_zero_without_an_injected_latent(network):
    before, after = (codes_of(network, aged(), latent_mask=m) for m in (None, [1, 4]))
    assert (after[:, [1, 4]] == 0).all()
    rest = [0, 2, 3, 5, 6, 7]
    np.testing.assert_array_equal(after[:, rest], before[:, rest])


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("alpha", [None, 0.25, 1.0])
def test_masked_codes_become_or_blend_with_the_injected_latent(network, rows, alpha):
    before = codes_of(network, aged())
    inject = np.random.default_rng(0).normal(size=(rows, STYLES, DIM)).astype(np.float32)
    after = codes_of(
        network, aged(), latent_mask=[0, 7], inject_latent=paddle.to_tensor(inject), alpha=alpha
    )
    expected = before.copy()
    for index in (0, 7):
        share = 1.0 if alpha is None else alpha
        expected[:, index] = share * inject[:, index] + (1 - share) * before[:, index]
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)


def test_an_alpha_of_zero_and_an_empty_mask_change_nothing(network):
    before, inject = codes_of(network, aged()), paddle.ones([1, STYLES, DIM])
    for options in ({"latent_mask": [0, 1], "alpha": 0.0}, {"latent_mask": []}):
        after = codes_of(network, aged(), inject_latent=inject, **options)
        np.testing.assert_array_equal(after, before)


def test_mixing_leaves_its_input_alone():
    codes = paddle.ones([1, STYLES, DIM])
    mix_latents(codes, [0, 1])
    np.testing.assert_array_equal(codes.numpy(), 1)


def test_a_gradient_passes_the_mask():
    codes = paddle.ones([1, STYLES, DIM])
    codes.stop_gradient = False
    mix_latents(codes, [2], paddle.zeros([1, STYLES, DIM]), alpha=0.75).sum().backward()
    expected = np.ones((1, STYLES, DIM))
    expected[:, 2] = 0.25
    np.testing.assert_allclose(codes.grad.numpy(), expected)


# --- gradients -------------------------------------------------------------------------------


def test_frozen_encoder_gets_no_gradient_and_the_rest_does():
    network = make_sam()
    network.train()
    network.pretrained_encoder.eval()
    x = aged(3)
    x.stop_gradient = False
    image, codes = network(x, return_latents=True)
    (image.square().mean() + codes.square().mean()).backward()
    assert without_gradient(network.encoder) == []
    bypassed = without_gradient(network.decoder)  # W+ codes need no mapping network
    assert bypassed == [name for name, _ in network.decoder.named_parameters() if "style." in name]
    assert all(parameter.grad is None for parameter in network.pretrained_encoder.parameters())
    assert float(x.grad.abs().sum()) > 0


def test_a_frozen_decoder_passes_the_gradient_on():
    network = make_sam()
    for parameter in network.decoder.parameters():
        parameter.stop_gradient = True
    network(aged()).square().mean().backward()
    assert all(parameter.grad is None for parameter in network.decoder.parameters())
    assert without_gradient(network.encoder) == []


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_sam("mean"), "start: expected one of .*latent_avg, zero, found 'mean'"),
        (lambda: make_sam(pretrained=False), "start: encoded_w_plus needs a pretrained_encoder"),
        (
            lambda: make_sam(size=8),
            "encoder: returns 8 codes where the decoder of size 8 takes 4",
        ),
    ],
)
def test_parts_that_do_not_fit(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: n(aged(), latent_mask=[8]), "latent_mask: this model has codes 0 to 7, found 8"),
        (lambda n: n(aged(), latent_mask=[-1]), "latent_mask: .* codes 0 to 7, found -1"),
        (
            lambda n: n(aged(), latent_mask=[0], inject_latent=paddle.zeros([1, 18, DIM])),
            r"inject_latent: expected shape \[\*, 8, 16\], found \[1, 18, 16\]",
        ),
        (lambda n: n(faces()), r"x: expected shape \[\*, 4, 32, 32\], found \[2, 3, 32, 32\]"),
        (
            lambda n: n(paddle.zeros([1, DIM]), input_code=True, latent_mask=[0]),
            r"codes: expected shape \[\*, \*, \*\], found \[1, 16\]",
        ),
    ],
)
def test_impossible_inputs(network, call, message):
    with pytest.raises(ConfigError, match=message):
        call(network)


def test_state_holds_the_average_and_no_filter(network):
    names = set(network.state_dict())
    assert "latent_avg" in names
    assert not [name for name in names if name.endswith("kernel")]
