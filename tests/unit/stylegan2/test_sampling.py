"""`scripts/sample.py`: files, resuming, sheets, and what goes wrong."""

import errno
import json
import threading

import numpy as np
import pytest
from PIL import Image

from paddle_sam.core.images import read_image
from paddle_sam.stylegan2 import sampling
from scripts.sample import main
from tests.unit.ageing.tiny import save_generator, tiny_generator


@pytest.fixture
def command(tmp_path):
    """Runs the command on a tiny generator; further options are appended."""
    save_generator(tmp_path / "tiny.pdparams", tiny_generator())
    always = ["--checkpoint_path", tmp_path / "tiny.pdparams", "--exp_dir", tmp_path / "out"]
    always += ["--engine", "eager"]
    return lambda *options: main([str(option) for option in [*always, *options]])


def images(folder):
    return {path.name: read_image(path) for path in sorted(folder.glob("seed*"))}


def test_a_file_for_each_seed_whatever_else_is_asked_for(command, tmp_path):
    assert command("--seeds", "0-6,2005") == 0
    found = images(tmp_path / "out" / "samples")
    assert list(found) == [*[f"seed000{seed}.png" for seed in range(7)], "seed2005.png"]
    assert found["seed0001.png"].shape == (32, 32, 3)
    assert command("--seeds", "5,2005", "--exp_dir", tmp_path / "other") == 0
    for name, image in images(tmp_path / "other" / "samples").items():
        np.testing.assert_array_equal(image, found[name])


def test_batches_give_the_same_faces(command, tmp_path):
    assert command("--seeds", "0-6") == 0
    assert command("--seeds", "0-6", "--exp_dir", tmp_path / "other", "--batch_size", 3) == 0
    found = images(tmp_path / "out" / "samples")
    for name, image in images(tmp_path / "other" / "samples").items():
        assert np.abs(found[name].astype(int) - image).max() <= 1


def test_margins_are_cut(command, tmp_path, capsys):
    assert command("--seeds", "0-1") == 0
    wide = ["--seeds", "0-1", "--rows", 24, "--exp_dir", tmp_path / "wide"]
    assert command(*wide, "--grid", "2x1", "--no-labels") == 0
    found = images(tmp_path / "out" / "samples")
    for name, image in images(tmp_path / "wide" / "samples").items():
        np.testing.assert_array_equal(image, found[name][4:28])
    assert read_image(tmp_path / "wide" / "sample_sheets" / "sheet_1.png").shape == (96, 256, 3)
    assert command("--seeds", "0-1", "--rows", 33, "--exp_dir", tmp_path / "more") == 2
    assert "--rows: this model has 32 rows, found 33" in capsys.readouterr().err


def test_finished_files_are_left_alone(command, tmp_path, capsys):
    folder = tmp_path / "out" / "samples"
    assert command("--seeds", "0-4") == 0
    whole = images(folder)
    (folder / "seed0003.png").unlink()
    (folder / ".seed0002.x.tmp.png").write_bytes(b"left by a kill")
    times = {path: path.stat().st_mtime_ns for path in folder.glob("seed*")}
    assert command("--seeds", "0-5") == 0
    assert "2 images made, 4 were there" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    again = images(folder)
    assert len(again) == 6
    for name, image in whole.items():
        np.testing.assert_array_equal(again[name], image)


def test_examples_by_number_and_made_again_on_request(command, tmp_path):
    assert command("--seeds", "0,12", "--names", "example") == 0
    folder = tmp_path / "out" / "samples"
    assert {path.name for path in folder.glob("*.png")} == {"example-0.png", "example-12.png"}
    (folder / "example-12.png").write_bytes(b"old")
    assert command("--seeds", "0,12", "--names", "example") == 0
    assert (folder / "example-12.png").read_bytes() == b"old"
    assert command("--seeds", "12", "--names", "example", "--no-skip_existing") == 0
    assert read_image(folder / "example-12.png").shape == (32, 32, 3)


def test_images_are_written_while_the_next_are_rendered(command, tmp_path, monkeypatch):
    second, overlapped = threading.Event(), []
    render, save = sampling.render_seeds, sampling.save_image

    def watched_render(generator, seeds, options):
        if 1 in seeds:
            second.set()
        return render(generator, seeds, options)

    def slow_save(path, image):
        overlapped.append(second.wait(20))
        save(path, image)

    monkeypatch.setattr(sampling, "render_seeds", watched_render)
    monkeypatch.setattr(sampling, "save_image", slow_save)
    assert command("--seeds", "0-1") == 0
    assert overlapped == [True, True]
    assert len(images(tmp_path / "out" / "samples")) == 2


