"""Runs of `scripts/train_stylegan2.py`: resuming, signals, several processes, what is left."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import paddle_sam
from paddle_sam.core.images import read_image, save_image
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.loader import ImagePairs
from paddle_sam.networks.image_features import LPIPS
from paddle_sam.stylegan2.train.run import _images, _judge, augmentation, data_sets, spread
from paddle_sam.stylegan2.videos import find_snapshots
from scripts.train_stylegan2 import main
from tests import DEVICE, ROOT
from tests.unit.stylegan2.train.tiny import TINY, make_trainer
from tests.unit.training.comparing import assert_equal, records


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(6):
        coarse = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        save_image(folder / f"{index}.png", coarse)
    return folder


def command(data, folder, **changes):
    values = dataclasses.asdict(TINY) | {
        "train_data": str(data),
        "exp_dir": str(folder),
        "device": DEVICE,
        "num_workers": 0,
        "augment_p": 0.3,
        "stages": "8:0.008",
        "log_kimg": 0.004,
        "snapshot_kimg": 0.008,
        "save_kimg": 0.012,
        "keep_checkpoints": 0,
        **changes,
    }
    flags = []
    for name, value in values.items():
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        elif value != "":
            flags += [f"--{name}", str(value)]
    return [str(ROOT / "scripts" / "train_stylegan2.py"), *flags]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def train(data, folder, launch=(), **changes):
    return subprocess.run(
        [sys.executable, *launch, *command(data, folder, **changes)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )


def checkpoint(folder, step):
    content = WeightFile.read(folder / "checkpoints" / f"iteration_{step}.pdparams")
    content.training.pop("elapsed")
    content.options = None
    return content


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """Six steps without a break: two at 8 px, four at 16."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    done = train(data, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(data, straight, tmp_path):
    """Broken within the first stage, and after it; the second time the workers change, too."""
    assert main(command(data, tmp_path, total_kimg=0.004)[1:]) == 0
    for kimg in (0.012, 0.024):
        done = train(data, tmp_path, total_kimg=kimg, num_workers=int(kimg > 0.02))
        assert done.returncode == 0, done.stderr
    assert_equal(checkpoint(tmp_path, 6), checkpoint(straight, 6))
    assert records(tmp_path) == records(straight)
    assert [r["size"] for r in records(straight)] == [8, 8, 16, 16, 16, 16]
    assert records(straight)[-1]["augment_p"] != 0.3


def test_rates_and_batch_size_change_on_purpose(data, tmp_path):
    """Progress is counted in images, so schedules continue; the record says what changed."""
    assert main(command(data, tmp_path, total_kimg=0.004)[1:]) == 0
    changes = {"batch_size": 2, "g_lr": 5e-4, "mirror": False, "r1_gamma": 1.0}
    assert main(command(data, tmp_path, **changes)[1:]) == 2
    changes["allow_changed"] = "batch_size,g_lr,mirror,r1_gamma"
    assert main(command(data, tmp_path, total_kimg=0.012, **changes)[1:]) == 0
    kimg = [record["kimg"] for record in records(tmp_path)]
    assert kimg == pytest.approx([0.004, 0.006, 0.01, 0.012])
    assert [record["size"] for record in records(tmp_path)] == [8, 8, 16, 16]
    (note,) = records(tmp_path, "changed")
    assert (note["step"], note["batch_size"], note["g_lr"]) == (1, "4 -> 2", "0.001 -> 0.0005")
    assert [r["learning_rate"] for r in records(tmp_path, "run")][-1] == 5e-4
    assert main(command(data, tmp_path, total_kimg=0.014, **changes)[1:]) == 0
    assert records(tmp_path)[-1]["kimg"] == pytest.approx(0.014)


def test_stages_have_batch_sizes_of_their_own(data, tmp_path):
    """Two images a step at 8 px and four at 16, in one command, and with breaks in both stages."""
    stages = {"stage_batches": "8:2", "stage_rates": "8:0.004", "log_kimg": 0.002}
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert main(command(data, straight, **stages)[1:]) == 0
    found = records(straight)
    assert [record["kimg"] for record in found] == pytest.approx(
        [0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.02, 0.024]
    )
    assert [record["size"] for record in found] == [8] * 4 + [16] * 4
    assert [r["learning_rate"] for r in records(straight, "run")] == [0.004] * 4 + [1e-3] * 4
    (note,) = records(straight, "changed")
    assert (note["step"], note["batch_size"]) == (4, "2 -> 4")
    for kimg in (0.004, 0.016, 0.024):
        assert main(command(data, broken, total_kimg=kimg, **stages)[1:]) == 0
    assert records(broken) == found
    assert_equal(checkpoint(broken, 8), checkpoint(straight, 8))
    again = {"resume": 4, **stages}  # back to the border of the stages
    assert main(command(data, broken, **again)[1:]) == 0
    assert_equal(checkpoint(broken, 8), checkpoint(straight, 8))


def test_batches_of_later_stages_are_checked_at_once(data, tmp_path, capsys):
    changes = {"stage_batches": "16:3", "accumulate": 2}
    assert main(command(data, tmp_path / "run", **changes)[1:]) == 2
    assert "batch_size: 3 images cannot be computed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_run_with_a_checkpoint(data, straight, tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, *command(data, tmp_path, total_kimg=100)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    )
    while not (tmp_path / "stats.jsonl").exists() or not records(tmp_path):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in errors
    last = records(tmp_path)[-1]["step"]
    assert checkpoint(tmp_path, last).training["step"] == last
    for ours, theirs in zip(records(tmp_path), records(straight), strict=False):
        assert ours == theirs


