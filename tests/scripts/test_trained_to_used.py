"""What a training writes, every command that takes it accepts: each kind of network, each size."""

import json

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.networks.face_networks import AgeRegressor
from paddle_sam.networks.image_features import LPIPS
from scripts import (
    evaluate,
    inference_side_by_side,
    project,
    sample,
    stargan2,
    train,
    train_age,
    train_stylegan2,
)
from tests import DEVICE

EVERY_STEP = ["--max_steps", "1", "--device", DEVICE, "--batch_size", "2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    for index in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        for place in ("faces", "domains/old", "domains/young"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            coarse.resize((256, 256)).save(folder / place / f"{10 * index + 5}_{index}.png")
    paddle.seed(0)
    arch = {"input_size": 32, "widths": [4, 4, 4, 4, 4], "fc": 8}
    entry = NetworkEntry.of("age_regressor", arch, AgeRegressor(**arch))
    WeightFile("dex_vgg", {"dex_vgg": entry}).write(folder / "age.pdparams")
    lpips = {name: tensor.numpy() for name, tensor in LPIPS("alex").state_dict().items()}
    np.savez(folder / "lpips.npz", **{name: np.abs(array) for name, array in lpips.items()})
    return folder


def stylegan2(files, folder, size):
    """Train a StyleGAN2 of `size` pixels for a step; returns its checkpoint."""
    options = ["--train_data", str(files / "faces"), "--exp_dir", str(folder / "stylegan2")]
    options += ["--resolution", str(size), "--latent_dim", "32", "--channel_base", "256"]
    options += ["--channel_max", "16", "--batch_size", "2", "--mbstd_group", "2"]
    options += ["--device", DEVICE]
    options += ["--total_kimg", "0.002", "--num_workers", "0", "--mapping_layers", "1"]
    assert train_stylegan2.main(options) == 0
    return next((folder / "stylegan2" / "checkpoints").glob("iteration_*"))


def encoder(files, folder, size, task, **paths):
    """Train pSp or SAM for a step; returns its best model."""
    options = ["--task", task, "--exp_dir", str(folder / task), "--output_size", str(size)]
    for split in ("train", "test"):
        options += [f"--{split}_data", str(files / "faces")]
    options += ["--id_lambda", "0", "--lpips_lambda", "0", "--lpips_lambda_crop", "0"]
    options += ["--workers", "0", "--test_workers", "0", *EVERY_STEP]
    for name, path in paths.items():
        options += [f"--{name}", str(path)]
    if task == "sam":
        options += [
            "--start_from_encoded_w_plus",
            "--age_regressor_path",
            str(files / "age.pdparams"),
        ]
    assert train.main(options) == 0
    return folder / task / "checkpoints" / "best_model.pdparams"


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_stylegan2_then_psp_then_sam(files, tmp_path, monkeypatch, capsys, size):
    monkeypatch.chdir(tmp_path)
    faces = [
        "--data_path",
        str(files / "faces"),
        "--no_align",
        "--n_images",
        "1",
        "--device",
        DEVICE,
    ]
    generator = stylegan2(files, tmp_path, size)
    given = ["--checkpoint_path", str(generator), "--seeds", "0,1", "--device", DEVICE]
    assert sample.main(given) == 0
    start = {"stylegan_weights": generator, "encoder_start": "random"}
    psp = encoder(files, tmp_path, size, "psp", **start)
    sam = encoder(files, tmp_path, size, "sam", **start, pretrained_psp_path=psp)
    for path in (psp, sam):
        network = WeightFile.read(path).entry()
        wanted = network.arch["encoder"]["input_size"]
        assert WeightFile.read(path).alignment["size"] == wanted
    for path in (generator, psp, sam):
        options = ["--checkpoint_path", str(path), "--step", "2", "--lpips", "alex"]
        options += [
            "--lpips_path",
            str(files / "lpips.npz"),
            "--exp_dir",
            f"project_{path.parts[-3]}",
        ]
        options += ["--start", "mean"] if path == generator else []
        assert project.main([*options, *faces, "--no-save_mp4"]) == 0, path
    # Exporting takes seconds; what it exports depends on the sizes in no way of its own.
    for engine in ("auto", "eager") if size == 64 else ("eager",):
        options = ["--checkpoint_path", str(sam), "--target_age", "20,70", "--engine", engine]
        assert inference_side_by_side.main([*options, *faces, "--exp_dir", engine]) == 0
        assert len(list((tmp_path / engine).rglob("*.[pj][np]g"))) == 1
    for path in (psp, sam):
        options = ["--checkpoint_path", str(path), "--lpips_path", str(files / "lpips.npz")]
        options += ["--exp_dir", f"reconstruction_{path.parts[-3]}"]
        assert evaluate.main(["reconstruction", *options, *faces]) == 0, path
    assert "Traceback" not in capsys.readouterr().err


SLOW = [pytest.param(size, marks=pytest.mark.slow) for size in (128, 256)]  # up to 2 minutes


@pytest.mark.parametrize("size", [32, 64, *SLOW])
def test_stargan2(files, tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    places = ["--train_img_dir", str(files / "domains"), "--val_img_dir", str(files / "domains")]
    options = ["--mode", "train", *places, "--img_size", str(size), "--w_hpf", "0", "--no_fid"]
    options += ["--no_lpips", "--base_dim", "4", "--max_conv_dim", "8", "--hidden_dim", "8"]
    options += ["--style_dim", "4", "--batch_size", "2", "--total_iters", "1", "--num_workers", "0"]
    options += ["--max_val_images", "2", "--device", DEVICE, "--exp_dir", "run"]
    assert stargan2.main(options) == 0
    made = ["--checkpoint_path", "run/checkpoints/iteration_1.pdparams", "--device", DEVICE]
    made += ["--src_dir", str(files / "domains"), "--ref_dir", str(files / "domains")]
    assert stargan2.main(["--mode", "sample", *made, "--result_dir", "results"]) == 0
    assert list((tmp_path / "results").rglob("*.[pj][np]g"))


@pytest.mark.parametrize("size", [32, 64])
def test_an_age_regressor_judges_a_sam_training(files, tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    options = ["--network", "mini", "--input_size", str(size), "--workers", "0", *EVERY_STEP]
    options += ["--train_data", str(files / "faces"), "--exp_dir", "age"]
    assert train_age.main(options) == 0
    regressor = "age/checkpoints/best_model.pdparams"
    generator = stylegan2(files, tmp_path, 32)
    start = {"stylegan_weights": generator, "encoder_start": "random"}
    psp = encoder(files, tmp_path, 32, "psp", **start)
    sam = encoder(files, tmp_path, 32, "sam", **start, pretrained_psp_path=psp)
    options = ["--checkpoint_path", str(sam), "--age_regressor_path", regressor, "--report"]
    options += ["--data_path", str(files / "faces"), "--no_align", "--n_images", "1"]
    options += ["--target_age", "30", "--exp_dir", "aged", "--engine", "eager", "--device", DEVICE]
    assert inference_side_by_side.main(options) == 0
    assert json.loads((tmp_path / "aged" / "report.json").read_text())
