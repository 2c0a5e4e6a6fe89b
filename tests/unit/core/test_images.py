import io
import struct
import zlib

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageCms

from paddle_sam.core.folders import list_images
from paddle_sam.core.images import (
    read_image,
    resize,
    rounded_there,
    save_image,
    to_network,
    to_uint8,
)
from paddle_sam.errors import ConfigError, ImageError, OutputError
from tests.unit.core.icc_profiles import (
    P3_TO_XYZ,
    SRGB_TO_XYZ,
    cmyk_profile,
    grey_profile,
    rgb_profile,
)

FACE = skimage.data.astronaut()[:160, 150:270]
GREY = FACE[..., 1]


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def written(tmp_path, data: bytes, name: str = "image.png"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks) -> bytes:
    """A PNG written by hand, for kinds that Pillow reads but does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


def png16(values: np.ndarray) -> bytes:
    """16-bit RGB PNG of uint16 `[H, W, 3]`."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, 2, rows)


# --- odd images that must be read, each with its pixels ----------------------------------------


def with_alpha(alpha: int) -> np.ndarray:
    return np.dstack([FACE, np.full(FACE.shape[:2], alpha, np.uint8)])


def on_white(alpha: int) -> np.ndarray:
    return np.rint(FACE * (alpha / 255) + (255 - alpha)).astype(np.uint8)


def grey3(values) -> np.ndarray:
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