def test_what_a_run_leaves(straight):
    snapshots = find_snapshots(straight)
    assert [kimg for kimg, _ in snapshots] == [0.004, 0.008, 0.016, 0.024]
    assert paddle_sam.load(snapshots[-1][1], device=DEVICE).size == 16
    grid = read_image(straight / "samples" / "fakes_000000.024.png")
    assert grid.shape == (8 * 16, 8 * 16, 3)
    assert (straight / "checkpoints" / "iteration_3.pdparams").exists()
    assert not (straight / "checkpoints" / "best_model.pdparams").exists()
    panels = sorted(path.stem for path in (straight / "images/train/faces").iterdir())
    assert panels == ["0000001", "0000002", "0000004", "0000006"]
    judge = paddle_sam.load(straight / "checkpoints" / "iteration_6.pdparams", "d", device=DEVICE)
    assert judge.size == 16


def test_measures_are_taken_all_over_the_data(data, tmp_path):
    lpips = {name: tensor.numpy() for name, tensor in LPIPS("alex").state_dict().items()}
    np.savez(tmp_path / "lpips.npz", **lpips)
    images = ImagePairs(str(data))
    assert spread(images, 3).sources == [images.sources[index] for index in (0, 2, 5)]
    assert spread(images, 100).sources == images.sources
    config = dataclasses.replace(
        TINY, metric="kid_alex", metric_images=4, lpips_path=str(tmp_path / "lpips.npz")
    )
    trainer = make_trainer()
    trainer.judge = _judge(config, images)
    found = trainer.evaluate(())
    assert set(found) == {"kid_alex", "loss"}
    assert found == trainer.evaluate(())
    assert make_trainer().evaluate(()) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"g_lr": 0.1}, "--g_lr was 0.001, is 0.1"),
        ({"exp_dir": "inside"}, "inside lies in the input"),
        ({"resume": "4"}, "iteration_4.pdparams does not exist; the latest checkpoint is"),
        (
            {"resolution": 32, "stages": "", "exp_dir": "new"},
            "has 16 x 16 pixels, expected squares",
        ),
        ({"train_data": "nowhere", "exp_dir": "new"}, "nowhere: there is no such file or folder"),
        ({"init_from": "no.pdparams", "exp_dir": "new"}, "no.pdparams: there is no such file"),
        ({"metric": "kid_alex", "lpips_path": "no.npz", "exp_dir": "new"}, "download_weights.py"),
    ],
)
def test_runs_that_cannot_start_say_why(data, straight, tmp_path, capsys, changes, message):
    if changes.get("exp_dir"):
        place = (data / "inside") if changes["exp_dir"] == "inside" else tmp_path / "new"
        changes = {**changes, "exp_dir": str(place)}
    before = sorted(straight.rglob("*"))
    assert main(command(data, straight, **changes)[1:]) == 2
    assert message in capsys.readouterr().err
    assert sorted(straight.rglob("*")) == before
    assert not (tmp_path / "new").exists()


def test_two_processes_equal_one(data, straight, tmp_path):
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    launch += ["--log_dir", str(tmp_path / "logs")]
    done = train(data, tmp_path / "run", launch)
    assert done.returncode == 0, done.stdout + done.stderr
    for one, two in zip(records(straight), records(tmp_path / "run"), strict=True):
        for name in ("G/loss", "D/loss", "D/r1", "G/path_length", "augment_p"):
            if name in one:
                assert two[name] == pytest.approx(one[name], rel=5e-3, abs=1e-3), name


def test_images_that_are_no_squares_are_found(tmp_path):
    config = dataclasses.replace(TINY, train_data=str(tmp_path))
    for index in range(8):
        save_image(tmp_path / f"{index}.png", np.zeros((16, 16, 3), np.uint8))
    (tmp_path / "0.png").write_bytes(b"no")  # is for the loader to report
    assert len(_images(data_sets(config.train_data), config)) == 8
    save_image(tmp_path / "6.png", np.zeros((16, 24, 3), np.uint8))
    with pytest.raises(ConfigError, match="6.png has 24 x 16 pixels, expected squares of at least"):
        _images(data_sets(config.train_data), config)


def test_small_sets_are_augmented():
    assert augmentation(TINY, 1000) == "ada"
    assert augmentation(TINY, 200_000) == "none"
    fixed = dataclasses.replace(TINY, augment="fixed", augment_p=0.2)
    assert augmentation(fixed, 200_000) == "fixed"


def test_several_sets_are_joined_by_their_weights(data, tmp_path):
    other = tmp_path / "a:b, c"
    shutil.copytree(data, other)
    (other / "0.png").unlink()
    sets = data_sets(f"{data},{data}:3")
    assert [(root, len(images), weight) for root, images, weight in sets] == [
        (str(data), 6, 1),
        (str(data), 6, 3),
    ]
    assert len(_images(sets, TINY)) == 24
    assert [(len(images), weight) for _, images, weight in data_sets(str(other))] == [(5, 1)]
    for text in (f"{data}:0", f"{data}:x", f"{data}:1.5"):
        with pytest.raises(ConfigError, match="train_data: expected FOLDER or FOLDER:N"):
            data_sets(text)
    flags = {"train_data": f"{data},{data}:2", "total_kimg": 0.004}
    assert main(command(data, tmp_path / "run", **flags)[1:]) == 0
    flags = {"train_data": f"{data},{data}:3", "total_kimg": 0.008}
    assert main(command(data, tmp_path / "run", **flags)[1:]) == 2
