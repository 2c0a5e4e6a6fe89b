"""Every operator form that exported models use, by oneDNN in both precisions, against NumPy."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn
from paddle.static import InputSpec

from paddle_sam.ageing.pipeline import ageing_network, read_sam
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import ConfigError
from paddle_sam.export.engine import Predictor, has_bfloat16
from paddle_sam.export.static_model import save_inference_model
from paddle_sam.export.static_networks import BilinearDoubling, SplitPReLU, StaticSqueezeExcite
from paddle_sam.networks.face_networks import SqueezeExcite

needs_bfloat16 = pytest.mark.skipif(
    not has_bfloat16(), reason="this CPU has no bfloat16 instructions (AVX512-BF16 or AMX)"
)
PRECISIONS = ["float32", pytest.param("bfloat16", marks=needs_bfloat16)]
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.03}  # of the result's deviation

C = 16
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, C, 8, 8)).astype(np.float32)
WEIGHT = RNG.standard_normal((C, C, 3, 3)).astype(np.float32)
DEPTHWISE = RNG.standard_normal((C, 1, 3, 3)).astype(np.float32)
MATRIX = RNG.standard_normal((C, C)).astype(np.float32)
SLOPES = RNG.uniform(-0.5, 1.5, C).astype(np.float32)
VECTOR = RNG.standard_normal(C).astype(np.float32)


class Form(nn.Layer):
    """A convolution, so that maps come in oneDNN's own layout, and the operator behind it."""

    def __init__(self, operator):
        super().__init__()
        self.register_buffer("first", paddle.to_tensor(WEIGHT))
        self.operator = operator

    def forward(self, x):
        return self.operator(F.conv2d(x, self.first, padding=1))


