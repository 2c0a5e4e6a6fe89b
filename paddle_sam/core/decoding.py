"""Bytes of an image file to pixels, by the decoders of this package only and within its limits."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import re
import struct
import warnings
import zlib

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, JpegImagePlugin, UnidentifiedImageError

from paddle_sam.core.files import number_from
from paddle_sam.core.processes import batches
from paddle_sam.errors import ImageError, Note, first_line

# Photographs. Phones take 108 million pixels; reading such a JPEG takes 1.1 GB of memory, reading a
# PNG of 119 million with transparency 1.8 GB.
MEGAPIXELS_VARIABLE = "PADDLE_SAM_MAX_MEGAPIXELS"
PIXELS = 10**6 * number_from(MEGAPIXELS_VARIABLE, 120)
# A JPEG may have four times as many: it can be read at half its size, but its whole code has to be
# read for that, which takes some seconds for 200 million pixels.
_HALVED = 4
IMAGE_BYTES = 1 << 30  # an uncompressed 16-bit TIFF of PIXELS is 0.7 GB
METADATA_BYTES = 1 << 20  # one PNG chunk, unpacked; Pillow refuses the whole image beyond that

# The only decoders that ever see a file, whatever its name says: no PostScript, no vector formats.
_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_CONVERT = "Convert it to JPEG or PNG first."

# What a file that is not an image usually is: (pattern at its start, name, what to do).
_FOREIGN = (
    (
        rb"....ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1)",
        "a HEIC photograph that cannot be read here",
        f"Reading them needs `pip install pillow-heif`. {_CONVERT}",
    ),
    (
        rb"....ftypavi[fs]",
        "an AVIF image, which this Pillow cannot read",
        f"Upgrade Pillow. {_CONVERT}",
    ),
    (
        rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)",
        "an HTML page",
        "Download the image itself; what was saved is the page around it.",
    ),
    (rb"\s*<(\?xml.*<)?svg", "an SVG drawing", _CONVERT),
    (rb"%PDF", "a PDF document", _CONVERT),
    (rb"(\xc5\xd0\xd3\xc6|\s*%!)", "a PostScript file", _CONVERT),
    (rb"version https://git-lfs", "a Git LFS pointer", "Fetch the real file with `git lfs pull`."),
    (rb"PK\x03\x04", "a ZIP archive", "Unpack it first."),
)


def decode_image(
    data: bytes,
    name: str,
    pixels: int = PIXELS,
    page: int | None = None,
    labels: bool = False,
) -> np.ndarray:
    """Read the bytes of an image file, as `read_image` does.

    Args:
        name: for messages.
        pixels: the most that are decoded.
        page: which page of a TIFF, from 0; None takes the first, and notes that there are more.
        labels: read a label map, uint8 [H, W]: the numbers of a palette or grey image as they are.

    Raises:
        ImageError: it cannot be read as an image.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty. Copy or download it again.")
    try:
        with open_image(data) as image:
            if page:
                image.seek(page)
            _fit(image, pixels)
            if page is None and (pages := _pages(image)) > 1:
                note = f"{name}: has {pages} pages; the first is used"
                warnings.warn(note, Note, stacklevel=2)
            image.load()
            if labels:
                return _labels(image)
            return np.array(flatten(upright(image), image.format))
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {_too_large(str(error), pixels)}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: {_describe_foreign(data)}") from error
    except MemoryError as error:
        raise ImageError(
            f"{name}: needs more memory than is free. Reduce the image, or close other programs."
        ) from error
    except (OSError, SyntaxError, EOFError) as error:  # what Pillow's decoders say of damage
        raise ImageError(
            f"{name}: found a damaged or truncated image ({first_line(error)})."
            " Copy or download it again."
        ) from error
    except Exception as error:  # of damage too, or of what this version of Pillow cannot do
        raise ImageError(
            f"{name}: could not be decoded ({first_line(error)}). If other programs show it, save"
            " it again as PNG; if not, it is damaged: copy or download it again."
        ) from error


