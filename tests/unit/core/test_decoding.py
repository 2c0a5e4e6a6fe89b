"""What is opened as an image and what is not, and how much of it."""

import io
import os
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
import skimage.data
from PIL import EpsImagePlugin, Image

from paddle_sam.core import decoding
from paddle_sam.core.decoding import decode_image
from paddle_sam.core.folders import list_images
from paddle_sam.core.images import read_image
from paddle_sam.errors import ImageError, Note

FACE = skimage.data.astronaut()[:160, 150:270]


def encoded(image, file_format="PNG", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, file_format, **options)
    return stream.getvalue()


def with_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk, after its header."""
    check = struct.pack(">I", zlib.crc32(kind + content))
    return data[:33] + struct.pack(">I", len(content)) + kind + content + check + data[33:]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["a.eps", "a.jpg", "a.png"])
def test_postscript_never_reaches_its_interpreter(tmp_path, monkeypatch, name):
    def interpret(*_):
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", interpret)
    monkeypatch.setattr("subprocess.check_call", interpret)
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(ImageError, match=f"{name}: found a PostScript file"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "SGI", "IM", "PDF"])
def test_formats_that_are_not_named_are_not_opened(kind):
    with pytest.raises(ImageError, match="expected an image|found no image"):
        decode_image(encoded(FACE, kind), "a.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000"])
def test_formats_that_are_named_are_opened_whatever_the_suffix(tmp_path, kind):
    (tmp_path / "a.png").write_bytes(encoded(FACE, kind))
    assert read_image(tmp_path / "a.png").shape == FACE.shape


def test_heic_is_read_where_the_extra_is_installed(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(FACE)).save(tmp_path / "a.heic", quality=90)
    image = read_image(tmp_path / "a.heic")
    assert np.abs(image.astype(int) - FACE).mean() < 4


def test_a_jpeg_over_the_limit_is_read_reduced():
    data = encoded(FACE, "JPEG", quality=95)
    for pixels, factor in ((160 * 120, 1), (160 * 120 - 1, 2), (160 * 120 // 4, 2)):
        image = decode_image(data, "a.jpg", pixels)
        assert image.shape == (160 // factor, 120 // factor, 3)
    half = np.asarray(Image.fromarray(FACE).resize((60, 80), Image.Resampling.BOX)).astype(int)
    assert np.abs(decode_image(data, "a.jpg", 5000) - half).mean() < 3
    with pytest.raises(ImageError, match=f"120 x 160 pixels.*{decoding.MEGAPIXELS_VARIABLE}"):
        decode_image(data, "a.jpg", 160 * 120 // 4 - 1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP"])
def test_other_kinds_over_the_limit_are_refused_before_they_are_decoded(monkeypatch, kind):
    data = encoded(FACE, kind)
    monkeypatch.setattr(decoding, "flatten", None)  # which would be called with the pixels
    with pytest.raises(ImageError, match="120 x 160 pixels"):
        decode_image(data, "a", 160 * 120 - 1)


def test_a_jpeg_that_pillow_alone_refuses_is_read(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    assert decode_image(encoded(FACE, "JPEG"), "a").shape == FACE.shape


LONG = b"x" * (1 << 20) + b"y" * 500_000


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"zTXt", b"history\0\0" + zlib.compress(LONG)),
        (b"iTXt", b"history\0\1\0\0\0" + zlib.compress(LONG)),
        (b"iCCP", b"profile\0\0" + zlib.compress(LONG)),
        (b"zTXt", b"bomb\0\0" + zlib.compress(bytes(200 << 20))),
        (b"zTXt", b"short\0\0" + zlib.compress(b"x")),
    ],
)
def test_large_metadata_of_a_png_do_not_matter(kind, content):
    image = decode_image(with_chunk(encoded(FACE), kind, content), "a.png")
    assert np.array_equal(image, FACE)


def test_pages_that_are_not_used_are_noted(tmp_path):
    pages = [Image.fromarray(FACE), Image.fromarray(FACE[::-1].copy())]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    with pytest.warns(Note, match="scan.tif: has 2 pages; the first is used"):
        assert np.array_equal(read_image(tmp_path / "scan.tif"), FACE)
    pages[0].save(tmp_path / "one.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(tmp_path / "one.tif")


def test_what_is_not_damage_is_not_called_damage(monkeypatch):
    def fail(*_):
        raise RuntimeError("this Pillow has no such decoder")

    monkeypatch.setattr(decoding, "flatten", fail)
    with pytest.raises(ImageError, match=r"could not be decoded \(this Pillow has.*If other"):
        decode_image(encoded(FACE), "a.png")

    def too_much(*_):
        raise MemoryError

    monkeypatch.setattr(decoding, "flatten", too_much)
    with pytest.raises(ImageError, match="needs more memory than is free"):
        decode_image(encoded(FACE), "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    found = list_images(tmp_path)
    assert [path.name for path in found] == ["a.jpg", "b.jpg"]
    for path, kind in zip(found, ("a named pipe", "a device"), strict=True):
        problems = []

        def read(path=path, problems=problems):
            with pytest.raises(ImageError) as caught:
                read_image(path)
            problems.append(str(caught.value))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(5)
        assert not reader.is_alive(), "reading waits for ever"
        assert f"it is {kind}" in problems[0]


def test_linked_folders_are_followed_once_and_system_folders_left_out(tmp_path):
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    names = ["a.jpg", "@eaDir/a.jpg/SYNO.jpg", "#recycle/b.jpg", "$RECYCLE.BIN/c.jpg"]
    names += ["__MACOSX/d.jpg", ".Trash/e.jpg", "Thumbnails/f.jpg", "deep/g.JPE", "Thumbs.db"]
    for path in [*(photos / name for name in names), elsewhere / "h.png"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (photos / "link").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(photos)
    found = [path.relative_to(photos).as_posix() for path in list_images(photos)]
    assert found == ["a.jpg", "deep/g.JPE", "link/h.png"]


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "film.mp4").touch()
    with pytest.raises(ImageError, match=r"found no image.*1 ending in \.mp4.*1 ending in \.txt"):
        list_images(tmp_path)
