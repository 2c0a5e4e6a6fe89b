"""Every encoder type of pSp, e4e and ReStyle: forth, back, and what a type adds up."""

import numpy as np
import paddle
import pytest
import torch

import paddle_sam
from paddle_sam.ageing.train.run import _inverter_of
from paddle_sam.convert.convert import convert_file, explain, revert_file
from paddle_sam.convert.encoders import ENCODER_TYPES
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.sam import build_sam
from tests import DEVICE

SMALL = {
    **{"input_size": 32, "in_channels": 3, "n_styles": 8, "style_dim": 16, "stem": 4},
    **{"widths": [16] * 4, "units": [1] * 4},
}
DECODER = {
    "size": 32,
    "style_dim": 16,
    "mapping_layers": 2,
    "channels": dict.fromkeys((4, 8, 16, 32), 8),
    "fir": [1.0, 3.0, 3.0, 1.0],
}


def arguments(kind):
    """Return the constructor arguments of a small encoder of a type, written out here."""
    resnet = {"resnet": True} if kind.startswith("ResNet") else {}
    pyramid = {} if "Gradual" in kind or kind == "Encoder4Editing" else {"pyramid": False}
    progressive = {"progressive": True} if "Progressive" in kind else {}
    if kind == "Encoder4Editing":
        progressive = {"progressive": True}
    if "LastLayer" in kind or kind in ("SingleStyleCodeEncoder", "WEncoder"):
        return {**SMALL, "squeeze_excite": True, "one_code": not kind.endswith("WPlus")}
    return {**SMALL, "squeeze_excite": not resnet, **resnet, **pyramid, **progressive}


@pytest.fixture
def published(tmp_path):
    """Return a function that writes a torch checkpoint with an encoder of a type."""

    def write(kind, **options):
        paddle.seed(0)
        arch = {"encoder": arguments(kind), "decoder": DECODER, "start": "latent_avg"}
        network = build_sam(**arch)
        for tensor in network.encoder.state_dict().values():
            if tensor.ndim == 1:
                tensor.set_value(paddle.uniform(tensor.shape, min=0.5, max=1.0))
        file = WeightFile("psp", {"psp": NetworkEntry.of("sam", arch, network)})
        table = "resnet_psp" if kind.startswith("ResNet") else "sam"
        file.source = {"networks": {"psp": {"table": table, "key": "state_dict"}}, "extras": {}}
        file.write(tmp_path / "own.pdparams")
        revert_file(tmp_path / "own.pdparams", tmp_path / "psp.pt")
        content = torch.load(tmp_path / "psp.pt", weights_only=True)
        content["latent_avg"] = torch.arange(8 * 16, dtype=torch.float32).reshape(8, 16) / 10
        content["opts"] = {"encoder_type": kind, "start_from_latent_avg": True, **options}
        content["arch"] = {"encoder": {"units": [1] * 4, "input_size": 32}}
        torch.save(content, tmp_path / "psp.pt")
        return tmp_path / "psp.pt", content

    return write


