"""FIR resampling and equalised layers against scipy, loops and numbers worked out by hand."""

import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
import scipy.signal

from paddle_sam.networks.stylegan2_ops import (
    BiasedLeakyReLU,
    EqualConv2D,
    EqualLinear,
    conv_downsample2d,
    conv_upsample2d,
    fir_kernel,
    upfirdn2d,
    upsample2d,
)

RNG = np.random.default_rng(0)
# Not its own mirror image in either direction, nor its own transpose.
ODD_KERNEL = RNG.normal(size=(4, 4)).astype(np.float32)
FIR = fir_kernel([1, 3, 3, 1], gain=4.0)


def random(*shape) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def upfirdn_by_definition(x, kernel, up, down, padding):
    """Insert zeros, pad, convolve with scipy (which flips the kernel), keep every `down`-th."""
    n, channels, height, width = x.shape
    spread = np.zeros((n, channels, height * up, width * up), np.float64)
    spread[:, :, ::up, ::up] = x
    spread = np.pad(spread, ((0, 0), (0, 0), padding, padding))
    rows = [
        [scipy.signal.convolve2d(image, kernel, mode="valid")[::down, ::down] for image in sample]
        for sample in spread
    ]
    return np.array(rows)


@pytest.mark.parametrize("up", [1, 2, 3])
@pytest.mark.parametrize("down", [1, 2, 3])
@pytest.mark.parametrize("padding", [(0, 0), (2, 1), (1, 3)])
def test_upfirdn2d_is_what_scipy_convolves(up, down, padding):
    x = random(2, 3, 7, 6)
    found = upfirdn2d(paddle.to_tensor(x), paddle.to_tensor(ODD_KERNEL), up, down, padding)
    expected = upfirdn_by_definition(x, ODD_KERNEL, up, down, padding)
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_upfirdn2d_flips_the_kernel():
    impulse = paddle.zeros([1, 1, 7, 7])
    impulse[0, 0, 3, 3] = 1.0
    found = upfirdn2d(impulse, paddle.to_tensor(ODD_KERNEL)).numpy()[0, 0]
    np.testing.assert_array_equal(found, ODD_KERNEL)  # a convolution copies it, upright


def test_fir_kernel_by_hand():
    np.testing.assert_allclose(
        fir_kernel([1, 3], gain=4.0), [[0.25, 0.75], [0.75, 2.25]], rtol=1e-6
    )
    assert fir_kernel([1, 3, 3, 1]).dtype == np.float32


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("kernel", [FIR, ODD_KERNEL], ids=["fir", "asymmetric"])
def test_transposed_convolution_equals_the_reference(size, kernel):
    x, weight = paddle.to_tensor(random(2, 3, 4, 5)), paddle.to_tensor(random(4, 3, size, size))
    if size == 5:
        kernel = np.pad(kernel, ((0, 2), (0, 2)))  # the FIR has to reach over the weight
    kernel = paddle.to_tensor(kernel)
    fast = conv_upsample2d(x, weight, kernel)
    reference = conv_upsample2d(x, weight, kernel, impl="reference")
    assert fast.shape == reference.shape == [2, 4, 8, 10]
    np.testing.assert_allclose(fast.numpy(), reference.numpy(), atol=2e-5)


@pytest.mark.parametrize("kernel", [FIR, ODD_KERNEL], ids=["fir", "asymmetric"])
def test_phases_equal_the_reference(kernel):
    x, weight = paddle.to_tensor(random(2, 3, 4, 5)), paddle.to_tensor(random(4, 3, 3, 3))
    kernel = paddle.to_tensor(kernel)
    phases = conv_upsample2d(x, weight, kernel, impl="phases")
    reference = conv_upsample2d(x, weight, kernel, impl="reference")
    np.testing.assert_allclose(phases.numpy(), reference.numpy(), atol=2e-5)


def test_conv_upsample2d_by_definition():
    """Zero-insertion, the mirrored weight, the FIR: each written out with scipy."""
    x, weight = random(1, 2, 3, 4), random(3, 2, 3, 3)
    found = conv_upsample2d(*map(paddle.to_tensor, (x, weight, FIR)))
    spread = np.zeros((2, 5, 7))
    spread[:, ::2, ::2] = x[0]
    for out in range(3):
        full = sum(scipy.signal.convolve2d(spread[i], weight[out, i]) for i in range(2))
        expected = scipy.signal.convolve2d(np.pad(full, 1), FIR, mode="valid")
        np.testing.assert_allclose(found.numpy()[0, out], expected, atol=1e-5)


def test_upsampling_keeps_a_constant_image():
    """The gain of 4 makes up for the inserted zeros, and the image stays where it was."""
    inside = upsample2d(paddle.ones([1, 1, 6, 6]), paddle.to_tensor(FIR)).numpy()[0, 0]
    assert inside.shape == (12, 12)
    np.testing.assert_allclose(inside[1:-1, 1:-1], 1.0, rtol=1e-6)
    ramp = paddle.arange(8.0).reshape([1, 1, 1, 8]).expand([1, 1, 8, 8])
    middle = upsample2d(ramp, paddle.to_tensor(FIR)).numpy()[0, 0, 8, 4:12]
    np.testing.assert_allclose(middle, np.arange(4, 12) / 2 - 0.25, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3])
def test_conv_downsample2d_by_definition(size):
    x, weight = random(1, 2, 8, 6), random(3, 2, size, size)
    kernel = ODD_KERNEL
    found = conv_downsample2d(*map(paddle.to_tensor, (x, weight, kernel))).numpy()[0]
    assert found.shape == (3, 4, 3)
    pad = {1: (1, 1), 3: (2, 2)}[size]
    for out in range(3):
        whole = sum(
            scipy.signal.correlate2d(
                scipy.signal.convolve2d(np.pad(x[0, i], pad), kernel, mode="valid"),
                weight[out, i],
                mode="valid",
            )
            for i in range(2)
        )
        np.testing.assert_allclose(found[out], whole[::2, ::2], atol=1e-5)


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="impl: expected fast, phases or reference, found 'quick'"):
        conv_upsample2d(paddle.ones([1, 1, 4, 4]), paddle.ones([1, 1, 3, 3]), None, impl="quick")


