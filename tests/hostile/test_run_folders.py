"""Damaged run folders: a training goes on, or says in one line which file is the matter."""

import dataclasses
import json
import os
import pickle
import shutil

import numpy as np
import pytest

from paddle_sam.ageing.train.options import AGE_SIZES
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import CheckpointError
from paddle_sam.options import read_json
from paddle_sam.stylegan2.train.options import StyleGAN2Options
from paddle_sam.stylegan2.train.run import train_stylegan2
from paddle_sam.training.folder import read_records
from scripts import plot_run, train_age
from tests.unit.training import old_runs


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(AGE_SIZES, "mini", old_runs.AGE_SIZE)
    return old_runs.unpack("age", tmp_path)


def _resume(run):
    options = json.loads(ORIGINAL(run))
    flags = []
    for name, value in {**options, "max_steps": 3, "exp_dir": str(run)}.items():
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        elif value != "":
            flags += [f"--{name}", str(value)]
    return train_age.main(flags)


def ORIGINAL(run):
    import zipfile

    with zipfile.ZipFile(old_runs.FOLDER / "age.zip") as archive:
        return archive.read("opt.json")


def _checkpoint(run):
    return run / "checkpoints" / "iteration_2.pdparams"


def _edit(run, change):
    file = WeightFile.read(_checkpoint(run))
    change(file)
    file.write(_checkpoint(run))


def _rewrite(run, change):
    """Change the pickled dict itself."""
    content = pickle.loads(_checkpoint(run).read_bytes())
    content = change(content) or content
    _checkpoint(run).write_bytes(pickle.dumps(content))


def _cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def _write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _folder_instead(path):
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.mkdir()


def _file_instead(path):
    shutil.rmtree(path, ignore_errors=True)
    path.write_text("not a folder")


def _state(run, name, value):
    def change(file):
        file.training[name] = value

    _edit(run, change)


DEEP = "[" * 100_000
LOCKED = {  # damage: the file that the message names
    "opt.json cut": (lambda r: _cut(r / "opt.json"), "opt.json"),
    "opt.json empty": (lambda r: _write(r / "opt.json", ""), "opt.json"),
    "opt.json a list": (lambda r: _write(r / "opt.json", "[1, 2]"), "opt.json"),
    "opt.json null": (lambda r: _write(r / "opt.json", "null"), "opt.json"),
    "opt.json of another kind": (lambda r: _write(r / "opt.json", '{"g_lr": 1}'), "opt.json"),
    "opt.json with a wrong type": (lambda r: _write(r / "opt.json", '{"seed": []}'), "opt.json"),
    "opt.json not text": (lambda r: _write(r / "opt.json", b"\xff\xfe\x00"), "opt.json"),
    "opt.json deep": (lambda r: _write(r / "opt.json", DEEP), "opt.json"),
    "opt.json long number": (lambda r: _write(r / "opt.json", "9" * 5000), "opt.json"),
    "opt.json a folder": (lambda r: _folder_instead(r / "opt.json"), "opt.json"),
    "inputs.json cut": (lambda r: _write(r / "inputs.json", '{"train_d'), "inputs.json"),
    "inputs.json deep": (lambda r: _write(r / "inputs.json", DEEP), "inputs.json"),
    "inputs.json a list": (lambda r: _write(r / "inputs.json", "[3]"), "inputs.json"),
    "inputs.json of lists": (
        lambda r: _write(r / "inputs.json", '{"train_data": [], "test_data": []}'),
        "inputs.json",
    ),
    "inputs.json odd": (
        lambda r: _write(r / "inputs.json", '{"train_data": {"images": 1}, "test_data": 3}'),
        "inputs.json",
    ),
    "checkpoint cut": (lambda r: _cut(_checkpoint(r)), "iteration_2"),
    "checkpoint empty": (lambda r: _write(_checkpoint(r), b""), "iteration_2"),
    "checkpoint text": (lambda r: _write(_checkpoint(r), "<html>"), "iteration_2"),
    "checkpoint a folder": (lambda r: _folder_instead(_checkpoint(r)), "iteration_2"),
    "checkpoint without state": (
        lambda r: shutil.copy(r / "checkpoints/best_model.pdparams", _checkpoint(r)),
        "iteration_2",
    ),
    "checkpoint of a SAM run": (
        lambda r: shutil.copy(
            old_runs.unpack("sam", r.parent / "other") / "checkpoints/iteration_2.pdparams",
            _checkpoint(r),
        ),
        "iteration_2",
    ),
    "another network": (lambda r: _edit(r, lambda f: f.networks.clear()), "iteration_2"),
    "another architecture": (
        lambda r: _edit(r, lambda f: f.entry().state.popitem()),
        "iteration_2",
    ),
    "step a text": (lambda r: _state(r, "step", "two"), "iteration_2"),
    "step missing": (lambda r: _edit(r, lambda f: f.training.pop("step")), "iteration_2"),
    "step negative": (lambda r: _state(r, "step", -2), "iteration_2"),
    "step of another name": (lambda r: _state(r, "step", 7), "iteration_2"),
    "elapsed a list": (lambda r: _state(r, "elapsed", [1]), "iteration_2"),
    "elapsed not a number": (lambda r: _state(r, "elapsed", float("nan")), "iteration_2"),
    "optimizer missing": (lambda r: _edit(r, lambda f: f.training.pop("optimizer")), "iteration_2"),
    "optimizer a number": (lambda r: _state(r, "optimizer", 3), "iteration_2"),
    "optimizer of texts": (
        lambda r: _edit(
            r, lambda f: f.training["optimizer"].update(dict.fromkeys(f.training["optimizer"], "x"))
        ),
        "iteration_2",
    ),
    "optimizer of other shapes": (
        lambda r: _edit(
            r,
            lambda f: f.training["optimizer"].update(
                {k: np.zeros([2, 2], "float32") for k in f.training["optimizer"]}
            ),
        ),
        "iteration_2",
    ),
    "optimizer cut": (
        lambda r: _edit(r, lambda f: f.training["optimizer"].popitem()),
        "iteration_2",
    ),
    "optimizer not finite": (
        lambda r: _edit(r, lambda f: next(iter(f.training["optimizer"].values())).fill(np.nan)),
        "iteration_2",
    ),
    "weights not finite": (
        lambda r: _edit(r, lambda f: next(iter(f.entry().state.values())).fill(np.inf)),
        "iteration_2",
    ),
    "something new": (lambda r: _state(r, "ema_of_tomorrow", 1), "iteration_2"),
    "training a list": (lambda r: _rewrite(r, lambda c: {**c, "training": [1]}), "iteration_2"),
    "checkpoints a file": (lambda r: _file_instead(r / "checkpoints"), "checkpoints"),
    "stats.jsonl a folder": (lambda r: _folder_instead(r / "stats.jsonl"), "stats.jsonl"),
    "timestamp.txt a folder": (lambda r: _folder_instead(r / "timestamp.txt"), "timestamp.txt"),
    "images a file": (lambda r: _file_instead(r / "images"), "images"),
    "the run a file": (_file_instead, "age"),
}


