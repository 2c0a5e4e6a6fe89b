"""What keeps an image out of a data set: defects in its file and pixels, and duplicates of it.

Near duplicates are searched for by the bits of their perceptual hashes: every pair of them is
compared, by XOR and population count over whole arrays (40,000 images: 5 seconds, growing with the
square), and each pair found is then confirmed by looking at the pictures.
"""

from __future__ import annotations

import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from tqdm import tqdm

from paddle_sam.core.decoding import open_image
from paddle_sam.errors import ImageError

_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # EXIF tag
_UNWRITTEN = 128  # libjpeg's grey where a JPEG's data end early
_PLAIN = 1.0  # deviation of the brightness, in levels, up to which a picture shows nothing
_BACKGROUND_LEVELS = 8
_BACKGROUND_SHARE = 0.97
_BLOCK = 1 << 22  # pairs compared at once
_MANY = 10_000  # hashes from which a progress bar is worth it
_SIDE = 32
_MARGIN = 5
_SIZES = range(28, 38)
_WORTH_A_LOOK = 0.6  # correlation in place, below which no shift or size is tried
# Correlation from which two pictures show the same. Of a thousand aligned faces, the most alike
# two that were not one photograph twice came to 0.90; cut by 2 to 6%, one photograph to 0.97.
SAME = 0.95


def check_file(data: bytes, name: str) -> None:
    """Check what decoders pass over: each chunk of a PNG by its CRC, the end of a JPEG.

    Raises:
        ImageError: the file is damaged or cut off.
    """
    problem = None
    if data.startswith(_PNG):
        problem = _png_damage(data)
    elif data.startswith(b"\xff\xd8\xff"):
        problem = _jpeg_damage(data)
    if problem:
        raise ImageError(f"{name}: {problem}. Copy or download it again.")


def _png_damage(data: bytes) -> str | None:
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"CRC error in the PNG's {kind.decode('latin-1')} at byte {at}"
        if kind == b"IEND":
            return None
        at = end
    return f"the PNG is truncated at byte {len(data)}"


def _jpeg_damage(data: bytes) -> str | None:
    at = 2
    while data[at : at + 1] == b"\xff":
        kind = data[at + 1 : at + 2]
        if kind == b"\xda":  # start of scan: what follows is the picture, to the end marker
            return None if data.rfind(b"\xff\xd9") > at else "the JPEG is truncated: it has no end"
        if kind == b"\xff":
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None  # no sequence of segments: the decoder will say


def has_grey_side(image: np.ndarray) -> bool:
    """Return whether a decoded JPEG uint8 [H, W, 3] has a side of the grey of missing data.

    A sound picture may have a border of that grey; `data_ran_out` tells.
    """
    sides = (image[:8], image[-8:], image[:, :8], image[:, -8:])
    return any((side == _UNWRITTEN).all() for side in sides) and not (image == _UNWRITTEN).all()


def data_ran_out(data: bytes) -> bool:
    """Return whether a readable JPEG ends before its picture does, in spite of its end marker.

    The decoder paints the rest grey and says nothing that Pillow passes on. With more data before
    the marker it paints something else; a whole picture stays as it is.
    """
    end = data.rfind(b"\xff\xd9")
    more = bytes(place * 89 % 251 for place in range(4096))  # no byte of it begins a marker
    with open_image(data) as found, open_image(data[:end] + more + data[end:]) as continued:
        return not np.array_equal(np.asarray(found), np.asarray(continued))


def conversions(data: bytes) -> list[str]:
    """Return how a readable image's file differs from plain sRGB: `CMYK`, `16 bit`, ..."""
    with open_image(data) as image:
        deep = image.mode[0] in "IF" or (data.startswith(_PNG) and data[24] == 16)
        frames = 1 if image.format in ("MPO", "TIFF") else getattr(image, "n_frames", 1)
        found = {
            image.mode: image.mode in ("CMYK", "LAB", "HSV", "YCbCr"),
            "16 bit": deep,
            "grey scale": image.mode in ("1", "L", "LA") or image.mode[0] in "IF",
            "palette": image.mode in ("P", "PA"),
            "transparency": image.has_transparency_data,
            f"animation of {frames} images": frames > 1,
            "turned by EXIF": _orientation(image) not in (None, 1),
            "colour profile": bool(image.info.get("icc_profile")),
        }
    return [name for name, present in found.items() if present]


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # an unreadable EXIF block says nothing about orientation
        return None


@dataclass(frozen=True)
class Measures:
    """Numbers of an image's content, in levels of 0..255.

    contrast: standard deviation of the brightness.
    background: share of the pixels that nearly have the most frequent brightness.
    colour: deviation of the colours from the line they lie on best: 0 for greys and single tints.
    tint: mean distance from grey.
    sharpness: variance of the Laplacian of the brightness.
    """

    contrast: float
    background: float
    colour: float
    tint: float
    sharpness: float


def measure(image: np.ndarray) -> Measures:
    """Measure a uint8 [H, W, 3] image."""
    grey = brightness(image)
    counts = np.bincount(np.rint(grey).astype(np.int64).ravel(), minlength=256)
    near = np.convolve(counts, np.ones(2 * _BACKGROUND_LEVELS + 1), "same")
    channels = np.moveaxis(image, 2, 0).reshape(3, -1).astype(np.float64)
    spread = np.linalg.eigvalsh(np.cov(channels))  # rising
    laplacian = (
        grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    )
    return Measures(
        contrast=float(grey.std()),
        background=float(near.max() / grey.size),
        colour=float(np.sqrt(max(spread[0] + spread[1], 0.0))),
        tint=float(np.ptp(channels, axis=0).mean()),
        sharpness=float(laplacian.var()),
    )


