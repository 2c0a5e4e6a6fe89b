"""HyperStyle: forth and back, from a photograph to a tuned generator, and what is refused."""

import numpy as np
import paddle
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import paddle_sam
from paddle_sam.convert.convert import convert_file, explain, revert_file
from paddle_sam.core.latents import read_latent
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.hyperstyle import build_hyperstyle
from paddle_sam.networks.sam import pool
from paddle_sam.networks.stylegan2 import modulated_layers
from scripts.inference import main as inference
from scripts.invert import main as invert
from tests import DEVICE
from tests.unit.export.tiny import ARCH, ENCODER, SIZE, tiny_sam

DECODER = ARCH["decoder"] | {"fir": [1.0, 3.0, 3.0, 1.0]}
FEATURES = DECODER["channels"][4]
TYPES = {False: "SharedWeightsHyperNetResNet", True: "SharedWeightsHyperNetResNetSeparable"}
LAYERS = [0, 2, 4, 5, 8]  # common ones, RGB at 8 px, and layers of their own


def arguments(separable: bool) -> dict:
    hypernet = {
        **{"shared": [0, 2], "separable": separable, "in_channels": 6, "stem": 4},
        **{"widths": [4, 4, 4, 8], "units": [1] * 4, "inner": [2, 3], "features": FEATURES},
    }
    return {
        **{"hypernet": hypernet, "decoder": DECODER, "layers": LAYERS},
        **{"iterations": 2, "input_size": SIZE},
    }


@pytest.fixture
def published(tmp_path):
    """Return a function that writes HyperStyle's checkpoint, the common layer below every block."""

    def write(separable: bool = False, **options):
        paddle.seed(0)
        network = build_hyperstyle(**arguments(separable))
        network.latent_avg.set_value(paddle.randn(network.latent_avg.shape))
        for name, parameter in network.hypernet.named_parameters():
            rgb = name.startswith("refinement_blocks.4.")  # whose offsets nothing demodulates
            if parameter.ndim > 1:
                parameter.set_value(parameter * (0.2 if rgb else 2))
        entry = NetworkEntry.of("hyperstyle", arguments(separable), network)
        file = WeightFile("hyperstyle", {"hyperstyle": entry})
        place = {"table": "hyperstyle", "key": "state_dict"}
        file.source = {"networks": {"hyperstyle": place}, "extras": {}}
        file.write(tmp_path / "own.pdparams")
        revert_file(tmp_path / "own.pdparams", tmp_path / "hyper.pt")
        content = torch.load(tmp_path / "hyper.pt", weights_only=True)
        content["opts"] = {"encoder_type": TYPES[separable], "n_iters_per_batch": 2, **options}
        content["arch"] = {"hypernet": {"units": [1] * 4, "input_size": SIZE}}
        torch.save(content, tmp_path / "hyper.pt")
        return tmp_path / "hyper.pt", content

    return write


@pytest.mark.parametrize("separable", [False, True])
def test_forth_and_back(published, tmp_path, separable):
    path, content = published(separable)
    report = convert_file(path, tmp_path / "hyper.pdparams")
    file = WeightFile.read(tmp_path / "hyper.pdparams")
    assert (file.kind, file.entry().arch) == ("hyperstyle", arguments(separable))
    assert report.notes == [
        "the encoder that it starts from is a file of its own, a W encoder; convert both"
    ]
    revert_file(tmp_path / "hyper.pdparams", tmp_path / "back.safetensors")
    names = load_file(tmp_path / "back.safetensors").keys()
    common = {
        f"state_dict.hypernet.shared_weight_hypernet.{leaf}" for leaf in ("w1", "b1", "w2", "b2")
    }
    assert {name for name in names if name.endswith(("w1", "b1", "w2", "b2"))} == common
    convert_file(tmp_path / "back.safetensors", tmp_path / "again.pdparams")
    again = WeightFile.read(tmp_path / "again.pdparams")
    for name, array in file.entry().state.items():
        np.testing.assert_array_equal(again.entry().state[name], array)
    revert_file(tmp_path / "hyper.pdparams", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["state_dict"].keys() == content["state_dict"].keys()
    for name, tensor in content["state_dict"].items():
        assert torch.equal(back["state_dict"][name], tensor), name
    repeated = [name for name in content["state_dict"] if name.endswith("hypernet.w2")]
    assert len(repeated) == 3
    assert len({back["state_dict"][name].data_ptr() for name in repeated}) == 1  # written once
    assert torch.equal(back["latent_avg"], content["latent_avg"])
    assert back["opts"] == content["opts"]


def test_offsets_of_all_steps_add_up(published, tmp_path):
    path, _ = published()
    convert_file(path, tmp_path / "hyper.pdparams")
    network = paddle_sam.load(tmp_path / "hyper.pdparams", device=DEVICE)
    before = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    x = paddle.to_tensor(np.random.default_rng(1).uniform(-1, 1, (1, 3, SIZE, SIZE)), "float32")
    codes = network.latent_avg.unsqueeze(0)
    with paddle.no_grad():
        first = network.hypernet(paddle.concat([x, pool(network.decoder.render(codes), SIZE)], 1))
        (one, _), (two, tuned) = ((image, g) for image, g in network.tune(x, codes))
        second = network.hypernet(paddle.concat([x, pool(one, SIZE)], 1))
    assert set(first) == set(LAYERS)
    for number, ((_, new), (_, old)) in enumerate(
        zip(modulated_layers(tuned), modulated_layers(network.decoder), strict=True)
    ):
        weight = old.weight.numpy()
        if number in LAYERS:
            weight = weight * (1 + (first[number] + second[number])[0].numpy())
            assert np.abs(weight - old.weight.numpy()).max() > 1e-3
        np.testing.assert_allclose(new.weight.numpy(), weight, atol=1e-5)
    np.testing.assert_array_equal(tuned.render(codes).numpy(), two.numpy())
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])