def palette_image() -> Image.Image:
    indices = (GREY > 128).astype(np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([200, 10, 20, 30, 40, 250])
    return image


PALETTE_RGB = np.where(GREY[..., None] > 128, (30, 40, 250), (200, 10, 20)).astype(np.uint8)
PALETTE_RGB_HOLES = np.where(GREY[..., None] > 128, (30, 40, 250), 255).astype(np.uint8)
RAMP16 = np.linspace(0, 65535, 120).astype(np.uint16)[None].repeat(4, 0)
RAMP8 = grey3(np.rint(RAMP16 / 257))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CHECKER = Image.fromarray(GREY > 128)

# name: (file bytes, expected pixels, largest difference allowed)
READABLE = {
    "rgb png": (encoded(Image.fromarray(FACE)), FACE, 0),
    "grey png": (encoded(Image.fromarray(GREY)), grey3(GREY), 0),
    "grey jpeg": (encoded(Image.fromarray(GREY), "JPEG", quality=100), grey3(GREY), 4),
    "bilevel": (encoded(CHECKER), grey3((GREY > 128) * 255), 0),
    "palette": (encoded(palette_image()), PALETTE_RGB, 0),
    "palette with a transparent colour": (
        encoded(palette_image(), transparency=0),
        PALETTE_RGB_HOLES,
        0,
    ),
    "palette with partial transparency": (
        encoded(palette_image(), transparency=bytes((0, 255))),
        PALETTE_RGB_HOLES,
        0,
    ),
    "gif": (encoded(palette_image(), "GIF"), PALETTE_RGB, 0),
    "alpha opaque": (encoded(Image.fromarray(with_alpha(255))), FACE, 0),
    "alpha half": (encoded(Image.fromarray(with_alpha(128))), on_white(128), 1),
    "alpha clear": (encoded(Image.fromarray(with_alpha(0))), np.full_like(FACE, 255), 0),
    "grey with alpha": (
        encoded(Image.fromarray(np.dstack([GREY, np.full_like(GREY, 51)]))),
        grey3(np.rint(GREY * 0.2 + 204)),
        1,
    ),
    "one transparent colour in rgb": (
        encoded(Image.fromarray(PALETTE_RGB), transparency=(200, 10, 20)),
        PALETTE_RGB_HOLES,
        0,
    ),
    "grey 16 bit": (encoded(Image.fromarray(RAMP16)), RAMP8, 0),
    "grey 16 bit, dark": (encoded(Image.fromarray(RAMP16 // 300)), grey3(RAMP16 // 300 > 128), 0),
    "grey 16 bit tiff": (encoded(Image.fromarray(RAMP16), "TIFF"), RAMP8, 0),
    "rgb 16 bit": (png16(np.dstack([RAMP16] * 3)), RAMP8, 1),
    "float tiff 0..1": (
        encoded(Image.fromarray((RAMP16 / 65535).astype(np.float32)), "TIFF"),
        RAMP8,
        0,
    ),
    "float tiff 0..255": (
        encoded(Image.fromarray((RAMP16 / 257).astype(np.float32)), "TIFF"),
        RAMP8,
        0,
    ),
    "float tiff, black": (
        encoded(Image.fromarray(np.zeros((3, 3), np.float32)), "TIFF"),
        np.zeros((3, 3, 3)),
        0,
    ),
    "32-bit tiff": (encoded(Image.fromarray(RAMP16.astype(np.int32)), "TIFF"), RAMP8, 0),
    "cmyk jpeg": (
        encoded(Image.fromarray(FACE).convert("CMYK"), "JPEG", quality=100, subsampling=0),
        FACE,
        6,
    ),
    "cmyk tiff": (encoded(Image.fromarray(FACE).convert("CMYK"), "TIFF"), FACE, 1),
    "webp": (encoded(Image.fromarray(FACE), "WEBP", lossless=True), FACE, 0),
    "bmp": (encoded(Image.fromarray(FACE), "BMP"), FACE, 0),
    "1x1": (encoded(Image.fromarray(FACE[:1, :1])), FACE[:1, :1], 0),
    "first frame of an animation": (
        encoded(
            palette_image(), "GIF", save_all=True, append_images=[Image.new("P", CHECKER.size)]
        ),
        PALETTE_RGB,
        0,
    ),
    "broken colour profile": (encoded(Image.fromarray(FACE), icc_profile=b"no profile"), FACE, 0),
    "profile of another colour space": (
        encoded(Image.fromarray(FACE), icc_profile=grey_profile(1.0)),
        FACE,
        0,
    ),
    "sRGB profile": (encoded(Image.fromarray(FACE), icc_profile=SRGB), FACE, 0),
}


@pytest.mark.parametrize("kind", READABLE)
def test_reads_odd_images(tmp_path, kind):
    data, expected, tolerance = READABLE[kind]
    image = read_image(written(tmp_path, data))
    assert image.dtype == np.uint8 and image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    stored = {
        1: FACE,
        2: FACE[:, ::-1],
        3: FACE[::-1, ::-1],
        4: FACE[::-1],
        5: FACE.transpose(1, 0, 2),
        6: np.rot90(FACE),
        7: FACE[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(FACE, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(read_image(written(tmp_path, data)), FACE)


def test_damaged_exif_leaves_the_image_as_stored(tmp_path):
    data = encoded(Image.fromarray(FACE), "JPEG", quality=100, exif=b"Exif\0\0MM\0*\xff\xff\xff")
    assert read_image(written(tmp_path, data, "a.jpg")).shape == FACE.shape


def srgb_curve(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_display_p3_is_converted_to_srgb(tmp_path):
    muted = (FACE // 2 + 64).astype(np.uint8)  # inside sRGB, so that nothing is clipped
    profile = rgb_profile(P3_TO_XYZ, 2.2)
    image = read_image(written(tmp_path, encoded(Image.fromarray(muted), icc_profile=profile)))
    linear = (muted / 255.0) ** 2.2 @ (np.linalg.inv(SRGB_TO_XYZ) @ P3_TO_XYZ).T
    expected = srgb_curve(linear.clip(0, 1)) * 255
    assert np.abs(image - expected).max() < 2
    assert np.abs(image - muted.astype(float)).max() > 5


def test_profile_of_a_transparent_grey_image_is_applied(tmp_path):
    pixels = np.dstack([np.full((2, 2), 55, np.uint8), np.full((2, 2), 255, np.uint8)])
    data = encoded(Image.fromarray(pixels), icc_profile=grey_profile(1.0))
    expected = srgb_curve(np.array(55 / 255)) * 255
    assert np.abs(read_image(written(tmp_path, data)) - expected).max() < 2


def test_profile_of_a_cmyk_jpeg_is_applied(tmp_path):
    """In this profile full cyan ink looks dark red, so ignoring it would show."""
    profile = cmyk_profile({(1, 0, 0, 0): (30, 60, 40)})
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    path = written(tmp_path, encoded(cyan, "JPEG", quality=100, icc_profile=profile), "a.jpg")
    red, green, blue = read_image(path)[8, 8].astype(int)
    assert red > 100 > 40 > max(green, blue)


# --- files that must be refused, each with what the message says ---------------------------------

HUGE = png(100_000, 100_000, 8, 2, b"")
JPEG = encoded(Image.fromarray(FACE), "JPEG")
NOT_A_NUMBER = np.full((4, 4), np.nan, np.float32)

BROKEN = {
    "empty": (b"", "empty"),
    "html saved as jpg": (b"\n<!DOCTYPE html><html><body>Sign in</body>", "HTML page"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "SVG"),
    "pdf": (b"%PDF-1.7", "PDF"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "zip": (b"PK\x03\x04rest", "ZIP"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC.*Convert it to JPEG"),
    "text": (b"just words", "no image in it.*just words"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "damaged or truncated"),
    "jpeg header only": (JPEG[:20], "truncated|no image"),
    "truncated png": (READABLE["rgb png"][0][:2000], "damaged or truncated"),
    "png with rotten pixels": (
        READABLE["rgb png"][0][:3000] + bytes(500) + READABLE["rgb png"][0][3500:],
        "damaged or truncated",
    ),
    "png declaring 10 gigapixels": (HUGE, "absurd size.*megapixels"),
    "float tiff with NaN": (encoded(Image.fromarray(NOT_A_NUMBER), "TIFF"), "not finite"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_refuses_broken_files(tmp_path, kind):
    data, words = BROKEN[kind]
    path = written(tmp_path, data, "holiday.jpg")
    with pytest.raises(ImageError, match=f"(?s)holiday.jpg: .*({words})"):
        read_image(path)


def test_refuses_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError, match="absent.png: there is no such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="it is a folder"):
        read_image(tmp_path)


# --- saving, listing -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".PNG"])
def test_lossless_formats_round_trip(tmp_path, suffix):
    path = tmp_path / "new" / f"face{suffix}"
    save_image(path, FACE)
    assert np.array_equal(read_image(path), FACE)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_jpeg_is_saved_at_high_quality(tmp_path):
    save_image(tmp_path / "face.jpg", FACE)
    error = read_image(tmp_path / "face.jpg").astype(int) - FACE
    assert np.sqrt((error**2).mean()) < 4


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        ("a.xyz", FACE, "'.xyz'.*use one of .png"),
        ("a", FACE, "a file without suffix"),
        ("a.png", FACE / 255, "expected uint8.*float64"),
        ("a.png", GREY, r"expected shape \[\*, \*, 3\]"),
    ],
)
def test_save_refuses(tmp_path, name, image, words):
    with pytest.raises(ConfigError, match=words):
        save_image(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


def test_save_onto_a_folder_is_an_output_error(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match=r"a\.png: could not be written"):
        save_image(tmp_path / "a.png", FACE)


def test_list_images_sorts_naturally_and_skips_the_rest(tmp_path):
    for name in ("10.jpg", "2.JPG", "b/1.png", "notes.txt", ".hidden.png", ".git/x.png", "1.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["1.heic", "2.JPG", "10.jpg", "b/1.png"]
    assert list_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]


def test_list_images_refuses_nothing(tmp_path):
    with pytest.raises(ImageError, match="no image in this folder"):
        list_images(tmp_path)
    with pytest.raises(ImageError, match="no such file or folder"):
        list_images(tmp_path / "absent")


# --- network layout, resizing ----------------------------------------------------------------


def test_network_layout_round_trip():
    batch = to_network([FACE, FACE[::-1]])
    assert batch.shape == (2, 3, 160, 120) and batch.dtype == np.float32
    assert batch[0, 2, 5, 7] == pytest.approx(FACE[5, 7, 2] / 127.5 - 1, abs=1e-6)
    assert batch.flags.c_contiguous and batch.dtype == np.float32
    assert to_uint8(batch).flags.c_contiguous
    assert np.array_equal(to_uint8(batch), np.stack([FACE, FACE[::-1]]))


@pytest.mark.parametrize("shape", [(2, 3, 40, 30), (3, 40, 30)])
def test_images_of_a_gpu_are_rounded_there_to_the_same_levels(shape):
    import paddle

    values = np.random.default_rng(0).uniform(-1.2, 1.2, shape).astype("float32")
    found = rounded_there(paddle.to_tensor(values))
    assert found.flags.c_contiguous and found.dtype == np.uint8
    np.testing.assert_array_equal(found, to_uint8(values))
    np.testing.assert_array_equal(to_uint8(paddle.to_tensor(values)), found)
    values[..., 0, 0] = np.nan
    for function, images in ((rounded_there, paddle.to_tensor(values)), (to_uint8, values)):
        with pytest.raises(ImageError, match="values that are not numbers"):
            function(images)
    assert np.array_equal(to_uint8(to_network(FACE)[0]), FACE)


def test_to_uint8_clamps_and_rounds():
    levels = np.array([-5.0, -1, 0.0, 0.499 / 127.5, 0.51 / 127.5, 1, 9]).reshape(1, 1, 1, 7)
    found = to_uint8(levels.repeat(3, 1))[0, 0, :, 0]
    assert found.tolist() == [0, 0, 128, 128, 128, 255, 255]


def test_network_layout_refuses():
    with pytest.raises(ConfigError, match=r"expected shape \[160, 120, 3\]"):
        to_network([FACE, FACE[1:]])
    with pytest.raises(ConfigError, match="at least one image"):
        to_network([])
    with pytest.raises(ConfigError, match=r"expected shape \[3, \*, \*\]"):
        to_uint8(np.zeros((4, 8, 8)))
    with pytest.raises(ImageError, match="not numbers"):
        to_uint8(np.full((3, 2, 2), np.nan))


def test_resize_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, (32, 16))
    assert small.shape == (32, 16, 3)
    assert np.abs(small.astype(int) - 127.5).max() < 16  # plain subsampling would give 0 or 255
    assert resize(FACE, (160, 120)) is FACE
    assert resize(FACE, 64).shape == (64, 64, 3)


@pytest.mark.parametrize("name", ["wide.jpg", "wide.webp"])
def test_formats_that_cannot_hold_the_size_are_named(tmp_path, name):
    with pytest.raises(ConfigError, match=f"{name}: 66000 x 1 pixels are more than.*use .png"):
        save_image(tmp_path / name, np.zeros((1, 66000, 3), np.uint8))
    save_image(tmp_path / "wide.png", np.zeros((1, 66000, 3), np.uint8))
