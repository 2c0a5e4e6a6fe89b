"""What `--amp` computes in 16 bits and what not, shown on a CPU.

Paddle's mixed precision works on GPUs only. The same casts are made here by wrapping the operators
of its white list: for types with float32 in the place of 16 bits and float64 in that of 32, which
promote each other alike; for values by rounding to bfloat16.
"""

import contextlib

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from paddle_sam.core.device import _tune
from paddle_sam.errors import ConfigError
from paddle_sam.networks import stylegan2, stylegan2_ops
from paddle_sam.networks.image_features import LPIPS
from paddle_sam.networks.stylegan2 import Discriminator, Generator
from paddle_sam.training.trainers import MixedPrecision, logistic

CHANNELS = {4: 8, 8: 8, 16: 8}
WHITE = ("conv2d", "conv2d_transpose", "linear")  # and `paddle.matmul`


def generator():
    paddle.seed(0)
    network = Generator(16, 8, 1, CHANNELS)
    for name, parameter in network.named_parameters():
        if name.endswith("noise.weight"):
            parameter.set_value(paddle.to_tensor([0.5]))
    return network


def discriminator():
    paddle.seed(1)
    return Discriminator(16, CHANNELS)


@pytest.fixture
def cast(monkeypatch):
    """Returns a function that has the white list's operators pass operands through `cast`."""

    def start(cast):
        off = []

        @contextlib.contextmanager
        def auto_cast(enable=True, **_):
            assert not enable
            off.append(True)
            yield
            off.pop()

        def wrapped(operator):
            def call(x, weight, *args, **options):
                if off:
                    return operator(x, weight, *args, **options)
                return cast(operator(cast(x), cast(weight), *args, **options))

            return call

        monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
        for name in WHITE:
            monkeypatch.setattr(F, name, wrapped(getattr(F, name)))
        monkeypatch.setattr(paddle, "matmul", wrapped(paddle.matmul))
        layers = paddle.nn.functional.conv  # what `nn.Conv2D` calls
        monkeypatch.setattr(layers, "_conv_nd", wrapped(layers._conv_nd))

    return start


@pytest.fixture
def types(cast, monkeypatch):
    """Networks in float64 whose white list computes in float32; returns the types seen."""
    cast(lambda tensor: tensor.astype("float32"))
    seen = {}

    def watch(module, name, operand=0):
        operator = getattr(module, name)

        def call(*args, **options):
            seen.setdefault(name, []).append(str(args[operand].dtype).split(".")[-1])
            return operator(*args, **options)

        monkeypatch.setattr(module, name, call)

    watch(F, "leaky_relu")
    watch(stylegan2_ops, "upfirdn2d")
    watch(paddle, "rsqrt")
    watch(stylegan2, "minibatch_stddev")
    return seen


def test_activations_of_the_generator_are_half_and_its_images_are_not(types):
    network = generator()
    network.to(dtype="float64")
    codes = paddle.randn([2, 6, 8]).astype("float64")
    image, features = network.synthesis(codes, network.noises.as_list())
    assert features.dtype == paddle.float32  # half
    assert set(types["leaky_relu"]) == {"float32"}
    assert set(types["rsqrt"]) == {"float64"}  # demodulation
    assert set(types["upfirdn2d"]) == {"float32", "float64"}  # feature maps, and the RGB skip
    assert image.dtype == paddle.float64


def test_filters_are_exact_and_their_results_as_half_as_their_input(cast):
    cast(lambda tensor: tensor.astype("float32"))
    kernel = paddle.to_tensor(np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64.0)
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((1, 2, 8, 8)))
    exact = stylegan2_ops.upfirdn2d(x, kernel, padding=(2, 1))
    assert exact.dtype == paddle.float64
    half = stylegan2_ops.upfirdn2d(x.astype("float32"), kernel, padding=(2, 1))
    assert half.dtype == paddle.float32
    np.testing.assert_allclose(half.numpy(), exact.numpy(), atol=1e-6)


def test_the_discriminators_scores_are_exact(types):
    network = discriminator()
    network.to(dtype="float64")
    scores = network(paddle.randn([4, 3, 16, 16]).astype("float64"))
    assert scores.dtype == paddle.float64 and types["minibatch_stddev"] == ["float64"]
    maps = types["leaky_relu"]
    assert set(maps[:-2]) == {"float32"} and maps[-2:] == ["float64"] * 2  # the last two layers
    assert logistic(scores[:, 0], real=True).dtype == paddle.float64


def test_lpips_distances_are_exact(cast, monkeypatch):
    network = LPIPS("alex")
    network.to(dtype="float64")
    images = [paddle.randn([1, 3, 64, 64]).astype("float64") for _ in range(2)]
    want = network(*images)
    features = network.extract(images[0])
    cast(lambda tensor: tensor.astype("float32"))
    assert all(one.dtype == paddle.float64 for one in features)
    np.testing.assert_allclose(network(*images).numpy(), want.numpy(), rtol=1e-4)
    assert network(*images).dtype == paddle.float64


