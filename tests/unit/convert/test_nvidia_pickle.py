"""NVIDIA's pickles: written here as their code writes them, read without running any of it."""

import pickle

import numpy as np
import paddle
import pytest
import torch

import paddle_sam
from paddle_sam.convert.convert import convert_file, revert_file
from paddle_sam.convert.nvidia_pickle import read_pickle
from paddle_sam.core.weights import NetworkEntry, WeightFile, find_weight
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.stylegan2 import Discriminator, Generator
from tests import DEVICE
from tests.parity import nvidia_files, recipe
from tests.parity.cases import expected
from tests.parity.nvidia_files import PersistentModule
from tests.parity.reference_gans import TINY_FILE, labels, latents

RESOLUTIONS = [4, 8, 16, 32, 64]


def rosinality() -> dict:
    """The embedded GAN as torch tensors in the rosinality layout."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        revert_file(find_weight("stylegan2_mini"), Path(folder, "g.pt"))
        return torch.load(Path(folder, "g.pt"), weights_only=True)


def nvidia_generator(g: dict, latent_avg) -> dict:
    """The same generator under NVIDIA's names, written down here a second time."""
    fir = g["to_rgbs.0.upsample.kernel"] / 4
    out = {"mapping.w_avg": latent_avg, "synthesis.b4.const": g["input.input"][0]}
    for layer in range(4):
        for leaf in ("weight", "bias"):
            out[f"mapping.fc{layer}.{leaf}"] = g[f"style.{layer + 1}.{leaf}"]
    layers = {"synthesis.b4.conv1": ("conv1", 0)}
    rgbs = {"synthesis.b4.torgb": "to_rgb1"}
    for resolution in RESOLUTIONS[1:]:
        level = int(np.log2(resolution)) - 3
        layers[f"synthesis.b{resolution}.conv0"] = (f"convs.{2 * level}", 2 * level + 1)
        layers[f"synthesis.b{resolution}.conv1"] = (f"convs.{2 * level + 1}", 2 * level + 2)
        rgbs[f"synthesis.b{resolution}.torgb"] = f"to_rgbs.{level}"
    for resolution in RESOLUTIONS:
        out[f"synthesis.b{resolution}.resample_filter"] = fir
    for nvidia, (ours, noise) in layers.items():
        out[f"{nvidia}.weight"] = g[f"{ours}.conv.weight"][0]
        out[f"{nvidia}.bias"] = g[f"{ours}.activate.bias"]
        out[f"{nvidia}.noise_strength"] = g[f"{ours}.noise.weight"][0]
        out[f"{nvidia}.noise_const"] = g[f"noises.noise_{noise}"][0, 0]
        out[f"{nvidia}.resample_filter"] = fir
    for nvidia, ours in rgbs.items():
        out[f"{nvidia}.weight"] = g[f"{ours}.conv.weight"][0]
        out[f"{nvidia}.bias"] = g[f"{ours}.bias"].flatten()
    for nvidia, ours in {**{n: o for n, (o, _) in layers.items()}, **rgbs}.items():
        for leaf in ("weight", "bias"):
            out[f"{nvidia}.affine.{leaf}"] = g[f"{ours}.conv.modulation.{leaf}"]
    return out


def nvidia_discriminator(d: dict) -> dict:
    fir = d["convs.1.skip.0.kernel"]
    out = {"b64.fromrgb.weight": d["convs.0.0.weight"], "b64.fromrgb.bias": d["convs.0.1.bias"]}
    for block, resolution in enumerate([64, 32, 16, 8], start=1):
        out[f"b{resolution}.conv0.weight"] = d[f"convs.{block}.conv1.0.weight"]
        out[f"b{resolution}.conv0.bias"] = d[f"convs.{block}.conv1.1.bias"]
        out[f"b{resolution}.conv1.weight"] = d[f"convs.{block}.conv2.1.weight"]
        out[f"b{resolution}.conv1.bias"] = d[f"convs.{block}.conv2.2.bias"]
        out[f"b{resolution}.skip.weight"] = d[f"convs.{block}.skip.1.weight"]
        for layer in ("", ".conv0", ".conv1", ".skip"):
            out[f"b{resolution}{layer}.resample_filter"] = fir
    names = {"conv": "final_conv.0", "fc": "final_linear.0", "out": "final_linear.1"}
    for nvidia, ours in names.items():
        out[f"b4.{nvidia}.weight"] = d[f"{ours}.weight"]
        bias = "final_conv.1.bias" if nvidia == "conv" else f"{ours}.bias"
        out[f"b4.{nvidia}.bias"] = d[bias]
    return out


@pytest.fixture
def write_pickle(tmp_path):
    def write(content, protocol=4):
        return nvidia_files.write(tmp_path / "network.pkl", content, protocol)

    return write


