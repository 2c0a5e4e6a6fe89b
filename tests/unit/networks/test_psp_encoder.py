"""The pSp encoder in miniature: four stages, its pyramid, any number of styles."""

import numpy as np
import paddle
import pytest
import torch
import torch.nn.functional as tF

from paddle_sam.errors import ConfigError
from paddle_sam.networks.face_networks import (
    PUBLISHED_UNITS,
    ResidualUnit,
    SqueezeExcite,
    residual_body,
)
from paddle_sam.networks.sam import GradualStyleEncoder, MapToStyle, upsample_add
from tests.unit.networks.gradients import without_gradient

DIM = 16
TINY = {
    "input_size": 32,
    "style_dim": DIM,
    "stem": 4,
    "widths": (16, 24, 32, DIM),
    "units": (1, 1, 1, 1),
    "n_styles": 8,
}


def make_encoder(**options):
    paddle.seed(0)
    return GradualStyleEncoder(**TINY | options)


def images(n=2, channels=3, size=32):
    values = np.random.default_rng(n).uniform(-1, 1, size=(n, channels, size, size))
    return paddle.to_tensor(values.astype("float32"))


def recorded(encoder, parts, x):
    """What each of `parts` is given and gives during one pass over x."""
    seen = {}
    hooks = [
        part.register_forward_post_hook(
            lambda _, given, found, name=name: seen.__setitem__(name, (given[0], found))
        )
        for name, part in parts.items()
    ]
    with paddle.no_grad():
        encoder(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(
    ("depth", "taps"), [(50, [6, 20, 23]), (100, [15, 45, 48]), (152, [10, 46, 49])]
)
def test_taps_follow_from_the_body(depth, taps):
    with paddle.LazyGuard():
        encoder = make_encoder(units=PUBLISHED_UNITS[depth])
    assert encoder.taps == taps
    assert len(encoder.body) == taps[-1] + 1


def test_taps_are_where_the_resolution_is_about_to_fall():
    units = (2, 1, 3, 1)
    encoder = make_encoder(units=units)
    seen = recorded(encoder, dict(enumerate(encoder.body)), images())
    sizes = [seen[index][1].shape[-1] for index in range(sum(units))]
    assert sizes == [16, 16, 8, 4, 4, 4, 2]
    assert encoder.taps == [2, 5, 6]


def test_coarse_middle_and_fine_codes_read_their_maps():
    """Codes 0-2 read the last stage, 3-6 also the third, the others also the second."""
    encoder = make_encoder(n_styles=9, units=(1, 2, 1, 1))
    encoder.eval()
    laterals = {"third": encoder.latlayer1, "second": encoder.latlayer2}
    styles = {f"style{index}": block for index, block in enumerate(encoder.styles)}
    x = images()
    seen = recorded(encoder, dict(enumerate(encoder.body)) | laterals | styles, x)
    assert seen["third"][0] is seen[3][1] and seen["second"][0] is seen[2][1]
    coarse = seen[4][1]
    middle = upsample_add(coarse, seen["third"][1])
    fine = upsample_add(middle, seen["second"][1])
    assert [one.shape[1:] for one in (coarse, middle, fine)] == [[DIM, s, s] for s in (2, 4, 8)]
    for index in range(9):
        expected = coarse if index < 3 else middle if index < 7 else fine
        given = seen[f"style{index}"][0]
        np.testing.assert_array_equal(given.numpy(), expected.numpy(), err_msg=str(index))
    with paddle.no_grad():
        codes = encoder(x).numpy()
    for index in range(9):
        np.testing.assert_array_equal(codes[:, index], seen[f"style{index}"][1].numpy())


def test_upsample_add_aligns_corners():
    x = paddle.to_tensor([[[[0.0, 3.0]]]])
    found = upsample_add(x, paddle.ones([1, 1, 1, 4])).numpy().ravel()
    np.testing.assert_allclose(found, [1, 2, 3, 4], rtol=1e-6)


@pytest.mark.parametrize(("spatial", "convolutions"), [(1, 0), (2, 1), (16, 4), (64, 6)])
def test_map_to_style_goes_down_to_one_pixel(spatial, convolutions):
    block = MapToStyle(3, DIM, spatial)
    assert len(block.convs) == 2 * convolutions
    channels = 3 if convolutions else DIM
    found = block(paddle.randn([2, channels, spatial, spatial]))
    assert found.shape == [2, DIM]
    assert all(layer._negative_slope == 0.01 for layer in list(block.convs)[1::2])


@pytest.mark.parametrize("n_styles", [6, 10, 14, 18])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("squeeze_excite", [True, False], ids=["ir_se", "ir"])
def test_styles_channels_and_bodies(n_styles, channels, squeeze_excite):
    encoder = make_encoder(n_styles=n_styles, in_channels=channels, squeeze_excite=squeeze_excite)
    encoder.eval()
    codes = encoder(images(2, channels))
    assert codes.shape == [2, n_styles, DIM]
    assert squeeze_excite == any("fc1" in name for name in encoder.state_dict())


@pytest.mark.parametrize("size", [32, 64, 128])
def test_input_sizes(size):
    encoder = make_encoder(input_size=size)
    encoder.eval()
    assert encoder(images(1, 3, size)).shape == [1, 8, DIM]


def test_the_age_plane_matters():
    encoder = make_encoder(in_channels=4)
    encoder.eval()
    x = images(1, 4)
    older = x.clone()
    older[:, 3] += 0.5
    assert float((encoder(x) - encoder(older)).abs().max()) > 1e-4


def test_samples_do_not_mix_in_eval_mode():
    encoder = make_encoder()
    encoder.eval()
    x = images(3)
    whole = encoder(x).numpy()
    np.testing.assert_allclose(encoder(x[1:2]).numpy(), whole[1:2], atol=1e-5)


@pytest.mark.parametrize("squeeze_excite", [True, False], ids=["ir_se", "ir"])
def test_every_parameter_gets_a_gradient(squeeze_excite):
    encoder = make_encoder(squeeze_excite=squeeze_excite, units=(2, 1, 1, 1))
    encoder(images(4)).square().sum().backward()
    assert without_gradient(encoder) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": (1, 1, 1)}, r"expected 4 stages, found .*\(1, 1, 1\)"),
        ({"widths": (8, 8)}, r"expected 4 stages, found \(8, 8\)"),
        ({"input_size": 48}, "input_size: expected a power of two of at least 32, found 48"),
        ({"input_size": 16}, "input_size: expected a power of two of at least 32, found 16"),
        ({"style_dim": 32}, "widths: the pyramid adds .* found 16 and 32"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ConfigError, match=message):
        make_encoder(**options)


@pytest.mark.parametrize("shape", [(1, 4, 32, 32), (1, 3, 64, 64), (3, 32, 32)])
def test_impossible_inputs(shape):
    with pytest.raises(ConfigError, match=r"x: expected shape \[\*, 3, 32, 32\], found"):
        make_encoder()(paddle.zeros(shape))


# --- the residual body -----------------------------------------------------------------------


def test_a_unit_is_the_sum_of_branch_and_shortcut():
    unit = ResidualUnit(8, 8, 2, squeeze_excite=False)
    unit.eval()
    x = paddle.randn([1, 8, 6, 6])
    expected = unit.res_layer(x) + x[:, :, ::2, ::2]  # same channels: the shortcut samples
    np.testing.assert_allclose(unit(x).numpy(), expected.numpy(), rtol=1e-6)
    assert not unit.shortcut_layer.state_dict()


def test_a_unit_is_norm_convolution_prelu_convolution_norm():
    paddle.seed(0)
    unit = ResidualUnit(6, 8, 2, squeeze_excite=False)
    for name, tensor in unit.state_dict().items():
        values = np.random.default_rng(len(name)).uniform(0.1, 1, tensor.shape)
        tensor.set_value((values - 0.4 * (tensor.ndim > 1)).astype("float32"))
    unit.eval()
    state = {name: torch.from_numpy(value.numpy()) for name, value in unit.state_dict().items()}

    def norm(x, name):
        keys = (f"{name}.{key}" for key in ("_mean", "_variance", "weight", "bias"))
        return tF.batch_norm(x, *(state[key] for key in keys))

    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 6, 6, 6)).astype("float32"))
    x = tF.conv2d(norm(image, "res_layer.0"), state["res_layer.1.weight"], padding=1)
    x = tF.prelu(x, state["res_layer.2._weight"])
    x = tF.conv2d(x, state["res_layer.3.weight"], stride=2, padding=1)
    shortcut = tF.conv2d(image, state["shortcut_layer.0.weight"], stride=2)
    expected = norm(x, "res_layer.4") + norm(shortcut, "shortcut_layer.1")
    assert float(x.min()) < -1e-2
    found = unit(paddle.to_tensor(image.numpy())).numpy()
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_second_convolution_of_a_unit_has_the_stride():
    unit = ResidualUnit(4, 16, 2, squeeze_excite=True)
    first, second = unit.res_layer[1], unit.res_layer[3]
    assert (first._stride, second._stride) == ([1, 1], [2, 2])
    assert unit(paddle.randn([2, 4, 6, 6])).shape == [2, 16, 3, 3]


def test_squeeze_excite_by_hand():
    gate = SqueezeExcite(32)
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 32, 3, 5)).astype("float32"))
    means = x.numpy().mean(axis=(2, 3))
    hidden = np.maximum(means @ gate.fc1.weight.numpy()[:, :, 0, 0].T, 0)
    logits = hidden @ gate.fc2.weight.numpy()[:, :, 0, 0].T
    expected = x.numpy() / (1 + np.exp(-logits))[:, :, None, None]
    assert hidden.shape == (2, 2)
    np.testing.assert_allclose(gate(x).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_body_halves_in_the_first_unit_of_each_stage():
    body = residual_body(4, (16, 16), (2, 2), squeeze_excite=False)
    x = paddle.randn([2, 4, 8, 8])
    sizes = []
    for unit in body:
        x = unit(x)
        sizes.append(x.shape[-1])
    assert sizes == [4, 4, 2, 2]
    assert x.shape[1] == 16