def to_bfloat16(tensor):
    """Values as bfloat16 has them, and gradients, too."""
    return tensor.astype("bfloat16").astype(tensor.dtype)


def test_gradients_under_the_casts_are_those_of_float64(cast):
    """Of both networks' losses, to the precision of bfloat16; without `exact` they are further."""
    z = np.random.default_rng(0).standard_normal((4, 8))

    def gradients(dtype):
        g, d = generator(), discriminator()
        g.to(dtype=dtype), d.to(dtype=dtype)
        image = g([paddle.to_tensor(z, dtype)], randomize_noise=False)
        logistic(d(image)[:, 0], real=True).mean().backward()
        parameters = [*g.parameters(), *d.parameters()]
        return np.concatenate([p.grad.numpy().ravel() for p in parameters]).astype(np.float64)

    want = gradients("float64")
    cast(to_bfloat16)
    found = gradients("float32")
    cosine = found @ want / np.linalg.norm(found) / np.linalg.norm(want)
    assert cosine > 0.995
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(want), rel=0.05)


def test_large_styles_stay_in_the_range_of_float16(cast, monkeypatch):
    """Modulated maps and convolutions, before demodulation takes the style's size away again."""
    largest = []
    cast(lambda tensor: largest.append(float(tensor.abs().max())) or tensor.astype("float32"))
    network = generator()
    network.to(dtype="float64")
    for layer in network.sublayers():
        if isinstance(layer, stylegan2.ModulatedConv2D) and layer.demodulate:
            layer.modulation.bias.set_value(layer.modulation.bias * 1e4)
    image = network([paddle.randn([1, 8]).astype("float64")], randomize_noise=False)
    assert bool(paddle.isfinite(image).all())
    # The first layer's input is a parameter; every later map is of 16 bits.
    first = 3  # operands and result
    assert max(largest[first:]) < 1e3 < max(largest[:first])


def test_the_white_list_has_the_transposed_convolution(monkeypatch):
    given = {}
    amp = MixedPrecision(False)
    amp.enabled, amp.dtype = True, "bfloat16"
    monkeypatch.setattr(paddle.amp, "auto_cast", lambda **options: given.update(options))
    amp.arithmetic()
    assert given == {"dtype": "bfloat16", "custom_white_list": {"conv2d_transpose"}}
    amp.exact()
    assert given["enable"] is False


def test_a_cpu_is_refused():
    with pytest.raises(ConfigError, match="amp"):
        MixedPrecision(True)


@pytest.mark.parametrize(("allowed", "autotune"), [(False, False), (True, False), (False, True)])
def test_tf32_and_autotuning_are_off_unless_allowed(monkeypatch, allowed, autotune):
    from paddle.base import core

    said, flags = {}, {}
    for name in ("set_cudnn_switch", "set_cublas_switch"):
        monkeypatch.setattr(core, name, lambda on, name=name: said.update({name: on}), False)
    monkeypatch.setattr(paddle, "set_flags", flags.update)
    for flag in ("FLAGS_cudnn_deterministic", "FLAGS_cudnn_exhaustive_search"):
        monkeypatch.delenv(flag, raising=False)
    _tune("gpu:0", allowed, autotune)
    assert said == {"set_cudnn_switch": allowed, "set_cublas_switch": allowed}
    search, repeats = "FLAGS_cudnn_exhaustive_search", "FLAGS_cudnn_deterministic"
    assert flags == {repeats: not autotune, search: autotune}


def test_batches_stay_within_what_cudnn_takes(monkeypatch):
    """The same result in parts; and no convolution of the second derivatives is beyond either."""
    x = paddle.randn([5, 6, 8, 8])
    kernel = paddle.to_tensor(stylegan2_ops.fir_kernel([1, 3, 3, 1]))
    want = stylegan2_ops.upfirdn2d(x, kernel, padding=(2, 1)).numpy()
    batches, operator = [], F.conv2d

    def watched(x, *args, **options):
        batches.append(x.shape[0])
        return operator(x, *args, **options)

    monkeypatch.setattr(F, "conv2d", watched)
    monkeypatch.setattr(stylegan2_ops, "_MOST_MAPS", 13)
    found = stylegan2_ops.upfirdn2d(x, kernel, padding=(2, 1)).numpy()
    np.testing.assert_array_equal(found, want)
    weight = paddle.randn([8, 6, 3, 3])
    stylegan2_ops.conv_upsample2d(x, weight, kernel * 4, "phases")
    assert max(batches) <= 13
