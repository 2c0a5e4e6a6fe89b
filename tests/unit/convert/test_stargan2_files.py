"""StarGAN v2's published files: each layout there and back, and what is read from its tensors."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
import torch

import paddle_sam
from convert.convert_weights import main as convert_weights
from paddle_sam.convert.convert import convert_file, revert_file
from paddle_sam.convert.recognise import recognise
from paddle_sam.convert.rules import to_paddle
from paddle_sam.convert.tables import TABLES
from paddle_sam.core.weights import NetworkEntry, WeightFile, check_fit
from paddle_sam.errors import CheckpointError
from paddle_sam.networks import stargan2
from paddle_sam.networks.face_heatmaps import FaceHeatmaps
from paddle_sam.networks.load import build_empty
from tests import DEVICE, PARITY

MANIFESTS = PARITY / "manifests"
NETWORKS = ("generator", "mapping_network", "style_encoder", "discriminator")
SHARED = {"img_size": 32, "max_conv_dim": 16, "base_dim": 8}
TINY = {
    "generator": {**SHARED, "style_dim": 6, "w_hpf": 0.5},
    "mapping_network": {"latent_dim": 4, "style_dim": 6, "num_domains": 3, "width": 12},
    "style_encoder": {**SHARED, "style_dim": 6, "num_domains": 3},
    "discriminator": {**SHARED, "num_domains": 3},
}


def tiny_file(path: Path, w_hpf=0.5, fan=False) -> Path:
    """A torch file of small networks trained here: the published layout, random tensors."""
    networks = {}
    for name, arch in TINY.items():
        arch = arch | ({"w_hpf": w_hpf} if name == "generator" else {})
        builder = f"stargan2_{name}"
        networks[name] = (builder, arch, build_empty(builder, arch))
    if fan:
        networks["fan"] = ("face_heatmaps", {"channels": 8}, FaceHeatmaps(8))
    rng = np.random.default_rng(0)
    content = {
        name: NetworkEntry(
            builder,
            arch,
            {
                key: rng.normal(size=tensor.shape).astype("float32")
                for key, tensor in network.state_dict().items()
            },
        )
        for name, (builder, arch, network) in networks.items()
    }
    if w_hpf:
        laplacian = np.array(stargan2.HIGH_PASS, "float32") / np.float32(w_hpf)
        content["generator"].state["hpf.filter"] = laplacian
    WeightFile("stargan2", content).write(path.with_suffix(".pdparams"))
    revert_file(path.with_suffix(".pdparams"), path)
    return path


def there_and_back(path: Path) -> tuple[dict, dict]:
    convert_file(path, path.with_suffix(".there"))
    revert_file(path.with_suffix(".there"), path.with_suffix(".back"))
    return tuple(torch.load(p, weights_only=True) for p in (path, path.with_suffix(".back")))


def assert_identical(before: dict, after: dict):
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, dict):
            assert_identical(value, after[name])
        else:
            assert value.dtype == after[name].dtype, name
            assert torch.equal(value, after[name]), name


@pytest.mark.parametrize("w_hpf", [0.0, 0.5])
@pytest.mark.parametrize("fan", [False, True])
def test_torch_to_paddle_to_torch_is_bit_identical(tmp_path, w_hpf, fan):
    path = tiny_file(tmp_path / "nets.ckpt", w_hpf, fan)
    before, after = there_and_back(path)
    assert set(before) == {*NETWORKS, *(["fan"] if fan else [])}
    assert ("hpf.filter" in before["generator"]) == (w_hpf > 0)
    assert_identical(before, after)


@pytest.mark.parametrize("w_hpf", [0.0, 0.5])
def test_the_architecture_is_read_from_the_tensors(tmp_path, w_hpf):
    convert_file(tiny_file(tmp_path / "nets.ckpt", w_hpf), tmp_path / "there.pdparams")
    for name, entry in WeightFile.read(tmp_path / "there.pdparams").networks.items():
        want = TINY[name] | ({"w_hpf": w_hpf} if name == "generator" else {})
        assert entry.arch == want


def test_data_parallel_prefixes_go_and_come_back(tmp_path):
    path = tiny_file(tmp_path / "nets.ckpt")
    bare = torch.load(path, weights_only=True)
    convert_file(path, tmp_path / "bare.pdparams")
    wrapped = {k: {f"module.{n}": t for n, t in state.items()} for k, state in bare.items()}
    torch.save(wrapped, path)
    assert_identical(*there_and_back(path))
    expected = WeightFile.read(tmp_path / "bare.pdparams").networks
    found = WeightFile.read(path.with_suffix(".there")).networks
    for name, entry in expected.items():
        assert entry.arch == found[name].arch
        assert entry.state.keys() == found[name].state.keys()


def test_a_file_without_the_filter_gets_the_published_one(tmp_path):
    path = tiny_file(tmp_path / "nets.ckpt")
    content = torch.load(path, weights_only=True)
    del content["generator"]["hpf.filter"]
    torch.save(content, path)
    before, after = there_and_back(path)
    assert_identical(before, after)
    generator = paddle_sam.load(path.with_suffix(".there"), part="generator", device=DEVICE)
    np.testing.assert_array_equal(generator.hpf.filter.numpy(), stargan2.HIGH_PASS)


def test_linear_weights_are_transposed_and_square_ones_too(tmp_path):
    path = tiny_file(tmp_path / "nets.ckpt")
    state = torch.load(path, weights_only=True)["mapping_network"]
    convert_file(path, tmp_path / "there.pdparams")
    network = paddle_sam.load(tmp_path / "there.pdparams", part="mapping_network", device=DEVICE)
    for name, parameter in network.named_parameters():
        value = state[name].numpy()
        np.testing.assert_array_equal(parameter.numpy(), value.T if value.ndim == 2 else value)


def test_the_later_stages_of_wing_are_not_used_but_come_back(tmp_path):
    path = tiny_file(tmp_path / "nets.ckpt", fan=True)
    first = torch.load(path, weights_only=True)["fan"]
    later = {name.replace("0.", "1.", 1): t + 1 for name, t in first.items() if "m0." in name}
    later |= {"top_m_2.conv1.weight": torch.ones(2), "al0.weight": torch.ones(1)}
    later |= {
        "l3.bias": torch.ones(99),
        "bl2.bias": torch.ones(3),
        "conv_last1.bias": torch.ones(1),
    }
    wing = tmp_path / "wing.ckpt"
    torch.save({"state_dict": first | later, "epoch": 80}, wing)
    report = convert_file(wing, tmp_path / "wing.pdparams")
    assert report.kind == "face_heatmaps"
    counters = sum(name.endswith("num_batches_tracked") for name in first)
    assert report.counts["written"] == len(first) - counters
    revert_file(tmp_path / "wing.pdparams", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["epoch"] == 80
    assert_identical(first | later, back["state_dict"])
    network = paddle_sam.load(tmp_path / "wing.pdparams", device=DEVICE)
    assert network(paddle.zeros([1, 3, 64, 64])).shape == [1, 98, 64, 64]


def test_the_mean_face_goes_there_and_back_as_an_archive(tmp_path):
    mean = np.random.default_rng(0).uniform(50, 200, (98, 2))
    np.savez(tmp_path / "celeba_lm_mean.npz", mean=mean)
    assert convert_weights([str(tmp_path / "celeba_lm_mean.npz")]) == 0
    network = paddle_sam.load(tmp_path / "celeba_lm_mean.pdparams", device=DEVICE)
    np.testing.assert_array_equal(network.mean.numpy(), mean.astype("float32"))
    out = str(tmp_path / "out")
    converted = str(tmp_path / "celeba_lm_mean.pdparams")
    assert convert_weights(["--reverse", converted, "--output", out]) == 0
    with np.load(tmp_path / "out" / "celeba_lm_mean.npz") as archive:
        assert archive.files == ["mean"]
        assert archive["mean"].dtype == np.float64
        np.testing.assert_array_equal(archive["mean"], mean)


def test_archives_that_hold_code_or_something_else_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", mean=np.array([{"a": 1}], object))
    with pytest.raises(CheckpointError, match="more than arrays"):
        convert_file(tmp_path / "objects.npz", tmp_path / "out.pdparams")
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    with pytest.raises(CheckpointError, match="another project"):
        convert_file(tmp_path / "other.npz", tmp_path / "out.pdparams")


@pytest.mark.parametrize(
    ("network", "tensor"),
    [
        ("generator", "decode.0.norm1.fc.weight"),
        ("mapping_network", "unshared.0.6.weight"),
        ("style_encoder", "shared.5.bias"),
        ("discriminator", "main.1.conv1.bias"),
    ],
)
def test_a_lost_tensor_is_named(tmp_path, network, tensor):
    path = tiny_file(tmp_path / "nets.ckpt")
    content = torch.load(path, weights_only=True)
    del content[network][tensor]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="missing") as caught:
        convert_file(path, tmp_path / "there.pdparams")
    assert network in str(caught.value)
    assert tensor.removesuffix("weight").removesuffix("bias") in str(caught.value)
    assert not (tmp_path / "there.pdparams").exists()


def test_every_tensor_of_the_published_size_is_used_or_listed_as_dropped():
    content = {}
    for name in (*NETWORKS, "wing"):
        manifest = json.loads((MANIFESTS / f"starganv2_{name}.json").read_text())
        content["fan" if name == "wing" else name] = {
            tensor: np.broadcast_to(np.zeros((), dtype), shape)
            for tensor, shape, dtype in manifest["tensors"]
        }
    checkpoint = recognise(content, Path("100000_nets_ema.ckpt"))
    published = {"img_size": 256, "max_conv_dim": 512, "base_dim": 64}
    assert {name: network.arch for name, network in checkpoint.networks.items()} == {
        "generator": {**published, "style_dim": 64, "w_hpf": 1.0},
        "mapping_network": {"latent_dim": 16, "style_dim": 64, "num_domains": 2, "width": 512},
        "style_encoder": {**published, "style_dim": 64, "num_domains": 2},
        "discriminator": {**published, "num_domains": 2},
        "fan": {"channels": 256},
    }
    for name, network in checkpoint.networks.items():
        converted = to_paddle(network.state, TABLES[network.table], name)
        targets = build_empty(network.builder, network.arch).state_dict()
        check_fit(targets, converted.state, name)
        assert len(converted.dropped) == (55 if name == "fan" else 0)
        assert len(converted.state) + len(converted.dropped) == len(content[name])