def why_empty(measures: Measures, min_contrast: float, min_colour: float) -> tuple[str, str] | None:
    """Return why an image shows too little, as (reason, explanation); None if it does not."""
    if measures.contrast < _PLAIN and min_contrast > 0:
        return "blank", f"one colour (contrast {measures.contrast:.2f})"
    if measures.contrast < min_contrast:
        return "near_monochrome", f"contrast {measures.contrast:.1f}, below {min_contrast:g}"
    if measures.background > _BACKGROUND_SHARE and min_contrast > 0:
        return "near_monochrome", f"{measures.background:.1%} of it are of one colour"
    if measures.colour < min_colour:
        kind = "shades of grey" if measures.tint < 2 * min_colour else "shades of one colour"
        return "grey", f"{kind} only (colour {measures.colour:.1f}, below {min_colour:g})"
    return None


def brightness(image: np.ndarray) -> np.ndarray:
    """Return the luma of a uint8 [H, W, 3] image: float64 [H, W], 0 to 255 (ITU-R BT.601)."""
    return image @ np.array([0.299, 0.587, 0.114])


def perceptual_hash(image: np.ndarray) -> int:
    """Return 64 bits that near duplicates mostly share, from low frequencies.

    The image is reduced to 32 x 32 levels of grey. Each of the 8 x 8 lowest frequencies of their
    cosine transform gives a bit: whether it is above the median of them.
    """
    waves = scipy.fft.dctn(to_grey(image).astype(np.float64), norm="ortho")[:8, :8]
    bits = (waves > np.median(waves)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@dataclass(frozen=True)
class Candidate:
    """Facts that decide whether an image is a duplicate, and which of several is the best.

    pixels: digest of all pixels of the picture it was cut from, and where.
    bits: its perceptual hash.
    side: pixels of the picture along its side. sharpness: see `Measures`.
    """

    pixels: str
    bits: int
    side: float
    sharpness: float


@dataclass(frozen=True)
class Duplicate:
    """Which image is kept instead, and why: `duplicate` or `near_duplicate`."""

    of: int
    reason: str


def find_duplicates(
    candidates: Sequence[Candidate], bits: int, same: Callable[[int, int], bool]
) -> dict[int, Duplicate]:
    """Choose the images to drop, by their indices.

    Best first (larger, then sharper), an image is kept unless it is a duplicate of one already
    kept; so of a chain of images, each like the next, both ends may stay.

    Args:
        candidates: in an order that does not depend on anything but the images.
        bits: how many of the 64 bits of near duplicates may differ; negative finds none.
        same: confirms that two images, given by their indices, show the same.
    """
    best_first = sorted(
        range(len(candidates)), key=lambda i: (-candidates[i].side, -candidates[i].sharpness, i)
    )
    first: dict[str, int] = {}
    dropped: dict[int, Duplicate] = {}
    for index in best_first:
        of = first.setdefault(candidates[index].pixels, index)
        if of != index:
            dropped[index] = Duplicate(of, "duplicate")
    alone = list(first.values())
    hashes = np.array([candidates[index].bits for index in alone], np.uint64)
    better = defaultdict(list)
    for one, other in near_pairs(hashes, bits):
        better[other].append(one)
    for position, index in enumerate(alone):
        for of in (alone[one] for one in better[position]):
            if of not in dropped and same(of, index):
                dropped[index] = Duplicate(of, "near_duplicate")
                break
    # What an equal image was dropped for may itself have gone for a better one.
    return {
        index: Duplicate(dropped[one.of].of, one.reason) if one.of in dropped else one
        for index, one in dropped.items()
    }


def near_pairs(hashes: np.ndarray, bits: int) -> Iterator[tuple[int, int]]:
    """Yield pairs i < j of uint64 hashes [N] that differ in at most `bits` bits, in order."""
    if bits < 0:
        return
    rows = max(_BLOCK // max(len(hashes), 1), 1)
    starts = range(0, len(hashes), rows)
    for start in tqdm(starts, "comparing", unit="block", disable=len(hashes) < _MANY):
        # Against all that follow the block's first.
        differ = np.bitwise_count(hashes[start : start + rows, None] ^ hashes[None, start:])
        for one, other in np.argwhere(differ <= bits).tolist():
            if one < other:
                yield start + one, start + other


def to_grey(image: np.ndarray) -> np.ndarray:
    """Reduce a square uint8 [S, S, 3] to its brightness, uint8 [32, 32]."""
    picture = Image.fromarray(image).convert("L")
    return np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))


def look_the_same(left: np.ndarray, right: np.ndarray) -> bool:
    """Return whether two reduced pictures show the same, even if cropped slightly differently."""
    if left.std() == 0 or right.std() == 0:
        return False
    plain = np.corrcoef(left.ravel(), right.ravel())[0, 1]
    return bool(plain >= _WORTH_A_LOOK and correlation(left, right) >= SAME)


def correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Return the best correlation, up to 1, of the middle of one reduced picture with the other.

    Every place is tried, at sizes from 28/32 to 37/32.
    """
    middle = left[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].astype(np.float32)
    middle = (middle - middle.mean()).ravel()
    side, length = left.shape[0] - 2 * _MARGIN, float(np.linalg.norm(middle))
    best = 0.0
    for size in _SIZES if length else ():
        picture = Image.fromarray(right).resize((size, size), Image.Resampling.BICUBIC)
        windows = sliding_window_view(np.asarray(picture, np.float32), (side, side))
        windows = windows.reshape(-1, side * side)
        windows = windows - windows.mean(axis=1, keepdims=True)
        lengths = np.maximum(np.linalg.norm(windows, axis=1), 1e-3)
        best = max(best, float((windows @ middle / lengths).max()) / length)
    return best
