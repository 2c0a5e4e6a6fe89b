import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from paddle_sam.core.images import read_image
from paddle_sam.faces.paste import has_deep_colours, save_pasted

RNG = np.random.default_rng(0)
CAMERA, ORIENTATION = 0x0110, 0x0112


@pytest.fixture
def photo():
    return RNG.integers(0, 256, (20, 30, 3), np.uint8)


def changed(before):
    after = before.copy()
    after[5:10, 5:10] = 255 - after[5:10, 5:10] // 2
    return after


def test_transparency_stays_and_what_is_not_changed_keeps_its_numbers(tmp_path, photo):
    alpha = RNG.integers(100, 256, (20, 30, 1), np.uint8)
    Image.fromarray(np.dstack([photo, alpha])).save(tmp_path / "a.png")
    before = read_image(tmp_path / "a.png")
    after = changed(before)
    save_pasted(tmp_path / "b.png", tmp_path / "a.png", before, after)
    found = np.asarray(Image.open(tmp_path / "b.png"))
    np.testing.assert_array_equal(found[..., 3:], alpha)
    same = (before == after).all(axis=-1)
    np.testing.assert_array_equal(found[same][:, :3], photo[same])
    # Laid on white again, what was pasted is what was asked for, as far as transparency allows.
    possible = (after >= 255 - alpha.astype(int)).all(axis=-1)
    again = read_image(tmp_path / "b.png").astype(int)
    assert np.abs(again - after)[possible].max() <= 1


def test_exif_stays_without_its_orientation(tmp_path, photo):
    exif = Image.Exif()
    exif[CAMERA], exif[ORIENTATION] = "a camera", 6
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    before = read_image(tmp_path / "a.png")
    assert before.shape == (30, 20, 3)
    save_pasted(tmp_path / "b.png", tmp_path / "a.png", before, changed(before))
    with Image.open(tmp_path / "b.png") as found:
        assert found.getexif()[CAMERA] == "a camera"
        assert found.getexif().get(ORIENTATION, 1) == 1
        np.testing.assert_array_equal(np.asarray(found), changed(before))


def test_the_colour_profile_stays(tmp_path, photo):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo).save(tmp_path / "a.png", icc_profile=profile)
    before = read_image(tmp_path / "a.png")
    after = changed(before)
    save_pasted(tmp_path / "b.png", tmp_path / "a.png", before, after)
    with Image.open(tmp_path / "b.png") as found:
        assert found.info["icc_profile"] == profile
        assert np.abs(np.asarray(found).astype(int) - after).max() <= 2


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_modes_become_rgb(tmp_path, photo, mode):
    suffix = ".tif"
    Image.fromarray(photo).convert(mode).save(tmp_path / f"a{suffix}")
    before = read_image(tmp_path / f"a{suffix}")
    save_pasted(tmp_path / "b.png", tmp_path / f"a{suffix}", before, changed(before))
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), changed(before))


def test_pixels_without_a_file_are_written_as_they_are(tmp_path, photo):
    save_pasted(tmp_path / "b.png", None, photo, changed(photo))
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), changed(photo))


def png_16(values):
    """A PNG file of uint16 values [H, W, 3], which Pillow cannot write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_16_bits_become_8_with_their_colours(tmp_path, photo):
    deep = photo.astype(np.uint16) * 257
    (tmp_path / "a.png").write_bytes(png_16(deep))
    before = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(before, photo)
    save_pasted(tmp_path / "b.png", tmp_path / "a.png", before, changed(before))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), changed(photo))
    assert has_deep_colours(tmp_path / "a.png") and not has_deep_colours(tmp_path / "b.png")
