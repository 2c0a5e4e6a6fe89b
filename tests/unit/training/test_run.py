"""The loop, its checkpoints and its records, with a trainer that only counts."""

import dataclasses
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import CheckpointError, ConfigError, ImageError, OutputError, TrainingError
from paddle_sam.options import RunOptions
from paddle_sam.training.curves import draw_curves, find_runs
from paddle_sam.training.folder import RunCheckpoints, RunLogger, prepare_folder
from paddle_sam.training.run import Intervals, Job, Run
from paddle_sam.training.trainers import RunState
from tests.unit.training.comparing import records


class Counter:
    """Adds each batch to its weight; test losses are given."""

    def __init__(self, test_losses=(3.0,)):
        self.weight = 0
        self.test_losses = itertools.cycle(test_losses)
        self.steps = []
        self.learning_rate = 1e-4
        self.state = RunState(lambda: WeightFile("counter", options={"weight": self.weight}))
        self.state.add("moment", lambda: 2 * self.weight, self._take_moment)

    def _take_moment(self, moment):
        self.weight = moment // 2

    def train_step(self, batch, step):
        if batch == "bad":
            raise TrainingError("step 3: loss is nan.")
        self.steps.append(step)
        self.weight += batch
        return {"loss": float(self.weight)}

    def evaluate(self, batches):
        assert list(batches) == ["test"]
        return {"loss": next(self.test_losses)}

    def panel(self):
        return np.full((4, 4, 3), self.weight % 256, np.uint8)


def _run(folder, trainer, **intervals):
    defaults = dict.fromkeys(("board_interval", "image_interval", "val_interval"), 2)
    given = {"max_steps": 6, "save_interval": 2, **defaults, **intervals}
    checkpoints = RunCheckpoints(Path(folder) / "checkpoints", keep=2)
    job = Job(trainer, Intervals(**given), loader=None, test_batches=lambda: ["test"])
    return Run(folder, job, 6, checkpoints)


def weight_in(path):
    return WeightFile.read(path).options["weight"]


def _train(run, batches=None):
    feed = batches or (lambda step: (1 + i for i in itertools.count(step)))
    run.train(feed(run.step), say=lambda line: None)


def test_events_happen_at_their_intervals_and_at_the_end(tmp_path):
    _train(_run(tmp_path, Counter(), max_steps=7, board_interval=3, val_interval=4))
    assert [r["step"] for r in records(tmp_path, "train")] == [3, 6, 7]
    assert [r["step"] for r in records(tmp_path, "test")] == [4, 7]
    panels = sorted(path.name for path in (tmp_path / "images/train/faces").iterdir())
    assert panels == [f"{step:07d}.jpg" for step in (1, 2, 4, 6, 7)]
    resources = records(tmp_path, "run")[0]
    assert resources["learning_rate"] == 1e-4
    assert resources["peak_memory_gb"] > 0.01


def test_numbered_checkpoints_are_pruned_and_the_best_is_kept(tmp_path):
    _train(_run(tmp_path, Counter(test_losses=(3.0, 2.0, 4.0))))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best_model.pdparams", "iteration_4.pdparams", "iteration_6.pdparams"]
    best = WeightFile.read(tmp_path / "checkpoints" / "best_model.pdparams")
    assert best.options["weight"] == 1 + 2 + 3 + 4
    assert best.training is None
    notes = (tmp_path / "timestamp.txt").read_text()
    assert "**Best**: Step - 4, Loss - 2.000" in notes
    assert "**Best**: Step - 6" not in notes


def test_a_run_goes_on_where_it_stopped(tmp_path):
    straight = Counter()
    _train(_run(tmp_path / "straight", straight))
    _train(_run(tmp_path / "parts", Counter(), max_steps=4))
    trainer = Counter()
    resumed = _run(tmp_path / "parts", trainer)
    resumed.resume(resumed.checkpoints.read())
    assert resumed.step == 4
    _train(resumed)
    assert trainer.weight == straight.weight
    assert trainer.steps == [4, 5]
    for split in ("train", "test"):
        steps = [r["step"] for r in records(tmp_path / "parts", split)]
        assert steps == [2, 4, 6]


def test_the_best_loss_survives_a_restart(tmp_path):
    _train(_run(tmp_path, Counter(test_losses=(1.0,)), max_steps=4))
    resumed = _run(tmp_path, Counter(test_losses=(2.0,)))
    resumed.resume(resumed.checkpoints.read())
    _train(resumed)
    assert weight_in(tmp_path / "checkpoints" / "best_model.pdparams") == 1 + 2


