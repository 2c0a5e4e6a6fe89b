"""Strips and sheets: sizes, order, captions under their images."""

import numpy as np
import pytest

from paddle_sam.core.images import PAPER, caption_line, save_sheet, stack, strip


def tile(value, size=8):
    return np.full((size, size, 3), value, np.uint8)


def test_tiles_stand_side_by_side_in_order():
    picture = strip([tile(10), tile(20, 16), tile(30, 4)], 8)
    assert picture.shape == (8, 24, 3) and picture.dtype == np.uint8
    assert [int(picture[4, x, 0]) for x in (4, 12, 20)] == [10, 20, 30]


def test_a_tile_of_the_right_size_is_not_resampled():
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(strip([noise, noise], 8)[:, 8:], noise)


@pytest.mark.parametrize(("size", "line"), [(96, 16), (128, 21), (64, 12), (1024, 170)])
def test_captions_add_a_line_of_text(size, line):
    picture = strip([tile(0, size)] * 2, size, ["input", "100"])
    assert picture.shape == (size + line, 2 * size, 3)
    assert (picture[:size] == 0).all()
    assert (picture[size:] == 255).any() and (picture[size:] < 128).any()


def test_each_caption_is_centred_under_its_image():
    line = caption_line(["0", "", "100"], 120).astype(float)
    ink = (255 - line).sum(axis=(0, 2))
    columns = np.arange(360)
    for index in (0, 2):
        cell = slice(120 * index, 120 * (index + 1))
        centre = (ink[cell] * columns[cell]).sum() / ink[cell].sum()
        assert abs(centre - (120 * index + 59.5)) < 3
    assert ink[120:240].sum() == 0
    rows = (255 - line).sum(axis=(1, 2))
    assert abs((rows * np.arange(20)).sum() / rows.sum() - 9.5) < 2.5


def test_captions_follow_the_text():
    assert not np.array_equal(caption_line(["10"], 96), caption_line(["20"], 96))


def test_strips_are_stacked_with_a_gap_and_filled_up():
    sheet = stack([tile(10, 8), np.full((4, 12, 3), 20, np.uint8)], gap=3)
    assert sheet.shape == (15, 12, 3)
    assert (sheet[:8, :8] == 10).all() and (sheet[11:] == 20).all()
    assert (sheet[8:11] == PAPER).all() and (sheet[:8, 8:] == PAPER).all()
    assert stack([tile(1)]).shape == (8, 8, 3)


def test_a_sheet_too_long_for_its_format_becomes_png(tmp_path):
    save_sheet(tmp_path / "a.webp", np.zeros((2, 16383, 3), np.uint8))
    save_sheet(tmp_path / "b.webp", np.zeros((2, 16384, 3), np.uint8))
    assert {path.name for path in tmp_path.iterdir()} == {"a.webp", "b.webp.png"}