def snapshot(change=lambda tensors: None) -> dict:
    source = rosinality()
    tensors = nvidia_generator(source["g_ema"], source["latent_avg"])
    change(tensors)
    return {
        "G": PersistentModule(nvidia_generator(source["g"], source["latent_avg"])),
        "D": PersistentModule(nvidia_discriminator(source["d"]), "Discriminator"),
        "G_ema": PersistentModule(tensors),
        "training_set_kwargs": {"path": "x"},
        "augment_pipe": None,
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_networks_are_those_of_the_rosinality_file(write_pickle, tmp_path, protocol):
    path = write_pickle(snapshot(), protocol)
    report = convert_file(path, tmp_path / "out.pdparams")
    assert report.kind == "stylegan2"
    found = WeightFile.read(tmp_path / "out.pdparams")
    want = WeightFile.read(find_weight("stylegan2_mini"))
    np.testing.assert_array_equal(found.latent_avg, want.latent_avg)
    assert list(found.networks) == ["g_ema", "g", "d"]
    for part, entry in want.networks.items():
        assert found.networks[part].arch == entry.arch
        assert found.networks[part].state.keys() == entry.state.keys()
        for name, array in entry.state.items():
            np.testing.assert_array_equal(found.networks[part].state[name], array, name)
    assert paddle_sam.load(tmp_path / "out.pdparams", device=DEVICE).n_codes == 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update({"mapping.embed.weight": torch.zeros(2, 2)}), "embed.bias is missing"),
        (lambda t: t.pop("synthesis.b16.conv1.bias"), r"b16\.conv1\.bias is missing"),
        (lambda t: t.update({"synthesis.extra": torch.zeros(2)}), r"synthesis\.extra has no place"),
        (lambda t: t.pop("synthesis.b4.const"), "not StyleGAN3"),
    ],
)
def test_other_networks_are_refused_by_name(write_pickle, tmp_path, change, words):
    path = write_pickle(snapshot(change))
    with pytest.raises(CheckpointError, match=words):
        convert_file(path, tmp_path / "out.pdparams")
    assert not (tmp_path / "out.pdparams").exists()


def test_a_truncated_pickle_is_explained(write_pickle, tmp_path):
    path = write_pickle(snapshot())
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        convert_file(path, tmp_path / "out.pdparams")


def test_a_tensor_may_not_reach_outside_its_storage(tmp_path):
    """A forged stride must not read the process's memory."""
    from paddle_sam.core.pickles import rebuild_tensor

    storage = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(rebuild_tensor(storage, 1, (2, 2), (1, 2)), [[1, 3], [2, 4]])
    for offset, size, stride in [(0, (7,), (1,)), (3, (2, 2), (2, 1)), (-1, (2,), (1,))]:
        with pytest.raises(CheckpointError, match="outside its storage"):
            rebuild_tensor(storage, offset, size, stride)
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)  # offsets count numbers, not rows
    np.testing.assert_array_equal(rebuild_tensor(rows, 2, (10,), (1,)), np.arange(2, 12))
    repeated = rebuild_tensor(storage, 1, (1000,), (0,))
    np.testing.assert_array_equal(repeated, np.ones(1000))
    for nothing in ({"itemsize": 4}, repeated):
        with pytest.raises(CheckpointError, match="without a storage"):
            rebuild_tensor(nothing, 0, (1,), (1,))


@pytest.mark.parametrize("kind", ["torch\nSize", "__builtin__\ntuple", "__builtin__\nset"])
def test_a_tensor_is_not_taken_apart(tmp_path, kind):
    """A number that is repeated without memory would fill it as a tuple."""
    one = pickle.dumps(np.ones(1, np.float32), 2)[2:-1]
    size, plain = f"c{kind}\n".encode(), pickle.dumps(([2, 3],), 2)[2:-1]
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + one + b"K\0M\xe8\x03\x85K\0\x85tR"
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + size + view + b"\x85R.")
    with pytest.raises(CheckpointError, match="x.pkl: refused: it takes apart"):
        read_pickle(path)
    path.write_bytes(b"\x80\x02" + size + plain + b"R.")
    with pytest.raises(CheckpointError, match="a pickle of a (tuple|set), expected a dict"):
        read_pickle(path)


