"""Starting and resuming runs: one writer, the same data, and what may change on purpose."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import list_sources
from paddle_sam.imagesets.loader import identify_images
from paddle_sam.options import RunOptions, option
from paddle_sam.training.folder import identify_file, numbered, read_records
from paddle_sam.training.run import Intervals, Job, start_run
from tests import DEVICE
from tests.unit.training.test_run import Counter


@dataclasses.dataclass(frozen=True)
class CountOptions(RunOptions):
    changeable: ClassVar = "batch_size rate"

    exp_dir: str = option("run", "folder", resumable=True)
    data: str = option("data", "images", resumable=True)
    judge: str = option("judge.bin", "weights", resumable=True)
    batch_size: int = option(4, "images per step")
    rate: float = option(0.5, "learning rate")
    width: int = option(8, "of the network")
    steps: int = option(2, "to train", resumable=True)


class Numbers:
    def __init__(self, before=lambda: None):
        self.before = before

    def training(self, batch_size, seed, start, part):
        self.before()
        yield from itertools.count(start + 1)


def train(before=lambda: None, **changes):
    options = CountOptions(device=DEVICE, **changes)
    intervals = Intervals(options.steps, 1, 9, 9, 9)

    def build(world, resumed):
        return Job(Counter(), intervals, Numbers(before), lambda: ["test"])

    inputs = {
        "data": identify_images(options.data, list_sources(options.data)),
        "judge": identify_file(Path(options.judge)),
    }
    return start_run(options, build, inputs)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index in range(3):
        path = tmp_path / "data" / "deep" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), index, np.uint8)).save(path)
    (tmp_path / "judge.bin").write_bytes(b"weights")
    return tmp_path


def test_data_and_judges_may_move(place):
    train()
    (place / "elsewhere").mkdir()
    shutil.move(place / "data", place / "elsewhere" / "faces")
    shutil.move(place / "judge.bin", place / "elsewhere" / "judge2.bin")
    train(data="elsewhere/faces", judge=str(place / "elsewhere" / "judge2.bin"), steps=3)
    assert [r["step"] for r in read_records(place / "run") if r["split"] == "train"] == [1, 2, 3]


def test_other_data_are_refused_and_taken_on_purpose(place):
    train()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(place / "data" / "more.png")
    with pytest.raises(ConfigError, match=r"data: .*3 images, \w+ -> 4 images.*allow_changed data"):
        train(steps=3)
    train(steps=3, allow_changed="data")
    (note,) = [r for r in read_records(place / "run") if r["split"] == "changed"]
    assert note["step"] == 2 and note["data"].startswith("3 images")
    assert (
        "**Changed** from step 2 on: --data 3 images" in (place / "run/timestamp.txt").read_text()
    )
    train(steps=4)  # now these are the data of the run
    for name in ("CHANGED", "data.png"):
        with pytest.raises(ConfigError, match="allow_changed: expected some of"):
            train(steps=5, allow_changed=name)


@pytest.mark.parametrize("change", ["content", "name", "judge"])
def test_what_has_the_same_size_is_not_the_same(place, change):
    train()
    image = place / "data" / "deep" / "1.png"
    if change == "content":
        shutil.copyfile(place / "data" / "deep" / "2.png", image)
    elif change == "name":
        image.rename(image.with_name("7.png"))
    else:
        (place / "judge.bin").write_bytes(b"WEIGHTS")
    with pytest.raises(ConfigError, match="judge: " if change == "judge" else "data: "):
        train(steps=3)


def test_options_change_on_purpose_only(place):
    train()
    with pytest.raises(ConfigError, match="batch_size was 4, is 2.*allow_changed batch_size to"):
        train(steps=3, batch_size=2)
    with pytest.raises(ConfigError, match="rate was 0.5, is 0.1.*allow_changed batch_size,rate to"):
        train(steps=3, batch_size=2, rate=0.1, allow_changed="batch_size")
    with pytest.raises(ConfigError, match="width was 8, is 4.*start afresh.$"):
        train(steps=3, width=4, allow_changed="width")
    train(steps=3, batch_size=2, rate=0.1, allow_changed="batch_size,rate")
    (note,) = [r for r in read_records(place / "run") if r["split"] == "changed"]
    assert (note["step"], note["batch_size"], note["rate"]) == (2, "4 -> 2", "0.5 -> 0.1")
    assert json.loads((place / "run" / "opt.json").read_text())["batch_size"] == 2
    train(steps=4, batch_size=2, rate=0.1)


def test_a_folder_that_is_trained_in_takes_no_second_run(place):
    found = []

    def again():
        with pytest.raises(ConfigError, match="run: process .* is writing a training run"):
            train()
        found.append(True)

    train(again)
    assert found == [True]
    train(steps=3)  # the lock went with the run


def test_a_run_without_a_note_of_its_data_gets_one(place):
    train()
    (place / "run" / "inputs.json").unlink()
    train(steps=3)
    assert json.loads((place / "run" / "inputs.json").read_text())["data"]["images"] == 3


def test_runs_are_numbered_and_described(place):
    first = train_numbered("a first try")
    assert first == "run/00000-a-first-try"
    (place / "run" / "00041-x").mkdir()
    assert train_numbered("gamma 10") == "run/00042-gamma-10"
    assert (place / first / "opt.json").exists()
    train(exp_dir=first, steps=3)  # resumed by its own name
    for text in ("../x", "a/b", "", "x" * 81):
        if text:
            with pytest.raises(ConfigError, match="new_run: expected up to 80"):
                train_numbered(text)


def train_numbered(text):
    folder = numbered(CountOptions(device=DEVICE, new_run=text)).exp_dir
    train(exp_dir=folder)
    return folder
