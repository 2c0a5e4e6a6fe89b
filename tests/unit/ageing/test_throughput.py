"""Folders: faces of several photographs at once, results written in the background."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_sam.ageing import run
from paddle_sam.core import device
from paddle_sam.core.processes import InBackground
from paddle_sam.errors import OutputError
from scripts.inference import main as inference
from tests.unit.ageing.tiny import tiny_pipeline

GB = 1 << 30


@pytest.mark.parametrize(
    ("free", "size", "gradients", "batch"),
    [
        (64 * GB, 1024, False, 16),
        (16 * GB, 1024, False, 4),  # 16 maps of 128 MB an image, in half of the memory
        (16 * GB, 1024, True, 2),
        (1 * GB, 1024, False, 1),
        (1 * GB, 64, False, 4),
        (0, 64, False, 1),
    ],
)
def test_the_batch_fits_into_half_of_the_free_memory(monkeypatch, free, size, gradients, batch):
    monkeypatch.setattr(device, "free_memory", lambda: free)
    assert device.fitting_batch(size, gradients) == batch


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    free = device.free_memory()
    assert 0 < free < 1 << 50
    monkeypatch.setattr(device, "_MEMORY", ((tmp_path / "max", tmp_path / "current"),))
    (tmp_path / "max").write_text("max\n")
    assert device.free_memory() > 1 << 20
    (tmp_path / "max").write_text("5000\n")
    (tmp_path / "current").write_text("3000\n")
    assert device.free_memory() == 2000


@pytest.mark.parametrize("given", [0, 1, 3])
def test_faces_of_several_photographs_share_batches(tmp_path, monkeypatch, given):
    """Every face gets what it gets alone, under its own name, whatever the batch."""
    pipeline = tiny_pipeline()
    monkeypatch.setattr(run.AgePipeline, "from_checkpoint", lambda *_, **__: pipeline)
    monkeypatch.setattr(run, "fitting_batch", lambda *_: 5)
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
    (tmp_path / "in").mkdir()
    for index, crop in enumerate(crops):
        Image.fromarray(crop).save(tmp_path / "in" / f"{index}.png")
    sizes = []
    decode = pipeline.decode
    monkeypatch.setattr(pipeline, "decode", lambda x, *a: (sizes.append(len(x)), decode(x, *a))[1])
    arguments = ["--data_path", str(tmp_path / "in"), "--no_align", "--target_age", "10,80"]
    arguments += ["--exp_dir", str(tmp_path / "out"), "--test_batch_size", str(given)]
    arguments += ["--keep", "0"]
    assert inference(arguments) == 0
    groups = {0: [5, 1, 4], 1: [1] * 10, 3: [3, 1, 3, 1, 2]}  # of three, one, and two photographs
    assert sizes == groups[given]
    want = pipeline.age(crops, [10, 80], batch_size=1)
    for index in range(len(crops)):
        for at, age in enumerate((10, 80)):
            path = tmp_path / "out" / "inference_results" / str(age) / f"{index}.png"
            found = np.asarray(Image.open(path)).astype(int)
            np.testing.assert_allclose(found, want[index, at], atol=1)


def test_calls_are_done_in_order_in_another_thread():
    done = []
    with InBackground(waiting=2) as in_background:
        for number in range(10):
            in_background(lambda n: done.append((n, threading.get_ident())), number)
    assert [number for number, _ in done] == list(range(10))
    assert threading.get_ident() not in {thread for _, thread in done}


def test_the_caller_gets_the_error_of_a_call():
    def fail():
        raise OutputError("no space")

    with pytest.raises(OutputError, match="no space"), InBackground() as in_background:
        in_background(fail)
    with pytest.raises(OutputError, match="no space"), InBackground(waiting=1) as in_background:
        for _ in range(3):
            in_background(fail)
        raise AssertionError("the third call should have raised")


def test_a_callers_own_error_is_not_hidden_and_its_calls_are_done():
    raised, done = threading.Event(), []

    def fail_later():
        raised.wait(10)
        raise OutputError("no space")

    with pytest.raises(KeyError), InBackground() as in_background:
        in_background(fail_later)
        in_background(done.append, "after")
        raised.set()
        raise KeyError
    assert done == ["after"]


def test_a_full_disk_ends_the_command(tmp_path, capsys, monkeypatch):
    def full(path, _):
        raise OutputError(f"{path}: cannot be written: no space left")

    monkeypatch.setattr(run, "save_image", full)
    assert inference(["--exp_dir", str(tmp_path), "--target_age", "50"]) == 2
    assert "no space left" in capsys.readouterr().err
    assert not list(Path(tmp_path).rglob("*.png"))