def test_samples_made_in_another_way_are_not_mixed_in(command, tmp_path, capsys):
    assert command("--seeds", "0") == 0
    assert command("--seeds", "1", "--truncation", "-0.5") == 2
    message = capsys.readouterr().err
    assert "samples made in another way (truncation was 0.7, is -0.5)" in message
    assert "exp_dir: " in message and "name another folder" in message
    save_generator(tmp_path / "tiny.pdparams", tiny_generator(seed=1))
    assert command("--seeds", "1") == 2
    assert "(weights was " in capsys.readouterr().err
    (tmp_path / "out" / "samples" / "made_from.json").write_text("{")
    assert command("--seeds", "1") == 2
    assert "made_from.json: cannot be read" in capsys.readouterr().err
    (tmp_path / "out" / "samples" / "made_from.json").unlink()
    assert command("--seeds", "1") == 2
    assert "holds samples, but no made_from.json" in capsys.readouterr().err


def test_a_full_disk_is_explained_and_the_run_goes_on_later(command, tmp_path, capsys, monkeypatch):
    real, written = Image.Image.save, []

    def save(self, path, **options):
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        real(self, path, **options)

    monkeypatch.setattr(Image.Image, "save", save)
    assert command("--seeds", "0-8") == 2
    message = capsys.readouterr().err
    assert "could not be written (No space left on device). Free some space" in message
    assert len(images(tmp_path / "out" / "samples")) == 4
    monkeypatch.setattr(Image.Image, "save", real)
    assert command("--seeds", "0-8") == 0
    assert "5 images made, 4 were there" in capsys.readouterr().out


def test_sheets(command, tmp_path, capsys):
    assert command("--seeds", "0-6", "--grid", "2x2", "--no-labels", "--tile_size", 32) == 0
    sheets = sorted((tmp_path / "out" / "sample_sheets").iterdir())
    assert [sheet.name for sheet in sheets] == ["sheet_1.png", "sheet_2.png"]
    assert str(sheets[1]) in capsys.readouterr().out
    first, found = read_image(sheets[0]), images(tmp_path / "out" / "samples")
    rows = [np.hstack([found[f"seed000{k}.png"] for k in pair]) for pair in ((0, 1), (2, 3))]
    np.testing.assert_array_equal(first, np.vstack(rows))
    assert command("--seeds", "0-6", "--grid", "4x2", "--tile_size", 64) == 0
    labelled = read_image(sheets[0])
    assert labelled.shape == (2 * (64 + 12) + 4, 4 * 64, 3)
    assert (labelled[64:76, :64] < 128).any()


@pytest.mark.parametrize("noise", ["random", "none"])
def test_other_noise(command, tmp_path, noise):
    assert command("--seeds", "0-3", "--noise", noise) == 0
    found = images(tmp_path / "out" / "samples")
    assert command("--seeds", "2", "--noise", noise, "--exp_dir", tmp_path / "alone") == 0
    alone = images(tmp_path / "alone" / "samples")["seed0002.png"]
    np.testing.assert_array_equal(alone, found["seed0002.png"])
    assert command("--seeds", "2", "--exp_dir", tmp_path / "stored") == 0
    assert (images(tmp_path / "stored" / "samples")["seed0002.png"] != alone).any()


def test_options_that_cannot_work_write_nothing(command, tmp_path, capsys):
    for options, words in (
        (["--seeds", "3-1"], "seeds: expected seeds"),
        (["--grid", "3"], "grid: expected COLUMNSxROWS"),
        (["--truncation_cutoff", "9"], "truncation_cutoff: this model has 8 codes"),
        (["--checkpoint_path", "none.pdparams"], "none.pdparams: there is no such file"),
        (["--engine", "onednn", "--noise", "none"], "has the stored noise only"),
    ):
        assert command(*options) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_record_says_how_they_were_made(command, tmp_path):
    assert command("--seeds", "0", "--truncation_cutoff", 3) == 0
    record = json.loads((tmp_path / "out" / "samples" / "made_from.json").read_text())
    assert (record["truncation"], record["truncation_cutoff"]) == (0.7, 3)
    assert len(record["weights"]) == 64