@pytest.mark.parametrize("kind", ENCODER_TYPES)
def test_every_type_goes_forth_and_back(published, tmp_path, kind):
    path, content = published(kind)
    report = convert_file(path, tmp_path / "psp.pdparams")
    file = WeightFile.read(tmp_path / "psp.pdparams")
    assert report.notes == []
    assert (file.kind, file.entry().arch["encoder"]) == ("psp", arguments(kind))
    revert_file(tmp_path / "psp.pdparams", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["state_dict"].keys() == content["state_dict"].keys()
    for name, tensor in content["state_dict"].items():
        assert torch.equal(back["state_dict"][name], tensor), name
    assert torch.equal(back["latent_avg"], content["latent_avg"])
    assert back["opts"] == content["opts"]


@pytest.mark.parametrize("kind", ENCODER_TYPES)
def test_its_tensors_tell_what_a_file_does_not_state(published, tmp_path, kind):
    path, content = published(kind)
    del content["opts"]["encoder_type"]
    torch.save(content, path)
    said = explain(path)
    same = {name for name, known in ENCODER_TYPES.items() if known[0] == ENCODER_TYPES[kind][0]}
    (line,) = [line for line in said.splitlines() if "encoder_type is not stated" in line]
    assert all(name in line for name in same)
    assert "reads: a photograph" in said
    assert "  states start_from_latent_avg: True" in said.splitlines()


@pytest.mark.parametrize("kind", ENCODER_TYPES)
def test_a_statement_that_tensors_contradict_is_refused(published, tmp_path, kind):
    path, content = published(kind)
    for stated, (layers, _) in ENCODER_TYPES.items():
        if layers != ENCODER_TYPES[kind][0]:
            content["opts"]["encoder_type"] = stated
            torch.save(content, path)
            with pytest.raises(CheckpointError, match=f"psp.pt: its encoder_type is {stated} .*of"):
                convert_file(path, tmp_path / "x.pdparams")


def test_one_code_is_the_mean_of_the_last_map(published, tmp_path):
    path, content = published("BackboneEncoderUsingLastLayerIntoW", learn_in_w=True)
    content["latent_avg"] = content["latent_avg"][:1]  # as pSp keeps it for W
    torch.save(content, path)
    convert_file(path, tmp_path / "psp.pdparams")
    network = paddle_sam.load(tmp_path / "psp.pdparams", device=DEVICE)
    x = paddle.to_tensor(np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32)), "float32")
    with paddle.no_grad():
        features = network.encoder.body(network.encoder.input_layer(x)).numpy()
        found = network.encode(x).numpy()
    state = {n: t.numpy() for n, t in content["state_dict"].items()}
    weight, bias = state["encoder.linear.weight"], state["encoder.linear.bias"]
    want = features.mean((2, 3)) @ weight.T / 16**0.5 + bias + content["latent_avg"].numpy()
    assert found.shape == (2, 8, 16)
    np.testing.assert_allclose(found, np.repeat(want[:, None], 8, 1), rtol=1e-4, atol=1e-5)
    revert_file(tmp_path / "psp.pdparams", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["latent_avg"].shape == (1, 16)


@pytest.mark.parametrize(
    ("channels", "options", "words"),
    [
        (1, {"label_nc": 1}, "a grey drawing"),
        (19, {"label_nc": 19}, "a map of 19 classes (label_nc)"),
        (3, {"resize_factors": "1,2,4"}, "a photograph, made smaller by 1,2,4"),
    ],
)
def test_what_an_encoder_reads_is_explained(published, monkeypatch, channels, options, words):
    monkeypatch.setitem(SMALL, "in_channels", channels)
    path, _ = published("GradualStyleEncoder", input_nc=channels, **options)
    assert f"  reads: {words}" in explain(path).splitlines()


@pytest.mark.parametrize("kind", ["Encoder4Editing", "ResNetBackboneEncoder", "WEncoder"])
def test_encoders_of_cars_read_wide_pictures(published, tmp_path, kind):
    path, _ = published(kind, dataset_type="cars_encode")
    assert "  reads: a picture of a car, 4 to 3" in explain(path).splitlines()
    convert_file(path, tmp_path / "psp.pdparams")
    assert WeightFile.read(tmp_path / "psp.pdparams").entry().arch["encoder"]["rows"] == 24
    network = paddle_sam.load(tmp_path / "psp.pdparams", device=DEVICE)
    assert network.encode(paddle.zeros([1, 3, 24, 32])).shape == [1, 8, 16]


def test_a_sam_with_another_encoder_is_refused(published, tmp_path):
    path, content = published("BackboneEncoder")
    state = content["state_dict"]
    state |= {f"pretrained_{n}": t for n, t in state.items() if n.startswith("encoder.")}
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="a SAM whose encoder is of type BackboneEncoder"):
        convert_file(path, tmp_path / "x.pdparams")


LAST = "BackboneEncoderUsingLastLayerIntoW"


@pytest.mark.parametrize("kind", [LAST, "BackboneEncoder", "ResNetGradualStyleEncoder"])
def test_sam_is_not_trained_from_an_encoder_of_another_kind(published, tmp_path, kind):
    path, _ = published(kind)
    convert_file(path, tmp_path / "psp.pdparams")
    with pytest.raises(CheckpointError, match="pretrained_psp_path: .*no feature pyramid"):
        _inverter_of(WeightFile.read(tmp_path / "psp.pdparams"))


@pytest.mark.parametrize("kind", ["GradualStyleEncoder", "ResNetBackboneEncoder", LAST])
@pytest.mark.parametrize(
    "change",
    [
        {"opts": {"encoder_type": ["GradualStyleEncoder"]}},
        {"opts": {"encoder_type": {"a": 1}}},
        {"opts": {"encoder_type": ""}},
        {"opts": [1]},
        {"arch": {"encoder": {"units": [10**9]}}},
        {"arch": {"encoder": {"units": "1111"}}},
        {"arch": {"encoder": {"units": [-1, 1, 1, 1]}}},
        {"arch": {"encoder": 5}},
        {"arch": 5},
        {"latent_avg": torch.zeros(2, 3, 16)},
        {"latent_avg": torch.zeros(8, 17)},
    ],
    ids=str,
)
def test_absurd_statements_are_refused_in_one_line(published, tmp_path, kind, change):
    path, content = published(kind)
    torch.save({**content, **change}, path)
    with pytest.raises(CheckpointError, match="psp.pt: ") as caught:
        convert_file(path, tmp_path / "x.pdparams")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.pdparams").exists()


@pytest.mark.parametrize("size", [-1, 1, 10**9, "large"])
def test_absurd_sizes_of_a_last_layer_encoder_are_refused(published, tmp_path, size):
    path, content = published(LAST)
    content["arch"]["encoder"]["input_size"] = size
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="psp.pt: "):
        convert_file(path, tmp_path / "x.pdparams")
