"""Exported models give what the eager layers give, on every network and batch size."""

import numpy as np
import paddle
import pytest

from paddle_sam.errors import ConfigError, EngineError
from paddle_sam.export import engine as engine_module
from paddle_sam.export.engine import EngineSAM, Predictor
from paddle_sam.export.static_model import export_sam
from paddle_sam.export.static_networks import BilinearDoubling, StaticDecoder
from paddle_sam.networks.sam import add_age_plane, upsample_add
from paddle_sam.networks.stylegan2 import Generator
from tests.unit.export.tiny import ARCH, images, tiny_sam

BATCHES = (1, 2, 5)
TOLERANCE = 1e-4  # of a tensor's standard deviation; at the published size 1e-3 is promised


@pytest.fixture(scope="module")
def network():
    return tiny_sam()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_sam(network, folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder):
    return EngineSAM(folder)


def close(found, want):
    scale = want.numpy().std()  # random weights: what adds up to a small value was itself not small
    assert scale > 0.1  # a constant would prove nothing
    np.testing.assert_allclose(found.numpy(), want.numpy(), atol=TOLERANCE * scale, rtol=TOLERANCE)


@pytest.mark.parametrize("batch", BATCHES)
def test_pretrained_encoder(engine, network, batch):
    close(engine.invert(images(batch)), network.invert(images(batch)))


@pytest.mark.parametrize("batch", BATCHES)
def test_encoder(engine, network, batch):
    x = add_age_plane(images(batch), paddle.linspace(0, 100, batch))
    inverted = network.invert(images(batch))
    with paddle.no_grad():
        close(engine.encode(x, inverted), network.encode(x, inverted))
        close(engine.encode(x), network.encode(x))


@pytest.mark.parametrize("resize", [True, False])
@pytest.mark.parametrize("batch", BATCHES)
def test_decoder(engine, network, batch, resize):
    codes = network.invert(images(batch))
    with paddle.no_grad():
        want = network.decode(codes, resize=resize, randomize_noise=False)
    found = engine.decode(codes, resize=resize)
    close(found[0], want[0])
    np.testing.assert_array_equal(found[1].numpy(), codes.numpy())


@pytest.mark.parametrize("batch", BATCHES)
def test_mapping(engine, network, batch):
    z = paddle.to_tensor(np.random.default_rng(2).standard_normal((batch, 16), np.float32))
    with paddle.no_grad():
        close(engine.map_latents(z), network.map_latents(z))


def test_a_large_network_holds_one_encoder_at_a_time(folder, network, monkeypatch):
    monkeypatch.setattr(engine_module, "LARGE", 0)
    engine, held = EngineSAM(folder), []
    x = add_age_plane(images(2), paddle.to_tensor([10.0, 60.0]))
    for _ in range(2):
        inverted = engine.invert(images(2))
        held.append(set(engine._predictors))
        with paddle.no_grad():
            close(engine.encode(x, inverted), network.encode(x, network.invert(images(2))))
        held.append(set(engine._predictors))
    assert held == [{"pretrained_encoder"}, {"encoder"}] * 2


def test_batches_in_any_order(engine, network):
    """oneDNN keeps packed weights per shape; one shape's must not serve another."""
    for batch in (2, 1, 5, 1, 2):
        codes = network.invert(images(batch)) * batch
        with paddle.no_grad():
            close(engine.decode(codes)[0], network.decode(codes, randomize_noise=False)[0])


@pytest.mark.parametrize("start", ["latent_avg", "zero"])
def test_networks_without_a_pretrained_encoder(start, tmp_path):
    network = tiny_sam(start=start, pretrained_encoder=None)
    export_sam(network, tmp_path)
    found = EngineSAM(tmp_path).invert(images(2))
    np.testing.assert_array_equal(found.numpy(), network.invert(images(2)).numpy())


def test_output_larger_than_input_is_pooled_alike(tmp_path):
    decoder = {"size": 64, "style_dim": 16, "mapping_layers": 1}
    decoder["channels"] = dict.fromkeys((4, 8, 16, 32, 64), 8)
    encoders = {name: {**ARCH[name], "n_styles": 10} for name in ("encoder", "pretrained_encoder")}
    network = tiny_sam(decoder=decoder, **encoders)
    export_sam(network, tmp_path)
    engine, codes = EngineSAM(tmp_path), network.invert(images(2))
    with paddle.no_grad():
        want = network.decode(codes, resize=True, randomize_noise=False)[0]
    assert want.shape[-1] == 32 and engine.output_size == 64
    close(engine.decode(codes, resize=True)[0], want)


@pytest.mark.parametrize("taps", [(1.0, 3.0, 3.0, 1.0), (1.0, 2.0, 1.0, 0.0), (1.0, 1.0)])
def test_static_decoder_for_other_filters(taps):
    """The folded decoder pads and crops as the filter's length demands."""
    paddle.seed(0)
    generator = Generator(16, 8, 1, {4: 8, 8: 8, 16: 8}, fir=taps)
    generator.eval()
    codes = paddle.randn([2, 6, 8])
    with paddle.no_grad():
        want = generator([codes], input_is_latent=True, randomize_noise=False)
        close(StaticDecoder(generator)(codes), want)


@pytest.mark.parametrize("size", [2, 4, 16])
def test_bilinear_doubling_equals_interpolation(size):
    x = paddle.randn([2, 3, size, size])
    want = upsample_add(x, paddle.zeros([2, 3, 2 * size, 2 * size]))
    np.testing.assert_allclose(BilinearDoubling(3, size)(x).numpy(), want.numpy(), atol=1e-5)


def test_fresh_noise_is_refused(engine, network):
    with pytest.raises(ConfigError, match="randomize_noise: exported models have the stored"):
        engine.decode(network.invert(images(1)), randomize_noise=True)


def test_damaged_models_are_named(folder, tmp_path):
    (tmp_path / "decoder.json").write_text("{}")
    (tmp_path / "decoder.pdiparams").write_bytes(b"")
    with pytest.raises(EngineError, match="decoder: cannot be loaded"):
        Predictor(tmp_path / "decoder")
    with pytest.raises(EngineError, match="holds no exported network"):
        EngineSAM(tmp_path)


@pytest.fixture
def on_gpu(folder, monkeypatch):
    """An engine that takes a GPU's way, with models that run on the CPU."""
    monkeypatch.setattr(engine_module, "Predictor", lambda path, *_: Predictor(path))
    return EngineSAM(folder, "gpu:0", "float16")


def test_on_a_gpu_batches_run_whole_and_never_leave_it(on_gpu, network, host_copies):
    x = add_age_plane(images(5), paddle.linspace(0, 100, 5))
    on_gpu.large = False
    inverted = on_gpu.invert(images(5))
    faces, _ = on_gpu.decode(on_gpu.encode(x, inverted))
    assert host_copies == []
    with paddle.no_grad():
        close(inverted, network.invert(images(5)))
        close(faces, network.decode(network.encode(x), randomize_noise=False)[0])
    assert set(on_gpu._predictors) == {
        "pretrained_encoder",
        "encoder",
        "decoder",
    }  # none was let go


@pytest.mark.parametrize(("precision", "kind"), [("float32", "Float32"), ("float16", "Half")])
def test_the_precision_reaches_the_gpu(folder, monkeypatch, precision, kind):
    from paddle import inference

    asked = []
    record = lambda self, memory, index, kind: asked.append((index, kind))  # noqa: E731
    monkeypatch.setattr(inference.Config, "enable_use_gpu", record)
    Predictor(folder / "decoder", "gpu:3", precision)
    assert asked == [(3, getattr(inference.PrecisionType, kind))]