def convolved(x, weight, groups=1, stride=1):
    """Cross-correlation [N, C, H, W] with one pixel of padding, in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    if groups > 1:
        return np.einsum("nchwij,cij->nchw", windows, weight[:, 0].astype(np.float64))
    return np.einsum("nchwij,ocij->nohw", windows, weight.astype(np.float64))


def transposed(x, weight):
    """Stride 2, one row and column more than it produces; weight [I, O, 3, 3]."""
    n, _, h, w = x.shape
    out = np.zeros((n, weight.shape[1], 2 * h + 2, 2 * w + 2))
    for i in range(3):
        for j in range(3):
            part = np.einsum("nihw,io->nohw", x, weight[:, :, i, j].astype(np.float64))
            out[:, :, i : i + 2 * h : 2, j : j + 2 * w : 2] += part
    return out


def parameter(values):
    return paddle.to_tensor(values)


def prelu():
    layer = nn.PReLU(C)
    layer._weight.set_value(SLOPES)
    return layer


def norm():
    layer = nn.BatchNorm2D(C)
    layer._mean.set_value(VECTOR)
    layer._variance.set_value(SLOPES**2 + 0.5)
    layer.weight.set_value(SLOPES)
    return layer


def gate():
    paddle.seed(0)
    return SqueezeExcite(C)


def gated(y):
    fc1, fc2 = (layer.weight.numpy()[:, :, 0, 0] for layer in (gate().fc1, gate().fc2))
    hidden = np.maximum(y.mean(axis=(2, 3)) @ fc1.T, 0)
    return y / (1 + np.exp(-(hidden @ fc2.T)))[:, :, None, None]


def per_channel(values):
    return values.reshape(1, C, 1, 1)


# Name: the operator's layer or function, and what NumPy makes of the first convolution's map y.
FORMS = {
    "convolution": (
        lambda y: F.conv2d(y, parameter(WEIGHT), parameter(VECTOR), padding=1),
        lambda y: convolved(y, WEIGHT) + per_channel(VECTOR),
    ),
    "strided convolution": (
        lambda y: F.conv2d(y, parameter(WEIGHT), stride=2, padding=1),
        lambda y: convolved(y, WEIGHT, stride=2),
    ),
    "depthwise convolution": (
        lambda y: F.conv2d(y, parameter(DEPTHWISE), padding=1, groups=C),
        lambda y: convolved(y, DEPTHWISE, groups=C),
    ),
    "transposed convolution": (
        lambda y: F.conv2d_transpose(y, parameter(WEIGHT), stride=2, output_padding=1),
        lambda y: transposed(y, WEIGHT),
    ),
    "average pooling": (
        lambda y: F.avg_pool2d(y, 4),
        lambda y: y.reshape(2, C, 2, 4, 2, 4).mean(axis=(3, 5)),
    ),
    "leaky ReLU of a sum": (
        lambda y: F.leaky_relu(y + parameter(per_channel(VECTOR)), 0.2),
        lambda y: np.where(y + per_channel(VECTOR) > 0, 1, 0.2) * (y + per_channel(VECTOR)),
    ),
    "scaling": (
        lambda y: y * parameter(per_channel(SLOPES)),
        lambda y: y * per_channel(SLOPES),
    ),
    "matrix product": (
        lambda y: F.linear(F.avg_pool2d(y, 8).flatten(1), parameter(MATRIX), parameter(VECTOR)),
        lambda y: y.mean(axis=(2, 3)) @ MATRIX + VECTOR,
    ),
    "stack": (
        lambda y: paddle.stack([y.flatten(1), 2.0 * y.flatten(1)], axis=1),
        lambda y: np.stack([y.reshape(2, -1), 2.0 * y.reshape(2, -1)], axis=1),
    ),
}
# As layers of the package: (layer, what NumPy makes of y, the precisions it is used in).
LAYERS = {
    "PReLU": (
        prelu,
        lambda y: np.where(y > 0, y, per_channel(SLOPES) * y),
        ("float32",),  # in bfloat16 oneDNN reads the slopes wrongly, see `SplitPReLU`
    ),
    "split PReLU": (
        lambda: SplitPReLU(prelu()),
        lambda y: np.where(y > 0, y, per_channel(SLOPES) * y),
        TOLERANCE,
    ),
    "batch norm": (
        norm,
        lambda y: (
            per_channel(SLOPES)
            * (y - per_channel(VECTOR))
            / np.sqrt(per_channel(SLOPES**2 + 0.5) + 1e-5)
        ),
        TOLERANCE,
    ),
    "squeeze and excite": (lambda: StaticSqueezeExcite(gate(), 8), gated, TOLERANCE),
    "bilinear doubling": (
        lambda: BilinearDoubling(C, 8),
        lambda y: np.einsum("ih,nchw,jw->ncij", doubling(8), y, doubling(8)),
        TOLERANCE,
    ),
}


def doubling(size):
    where = np.linspace(0, size - 1, 2 * size)
    return np.maximum(0, 1 - np.abs(where[:, None] - np.arange(size)))


def check(operator, of_map, precision, tmp_path):
    path = tmp_path / "model"
    save_inference_model(Form(operator), InputSpec([-1, C, 8, 8], "float32", "x"), path)
    want = of_map(convolved(X, WEIGHT))
    scale = TOLERANCE[precision] * want.std()
    predictor = Predictor(path, "cpu", precision)
    for _ in range(2):  # the second call uses what the first one packed
        error = np.abs(predictor(X) - want)
        assert np.sqrt(np.square(error).mean()) < scale / 2
        assert error.max() < 6 * scale


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", FORMS)
def test_functions(form, precision, tmp_path):
    check(*FORMS[form], precision, tmp_path)


@pytest.mark.parametrize(
    ("layer", "precision"),
    [
        pytest.param(name, precision, marks=needs_bfloat16 if precision == "bfloat16" else ())
        for name, (_, _, precisions) in LAYERS.items()
        for precision in precisions
    ],
)
def test_layers(layer, precision, tmp_path):
    make, of_map, _ = LAYERS[layer]
    check(make(), of_map, precision, tmp_path)


@needs_bfloat16
def test_the_embedded_model_in_bfloat16(cache_folder):
    """Through the trial, at 45 dB or more from eager Paddle, in batches of one and two."""
    path = find_weight("sam_mini")
    quick, *_ = ageing_network(path, "cpu", "onednn-bf16")
    eager = read_sam(path).network
    example = quick.example()
    assert example.shape[0] == 2 and example.std() > 0.2
    faces = paddle.to_tensor(example)
    with paddle.no_grad():
        for batch in (faces, faces[:1]):
            start = eager.invert(batch)
            codes = eager.encoder(paddle.concat([batch, 0.4 + 0 * batch[:, :1]], axis=1)) + start
            want = eager.decode(codes, randomize_noise=False)[0].numpy()
            found = quick.trial(batch.numpy())[0]
            assert 10 * np.log10(4 / np.square(found - want).mean()) >= 45


def test_bfloat16_on_a_gpu_is_refused(checkpoint, cache_folder, monkeypatch):
    monkeypatch.setattr("paddle_sam.export.cache.resolve_device", lambda name: "gpu:0")
    with pytest.raises(ConfigError, match="engine onednn-bf16: .*gpu:0"):
        ageing_network(checkpoint, "gpu:0", "onednn-bf16")
