"""`scripts/evaluate.py reconstruction` on SAM and pSp."""

import json

import numpy as np
import paddle
import pytest
import skimage.data

from paddle_sam.ageing.pipeline import AgePipeline, read_sam
from paddle_sam.core.images import save_image, to_network, to_uint8
from paddle_sam.core.weights import NetworkEntry, WeightFile, find_weight
from paddle_sam.networks.image_features import LPIPS
from scripts.evaluate import main as evaluate
from tests import DEVICE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reconstruction")
    pipeline = AgePipeline.from_checkpoint(device=DEVICE, engine="eager")
    save_image(folder / "data" / "a.png", pipeline.faces(skimage.data.astronaut())[0].image)
    paddle.seed(0)
    lpips = {name: np.abs(tensor.numpy()) for name, tensor in LPIPS("alex").state_dict().items()}
    np.savez(folder / "lpips.npz", **lpips)
    return folder


def run(folder, out, *more):
    given = ["--data_path", str(folder / "data"), "--exp_dir", str(out), "--no_align"]
    given += ["--lpips_path", str(folder / "lpips.npz"), "--device", DEVICE]
    return evaluate(["reconstruction", *given, *more])


def psp_file(path):
    """The frozen encoder and the decoder of the embedded model, as a pSp file."""
    content = WeightFile.read(find_weight("sam_mini"))
    (entry,) = content.networks.values()
    prefix = "pretrained_encoder."
    encoder = entry.below(prefix)
    state = {k: v for k, v in entry.state.items() if not k.startswith((prefix, "encoder."))}
    arch = dict(entry.arch, start="latent_avg", pretrained_encoder=None)
    arch["encoder"] = entry.arch["pretrained_encoder"]
    state |= {f"encoder.{name}": array for name, array in encoder.items()}
    entry = NetworkEntry("sam", arch, state)
    WeightFile("psp", {"psp": entry}, alignment=content.alignment).write(path)


def test_sam_gives_its_inversion_and_psp_the_same(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "sam") == 0
    found = json.loads((tmp_path / "sam" / "report.json").read_text())
    network, *_ = read_sam(find_weight("sam_mini"))
    crop = (
        AgePipeline.from_checkpoint(device=DEVICE, engine="eager")
        .faces(str(folder / "data" / "a.png"), align=False)[0]
        .image
    )
    with paddle.no_grad():
        codes = network.invert(paddle.to_tensor(to_network(crop)))
        image = to_uint8(network.decode(codes, randomize_noise=False)[0].numpy())[0]
    want = np.mean((crop.astype(float) - image) ** 2) / 127.5**2
    assert found["l2"]["mean"] == pytest.approx(want, rel=1e-3)
    assert set(found["faces"][0]) == {"name", "l2", "lpips", "ssim"}

    psp_file(tmp_path / "psp.pdparams")
    assert run(folder, tmp_path / "psp", "--checkpoint_path", str(tmp_path / "psp.pdparams")) == 0
    same = json.loads((tmp_path / "psp" / "report.json").read_text())
    assert same["ssim"]["mean"] == pytest.approx(found["ssim"]["mean"], abs=1e-3)

    kept = next((tmp_path / "psp" / "faces").iterdir())
    kept.write_text(json.dumps({"l2": 7.0}))  # what is there is not computed again
    assert run(folder, tmp_path / "psp", "--checkpoint_path", str(tmp_path / "psp.pdparams")) == 0
    assert json.loads((tmp_path / "psp" / "report.json").read_text())["l2"]["mean"] == 7


def test_options_that_change_nothing_are_refused(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "--test_batch_size", "2") == 2
    assert "test_batch_size: faces are inverted one at a time" in capsys.readouterr().err


def test_other_weights_are_refused(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "--checkpoint_path", str(find_weight("age_mini"))) == 2
    assert "holds an age regressor" in capsys.readouterr().err
