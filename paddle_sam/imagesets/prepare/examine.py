"""Examine one image file: whether it is whole, what to cut out of it, whether to keep that."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from paddle_sam.core.decoding import count_pages, decode_image
from paddle_sam.core.device import cpu_threads
from paddle_sam.core.images import resize
from paddle_sam.core.processes import in_processes
from paddle_sam.errors import FaceNotFoundError, ImageError, PaddleSamError
from paddle_sam.faces.alignment import side_of
from paddle_sam.imagesets.archive import source_bytes
from paddle_sam.imagesets.prepare import defects
from paddle_sam.imagesets.prepare.inputs import Task
from paddle_sam.imagesets.prepare.options import PrepareOptions
from paddle_sam.imagesets.prepare.squares import cut_square, square_finder, upscaler

THUMBNAIL = 128
_MOST_PAGES = 1000  # of one TIFF file, each an image; the rest is not read
_LEAST = 4  # pixels, of which something can be measured
# Reasons to drop an image, in the order of the report, with their meaning.
REASONS = {
    "unreadable": "damaged, cut off, or not an image",
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
    """What was found in an image file, or of one of its faces. Plain values: stored as JSON.

    reason: why it is dropped, one of `REASONS`; empty if it is kept. `detail` explains.
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
    """Examines image files as the options say; made once in each process."""

    def __init__(self, config: PrepareOptions):
        self._config = config
        self._find_squares = square_finder(config)
        self._enlarge = upscaler(config.upscale)
        smallest = config.min_size or (config.size // 2 if config.upscale else config.size)
        self._smallest = max(smallest, _LEAST)

    def __call__(self, task: Task) -> list[tuple[Found, bytes]]:
        """Return findings, at least one, each with the content of an image file.

        That is the square as it goes into the data set; of what is dropped, a small picture for
        the contact sheet, or nothing.
        """
        try:
            data = source_bytes(task.source)
            defects.check_file(data, task.name)
        except ImageError as error:
            return [_unreadable(task, error)]
        pages = min(count_pages(data), _MOST_PAGES)
        return [one for page in range(pages) for one in self._examine_page(task, data, page)]

    def _examine_page(self, task: Task, data: bytes, page: int) -> list[tuple[Found, bytes]]:
        try:
            image = decode_image(data, task.name, page=page)
            notes = defects.conversions(data)
            if data.startswith(b"\xff\xd8\xff") and defects.has_grey_side(image):
                if defects.data_ran_out(data):
                    raise ImageError("the JPEG is cut off: its data end early. Copy it again.")
                notes.append("grey border")
        except ImageError as error:
            return [_unreadable(task, error)]
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
        return [self._examine_square(image, corners, basic, digest) for corners in squares]

    def _examine_square(
        self, image: np.ndarray, corners: np.ndarray, basic: dict, digest: str
    ) -> tuple[Found, bytes]:
        side = side_of(corners)
        rounded = np.round(corners, 2).tolist()
        basic = {**basic, "corners": rounded, "side": round(side, 2)}
        square = cut_square(image, corners, self._config.size)
        if round(side) < self._smallest:
            detail = f"the square has {side:.0f} pixels, needed {self._smallest}"
            return Found("too_small", detail, **basic), _thumbnail(square)
        measures = defects.measure(square)
        empty = defects.why_empty(measures, self._config.min_contrast, self._config.min_colour)
        if empty is not None:
            return Found(*empty, **basic), _thumbnail(square)
        notes = basic["notes"]
        if square.shape[0] < self._config.size:
            notes = [*notes, f"enlarged from {square.shape[0]}"]
            square = self._enlarge(square, self._config.size)
        found = Found(
            **{**basic, "notes": notes},
            pixels=f"{digest[:32]} {rounded}",
            bits=f"{defects.perceptual_hash(square):016x}",
            sharpness=round(measures.sharpness, 3),
        )
        return found, encode(square, self._config.format)


def _unreadable(task: Task, error: ImageError) -> tuple[Found, bytes]:
    return Found("unreadable", str(error).removeprefix(f"{task.name}: ")), b""


def encode(image: np.ndarray, suffix: str) -> bytes:
    """Return an image as the content of a `png` or `jpg` file (quality 95)."""
    stream = io.BytesIO()
    kind, options = ("PNG", {}) if suffix == "png" else ("JPEG", {"quality": 95})
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def _thumbnail(image: np.ndarray) -> bytes:
    """Return the whole picture in a square, on white, as JPEG."""
    height, width = image.shape[:2]
    factor = THUMBNAIL / max(height, width)
    small = resize(image, (max(round(height * factor), 1), max(round(width * factor), 1)))
    sheet = np.full((THUMBNAIL, THUMBNAIL, 3), 255, np.uint8)
    top, left = (THUMBNAIL - small.shape[0]) // 2, (THUMBNAIL - small.shape[1]) // 2
    sheet[top : top + small.shape[0], left : left + small.shape[1]] = small
    return encode(sheet, "jpg")


_examiner = functools.cache(Examiner)  # one in each process


def examine(config: PrepareOptions, task: Task) -> list[tuple[Found, bytes]]:
    """Examine in a worker process, see `Examiner`. Raise what would fail for every image."""
    warnings.simplefilter("ignore")  # what decoders say of damage is said in the report
    examiner = _examiner(config)
    try:
        return examiner(task)
    except PaddleSamError:
        raise
    except Exception as error:  # any other error concerns this image alone
        return [(Found("unreadable", f"{type(error).__name__}: {error}"), b"")]


def run_tasks(
    function: Callable, tasks: Sequence, workers: int, died: Any, title: str
) -> Iterator[tuple]:
    """Yield each task and its result, as they end, from all processes, under a progress bar.

    `workers` is 0 for one process per CPU core; `died` is the result of a task whose process died.
    """
    run = in_processes(function, tasks, workers or cpu_threads(), died=died)
    with contextlib.closing(run):
        yield from tqdm(run, title, len(tasks), unit="img", disable=not tasks)
