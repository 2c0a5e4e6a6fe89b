"""Measures against numbers found by hand; damage that decoders pass over."""

import numpy as np
import pytest
from PIL import Image

from paddle_sam.core.decoding import decode_image
from paddle_sam.errors import ImageError
from paddle_sam.imagesets.prepare.defects import (
    check_file,
    conversions,
    data_ran_out,
    has_grey_side,
    measure,
    perceptual_hash,
    why_empty,
)
from tests.unit.imagesets.prepare.dirty import encoded, pictures


def test_measures_of_a_chessboard():
    board = np.indices((8, 8)).sum(axis=0) % 2 * 200
    measures = measure(np.repeat(board[..., None], 3, axis=2).astype(np.uint8))
    assert measures.contrast == pytest.approx(100)
    assert measures.background == pytest.approx(0.5)
    assert measures.colour == pytest.approx(0, abs=1e-4)
    assert measures.tint == 0
    # Each inner pixel differs by 200 from all four neighbours: +-800.
    assert measures.sharpness == pytest.approx(800**2)


def test_colour_is_the_distance_from_one_line_of_colours():
    tinted = np.linspace(0, 1, 64).reshape(8, 8, 1) * np.array([250, 200, 100])
    assert measure(np.rint(tinted).astype(np.uint8)).colour < 0.6  # rounding
    two = np.zeros((8, 8, 3), np.uint8)
    two[:4, :, 0] = two[::2, :, 1] = 100  # red and green switch independently
    # Two independent directions of deviation 50 each, of which one is the line.
    assert measure(two).colour == pytest.approx(50 * np.sqrt(64 / 63))


def test_nothing_is_too_empty_when_limits_are_zero():
    assert why_empty(measure(np.full((8, 8, 3), 7, np.uint8)), 0, 0) is None


def test_damage_that_decoders_pass_over():
    image = pictures(1)[0]
    for data in (encoded(image, "PNG"), encoded(image, "JPEG"), encoded(image, "GIF")):
        check_file(data, "it")
    check_file(encoded(image, "JPEG") + b"a camera's own bytes", "it")
    with pytest.raises(ImageError, match="it: the JPEG is truncated: it has no end"):
        check_file(encoded(image, "JPEG")[:-2], "it")
    with pytest.raises(ImageError, match="the PNG is truncated at byte 1000"):
        check_file(encoded(image, "PNG")[:1000], "it")
    assert not has_grey_side(image)
    image[:, -9:] = 128
    assert has_grey_side(image)
    assert not has_grey_side(np.full((20, 20, 3), 128, np.uint8))  # that grey, but all of it


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
def test_a_grey_border_is_told_from_missing_data(options):
    """Both decode to the same grey: canvases of detection tools, and what libjpeg paints."""
    image = np.ascontiguousarray(np.pad(pictures(1)[0], ((32, 32), (0, 0), (0, 0)), "edge"))
    image[:32] = image[-32:] = 128
    sound = encoded(image, "JPEG", **options)
    assert has_grey_side(decode_image(sound, "it")) and not data_ran_out(sound)
    detailed = encoded(pictures(1)[0], "JPEG", **options)
    assert not data_ran_out(detailed)
    if not options.get("progressive"):
        cut = detailed[: len(detailed) * 2 // 3] + b"\xff\xd9"
        assert has_grey_side(decode_image(cut, "it")) and data_ran_out(cut)


def test_a_thumbnail_does_not_end_a_jpeg():
    """The end marker of a preview in the EXIF block is not the picture's."""
    exif = Image.Exif()
    exif[0x010E] = "preview \xff\xd9".encode("latin-1")
    data = encoded(pictures(1)[0], "JPEG", exif=exif)
    assert b"\xff\xd9" in data[:200]
    with pytest.raises(ImageError, match="truncated"):
        check_file(data[:-100], "it")


def test_a_plain_file_has_nothing_peculiar():
    assert conversions(encoded(pictures(1)[0], "JPEG")) == []
    assert conversions(encoded(Image.new("LA", (4, 4)), "PNG")) == ["grey scale", "transparency"]


def test_the_hash_of_one_wave():
    """A horizontal cosine puts its frequency's bit on, whatever brightness and contrast."""
    wave = np.cos((np.arange(32) + 0.5) * np.pi * 3 / 32)
    for contrast, level in ((100, 128), (30, 90)):
        row = np.rint(level + contrast * wave).astype(np.uint8)
        bits = f"{perceptual_hash(np.tile(row[None, :, None], (32, 1, 3))):064b}"
        assert bits[0] == "1" and bits[3] == "1"  # the mean, and the third wave across
