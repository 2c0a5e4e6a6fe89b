"""Altered copies of images for sets that are too small: each altered a little, at random."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

Picture = Image.Image
_CHANCE = 0.5  # of each alteration


def augment(
    image: np.ndarray, names: Sequence[str], key: str, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Alter a uint8 RGB [S, S, 3] image; also give what was done to it, such as `blur 0.61`.

    Each alteration happens with a chance of one half, at least one does.

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


def _mirror(picture: Picture, amount: float, random: np.random.Generator) -> Picture:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _blur(picture: Picture, amount: float, random: np.random.Generator) -> Picture:
    return picture.filter(ImageFilter.GaussianBlur(amount))


def _crop(picture: Picture, amount: float, random: np.random.Generator) -> Picture:
    """A square of `amount` of the side, anywhere, enlarged to the whole."""
    side = picture.width * amount
    left, top = random.uniform(0, picture.width - side, 2)
    box = (left, top, left + side, top + side)
    return picture.resize(picture.size, Image.Resampling.LANCZOS, box)


# Name: smallest and largest amount, and what does it. 1 leaves colour, contrast, sharpness and
# crop as they are; a blur's is its radius in pixels.
ALTERATIONS: dict[str, tuple[float, float, Callable]] = {
    "mirror": (1, 1, _mirror),
    "colour": (0.7, 1.3, _enhance(ImageEnhance.Color)),
    "sharpness": (0.5, 2.0, _enhance(ImageEnhance.Sharpness)),
    "blur": (0.4, 1.0, _blur),
    "contrast": (0.8, 1.2, _enhance(ImageEnhance.Contrast)),
    "crop": (0.85, 0.98, _crop),
}
