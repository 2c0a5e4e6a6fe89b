"""Altered copies of images, for sets that are too small: each altered a little, at random."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from PIL.ImageFilter import GaussianBlur

from paddle_sam.errors import ImageError
from paddle_sam.imagesets.archive import ArchiveImage, read_source
from paddle_sam.imagesets.prepare.examine import encode, run_tasks
from paddle_sam.imagesets.prepare.journal import Journal
from paddle_sam.imagesets.prepare.options import AUGMENTATIONS, PrepareOptions
from paddle_sam.imagesets.prepare.report import Copy, Item
from paddle_sam.options import parse_names

_CHANCE = 0.5  # of each alteration


@dataclass(frozen=True)
class _CopyTask:
    """An altered copy to make: of which image, and how."""

    key: str
    source: ArchiveImage
    stamp: str
    names: tuple[str, ...]
    seed: int
    format: str


def add_copies(kept: Sequence[Item], journal: Journal, config: PrepareOptions) -> None:
    """Give every kept image its altered copies; make those that the journal does not hold."""
    names = tuple(parse_names(config.augmentations, AUGMENTATIONS, "--augmentations"))
    copies = {
        f"copy {number} of {item.name}": item
        for item in kept
        for number in range(1, config.augment + 1)
    }
    tasks = [
        _CopyTask(key, item.picture, item.found.pixels, names, config.seed, config.format)
        for key, item in copies.items()
        if not journal.has(key, item.found.pixels)
    ]
    run = run_tasks(_make_copy, tasks, config.num_threads, None, "altering")
    with contextlib.closing(run):
        for task, result in run:
            if result is None:
                raise ImageError(f"{task.key}: the process that made it died (out of memory?)")
            content, done = result
            journal.add(task.key, {"stamp": task.stamp, "done": done}, [content])
    for key, item in copies.items():
        done = ", ".join(journal.records[key]["done"])
        item.copies = [*item.copies, Copy(done, journal.image(key, 0))]


def _make_copy(task: _CopyTask) -> tuple[bytes, list[str]]:
    image, done = augment(read_source(task.source), task.names, task.key, task.seed)
    return encode(image, task.format), done


def augment(
    image: np.ndarray, names: Sequence[str], key: str, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Alter a uint8 RGB [S, S, 3] image; also return how, such as `blur 0.61`.

    Each alteration happens with a probability of one half; at least one happens.

    Args:
        names: what may be done, of `ALTERATIONS`.
        key: the image's name and the copy's number: with the seed they decide everything.
    """
    digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
    random = np.random.default_rng(np.frombuffer(digest, np.uint32))
    chosen = [name for name in names if random.random() < _CHANCE]
    chosen = chosen or [names[random.integers(len(names))]]
    picture, done = Image.fromarray(image), []
    for name in chosen:
        lowest, highest, alter = ALTERATIONS[name]
        amount = float(random.uniform(lowest, highest))
        picture = alter(picture, amount, random)
        done.append(f"{name} {amount:.2f}" if lowest < highest else name)
    return np.asarray(picture), done


def _enhance(kind: type) -> Callable:
    return lambda picture, amount, random: kind(picture).enhance(amount)


def _crop(picture: Image.Image, amount: float, random: np.random.Generator) -> Image.Image:
    """A square of `amount` of the side, anywhere, enlarged to the whole."""
    side = picture.width * amount
    left, top = random.uniform(0, picture.width - side, 2)
    box = (left, top, left + side, top + side)
    return picture.resize(picture.size, Image.Resampling.LANCZOS, box)


# Name: smallest and largest amount, and what does it. 1 leaves colour, contrast, sharpness and
# crop as they are; a blur's is its radius in pixels.
ALTERATIONS: dict[str, tuple[float, float, Callable]] = {
    "mirror": (1, 1, lambda picture, amount, random: ImageOps.mirror(picture)),
    "colour": (0.7, 1.3, _enhance(ImageEnhance.Color)),
    "sharpness": (0.5, 2.0, _enhance(ImageEnhance.Sharpness)),
    "blur": (0.4, 1.0, lambda picture, amount, random: picture.filter(GaussianBlur(amount))),
    "contrast": (0.8, 1.2, _enhance(ImageEnhance.Contrast)),
    "crop": (0.85, 0.98, _crop),
}
