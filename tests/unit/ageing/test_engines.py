"""Which engine a weight file gets, and what happens where that cannot run."""

import os

import numpy as np
import pytest

from paddle_sam.ageing import pipeline as networks
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError, ConfigError, EngineError
from paddle_sam.export.engine import EngineSAM
from paddle_sam.networks.sam import SAM
from paddle_sam.stylegan2.generator import rendering_network

AGES = [0, 45, 100]


@pytest.fixture(autouse=True)
def own_cache(cache_folder):
    return cache_folder


@pytest.fixture
def crops():
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def aged(path, engine, crops):
    return AgePipeline.from_checkpoint(path, "cpu", engine).age(crops, AGES).astype(int)


def test_the_default_is_the_engine_and_gives_the_eager_images(checkpoint, crops):
    network, crop, _ = networks.ageing_network(checkpoint, "cpu")
    assert isinstance(network, EngineSAM) and crop.size == 32
    eager = aged(checkpoint, "eager", crops)
    assert eager.std() > 20
    assert np.abs(aged(checkpoint, "auto", crops) - eager).max() <= 1


def test_the_cache_is_used_without_the_weights(checkpoint, crops, monkeypatch):
    first = aged(checkpoint, "onednn", crops)
    monkeypatch.setattr(networks, "read_sam", lambda path: pytest.fail("read the weights"))
    np.testing.assert_array_equal(aged(checkpoint, "onednn", crops), first)


def test_the_generator_alone_has_an_entry_of_its_own(checkpoint, crops, own_cache, monkeypatch):
    first = aged(checkpoint, "onednn", crops)
    generator = rendering_network(checkpoint, "cpu")
    assert (generator.output_size, generator.n_codes, generator.style_dim) == (32, 8, 16)
    assert len(list(own_cache.glob("*/decoder.json"))) == 2
    monkeypatch.setattr(networks, "read_sam", lambda path: pytest.fail("read the weights"))
    np.testing.assert_array_equal(aged(checkpoint, "onednn", crops), first)
    with pytest.raises(CheckpointError, match="holds an age regressor"):
        rendering_network(find_weight("age_mini"), "cpu")


@pytest.mark.parametrize("name", ["decoder.pdiparams", "decoder.json", "network.json"])
def test_a_corrupt_cache_is_rebuilt(checkpoint, crops, own_cache, name):
    first = aged(checkpoint, "onednn", crops)
    (entry,) = (path for path in own_cache.iterdir() if (path / name).exists())
    (entry / name).write_bytes((entry / name).read_bytes()[:100])
    np.testing.assert_array_equal(aged(checkpoint, "onednn", crops), first)


def test_garbage_of_the_right_size_and_time_is_noticed(checkpoint, crops, own_cache):
    """Weights that are numbers still, so that nothing but a checksum can tell."""
    first = aged(checkpoint, "onednn", crops)
    (weights,) = own_cache.glob("*/decoder.pdiparams")
    status, content = weights.stat(), bytearray(weights.read_bytes())
    middle = len(content) // 2 // 4 * 4
    content[middle : middle + 4] = np.float32(3.0).tobytes()
    weights.write_bytes(content)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    np.testing.assert_array_equal(aged(checkpoint, "onednn", crops), first)


def test_a_refused_engine_leaves_a_good_cache_alone(checkpoint, crops, own_cache, monkeypatch):
    first = aged(checkpoint, "onednn", crops)
    before = {path: path.stat().st_mtime_ns for path in own_cache.glob("*/*")}
    again = "paddle_sam.export.static_model.export_sam"
    monkeypatch.setattr(again, lambda *_: pytest.fail("exported again"))

    class Refusing(EngineSAM):
        def check(self):
            raise EngineError("not here")

    with monkeypatch.context() as patch:
        patch.setattr(networks, "EngineSAM", Refusing)
        for _ in range(2):
            with pytest.raises(ConfigError, match="engine onednn: .*not here"):
                aged(checkpoint, "onednn", crops)
        assert isinstance(networks.ageing_network(checkpoint, "cpu", "auto")[0], SAM)
    assert {path: path.stat().st_mtime_ns for path in own_cache.glob("*/*")} == before
    np.testing.assert_array_equal(aged(checkpoint, "onednn", crops), first)


def broken(*_):
    raise EngineError("no oneDNN in this test")


def test_auto_falls_back_to_eager_and_says_so(checkpoint, crops, monkeypatch, capsys):
    monkeypatch.setattr(networks, "EngineSAM", type("Broken", (EngineSAM,), {"__init__": broken}))
    network, *_ = networks.ageing_network(checkpoint, "cpu", "auto")
    assert isinstance(network, SAM)
    note = capsys.readouterr().err
    assert "note: the fast engine cannot run here (no oneDNN in this test); using eager" in note


def test_an_engine_asked_for_is_not_replaced(checkpoint, monkeypatch):
    monkeypatch.setattr(networks, "EngineSAM", type("Broken", (EngineSAM,), {"__init__": broken}))
    with pytest.raises(ConfigError, match="engine onednn: cannot run here: no oneDNN in this"):
        networks.ageing_network(checkpoint, "cpu", "onednn")


def test_a_cache_that_cannot_be_written(checkpoint, crops, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PADDLE_SAM_CACHE", str(tmp_path / "file" / "cache"))
    assert isinstance(networks.ageing_network(checkpoint, "cpu")[0], SAM)
    assert "using eager Paddle" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["auto", "eager", "onednn"])
def test_files_that_cannot_age_are_refused(engine):
    with pytest.raises(CheckpointError, match="holds an age regressor"):
        networks.ageing_network(find_weight("age_mini"), "cpu", engine)
    with pytest.raises(CheckpointError, match=r"none\.pdparams: there is no such file"):
        networks.ageing_network(find_weight("age_mini").with_name("none.pdparams"), "cpu", engine)


def test_unknown_engines_are_refused(checkpoint):
    with pytest.raises(ConfigError, match="engine: expected one of auto, eager, onednn"):
        networks.ageing_network(checkpoint, "cpu", "fast")


@pytest.mark.parametrize(
    ("engine", "device", "message"),
    [
        ("onednn-bf16", "gpu:0", "onednn-bf16: is for CPUs, found device gpu:0"),
        ("gpu-fp16", "cpu", "gpu-fp16: is for GPUs, found device cpu"),
    ],
)
def test_sixteen_bits_are_refused_on_the_wrong_device(
    checkpoint, monkeypatch, engine, device, message
):
    monkeypatch.setattr("paddle_sam.export.cache.resolve_device", lambda name: name)
    with pytest.raises(ConfigError, match=message):
        networks.ageing_network(checkpoint, device, engine)