def test_a_test_loss_that_is_no_number_is_never_the_best(tmp_path):
    _train(_run(tmp_path, Counter(test_losses=(float("nan"), 5.0, 4.0))))
    notes = (tmp_path / "timestamp.txt").read_text().splitlines()
    best = [line for line in notes if line.startswith("**Best**")]
    assert best == ["**Best**: Step - 4, Loss - 5.000", "**Best**: Step - 6, Loss - 4.000"]


def test_a_finished_run_says_so(tmp_path):
    _train(_run(tmp_path, Counter()))
    again = _run(tmp_path, Counter())
    again.resume(again.checkpoints.read())
    said = []
    again.train(iter(()), say=said.append)
    assert "has 6 steps already, as many as asked" in said[0]


def test_a_loss_that_is_no_number_names_the_last_good_checkpoint(tmp_path):
    run = _run(tmp_path, Counter())
    with pytest.raises(TrainingError, match="loss is nan. Last checkpoint: .*iteration_2.pdparams"):
        _train(run, lambda step: (b for b in (1, 2, "bad")))
    assert weight_in(tmp_path / "checkpoints" / "iteration_2.pdparams") == 3


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    trainer = Counter()
    trainer.state.add(
        "optimizer/w", lambda: np.array([1.0, np.nan if trainer.weight > 3 else 0.0]), None
    )
    run = _run(tmp_path, trainer)
    with pytest.raises(TrainingError, match=r"step 4: training/optimizer/w .*iteration_2"):
        _train(run)
    assert run.checkpoints.latest().name == "iteration_2.pdparams"


def test_images_that_cannot_be_read_cost_no_step(tmp_path):
    def batches(step):
        yield from (1, 2, 3)
        raise ImageError("too many")

    run = _run(tmp_path, Counter(), save_interval=6)
    with pytest.raises(ImageError):
        _train(run, batches)
    assert weight_in(tmp_path / "checkpoints" / "iteration_3.pdparams") == 1 + 2 + 3


def test_a_note_has_the_values_of_its_own_step(tmp_path):
    _train(_run(tmp_path, Counter(test_losses=(5.0,)), val_interval=4, max_steps=4))
    assert (tmp_path / "timestamp.txt").read_text().splitlines() == [
        *("Step - 2,", "{'loss': 3.0}"),
        *("**Best**: Step - 4, Loss - 5.000", "{'loss': 5.0}"),
        *("Step - 4,", "{'loss': 5.0}"),
    ]