@pytest.fixture
def w_encoder(tmp_path):
    arch = ARCH | {"encoder": ENCODER | {"in_channels": 3}, "start": "latent_avg"}
    arch["pretrained_encoder"] = None
    paddle.seed(3)
    network = tiny_sam(**arch)
    WeightFile("psp", {"psp": NetworkEntry.of("sam", arch, network)}).write(tmp_path / "w.pdparams")
    return tmp_path / "w.pdparams"


def test_a_face_gets_a_code_and_a_generator_that_ages_it(
    published, w_encoder, checkpoint, tmp_path, capsys
):
    path, _ = published()
    convert_file(path, tmp_path / "hyper.pdparams")
    faces = tmp_path / "faces"
    faces.mkdir()
    for seed, name in enumerate("ab"):
        pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(faces / f"{name}.png")
    argv = [str(faces), "--no_align", "--checkpoint_path", str(tmp_path / "hyper.pdparams")]
    argv += ["--exp_dir", str(tmp_path / "out")]
    assert invert(argv) == 2
    assert "--w_encoder_checkpoint_path" in capsys.readouterr().err
    assert invert([*argv, "--w_encoder_checkpoint_path", str(w_encoder)]) == 0
    network = paddle_sam.load(tmp_path / "hyper.pdparams", device=DEVICE)
    encoder = paddle_sam.load(w_encoder, device=DEVICE).encoder
    folder = tmp_path / "out" / "inversion"
    pictures = {}
    for name in "ab":
        pixels = np.asarray(Image.open(faces / f"{name}.png"))
        x = paddle.to_tensor(pixels.transpose(2, 0, 1)[None] / 127.5 - 1, "float32")
        with paddle.no_grad():
            codes = encoder(x) + network.latent_avg
            *_, (image, _) = network.tune(x, codes)
        latent = read_latent(folder / f"{name}.npz", *network.latent_avg.shape)
        np.testing.assert_allclose(latent.w_plus, codes[0].numpy(), atol=1e-5)
        generator = paddle_sam.load(folder / f"{name}-generator.pdparams", device=DEVICE)
        np.testing.assert_allclose(
            generator.render(codes).numpy(), image.numpy(), rtol=1e-3, atol=1e-3
        )
        assert np.abs(image.numpy()).max() < 100
        pictures[name] = image.numpy()
    assert np.abs(pictures["a"] - pictures["b"]).max() > 1e-2
    images, _ = paddle_sam.invert(
        [faces / "a.png", faces / "b.png"],
        tmp_path / "hyper.pdparams",
        align=False,
        w_encoder=w_encoder,
    )
    written = [np.asarray(Image.open(folder / f"{name}-inversion.png")) for name in "ab"]
    np.testing.assert_array_equal(images, np.stack(written))
    argv = ["--latent", str(folder / "a.npz"), "--checkpoint_path", str(checkpoint)]
    argv += ["--generator", str(folder / "a-generator.pdparams"), "--target_age", "50"]
    assert inference([*argv, "--exp_dir", str(tmp_path / "aged"), "--engine", "eager"]) == 0


def test_what_contradicts_itself_is_refused(published, tmp_path):
    path, content = published(False, encoder_type=TYPES[True])
    with pytest.raises(CheckpointError, match=f"encoder_type is {TYPES[True]}"):
        convert_file(path, tmp_path / "x.pdparams")
    content["opts"]["encoder_type"] = TYPES[False]
    state = content["state_dict"]
    name = "hypernet.refinement_blocks.2.hypernet.b1"
    state[name] = state[name] + 1
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"{name} differs"):
        convert_file(path, tmp_path / "x.pdparams")
    del state[name]
    torch.save(content, path)
    assert "hyper.pt: hyperstyle" in explain(path)
    del state["hypernet.shared_weight_hypernet.w1"]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="hypernet.shared_weight_hypernet.w1 is missing"):
        convert_file(path, tmp_path / "x.pdparams")