@pytest.mark.parametrize("image_channels", [1, 3, 4])
def test_conditional_networks_and_other_colours(write_pickle, tmp_path, image_channels):
    paddle.seed(0)
    channels = dict.fromkeys(RESOLUTIONS, 4)
    shared = {"size": 64, "channels": channels, "fir": [1.0, 3.0, 3.0, 1.0], "classes": 3}
    archs = {
        "g_ema": ("stylegan2_generator", {**shared, "style_dim": 8, "mapping_layers": 4}),
        "d": ("stylegan2_discriminator", {**shared, "mapping_layers": 2}),
    }
    if image_channels != 3:
        archs = {n: (b, {**a, "image_channels": image_channels}) for n, (b, a) in archs.items()}
    classes = {"stylegan2_generator": Generator, "stylegan2_discriminator": Discriminator}
    entries = {n: NetworkEntry.of(b, a, classes[b](**a)) for n, (b, a) in archs.items()}
    WeightFile("stylegan2", entries).write(tmp_path / "x.pdparams")
    revert_file(tmp_path / "x.pdparams", tmp_path / "x.pt")
    content = torch.load(tmp_path / "x.pt", weights_only=True)
    generator = nvidia_generator(content["g_ema"], torch.zeros(8))
    discriminator = nvidia_discriminator(content["d"])
    for tensors, part in ((generator, "g_ema"), (discriminator, "d")):
        for leaf in ("weight", "bias"):
            tensors[f"mapping.embed.{leaf}"] = content[part][f"embed.{leaf}"]
    for layer in (1, 2):
        for leaf in ("weight", "bias"):
            discriminator[f"mapping.fc{layer - 1}.{leaf}"] = content["d"][f"mapping.{layer}.{leaf}"]
    networks = {"G_ema": PersistentModule(generator), "D": PersistentModule(discriminator)}
    convert_file(write_pickle(networks), tmp_path / "out.pdparams")
    found = WeightFile.read(tmp_path / "out.pdparams").networks
    for part, entry in entries.items():
        assert found[part].arch == entry.arch
        for name, array in entry.state.items():
            np.testing.assert_array_equal(found[part].state[name], array, name)
    network = paddle_sam.load(tmp_path / "out.pdparams", device=DEVICE)
    codes = network.map_latents(paddle.randn([2, 8]), paddle.eye(3)[:2])
    images = network.render(codes[:, None].expand([2, network.n_codes, 8]))
    assert images.shape == [2, image_channels, 64, 64]


def test_a_file_that_nvidias_code_wrote_computes_what_it_computed(tmp_path):
    """Conditional and grey, with another multiplier of the mapping network than the usual."""
    want = expected("nvidia_tiny")
    convert_file(TINY_FILE, tmp_path / "out.pdparams")
    g = paddle_sam.load(tmp_path / "out.pdparams", device=DEVICE)
    d = paddle_sam.load(tmp_path / "out.pdparams", part="d", device=DEVICE)
    wanted, z = paddle.to_tensor(labels(2)), paddle.to_tensor(latents(8))
    with paddle.no_grad():
        w = g.map_latents(z, wanted)
        codes = w.unsqueeze(1).expand([-1, g.n_codes, -1])
        images = g([codes], input_is_latent=True, randomize_noise=False)
        scores = d(paddle.to_tensor(recipe.images(1, 16)), wanted)
    for found, name in ((w, "w"), (images, "images"), (scores, "scores")):
        np.testing.assert_allclose(found.numpy(), want[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert np.abs(want["images"][0] - want["images"][1]).mean() > 0.1


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"synthesis_kwargs": {"activation": "relu"}}, "its activation is 'relu'"),
        ({"synthesis_kwargs": {"use_noise": False}}, "its use_noise is False"),
        ({"mapping_kwargs": {"lr_multiplier": "x"}}, "multiplier is 'x'"),
        ({"mapping_kwargs": {"lr_multiplier": float("nan")}}, "multiplier is nan"),
        ({"mapping_kwargs": {"lr_multiplier": -1}}, "multiplier is -1"),
    ],
)
def test_arguments_that_mean_another_network_are_refused(write_pickle, tmp_path, kwargs, words):
    source = rosinality()
    tensors = nvidia_generator(source["g_ema"], source["latent_avg"])
    path = write_pickle({"G_ema": PersistentModule(tensors, **kwargs)})
    with pytest.raises(CheckpointError, match=f"network.pkl: G_ema: .*{words}"):
        convert_file(path, tmp_path / "out.pdparams")


def test_a_discriminator_that_is_not_residual_is_left_out(write_pickle, tmp_path):
    """Such is CIFAR's, whose generator is what people want."""
    content = snapshot()
    tensors = content["D"].tensors
    content["D"].tensors = {n: t for n, t in tensors.items() if ".skip." not in n}
    report = convert_file(write_pickle(content), tmp_path / "out.pdparams")
    assert any("D is left out: only residual" in note for note in report.notes)
    assert list(WeightFile.read(tmp_path / "out.pdparams").networks) == ["g_ema", "g"]