@pytest.mark.parametrize("damage", LOCKED)
def test_damage_that_stops_a_run_is_named_in_one_line(run, capsys, damage):
    change, named = LOCKED[damage]
    change(run)
    assert _resume(run) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and named in error
    assert "Traceback" not in error


GOOD = '{"split": "train", "step": 1, "time": 1.0, "loss": 2.0}\n'
SURVIVED = {
    "a damaged line": (GOOD + "{half\n" + GOOD.replace("1,", "2,"), 2),
    "NULs": (GOOD + "\0" * 100 + "\n", 1),
    "a line of another kind": (GOOD + "[1, 2]\n" + "3\n" + "null\n", 1),
    "a record without a step": (GOOD + '{"split": "train", "loss": 1.0}\n', 1),
    "a step that is a text": (GOOD + GOOD.replace("1,", '"two",'), 1),
    "a value that is a list": (GOOD + GOOD.replace("2.0", "[2.0]"), 1),
    "a deep line": (GOOD + DEEP + "\n", 1),
    "a long number": (GOOD + GOOD.replace("2.0", "9" * 5000), 1),
    "bytes that are not text": (GOOD.encode() + b"\xff\xfe\n", 1),
    "Windows line ends": (GOOD.replace("\n", "\r\n"), 1),
}


@pytest.mark.parametrize("damage", SURVIVED)
def test_damaged_records_are_left_out_and_said(run, capsys, damage):
    content, left = SURVIVED[damage]
    _write(run / "stats.jsonl", content)
    assert _resume(run) == 0
    said = capsys.readouterr()
    assert ("stats.jsonl: line" in said.out + said.err) == ("Windows" not in damage)
    records = read_records(run)
    assert len([r for r in records if r["split"] == "train"]) == left + 1
    assert plot_run.main([str(run)]) == 0


def test_a_damaged_visualdl_log_does_not_stop_a_run(run):
    pytest.importorskip("visualdl")
    for content in (b"", b"\xff" * 100, os.urandom(1000), b"\x08" + b"\0" * 7 + b"\xff" * 8):
        (run / "visualdl").mkdir(exist_ok=True)
        (run / "visualdl" / "vdlrecords.run.log").write_bytes(content)
        assert _resume(run) == 0
    _file_instead(run / "visualdl")
    assert _resume(run) == 0


def test_a_bit_that_flipped_in_optimizer_state_is_noticed(run, capsys):
    assert _resume(run) == 0  # this version's checkpoints have a checksum
    path = run / "checkpoints" / "iteration_3.pdparams"
    content = bytearray(path.read_bytes())
    array = next(iter(WeightFile.read(path).training["optimizer"].values()))
    place = content.index(array.tobytes()[:16])
    content[place] ^= 1
    path.write_bytes(content)
    assert _resume(run) == 2
    assert "iteration_3" in capsys.readouterr().err


STYLEGAN2 = {
    "no size": lambda file: file.networks["g"].arch.pop("size"),
    "a size in words": lambda file: file.networks["g"].arch.update(size="big"),
    "channels in a list": lambda file: file.networks["g"].arch.update(channels=[1, 2]),
    "one channel for all": lambda file: file.networks["d"].arch.update(channels=3),
    "a group in words": lambda file: file.networks["d"].arch.update(group_size="x"),
    "a group of none": lambda file: file.networks["d"].arch.update(group_size=0),
    "a batch in words": lambda file: file.options.update(batch_size="x"),
    "images in a list": lambda file: file.training.update(image_offset=[1]),
    "signs in words": lambda file: file.training.update(signs=["a"]),
}


@pytest.mark.parametrize("damage", STYLEGAN2)
def test_a_damaged_description_of_stylegan2_is_refused(tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    run = old_runs.unpack("stylegan2", tmp_path)
    checkpoint = max((run / "checkpoints").glob("iteration_*"))
    file = WeightFile.read(checkpoint)
    STYLEGAN2[damage](file)
    file.write(checkpoint)
    options = read_json(StyleGAN2Options, run / "opt.json")
    with pytest.raises(CheckpointError, match=checkpoint.name):
        train_stylegan2(dataclasses.replace(options, total_kimg=0.024))
