"""Lists, grids and rates that the sampling commands understand."""

import pytest

from paddle_sam.errors import ConfigError
from paddle_sam.options import parse_numbers
from paddle_sam.stylegan2.options import FiguresOptions, VideosOptions
from paddle_sam.stylegan2.parsing import parse_grid, parse_levels, parse_seeds, parse_styles

RANGES = {"coarse": range(2), "middle": range(2, 4), "fine": range(4, 10)}


def test_seeds():
    assert parse_seeds("7") == [7]
    assert parse_seeds(" 5-7, 2005 ,6,4294967295") == [5, 6, 7, 2005, 4294967295]
    assert len(parse_seeds("0-999,2005")) == 1001


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "seeds: expected seeds such as 0,7 or rising ranges such as 0-999, found ''"),
        ("3,,5", "found ''"),
        ("-3", "found '-3'"),
        ("9-3", "found '9-3'"),
        ("1.5", "found '1.5'"),
        ("0-4294967296", "expected seeds up to 4294967295, found 4294967296"),
        ("0-4294967295", "expected at most 1000000 seeds"),
        ("0-999999,2000000-2999999,5000000", "expected at most 1000000 seeds"),
    ],
)
def test_what_is_no_list_of_seeds_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_seeds(text)


def test_styles_by_name_and_number():
    assert parse_styles("fine", RANGES, "--x") == [4, 5, 6, 7, 8, 9]
    assert parse_styles(" 0-3 ", RANGES, "--x") == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="x: expected coarse, middle, fine or codes such as"):
        parse_styles("coars", RANGES, "--x")
    with pytest.raises(ConfigError, match="this model has the codes 0 to 9, found 10"):
        parse_styles("8-10", RANGES, "--x")


@pytest.mark.parametrize("text", ["", "8", "8x", "0x3", "3x101", "-1x2", "8*4"])
def test_what_is_no_grid_is_refused(text):
    with pytest.raises(ConfigError, match=r"grid: expected COLUMNSxROWS such as 8x4"):
        parse_grid(text)


def test_numbers_and_levels():
    assert parse_numbers("1,-0.5", "--psis") == [1, -0.5]
    for text in ("", "1,,2", "a", "nan", "inf"):
        with pytest.raises(ConfigError, match="psis: expected numbers such as 1,0.5,-1"):
            parse_numbers(text, "--psis")
    for text in ("", "-1", "7", "0,x"):
        with pytest.raises(ConfigError, match="expected numbers from 0 to 6"):
            parse_levels(text, "--uncurated_levels")


def test_names():
    assert FiguresOptions(figures="noise, mixing,noise").names == ["noise", "mixing"]
    with pytest.raises(ConfigError, match="figures: expected some of uncurated, .*found 'nois'"):
        FiguresOptions(figures="nois").names  # noqa: B018
    with pytest.raises(ConfigError, match="figures: expected some of .*found none"):
        FiguresOptions(figures=" ").names  # noqa: B018
    with pytest.raises(ConfigError, match="snapshots: name the folder"):
        VideosOptions(videos="training").names  # noqa: B018
    with pytest.raises(ConfigError, match="snapshots: is used by videos training"):
        VideosOptions(snapshots="log").names  # noqa: B018


def test_bit_rates():
    assert VideosOptions().bits_per_second is None
    assert VideosOptions(bitrate="5M").bits_per_second == 5_000_000
    assert VideosOptions(bitrate="800k").bits_per_second == 800_000
    for text in ("5 Mbit", "M", "-5M", "10", "9999M"):
        with pytest.raises(ConfigError, match="bitrate: expected bits per second such as 5M"):
            VideosOptions(bitrate=text).bits_per_second  # noqa: B018


def test_lengths():
    assert VideosOptions(duration=2.5, fps=20, smoothing=0.2).frames == 50
    assert VideosOptions(duration=0.1, fps=1).frames == 2
    with pytest.raises(ConfigError, match=r"smoothing: expected at most a quarter of duration"):
        VideosOptions(duration=3.0, smoothing=1.0)
    assert VideosOptions(duration=3.0, fps=10).smoothing_frames == 7.5
    assert VideosOptions(duration=60.0, fps=10).smoothing_frames == 10
    assert VideosOptions(duration=60.0, fps=10, smoothing=2.5).smoothing_frames == 25
