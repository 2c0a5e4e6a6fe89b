"""The lines of docs/tour.md run as they stand, on the smallest file of each kind."""

import importlib
import re
import shlex

import numpy as np
import paddle
import pytest
import torch
from PIL import Image

from paddle_sam.convert.convert import revert_file
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.networks.sam import build_sam
from tests import ROOT
from tests.unit.convert.test_encoder_types import DECODER, SMALL
from tests.unit.convert.test_hyperstyle import published  # noqa: F401
from tests.unit.convert.test_nvidia_pickle import (  # noqa: F401
    rosinality,
    snapshot,
    write_pickle,
)
from tests.unit.convert.test_stargan2_files import tiny_file
from tests.unit.convert.test_tensorflow_pickle import write  # noqa: F401

RESULTS = [
    "results/inference_side_by_side/face.png",
    "results/inversion/face-inversion.png",
    "results/restyle/inversion/face-sheet.jpg",
    "results/inversion/drawing.npz",
    "results/projection/face.npz",
    "converted/blended.png",
    "results/directions/face.png",
    "results/hyperstyle/inversion/face-generator.pdparams",
]


def encoder_file(path, in_channels=3, opts=None, form="pt", frozen=False):
    """A torch file of SAM, pSp, e4e or ReStyle with random weights."""
    encoder = {**SMALL, "squeeze_excite": True, "in_channels": in_channels}
    encoder |= {"pyramid": False} if in_channels == 6 else {}
    arch = {"encoder": encoder, "decoder": DECODER}
    arch |= {"start": "encoded_w_plus" if frozen else "latent_avg"}
    if frozen:
        arch["pretrained_encoder"] = {**encoder, "in_channels": 3}
    kind = "sam" if frozen else "psp"
    file = WeightFile(kind, {kind: NetworkEntry.of("sam", arch, build_sam(**arch))})
    file.write(path.with_suffix(".tmp.pdparams"))
    revert_file(path.with_suffix(".tmp.pdparams"), path)
    if form == "pt":
        content = torch.load(path, weights_only=True)
        content["opts"] = opts or {}
        content["arch"] = {"encoder": {"units": SMALL["units"], "input_size": SMALL["input_size"]}}
        torch.save(content, path)
    path.with_suffix(".tmp.pdparams").unlink()


@pytest.fixture
def files(tmp_path, write_pickle, write, published):  # noqa: F811
    paddle.seed(0)
    encoder_file(tmp_path / "sam.pt", 4, {"start_from_encoded_w_plus": True}, frozen=True)
    encoder_file(tmp_path / "e4e.safetensors", form="safetensors")
    encoder_file(
        tmp_path / "restyle.pt", 6, {"encoder_type": "BackboneEncoder", "n_iters_per_batch": 5}
    )
    sketch = {"encoder_type": "GradualStyleEncoder", "start_from_latent_avg": True}
    encoder_file(tmp_path / "sketch.pt", 1, {**sketch, "dataset_type": "celebs_sketch_to_face"})
    torch.save(rosinality(), tmp_path / "generator.pt")
    write_pickle(snapshot()).rename(tmp_path / "ada.pkl")
    write().rename(tmp_path / "tensorflow.pkl")
    generator = {k: paddle.to_tensor(v.numpy()) for k, v in paddlegan().items()}
    paddle.save(generator, str(tmp_path / "paddlegan.pdparams"))
    tiny_file(tmp_path / "nets_ema.ckpt", w_hpf=0)
    (tmp_path / "nets_ema.pdparams").unlink()
    published()[0].rename(tmp_path / "hyperstyle.pt")
    random = np.random.default_rng(0)
    np.save(tmp_path / "codes.npy", random.normal(size=(2, 10, 128)).astype(np.float32))
    np.save(tmp_path / "age.npy", random.normal(size=(1, 128)))
    for name in ("face", "drawing", "domains/a/1", "domains/b/2", "domains/c/3"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return tmp_path


def paddlegan():
    """PaddleGAN's layout of the embedded generator: linear weights [in, out], no filters."""
    state = rosinality()["g_ema"]
    return {
        name: tensor.t() if tensor.ndim == 2 else tensor
        for name, tensor in state.items()
        if not name.endswith("kernel")
    }


def lines():
    page = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    text = "".join(blocks).replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_every_line_of_the_tour_runs(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    assert len(lines()) == 13
    for line in lines():
        program, script, *arguments = shlex.split(line)
        assert program == "python"
        main = importlib.import_module(script.removesuffix(".py").replace("/", ".")).main
        status = main(arguments)
        assert not status, f"{line}\n{capsys.readouterr().err}"
    for result in RESULTS:
        assert (files / result).is_file(), result
    assert len(list((files / "converted").glob("*.pdparams"))) == 11
    assert len(list((files / "results").rglob("*.mp4"))) == 2
