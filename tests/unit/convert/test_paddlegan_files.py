"""Files of PaddleGAN: of its trainings, its pSp, its StarGAN v2 in parts, its LPIPS."""

import numpy as np
import paddle
import pytest
import torch

import paddle_sam
from convert.convert_weights import main as convert_weights
from paddle_sam.convert.convert import convert_file, convert_files, revert_file
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.image_features import LpipsWeights, load_lpips
from paddle_sam.networks.load import build_empty
from tests import DEVICE
from tests.unit.convert.test_stargan2_files import TINY

# How each network of StyleGAN2 is called by PaddleGAN, and what is called otherwise in it.
PARTS = {"gen_ema": "g_ema", "gen": "g", "disc": "d"}


def published(file, path):
    """The torch checkpoint of a weight file, as arrays."""
    revert_file_to = path.with_suffix(".pt")
    file.write(path)
    revert_file(path, revert_file_to)
    return torch.load(revert_file_to, weights_only=True)


def as_paddlegan(state):
    """A torch state dict as PaddleGAN keeps it, written out here."""
    result = {}
    for name, tensor in state.items():
        array = tensor.numpy()
        if name.endswith(("blur.kernel", "num_batches_tracked", ".0.kernel")):
            continue
        if array.ndim == 2 and name.endswith(".weight"):
            array = array.T
        name = name.replace("running_mean", "_mean").replace("running_var", "_variance")
        if name.endswith("input_layer.2.weight") or name.endswith("res_layer.2.weight"):
            name = name.removesuffix("weight") + "_weight"
        result[name] = array
    return result


def same(found, want):
    assert found.keys() == want.keys()
    for name, tensor in want.items():
        assert torch.equal(found[name], tensor), name


