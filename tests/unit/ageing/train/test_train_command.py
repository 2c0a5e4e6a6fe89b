"""`scripts/train.py` end to end on tiny networks, each run in a process of its own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import paddle_sam
from paddle_sam.core.weights import WeightFile
from tests import DEVICE, ROOT
from tests.unit.training import tiny
from tests.unit.training.comparing import assert_equal, records

INTERVALS = {"board_interval": 1, "image_interval": 3, "val_interval": 3, "save_interval": 3}


def _train(files, folder, processes=1, **changes):
    """Run the command; returns the finished process."""
    flags = tiny.command_line(files, exp_dir=str(folder), **{**INTERVALS, **changes})
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes)]
    launch += ["--log_dir", f"{folder}_logs"]
    return subprocess.run(
        [
            sys.executable,
            *(launch if processes > 1 else []),
            str(ROOT / "scripts" / "train.py"),
            *flags,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def _checkpoint(folder, step):
    return WeightFile.read(folder / "checkpoints" / f"iteration_{step}.pdparams")


@pytest.mark.parametrize("optim_name", ["ranger", "adam"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(files, tmp_path, optim_name):
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    done = _train(files, straight, max_steps=6, optim_name=optim_name)
    assert done.returncode == 0, done.stderr
    for steps in (3, 6):
        # Workers and intervals may change between the parts.
        done = _train(files, parts, max_steps=steps, workers=steps // 6, optim_name=optim_name)
        assert done.returncode == 0, done.stderr
    left, right = _checkpoint(straight, 6), _checkpoint(parts, 6)
    for content in (left, right):
        content.options = None
        del content.training["elapsed"]
    assert_equal(left, right)
    assert [record["step"] for record in records(straight)] == [1, 2, 3, 4, 5, 6]
    assert records(straight) == records(parts)
    assert records(straight, "test") == records(parts, "test")


def test_two_processes_equal_one_on_the_same_batch(files, tmp_path):
    """Gradients are averaged and batch norm sees the whole batch; the order of sums differs."""
    options = {"max_steps": 3, "batch_size": 4}
    for name, processes in (("one", 1), ("two", 2)):
        done = _train(files, tmp_path / name, processes, **options)
        assert done.returncode == 0, done.stdout + done.stderr
    for left, right in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        del left["split"], right["split"]
        assert right == pytest.approx(left, rel=2e-3, abs=2e-4)
    before = tiny.state(tiny.trainer(files).network)
    one, two = (_checkpoint(tmp_path / name, 3).networks["sam"].state for name in ("one", "two"))
    for name in one:
        if name.endswith(("._mean", "._variance")):
            np.testing.assert_allclose(two[name], one[name], rtol=2e-3, atol=2e-4, err_msg=name)
    name = "encoder.latlayer2.weight"
    moved = np.abs(one[name] - before[name])
    assert np.median(moved) > 0
    assert np.median(np.abs(two[name] - one[name])) < 0.02 * np.median(moved)


def test_a_batch_that_cannot_be_shared_is_refused(files, tmp_path):
    done = _train(files, tmp_path / "run", processes=2, batch_size=3)
    assert done.returncode != 0
    logs = "".join(path.read_text() for path in (tmp_path / "run_logs").iterdir())
    assert "batch_size: 3 cannot be shared by 2 processes" in done.stdout + done.stderr + logs


def test_what_training_wrote_is_what_inference_loads(files, tmp_path):
    done = _train(files, tmp_path, max_steps=1)
    assert done.returncode == 0, done.stderr
    for name in ("best_model", "iteration_1"):
        network = paddle_sam.load(tmp_path / "checkpoints" / f"{name}.pdparams", device=DEVICE)
        assert type(network).__name__ == "SAM"
        assert not network.training
        assert network.start == "encoded_w_plus"
    assert json.loads((tmp_path / "opt.json").read_text())["batch_size"] == 2


def test_psp_then_sam_from_it(files, tmp_path):
    psp = {"task": "psp", "input_nc": 3, "start_from_encoded_w_plus": False}
    psp |= {"start_from_latent_avg": True, "aging_lambda": 0.0, "cycle_lambda": 0.0}
    done = _train(files, tmp_path / "psp", max_steps=1, encoder_start="random", **psp)
    assert done.returncode == 0, done.stderr
    trained = tmp_path / "psp" / "checkpoints" / "best_model.pdparams"
    done = _train(files, tmp_path / "sam", max_steps=1, pretrained_psp_path=str(trained))
    assert done.returncode == 0, done.stderr
    state = WeightFile.read(trained).networks["psp"].state
    found = _checkpoint(tmp_path / "sam", 1).networks["sam"].state
    name = "styles.0.linear.weight"
    np.testing.assert_array_equal(found[f"pretrained_encoder.{name}"], state[f"encoder.{name}"])


def test_other_options_do_not_resume_a_run(files, tmp_path):
    # One that ended before its first checkpoint has nothing to resume.
    (tmp_path / "opt.json").write_text('{"learning_rate": 0.7}')
    assert _train(files, tmp_path, max_steps=1).returncode == 0
    done = _train(files, tmp_path, max_steps=2, learning_rate=0.5)
    assert done.returncode == 2
    assert "--learning_rate was 0.001, is 0.5" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "option, words",
    [
        ("stylegan_weights", ["--stylegan_weights", "nowhere.pdparams is missing", "convert"]),
        ("age_regressor_path", ["--age_regressor_path", "nowhere.pdparams is missing"]),
        ("lpips_path", ["--lpips_path", "is missing", "download_weights.py"]),
        ("train_data", ["nowhere", "no such file or folder"]),
    ],
)
def test_a_missing_file_is_named_with_its_option(files, tmp_path, option, words):
    done = _train(files, tmp_path, **{option: str(tmp_path / "nowhere")})
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_corrupt_image_is_reported_and_skipped(files, tmp_path):
    (tmp_path / "data").mkdir()
    for path in (files / "train").iterdir():
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "data" / "3.png").write_bytes(b"not an image")
    arguments = {"train_data": str(tmp_path / "data"), "max_steps": 4}
    done = _train(files, tmp_path / "run", **arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("skipped an unreadable image") == 1
    assert "3.png" in done.stdout
    done = _train(files, tmp_path / "strict", max_bad_images=0, **arguments)
    assert done.returncode == 2
    assert "--max_bad_images" in done.stderr
