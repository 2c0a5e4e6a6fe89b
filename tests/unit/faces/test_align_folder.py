"""Folders of good, broken and deadly images. Every run here starts real worker processes."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from paddle_sam.core.folders import one_writer
from paddle_sam.core.images import read_image
from paddle_sam.errors import CheckpointError, ConfigError, ImageError
from paddle_sam.faces.align_folder import REPORT, align_folder
from paddle_sam.faces.alignment import CropSettings, align
from paddle_sam.faces.landmarks import Face
from tests import ROOT

SCRIPT = ROOT / "scripts/align_all_parallel.py"
PHOTO = skimage.data.astronaut()
LANDMARKS = np.load(ROOT / "tests/parity/expected/alignment_astronaut.npz")["landmarks"]
CROP = CropSettings(size=32)


class StandIn:
    """Finds the astronaut's face at once, or two; the first pixel can ask for trouble."""

    def find(self, image, every=False):
        if tuple(image[0, 0]) == (1, 2, 3):
            os._exit(9)  # as the system does to a process that takes too much memory
        if tuple(image[0, 0]) == (3, 2, 1):
            raise ZeroDivisionError("a bug")
        if image.shape != PHOTO.shape:
            return []
        box = (175, 76, 265, 166)
        return [Face(box, 2.0, LANDMARKS), Face(box, 1.0, LANDMARKS + 40)]


class Unavailable:
    def __init__(self):
        raise CheckpointError("predictor.dat: this file is missing")


def with_first_pixel(*colour):
    image = PHOTO.copy()
    image[0, 0] = colour
    return image


def save(root: Path, *names: str, image=PHOTO) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "crops"


def crops(output):
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*.png"))


def failures(output):
    return {
        record["file"]: record["error"]
        for record in map(json.loads, (output / REPORT).read_text().splitlines())
    }


def test_tree_with_broken_images(root, output):
    save(root, "a.png", "deep/er/b.png")
    save(root, "empty_room.png", image=PHOTO[:100])
    (root / "page.jpg").write_text("<!DOCTYPE html>")
    (root / "notes.txt").write_text("no image")
    summary = align_folder(root, output, StandIn, CROP, workers=2)
    assert (summary.aligned, summary.skipped, summary.failed) == (2, 0, 2)
    assert str(summary) == f"2 aligned, 0 already there, 2 failed (why: {output / REPORT})"
    assert crops(output) == ["a.png", "deep/er/b.png"]
    assert np.array_equal(read_image(output / "a.png"), align(PHOTO, LANDMARKS, CROP).image)
    problems = failures(output)
    assert "found no face" in problems["empty_room.png"]
    assert "HTML page" in problems["page.jpg"]


def test_second_run_skips_what_is_done_and_tries_the_rest_again(root, output):
    save(root, "a.png")
    (root / "late.png").touch()
    assert align_folder(root, output, StandIn, CROP).failed == 1
    made = (output / "a.png").stat().st_mtime_ns
    save(root, "late.png")
    summary = align_folder(root, output, StandIn, CROP)
    assert (summary.aligned, summary.skipped, summary.failed) == (1, 1, 0)
    assert summary.report is None and not (output / REPORT).exists()
    assert (output / "a.png").stat().st_mtime_ns == made


def test_names_that_would_meet_are_kept_apart(root, output):
    save(root, "a.png", "a.bmp", "a.webp", "b.png")
    assert align_folder(root, output, StandIn, CROP).aligned == 4
    assert crops(output) == ["a.bmp.png", "a.png.png", "a.webp.png", "b.png"]


def test_all_faces(root, output):
    save(root, "a.png")
    for expected in ((1, 0), (0, 1)):
        summary = align_folder(root, output, StandIn, CROP, choice="all")
        assert (summary.aligned, summary.skipped) == expected
    assert crops(output) == ["a_0.png", "a_1.png"]
    second = align(PHOTO, LANDMARKS + 40, CROP).image
    assert np.array_equal(read_image(output / "a_1.png"), second)


def test_a_process_that_dies_takes_only_its_image_with_it(root, output):
    save(root, *(f"{i}.png" for i in range(9)))
    save(root, "5.png", image=with_first_pixel(1, 2, 3))
    save(root, "6.png", image=with_first_pixel(3, 2, 1))
    summary = align_folder(root, output, StandIn, CROP, workers=1)
    assert (summary.aligned, summary.failed) == (7, 2)
    problems = failures(output)
    assert "died" in problems["5.png"]
    assert "ZeroDivisionError: a bug" in problems["6.png"]