def test_a_checkpoint_of_its_training(weights, tmp_path):
    content = published(weights("stylegan2"), tmp_path / "x.pdparams")
    theirs = {name: as_paddlegan(content[part]) for name, part in PARTS.items() if part in content}
    assert any(name.endswith("upsample.kernel") for name in theirs["gen_ema"])
    theirs["optimG"] = {"linear_0.w_0_moment1_0": np.ones(3, "f4"), "LR_Scheduler": {"epoch": 3}}
    theirs["epoch"] = 7
    paddle.save(theirs, str(tmp_path / "iter_7_checkpoint.pdparams"))
    (report,) = convert_files([str(tmp_path / "iter_7_checkpoint.pdparams")], str(tmp_path / "out"))
    assert report.not_carried == ["optimizer"]
    revert_file(report.output, tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["epoch"] == 7
    for part in PARTS.values():
        if part in content:
            same(back[part], content[part])


def test_its_psp(weights, tmp_path):
    content = published(weights("psp"), tmp_path / "x.pdparams")
    average = (
        np.random.default_rng(1).normal(size=(1, *content["latent_avg"].shape)).astype("float32")
    )
    theirs = as_paddlegan(content["state_dict"])
    theirs |= {"latent_avg": average, "opts": {**content["opts"], "input_nc": 3}}
    theirs["arch"] = {"encoder": {"units": [1, 1, 1, 1]}}
    tensors = {
        name: paddle.to_tensor(value) if isinstance(value, np.ndarray) else value
        for name, value in theirs.items()
    }
    paddle.save(tensors, str(tmp_path / "pSp.pdparams"))
    convert_file(tmp_path / "pSp.pdparams", tmp_path / "out.pdparams")
    file = WeightFile.read(tmp_path / "out.pdparams")
    assert (file.kind, file.options["input_nc"]) == ("psp", 3)
    np.testing.assert_array_equal(file.entry().state["latent_avg"], average[0])
    revert_file(tmp_path / "out.pdparams", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    same(back["state_dict"], content["state_dict"])
    assert back["latent_avg"].shape == average.shape[1:]


@pytest.fixture
def stargan2_parts(tmp_path):
    """A folder with a file for each network of a small StarGAN v2, and their tensors."""
    rng, states = np.random.default_rng(0), {}
    (tmp_path / "nets").mkdir()
    for part, arch in TINY.items():
        network = build_empty(f"stargan2_{part}", arch)
        states[part] = {
            name: rng.normal(size=tensor.shape).astype("float32")
            for name, tensor in network.state_dict().items()
            if name != "hpf.filter"
        }
        tensors = {name: paddle.to_tensor(array) for name, array in states[part].items()}
        paddle.save(tensors, str(tmp_path / "nets" / f"{part}.pdparams"))
    return tmp_path / "nets", states


def test_its_stargan2_in_a_folder_of_files(stargan2_parts, tmp_path, capsys):
    folder, states = stargan2_parts
    assert convert_weights([str(folder), "--output", str(tmp_path / "out")]) == 0
    file = WeightFile.read(tmp_path / "out" / "nets.pdparams")
    assert file.kind == "stargan2"
    for part, state in states.items():
        for name, array in state.items():
            np.testing.assert_array_equal(file.networks[part].state[name], array, name)
    for part in ("mapping_network", "style_encoder"):
        (folder / f"{part}.pdparams").unlink()
    with pytest.raises(CheckpointError, match="nets: is a folder; .*mapping_network"):
        convert_file(folder, tmp_path / "x.pdparams")
    with pytest.raises(CheckpointError, match="StarGAN v2 alone; put its files into a folder"):
        convert_file(folder / "generator.pdparams", tmp_path / "x.pdparams")


LIN_NAMES = {
    "lpips": "lin{}.model.1.weight",
    "paddlegan": "{}.model.1.weight",
    "sam": "{}.1.weight",
    "paddle_sam": "model.{}.weight",
    "stargan2": "lpips_weights.{}.main.1.weight",
}


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
@pytest.mark.parametrize("names", LIN_NAMES.values(), ids=LIN_NAMES)
def test_channel_weights_under_all_their_names(tmp_path, names, backbone):
    shapes = [tuple(tensor.shape) for tensor in LpipsWeights(backbone).state_dict().values()]
    rng = np.random.default_rng(0)
    tensors = [torch.from_numpy(rng.uniform(size=shape).astype("f4")) for shape in shapes]
    content = {names.format(index): tensor for index, tensor in enumerate(tensors)}
    torch.save(content, tmp_path / "lin.pt")
    convert_file(tmp_path / "lin.pt", tmp_path / "lin.pdparams")
    file = WeightFile.read(tmp_path / "lin.pdparams")
    assert (file.kind, file.entry().arch) == ("lpips_lin", {"backbone": backbone})
    for index, tensor in enumerate(tensors):
        found = file.entry().state[f"lin{index}.model.1.weight"]
        np.testing.assert_array_equal(found, tensor.numpy())
    revert_file(tmp_path / "lin.pdparams", tmp_path / "back.pt")
    same(torch.load(tmp_path / "back.pt", weights_only=True), content)


@pytest.mark.parametrize("layout", ["alex", "vgg", "paddlegan"])
def test_a_whole_lpips(tmp_path, layout):
    """As the `lpips` package and PaddleGAN save it: features in slices, weights twice."""
    backbone = "alex" if layout == "alex" else "vgg"
    lpips = build_empty("lpips", {"backbone": backbone})
    rng = np.random.default_rng(0)
    state = {
        name: rng.normal(0, 0.02, tensor.shape).astype("float32")
        for name, tensor in lpips.state_dict().items()
    }
    places = sorted({int(name.split(".")[1]) for name in state if name.startswith("features")})
    last = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}[backbone]  # of each slice
    content = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    for name, array in state.items():
        tensor = torch.from_numpy(array)
        if name.startswith("lin"):
            content[name] = content[name.replace("lin", "lins.", 1)] = tensor
            continue
        _, place, leaf = name.split(".")
        number = 1 + sum(int(place) > end for end in last)
        slices = f"net.slice{number}.{place}.{leaf}"
        vgg_layers = f"net.vgg16.vgg_layers.{place}.{leaf}"
        content[vgg_layers if layout == "paddlegan" else slices] = tensor
    assert len(places) == {"alex": 5, "vgg": 13}[backbone]
    torch.save(content, tmp_path / "whole.pt")
    convert_file(tmp_path / "whole.pt", tmp_path / "whole.pdparams")
    file = WeightFile.read(tmp_path / "whole.pdparams")
    assert (file.kind, file.entry().arch) == ("lpips", {"backbone": backbone})
    for name, array in state.items():
        np.testing.assert_array_equal(file.entry().state[name], array, name)
    x = paddle.ones([1, 3, 64, 64])
    assert load_lpips(tmp_path / "whole.pdparams")(x, x).numpy().tolist() == [0.0]
    revert_file(tmp_path / "whole.pdparams", tmp_path / "back.pt")
    same(torch.load(tmp_path / "back.pt", weights_only=True), content)
    assert paddle_sam.load(tmp_path / "whole.pdparams", device=DEVICE).backbone == backbone


def test_its_alignment_network(tmp_path):
    """`wing.pdparams`: a dict of plain arrays under `state_dict`."""
    network = build_empty("face_heatmaps", {"channels": 8})
    rng = np.random.default_rng(0)
    state = {
        name: rng.normal(size=tensor.shape).astype("float32")
        for name, tensor in network.state_dict().items()
    }
    paddle.save({"state_dict": state}, str(tmp_path / "wing.pdparams"))
    convert_file(tmp_path / "wing.pdparams", tmp_path / "out.pdparams")
    entry = WeightFile.read(tmp_path / "out.pdparams").entry()
    assert isinstance(entry, NetworkEntry) and entry.arch == {"channels": 8}
    for name, array in state.items():
        np.testing.assert_array_equal(entry.state[name], array, name)
