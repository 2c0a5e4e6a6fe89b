"""Options of the inference scripts, `--target_age` above all."""

import pytest

from paddle_sam.ageing.options import FolderPerAgeOptions, SideBySideOptions, parse_ages
from paddle_sam.core.command import parse
from paddle_sam.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "ages"),
    [
        ("0,10,20", [0, 10, 20]),
        ("30", [30]),
        ("0-100:10", list(range(0, 101, 10))),
        ("0-100:30", [0, 30, 60, 90]),
        ("18-21", [18, 19, 20, 21]),
        ("50-50", [50]),
        ("0-100", list(range(101))),
        ("70,10", [70, 10]),
        ("10,10.0,5-10:5", [10, 5]),
        (" 7 , 8.5 ", [7, 8.5]),
        ("0,100", [0, 100]),
    ],
)
def test_ages(text, ages):
    assert parse_ages(text) == ages
    assert all(type(age) is float for age in parse_ages(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found ''"),
        ("10,,20", "found ''"),
        ("old", "found 'old'"),
        ("-5", "found '-5'"),
        ("1e1", "found '1e1'"),
        ("nan", "found 'nan'"),
        ("10:20", "found '10:20'"),
        ("20-10", "rising years, found '20-10'"),
        ("0-50:0", "FROM-TO:STEP .* found '0-50:0'"),
        ("0.5-3", "whole.* found '0.5-3'"),
        ("101", "ages from 0 to 100, found 101"),
        ("100.5", "ages from 0 to 100, found 100.5"),
        ("0-200:60", "ages from 0 to 100, found 120"),
        ("0-99999999999999", "ages from 0 to 100, found 101"),
    ],
)
def test_other_texts_are_refused(text, words):
    with pytest.raises(ConfigError, match=f"target_age: expected .*{words}"):
        parse_ages(text)


def test_defaults_are_the_published_ones():
    config = parse(SideBySideOptions, [], "")
    assert parse_ages(config.target_age) == [float(age) for age in range(0, 101, 10)]
    assert (config.test_batch_size, config.test_workers, config.n_images) == (0, 2, 0)
    assert not (config.resize_outputs or config.no_align)
    assert not parse(FolderPerAgeOptions, [], "").couple_outputs


def test_takes_the_published_command_line():
    argv = (
        "--exp_dir=exp --checkpoint_path=sam.pdparams --data_path=photos --test_batch_size=4"
        " --test_workers=0 --couple_outputs --target_age=0,10,20 --n_images=5 --resize_outputs"
    )
    config = parse(FolderPerAgeOptions, argv.split(), "")
    assert (config.exp_dir, config.n_images, config.test_workers) == ("exp", 5, 0)
    assert config.couple_outputs and config.resize_outputs
    shared = [word for word in argv.split() if word != "--couple_outputs"]
    assert parse(SideBySideOptions, shared, "").labels


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--n_images", "-1"], "n_images: expected at least 0, found -1"),
        (["--test_batch_size", "-1"], "test_batch_size: expected at least 0, found -1"),
        (["--test_workers", "-2"], "test_workers: expected at least 0, found -2"),
        (["--tile_size", "-1"], "tile_size: expected at least 0, found -1"),
        (["--strength", "inf"], "strength: expected a finite number, found inf"),
    ],
)
def test_impossible_numbers(argv, words):
    with pytest.raises(ConfigError, match=words):
        parse(SideBySideOptions, argv, "")