def open_image(data: bytes) -> Image.Image:
    """Open the bytes of an image file with Pillow, by the decoders of this package only.

    The pixels are not decoded yet.
    """
    if data.startswith(_JPEG):  # `Image.open` refuses sizes that can be read reduced
        return JpegImagePlugin.jpeg_factory(io.BytesIO(data))
    if data.startswith(_PNG):
        data = _without_large_metadata(data)
    return Image.open(io.BytesIO(data), formats=_formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    with contextlib.suppress(ImportError):  # an optional package
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _fit(image: Image.Image, pixels: int) -> None:
    """Have a large JPEG decoded at half its size; refuse what stays too large."""
    width, height = image.size
    if width * height > pixels:
        jpeg = isinstance(image, JpegImagePlugin.JpegImageFile)
        if not jpeg or width * height > _HALVED * pixels:
            raise ImageError(_too_large(f"{width} x {height} pixels", pixels))
        image.draft(None, (width // 2, height // 2))


def _too_large(found: str, pixels: int) -> str:
    return (
        f"the image declares an absurd size ({found}). If it is genuine, reduce it to below"
        f" {pixels // 10**6} megapixels, or allow more in {MEGAPIXELS_VARIABLE}."
    )


def count_pages(data: bytes) -> int:
    """Return how many pages a TIFF file has; 1 for other files, whatever they hold."""
    try:
        with open_image(data) as image:
            return _pages(image)
    except Exception:  # reading the image will say what is wrong with it
        return 1


def _pages(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1) if image.format == "TIFF" else 1


def _without_large_metadata(data: bytes) -> bytes:
    """A PNG file without compressed texts and profiles over `METADATA_BYTES`.

    Its pixels do not need them, and Pillow refuses the whole file for them.
    """
    kept, place = [data[:8]], 8
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        chunk = data[place : place + 12 + length]
        if kind not in (b"zTXt", b"iTXt", b"iCCP") or not _expands(chunk[8:-4], kind):
            kept.append(chunk)
        place += 12 + length
    return b"".join(kept)


def _expands(content: bytes, kind: bytes) -> bool:
    """Whether a PNG chunk's compressed part is larger than allowed when unpacked."""
    if kind == b"iTXt":  # keyword, flag and method of compression, language, translated keyword
        after = content.find(b"\0") + 3
        packed = content[after:].split(b"\0", 2)[-1]
    else:
        packed = content[content.find(b"\0") + 2 :]
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed, METADATA_BYTES)
    except zlib.error:
        return len(content) > METADATA_BYTES
    return bool(unpacking.unconsumed_tail)


def _describe_foreign(data: bytes) -> str:
    for pattern, name, advice in _FOREIGN:
        if re.match(pattern, data[:1024], re.DOTALL):
            return f"found {name}, expected an image. {advice}"
    return f"found no image in it (it begins {data[:12]!r}). {_CONVERT}"


def _labels(image: Image.Image) -> np.ndarray:
    if image.format in ("JPEG", "WEBP"):
        raise ImageError(
            f"found {image.format}, which blurs labels into others; expected a PNG label map"
        )
    numbers = np.asarray(image)
    if numbers.ndim == 3:
        if len(image.getbands()) > 2 and np.ptp(numbers[..., :3], axis=2).any():
            raise ImageError("found colours, expected labels: a palette or grey image, such as PNG")
        numbers = numbers[..., 0]
    if numbers.dtype.kind == "f" or numbers.max() > 255:
        raise ImageError(f"expected labels from 0 to 255, found values up to {numbers.max():g}")
    return numbers.astype(np.uint8)


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF block says; without that it is returned itself, not a copy."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # an unreadable EXIF block says nothing about orientation
        return image


def flatten(image: Image.Image, file_format: str | None) -> Image.Image:
    """Bring any Pillow mode to RGB in sRGB, transparency on white."""
    if image.mode == "F" or image.mode.startswith("I"):
        sixteen = "16" in image.mode or file_format == "PNG"  # Pillow 10 reads 16-bit PNG as "I"
        grey = Image.fromarray(_eight_bits(np.asarray(image), sixteen))
        return _to_srgb(grey, image.info.get("icc_profile"))
    if not image.has_transparency_data:
        return _to_srgb(image, image.info.get("icc_profile"))
    icc = image.info.get("icc_profile")
    rgba = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    colours = image.convert("L") if image.mode in ("L", "LA") else rgba.convert("RGB")
    alpha = rgba.getchannel("A")
    page = Image.new("RGB", rgba.size, "white")
    page.paste(_to_srgb(colours, icc), mask=alpha)
    return page


def _eight_bits(values: np.ndarray, sixteen: bool) -> np.ndarray:
    """Scale deep grey values to 0..255: 16-bit over its full range, others by what they reach.

    Floating point and 32-bit files do not say what white is; 1, 255 and 65535 are in use.
    """
    least, most = float(values.min()), float(values.max())
    if not (math.isfinite(least) and math.isfinite(most)):
        raise ImageError("found pixels that are not finite numbers. Export the image again.")
    if most <= 0:
        white = 1.0
    elif sixteen:
        white = 65535.0
    else:
        white = next((top for top in (1.0, 255.0, 65535.0) if most <= top), most)
    levels = np.empty(values.shape, np.uint8)
    for rows in batches(range(len(values)), 256):  # which take eight times the memory on the way
        deep = values[rows.start : rows.stop].astype(np.float64)
        levels[rows.start : rows.stop] = np.rint(deep.clip(0, white) * (255 / white))
    return levels


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert to RGB through the embedded colour profile if it is sound and fits the mode."""
    spaces = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
    if image.mode not in spaces:
        image = image.convert("RGB")
    try:
        if image.mode == "LAB" and not icc:
            profile = ImageCms.createProfile("LAB")
        else:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
            if profile.profile.xcolor_space.strip() != spaces[image.mode]:
                return _as_rgb(image)
        return ImageCms.profileToProfile(
            image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError):  # without a usable profile the numbers are taken as sRGB
        return _as_rgb(image)


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")