def test_what_concerns_every_image_ends_the_run(root, output):
    save(root, "a.png", "b.png")
    with pytest.raises(CheckpointError, match=r"predictor\.dat"):
        align_folder(root, output, Unavailable, CROP)


def test_crops_of_two_kinds_are_not_mixed(root, output):
    save(root, "a.png")
    align_folder(root, output, StandIn, CROP)
    with pytest.raises(ConfigError, match="output_path: .* holds crops .*size was 32, is 64"):
        align_folder(root, output, StandIn, CropSettings(size=64))


def test_crops_inside_the_tree_are_not_taken_for_photographs(root):
    save(root, "a.png")
    align_folder(root, root / "crops", StandIn, CROP)
    save(root, "b.png")
    summary = align_folder(root, root / "crops", StandIn, CROP)
    assert (summary.aligned, summary.skipped, summary.failed) == (1, 1, 0)


@pytest.mark.parametrize(
    ("root_name", "output_name", "error", "words"),
    [
        ("photos", "photos", ConfigError, "output_path: expected a folder other"),
        ("absent", "crops", ConfigError, "root_path: expected a folder of photographs"),
        ("photos", "crops", ImageError, "found no image"),
    ],
)
def test_refusals(tmp_path, root, root_name, output_name, error, words):
    with pytest.raises(error, match=words):
        align_folder(tmp_path / root_name, tmp_path / output_name, StandIn, CROP)


# --- the command -----------------------------------------------------------------------------


def test_command_with_the_real_detector(root, capsys):
    save(root, "astronaut.png")
    (root / "broken.jpg").touch()
    main = runpy.run_path(str(SCRIPT))["main"]
    crop_of_sam_mini = ["--size", "64", "--scale", "0.6", "--offset", "0.5", "--oversample", "4"]
    assert main(["--root_path", str(root), "--num_threads", "1", *crop_of_sam_mini]) == 1
    crop = read_image(root.with_name("photos_aligned") / "astronaut.png")
    expected = align(PHOTO, LANDMARKS, CropSettings(64, 0.6, 0.5, 4)).image
    assert np.array_equal(crop, expected)
    assert "1 aligned, 0 already there, 1 failed" in capsys.readouterr().out
    (root / "astronaut.png").unlink()
    output = str(root.with_name("other"))
    assert main(["--root_path", str(root), "--output_path", output]) == 2


def test_ctrl_c_stops_cleanly(root, output):
    save(root, "0.png")
    for index in range(1, 150):
        shutil.copyfile(root / "0.png", root / f"{index}.png")
    run = [sys.executable, str(SCRIPT), "--root_path", str(root), "--output_path", str(output)]
    process = subprocess.Popen(
        [*run, "--num_threads", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(crops(output)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in errors and "Traceback" not in errors
    done = crops(output)
    assert 2 <= len(done) < 150
    assert all(read_image(output / name).shape == (256, 256, 3) for name in done)


@pytest.mark.parametrize("choice", ["best", "all"])
def test_a_name_without_room_for_its_crop_is_that_photographs_failure(tmp_path, choice):
    long = "長" * 83 + (
        "" if choice == "all" else "a"
    )  # 249 bytes: with .webp fine, with _0.png not
    save(tmp_path / "in", "a.png", f"{long}.webp", f"{long}.png", "z.png")
    summary = align_folder(tmp_path / "in", tmp_path / "out", StandIn, CROP, choice=choice)
    assert (summary.aligned, summary.failed) == (2, 2)
    failures = [json.loads(line) for line in (tmp_path / "out" / REPORT).open(encoding="utf-8")]
    assert all("File name too long" in failure["error"] for failure in failures)


def test_one_run_a_folder_of_crops(tmp_path):
    save(tmp_path / "in", "a.png")
    with (
        one_writer(tmp_path / "out", "crops"),
        pytest.raises(ConfigError, match=f"process {os.getpid()} .*is writing crops"),
    ):
        align_folder(tmp_path / "in", tmp_path / "out", StandIn, CROP)