def slope_along(function, x, direction, step):
    with paddle.no_grad():
        return float(function(x + step * direction) - function(x - step * direction)) / (2 * step)


@pytest.mark.parametrize("impl", ["fast", "phases", "reference"])
def test_gradient_of_up_sampling(impl):
    x, weight = paddle.to_tensor(random(1, 2, 4, 4)), paddle.to_tensor(random(2, 2, 3, 3))
    kernel, direction = paddle.to_tensor(ODD_KERNEL), paddle.to_tensor(random(1, 2, 4, 4) + 1)

    def energy(x):
        return conv_upsample2d(x, weight, kernel, impl=impl).square().sum()

    x.stop_gradient = False
    (gradient,) = paddle.grad(energy(x), x)
    expected = slope_along(energy, x.detach(), direction, 1e-2)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("impl", ["phases", "reference"])
def test_second_derivative(impl):
    """Path length regularisation differentiates a gradient; only these implementations can."""
    weight, kernel = paddle.to_tensor(random(2, 2, 3, 3)), paddle.to_tensor(ODD_KERNEL)
    direction = paddle.to_tensor(random(2, 2, 3, 3) + 1)
    start = paddle.to_tensor(random(1, 2, 4, 4))

    def gradient_norm(weight):
        x = start.detach()
        x.stop_gradient = False
        y = conv_upsample2d(x, weight, kernel, impl=impl)
        (gradient,) = paddle.grad((y * y.detach().sign()).square().sum(), x, create_graph=True)
        return gradient.square().sum()

    weight.stop_gradient = False
    (second,) = paddle.grad(gradient_norm(weight), weight)
    step, plain = 1e-3, weight.detach()
    difference = gradient_norm(plain + step * direction) - gradient_norm(plain - step * direction)
    expected = float(difference) / (2 * step)
    assert float((second * direction).sum()) == pytest.approx(expected, rel=2e-3)


def test_equal_linear_by_hand():
    layer = EqualLinear(4, 1, bias_init=3.0, lr_mul=0.5)
    layer.weight.set_value(np.array([[1.0], [2.0], [3.0], [4.0]], np.float32))
    # (1*1 + 1*2 + 1*3 + 1*4) * 0.5 / sqrt(4) + 3 * 0.5
    assert layer(paddle.ones([1, 4])).item() == pytest.approx(4.0)
    active = EqualLinear(1, 2, activate=True)
    active.weight.set_value(np.array([[1.0, -1.0]], np.float32))
    np.testing.assert_allclose(
        active(paddle.ones([1, 1])).numpy(), [[math.sqrt(2), -0.2 * math.sqrt(2)]], rtol=1e-6
    )


def test_an_activated_linear_layer_scales_its_bias_too():
    layer = EqualLinear(1, 1, bias_init=2.0, lr_mul=0.25, activate=True)
    layer.weight.set_value(np.zeros((1, 1), np.float32))
    assert layer(paddle.ones([1, 1])).item() == pytest.approx(0.5 * math.sqrt(2))


def test_starting_deviation_of_the_equalised_weights():
    """Stored with deviation 1 / lr_mul, so that the scaled weight is He-normal in effect."""
    paddle.seed(0)
    assert float(EqualLinear(200, 100, lr_mul=0.01).weight.std()) == pytest.approx(100, rel=0.02)
    assert float(EqualConv2D(50, 50, 3).weight.std()) == pytest.approx(1, rel=0.02)


def test_equal_conv_by_hand():
    layer = EqualConv2D(2, 1, 3)
    layer.weight.set_value(np.ones((1, 2, 3, 3), np.float32))
    found = layer(paddle.ones([1, 2, 5, 5])).numpy()[0, 0]
    assert found.shape == (5, 5)
    assert found[2, 2] == pytest.approx(math.sqrt(18), rel=1e-6)  # 18 / sqrt(2 * 3 * 3)
    assert found[0, 0] == pytest.approx(8 / math.sqrt(18), rel=1e-6)
    halved = EqualConv2D(2, 1, 1, fir=[1, 3, 3, 1])
    assert halved(paddle.ones([1, 2, 6, 8])).shape == [1, 1, 3, 4]
    assert "kernel" not in halved.state_dict()


def test_biased_leaky_relu_by_hand():
    layer = BiasedLeakyReLU(2)
    layer.bias.set_value(np.array([1.0, -3.0], np.float32))
    found = layer(paddle.ones([1, 2, 1, 2])).numpy()[0, :, 0]
    root = math.sqrt(2)
    np.testing.assert_allclose(found, [[2 * root] * 2, [-0.4 * root] * 2], rtol=1e-6)


def test_zero_insertion_matches_the_transposed_convolution_operator():
    """Paddle's own operator, for the orientation of the weight."""
    x, weight = paddle.to_tensor(random(1, 2, 3, 3)), paddle.to_tensor(random(3, 2, 3, 3))
    delta = np.zeros((4, 4), np.float32)
    delta[1, 1] = 1.0
    found = conv_upsample2d(x, weight, paddle.to_tensor(delta), impl="reference")
    whole = F.conv2d_transpose(x, weight.transpose([1, 0, 2, 3]), stride=2)
    np.testing.assert_allclose(found.numpy(), whole.numpy()[:, :, 1:, 1:], atol=1e-5)