def test_a_first_signal_ends_the_run_with_a_checkpoint(tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def batches():
        yield 1
        os.kill(os.getpid(), signal.SIGTERM)  # heard before the second step is computed
        yield from (2, 4)

    run, said = _run(tmp_path, Counter(), save_interval=6), []
    with pytest.raises(KeyboardInterrupt):
        run.train(batches(), say=said.append)
    assert "stopped after step 1, which is saved" in said[-1]
    assert weight_in(tmp_path / "checkpoints" / "iteration_1.pdparams") == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_progress_without_a_terminal_is_a_line_now_and_then(tmp_path, monkeypatch, capfd):
    said, clock = [], itertools.count(0, 25)
    monkeypatch.setattr("paddle_sam.training.run.time.monotonic", lambda: next(clock))
    run = _run(tmp_path, Counter())
    run.train((i for i in range(1, 7)), say=said.append)
    assert said == ["step 3 of 6, loss 6.0000", "step 6 of 6, loss 21.0000"]
    assert capfd.readouterr().err == ""


def test_snapshots_are_taken_with_the_panels(tmp_path):
    taken = []

    def snapshot(step, panel):
        return functools.partial(taken.append, (step, panel.shape))

    run = _run(tmp_path, Counter(), image_interval=3)
    run.job = dataclasses.replace(run.job, snapshot=snapshot)
    _train(run)
    assert taken == [(step, (4, 4, 3)) for step in (1, 3, 6)]


def test_a_rate_is_that_of_the_steps_since_the_last_record(tmp_path):
    def slow_at_first(step):
        for value in itertools.count(step + 1):
            time.sleep(0.1 if value <= 3 else 0.0)
            yield value

    _train(_run(tmp_path, Counter(), max_steps=7, board_interval=3), slow_at_first)
    rows = records(tmp_path, "run")
    for before, after in itertools.pairwise([{"step": 0, "hours": 0.0}, *rows]):
        seconds = 3600 * (after["hours"] - before["hours"])
        rate = 6 * (after["step"] - before["step"]) / seconds
        assert after["images_per_second"] == pytest.approx(rate, rel=1e-3)


def test_a_trainer_without_a_judge_has_no_best_model(tmp_path):
    trainer = Counter()
    trainer.evaluate = lambda batches: {}
    _train(_run(tmp_path, trainer))
    assert records(tmp_path, "test") == []
    assert not (tmp_path / "checkpoints" / "best_model.pdparams").exists()


def test_a_checkpoint_is_read_by_its_step(tmp_path):
    _train(_run(tmp_path, Counter()))
    checkpoints = RunCheckpoints(tmp_path / "checkpoints")
    assert checkpoints.read(4).options["weight"] == 1 + 2 + 3 + 4
    with pytest.raises(ConfigError, match="iteration_3.pdparams does not exist; the latest"):
        checkpoints.read(3)


def test_going_back_sets_later_checkpoints_aside(tmp_path, capsys):
    _train(_run(tmp_path, Counter()))
    trainer = Counter()
    again = _run(tmp_path, trainer)
    again.resume(again.checkpoints.read(4))
    aside = tmp_path / "checkpoints/after_4"
    assert f"Resuming from step 4; moved later checkpoints to {aside}" in capsys.readouterr().out
    assert weight_in(aside / "iteration_6.pdparams") == 1 + 2 + 3 + 4 + 5 + 6
    assert again.checkpoints.latest().name == "iteration_4.pdparams"
    _train(again)
    assert (trainer.steps, trainer.weight) == ([4, 5], 21)


def test_the_latest_checkpoint_is_the_highest_number(tmp_path):
    checkpoints = RunCheckpoints(tmp_path)
    assert checkpoints.read() is None
    for step in (9, 10, 100):
        checkpoints.save(step, WeightFile("x", options={"step": step}, training={"step": step}))
    (tmp_path / ".iteration_200.abc.tmp.pdparams").write_bytes(b"unfinished")
    (tmp_path / "iteration_300.pdparams.part").write_bytes(b"unfinished")
    assert checkpoints.read().options["step"] == 100


def test_a_damaged_checkpoint_is_not_passed_over(tmp_path):
    checkpoints = RunCheckpoints(tmp_path)
    path = checkpoints.save(1, WeightFile("x", options={"values": list(range(100))}))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="iteration_1.*truncated or damaged"):
        checkpoints.read()


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    run = _run(tmp_path, Counter(), save_interval=3)
    real = RunCheckpoints.save

    def save(self, step, content):
        if step == 6:
            monkeypatch.setattr("os.fsync", _no_space)
        return real(self, step, content)

    monkeypatch.setattr(RunCheckpoints, "save", save)
    with pytest.raises(OutputError, match="iteration_6.* could not be written"):
        _train(run)
    assert run.checkpoints.read().options["weight"] == 6
    assert not list((tmp_path / "checkpoints").glob(".*tmp*"))


def _no_space(handle):
    raise OSError(28, "No space left on device")


KILLED = """
    import os, pickle, signal, sys
    sys.path.insert(0, {tests!r})
    from tests.unit.training.test_run import Counter, _run, _train

    dump = pickle.dump

    def killed(content, stream, protocol):
        if content["options"]["weight"] == 10:  # the checkpoint of step 4
            whole = pickle.dumps(content, protocol)
            stream.write(whole[: len(whole) // 2])
            stream._stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        dump(content, stream, protocol=protocol)

    pickle.dump = killed
    _train(_run({folder!r}, Counter()))
"""


