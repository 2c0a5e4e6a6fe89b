import os
import runpy
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from PIL import Image

import paddle_sam
from paddle_sam.ageing.train.age import _split, errors_by_decade, start_from_vgg, train_age
from paddle_sam.ageing.train.options import AgeOptions
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.imagesets.loader import sample_index
from paddle_sam.networks.face_networks import AgeRegressor
from paddle_sam.networks.image_features import IMAGE_MEAN, IMAGE_STD, LPIPS
from tests import DEVICE, ROOT
from tests.unit.training.comparing import assert_equal, records

SCRIPT = ROOT / "scripts" / "train_age.py"


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Pictures whose brightness is their age."""
    folder = tmp_path_factory.mktemp("faces")
    for index, age in enumerate(np.linspace(5, 95, 30).astype(int)):
        grey = np.full((32, 32, 3), age * 2.5, np.uint8)
        Image.fromarray(grey).save(folder / f"{age}_0_0_{index}.png")
    return folder


def _config(faces, folder, **changes):
    options = {
        "network": "mini",
        "input_size": 32,
        "workers": 0,
        "batch_size": 9,
        "learning_rate": 1e-3,
        "board_interval": 20,
        "val_interval": 40,
        "save_interval": 20,
        "image_interval": 40,
        "max_steps": 40,
        "cache_images": True,
        "device": DEVICE,
    }
    return AgeOptions(exp_dir=str(folder), train_data=str(faces), **{**options, **changes})


def test_learns_ages_and_writes_what_sam_training_takes(faces, tmp_path):
    train_age(_config(faces, tmp_path, max_steps=120, val_interval=10))
    errors = [record["mae_years"] for record in records(tmp_path, "test")]
    assert errors[-1] < 15 < errors[0]
    network = paddle_sam.load(tmp_path / "checkpoints" / "best_model.pdparams", device=DEVICE)
    assert isinstance(network, AgeRegressor)
    dark, bright = (paddle.full([1, 3, 32, 32], value) for value in (-0.8, 0.8))
    assert network.age(bright).item() > network.age(dark).item() + 30


def test_resumes_bit_for_bit(faces, tmp_path):
    train_age(_config(faces, tmp_path / "straight"))
    for steps in (20, 40):
        train_age(_config(faces, tmp_path / "parts", max_steps=steps))
    left, right = (
        WeightFile.read(tmp_path / name / "checkpoints" / "iteration_40.pdparams")
        for name in ("straight", "parts")
    )
    for content in (left, right):
        content.options = None
        del content.training["elapsed"]
    assert_equal(left, right)


def test_test_images_are_held_out(faces, tmp_path):
    ages, train, test = _split(_config(faces, tmp_path, holdout=0.2))
    assert len(test) == 6
    assert not set(train) & set(test)
    assert len(train) + len(test) == len(ages) == 30


def test_an_archive_holds_faces_too_and_those_without_an_age_are_named(faces, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for path in [*faces.iterdir(), next(faces.iterdir())]:
            archive.write(path, f"some/{path.name}")
        archive.writestr("some/portrait.png", next(faces.iterdir()).read_bytes())
    ages, train, test = _split(_config(tmp_path / "faces.zip", tmp_path))
    assert len(train) + len(test) == 31
    assert {image.name.partition("_")[0] for image in train} <= {f"{a:.0f}" for a in ages.values()}
    assert "1 of 32 images have no age" in capsys.readouterr().out


def test_errors_by_decade_by_hand():
    found = errors_by_decade(np.array([5.0, 9, 30, 100]), np.array([6.0, 12, 30, 90]))
    assert found == {"loss": 3.5, "mae_years": 3.5, "mae_0s": 2.0, "mae_30s": 0.0, "mae_100s": 10.0}


def test_starts_from_imagenet_features(tmp_path):
    paddle.seed(0)
    vgg = LPIPS("vgg")
    np.savez(tmp_path / "vgg.npz", **{n: t.numpy() for n, t in vgg.state_dict().items()})
    network = AgeRegressor(input_size=32, fc=8)
    start_from_vgg(network, tmp_path / "vgg.npz")
    x = paddle.uniform([1, 3, 32, 32], min=-1, max=1)
    mean, std = (paddle.to_tensor(v).reshape([1, 3, 1, 1]) for v in (IMAGE_MEAN, IMAGE_STD))
    expected = vgg.features[0]((x - mean) / std)[:, :, 1:-1, 1:-1]
    np.testing.assert_allclose(network.conv1_1(x)[:, :, 1:-1, 1:-1], expected, atol=1e-4)
    np.testing.assert_array_equal(network.conv5_3.weight, vgg.features[28].weight)
    assert F.relu(expected).max().item() > 0
    with pytest.raises(CheckpointError, match="vgg_path: .* does not fit"):
        start_from_vgg(AgeRegressor(32, (4, 4, 4, 4, 4), 8), tmp_path / "vgg.npz")


def test_the_command_runs_and_names_what_is_missing(faces, tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    flags = ["--network", "mini", "--input_size", "32", "--workers", "0", "--max_steps", "1"]
    flags += ["--exp_dir", str(tmp_path / "run"), "--device", DEVICE]
    assert main([*flags, "--train_data", str(faces)]) == 0
    assert (tmp_path / "run" / "checkpoints" / "iteration_1.pdparams").exists()
    assert main(flags[:-2]) == 2
    assert "--train_data" in capsys.readouterr().err


def test_processes_share_the_batch_and_one_of_them_writes(faces, tmp_path):
    flags = ["--network", "mini", "--input_size", "32", "--workers", "0", "--max_steps", "2"]
    flags += ["--exp_dir", str(tmp_path / "run"), "--device", DEVICE, "--train_data", str(faces)]
    flags += ["--batch_size", "8", "--board_interval", "1"]
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, "--log_dir", str(tmp_path / "logs"), str(SCRIPT), *flags],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 2]
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["best_model.pdparams", "iteration_2.pdparams"]


def test_a_bad_image_in_one_process_ends_all_with_a_checkpoint(faces, tmp_path):
    """One that the second of two processes reads in its fourth step."""
    shutil.copytree(faces, tmp_path / "faces")
    flags = ["--network", "mini", "--input_size", "32", "--workers", "0", "--max_steps", "9"]
    flags += ["--device", DEVICE, "--train_data", str(tmp_path / "faces"), "--max_bad_images", "0"]
    flags += ["--exp_dir", str(tmp_path / "run"), "--batch_size", "2", "--board_interval", "1"]
    config = AgeOptions(train_data=str(tmp_path / "faces"), workers=0)
    _, images, _ = _split(config)
    images[sample_index(7, len(images), 0)].write_bytes(b"no image")
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, "--log_dir", str(tmp_path / "logs"), str(SCRIPT), *flags],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    logs = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    assert "cannot be read" in logs + done.stdout + done.stderr
    assert "Traceback" not in logs
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [
        "iteration_3.pdparams"
    ]


def test_a_holdout_must_leave_images_to_train_on(faces, tmp_path):
    with pytest.raises(ConfigError, match="holdout: 1.0 leaves none"):
        train_age(_config(faces, tmp_path, holdout=1.0))


def test_a_converted_dex_is_fine_tuned(faces, tmp_path, capsys):
    """A PyTorch file in the published layout, converted; a smaller network than the options say."""
    from paddle_sam.convert.convert import convert_file, revert_file
    from paddle_sam.core.weights import NetworkEntry

    paddle.seed(0)
    arch = {"input_size": 32, "widths": [4, 4, 8, 8, 8], "fc": 16}
    entry = NetworkEntry.of("age_regressor", arch, AgeRegressor(**arch))
    WeightFile("dex_vgg", {"dex_vgg": entry}).write(tmp_path / "own.pdparams")
    revert_file(tmp_path / "own.pdparams", tmp_path / "dex.pth")
    convert_file(tmp_path / "dex.pth", tmp_path / "dex.pdparams")
    options = {"checkpoint_path": str(tmp_path / "dex.pdparams"), "network": "published"}
    options |= {"save_interval": 1, "learning_rate": 0.0, "input_size": 224}
    train_age(_config(faces, tmp_path / "run", **options, max_steps=1))
    first = WeightFile.read(tmp_path / "run" / "checkpoints" / "iteration_1.pdparams").entry()
    assert first.arch == arch
    for name, array in entry.state.items():
        np.testing.assert_array_equal(first.state[name], array)
    (tmp_path / "dex.pdparams").unlink()  # what a run that is resumed does not need again
    train_age(_config(faces, tmp_path / "run", **options, max_steps=2))
    assert (tmp_path / "run" / "checkpoints" / "iteration_2.pdparams").is_file()


def test_what_cannot_be_fine_tuned_is_refused(faces, tmp_path):
    from paddle_sam.core.weights import find_weight

    path = str(find_weight("stylegan2_mini"))
    with pytest.raises(CheckpointError, match="checkpoint_path: .*holds stylegan2"):
        train_age(_config(faces, tmp_path / "run", checkpoint_path=path))
    with pytest.raises(ConfigError, match="checkpoint_path, vgg_path"):
        _config(faces, tmp_path / "run", checkpoint_path=path, vgg_path="x.npz")
