"""One image file: is it whole, what is to be cut out of it, and is that worth keeping?"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from paddle_sam.core.images import decode_image, resize
from paddle_sam.errors import FaceNotFoundError, ImageError, PaddleSamError
from paddle_sam.imagesets.prepare import defects as inspection
from paddle_sam.imagesets.prepare.inputs import Task
from paddle_sam.imagesets.prepare.options import PrepareOptions
from paddle_sam.imagesets.prepare.squares import cut_square, side_of, square_finder
from paddle_sam.imagesets.prepare.upscale import upscaler

THUMBNAIL = 128
_LEAST = 4  # pixels, of which something can be measured
# Reasons, in the order in which a report lists them, and what each means to a reader.
REASONS = {
    "unreadable": "damaged, cut off, or no image",
    "odd_shape": "much longer than wide, or the other way round",
    "no_face": "no face was found",
    "too_small": "fewer pixels than asked for",
    "blank": "one colour",
    "near_monochrome": "nearly one colour, or hardly any contrast",
    "grey": "shades of one colour",
    "duplicate": "equal to another",
    "near_duplicate": "nearly equal to another",
}


@dataclass(frozen=True)
class Found:
    """What became of an image file, or of one of several faces in it. Plain values: kept as JSON.

    reason: why it is dropped, of `REASONS`; empty if it is not. `detail` explains.
    notes: what was converted, such as `CMYK`.
    width, height: of the picture. corners: of the square. side: its side, in the picture's pixels.
    pixels, bits, sharpness: see `duplicates.Candidate`; bits in hexadecimal.
    """

    reason: str = ""
    detail: str = ""
    notes: list[str] = field(default_factory=list)
    width: int = 0
    height: int = 0
    corners: list[list[float]] = field(default_factory=list)
    side: float = 0.0
    pixels: str = ""
    bits: str = ""
    sharpness: float = 0.0


class Examiner:
    """Examines image files as the options say; made once in each process.

    Raises:
        PaddleSamError: what finds faces, or enlarges, cannot be used.
    """

    def __init__(self, config: PrepareOptions):
        self._config = config
        self._find_squares = square_finder(config)
        self._enlarge = upscaler(config.upscale)
        smallest = config.min_size or (config.size // 2 if config.upscale else config.size)
        self._smallest = max(smallest, _LEAST)

    def __call__(self, task: Task) -> list[tuple[Found, bytes]]:
        """What was found, at least one, each with an image file.

        It is the square as it goes into the data set, or of what is dropped a small picture for
        the contact sheet; empty where there is none.
        """
        try:
            data = task.read_bytes()
            inspection.check_file(data, task.name)
            image = decode_image(data, task.name)
            if data.startswith(b"\xff\xd8\xff"):
                inspection.check_pixels(image, task.name)
            notes = inspection.peculiarities(data)
        except ImageError as error:
            detail = str(error).removeprefix(f"{task.name}: ")
            return [(Found("unreadable", detail), b"")]
        height, width = image.shape[:2]
        basic = {"notes": notes, "width": width, "height": height}

        def dropped(reason: str, detail: str):
            return [(Found(reason, detail, **basic), _thumbnail(image))]

        aspect = max(height, width) / min(height, width)
        if self._config.crop == "centre" and aspect > self._config.max_aspect:
            return dropped("odd_shape", f"{width} x {height} pixels")
        if min(height, width) < self._smallest and self._config.crop != "face":
            return dropped("too_small", f"{width} x {height} pixels, needed {self._smallest}")
        try:
            squares = self._find_squares(image)
        except FaceNotFoundError as error:
            return dropped("no_face", str(error))
        digest = hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()
        return [self._judge(image, corners, basic, digest) for corners in squares]

    def _judge(
        self, image: np.ndarray, corners: np.ndarray, basic: dict, digest: str
    ) -> tuple[Found, bytes]:
        side = side_of(corners)
        rounded = np.round(corners, 2).tolist()
        basic = {**basic, "corners": rounded, "side": round(side, 2)}
        square = cut_square(image, corners, self._config.size)
        if round(side) < self._smallest:
            detail = f"the square has {side:.0f} pixels, needed {self._smallest}"
            return Found("too_small", detail, **basic), _thumbnail(square)
        measures = inspection.measure(square)
        empty = inspection.emptiness(measures, self._config.min_contrast, self._config.min_colour)
        if empty is not None:
            return Found(*empty, **basic), _thumbnail(square)
        notes = basic["notes"]
        if square.shape[0] < self._config.size:
            notes = [*notes, f"enlarged from {square.shape[0]}"]
            square = self._enlarge(square, self._config.size)
        found = Found(
            **{**basic, "notes": notes},
            pixels=f"{digest[:32]} {rounded}",
            bits=f"{inspection.perceptual_hash(square):016x}",
            sharpness=round(measures.sharpness, 3),
        )
        return found, encode(square, self._config.format)


def encode(image: np.ndarray, suffix: str) -> bytes:
    """An image as the content of a `png` or `jpg` file (quality 95)."""
    stream = io.BytesIO()
    kind, options = ("PNG", {}) if suffix == "png" else ("JPEG", {"quality": 95})
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def _thumbnail(image: np.ndarray) -> bytes:
    """The whole picture in a square, on white, as JPEG."""
    height, width = image.shape[:2]
    factor = THUMBNAIL / max(height, width)
    small = resize(image, (max(round(height * factor), 1), max(round(width * factor), 1)))
    sheet = np.full((THUMBNAIL, THUMBNAIL, 3), 255, np.uint8)
    top, left = (THUMBNAIL - small.shape[0]) // 2, (THUMBNAIL - small.shape[1]) // 2
    sheet[top : top + small.shape[0], left : left + small.shape[1]] = small
    return encode(sheet, "jpg")


_config: PrepareOptions | None = None  # of a worker process
_examiner: Examiner | None = None


def start_worker(config: PrepareOptions) -> None:
    """Set this process up for `examine`."""
    global _config
    _config = config


def examine(task: Task) -> list[tuple[Found, bytes]]:
    """Examine in a worker process, see `Examiner`. Raises what would be so for every image."""
    global _examiner
    if _examiner is None:
        _examiner = Examiner(_config)
    try:
        return _examiner(task)
    except PaddleSamError:
        raise
    except Exception as error:  # whatever else an image provokes concerns that image alone
        return [(Found("unreadable", f"{type(error).__name__}: {error}"), b"")]