def test_a_kill_while_writing_leaves_the_previous_checkpoint(tmp_path, request):
    code = textwrap.dedent(KILLED).format(tests=str(request.config.rootpath), folder=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == -9, ended.stderr.decode()
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert any(".tmp" in name for name in left), "the kill came before or after the write"
    trainer = Counter()
    resumed = _run(tmp_path, trainer)
    resumed.resume(resumed.checkpoints.read())
    assert resumed.step == 2
    _train(resumed)
    assert trainer.weight == 1 + 2 + 3 + 4 + 5 + 6
    assert [r["step"] for r in records(tmp_path, "train")] == [2, 4, 6]


def test_records_are_not_written_twice(tmp_path):
    logger = RunLogger(tmp_path, say=lambda line: None)
    logger.scalars("train", 5, {"loss": 1.0})
    with pytest.raises(AssertionError, match="train was logged at step 5 before"):
        logger.scalars("train", 5, {"loss": 1.0})


def test_half_a_record_left_by_a_kill_is_dropped(tmp_path):
    logger = RunLogger(tmp_path, say=lambda line: None)
    logger.scalars("train", 1, {"loss": 1.0})
    logger.close()
    with (tmp_path / "stats.jsonl").open("a") as stream:
        stream.write('{"split": "train", "st')
    RunLogger(tmp_path, step=1, say=lambda line: None).scalars("train", 2, {"loss": 2.0})
    assert [r["loss"] for r in records(tmp_path, "train")] == [1.0, 2.0]


def test_files_that_a_kill_left_half_written_are_cleared_away(tmp_path):
    _train(_run(tmp_path, Counter(), max_steps=2))
    left = tmp_path / "images" / "train" / "faces" / ".0000003.k2j_4m8x.tmp.jpg"
    left.write_bytes(b"half")
    RunLogger(tmp_path, step=2, say=lambda line: None).close()  # does not stumble over it
    prepare_folder(tmp_path, RunOptions(), {})
    assert not left.exists()
    panels = [path.name for path in sorted((tmp_path / "images/train/faces").iterdir())]
    assert panels == ["0000001.jpg", "0000002.jpg"]


def test_visualdl_holds_every_curve_and_picture_once_after_a_restart(tmp_path, monkeypatch):
    """One log, because VisualDL shows one of a folder; what a kill left is cut, the rest kept."""
    visualdl = pytest.importorskip("visualdl")
    _train(_run(tmp_path, Counter(), max_steps=4))
    (log,) = (tmp_path / "visualdl").iterdir()
    before = log.read_bytes()
    logger = RunLogger(tmp_path, step=4, say=lambda line: None)
    logger.scalars("train", 5, {"loss": 7.0})  # a step that is done again
    logger.close()
    with log.open("ab") as stream:
        stream.write(b"\xff\x00\x00\x00\x00\x00\x00\x00half")
    resumed = _run(tmp_path, Counter())
    resumed.resume(resumed.checkpoints.read())
    monkeypatch.setattr("paddle_sam.training.folder.read_image", None)  # no panel is replayed
    _train(resumed)
    assert list((tmp_path / "visualdl").iterdir()) == [log]
    assert log.read_bytes().startswith(before)
    reader = visualdl.LogReader(file_path=str(log))
    steps = [(record.id, record.value) for record in reader.get_data("scalar", "train/loss")]
    assert steps == [(2, 3.0), (4, 10.0), (6, 21.0)]
    pictures = reader.get_data("image", "test/faces")
    assert [record.id for record in pictures] == [2, 4, 6]


def test_a_lost_visualdl_log_is_made_again(tmp_path):
    visualdl = pytest.importorskip("visualdl")
    _train(_run(tmp_path, Counter(), max_steps=4))
    shutil.rmtree(tmp_path / "visualdl")
    RunLogger(tmp_path, step=4, say=lambda line: None).close()
    (log,) = (tmp_path / "visualdl").iterdir()
    reader = visualdl.LogReader(file_path=str(log))
    assert [record.id for record in reader.get_data("scalar", "train/loss")] == [2, 4]
    assert [record.id for record in reader.get_data("image", "test/faces")] == [2, 4]


def test_curves_are_drawn_from_the_records(tmp_path):
    pytest.importorskip("matplotlib")
    _train(_run(tmp_path, Counter()))
    draw_curves(tmp_path, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1200, 280)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    with pytest.raises(ConfigError, match="holds no records"):
        draw_curves(tmp_path / "nothing", tmp_path / "x.png")
    with pytest.raises(ConfigError, match="curves.txt: expected a name that ends in one of .*png"):
        draw_curves(tmp_path, tmp_path / "curves.txt")


def test_curves_of_a_run_that_is_writing_a_record(tmp_path):
    pytest.importorskip("matplotlib")
    _train(_run(tmp_path, Counter()))
    with (tmp_path / "stats.jsonl").open("a") as stream:
        stream.write('{"split": "train", "st')
    draw_curves(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()


def test_values_that_differ_in_their_guide_share_a_panel(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, **options: drawn.append(self))
    lines = [
        {
            "split": "train",
            "step": n,
            "time": 0.0,
            "loss": 1.0,
            "D/latent_real": n % 2,
            "G/ref_ds": 2,
        }
        for n in range(1, 401)
    ]
    lines.append({"split": "test", "step": 400, "time": 0.0, "latent/FID": 50, "reference/FID": 60})
    lines[0]["D/ref_real"] = 3
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "stats.jsonl").write_text(text)
    draw_curves(tmp_path, tmp_path / "curves.png")
    panels = {axes.get_title(): axes for axes in drawn[0].axes}
    assert list(panels) == ["D/real", "G/ds", "FID"]
    labels = [line.get_label() for line in panels["D/real"].get_lines()]
    assert labels[1:] == ["train, latent", "train, ref"]  # the first is the pale one
    mean = panels["D/real"].get_lines()[1].get_ydata()
    assert len(mean) == 381 and np.allclose(mean, 0.5)
    assert [x.get_label() for x in panels["FID"].get_lines()] == ["test, latent", "test, reference"]


def test_a_folder_without_runs_cannot_be_visualized(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        find_runs(tmp_path, "visualdl")
    _train(_run(tmp_path / "a", Counter()))
    assert find_runs(tmp_path, "visualdl") == [tmp_path / "a"]
