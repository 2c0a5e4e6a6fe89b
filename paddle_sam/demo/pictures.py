"""Pictures of the demo: what is asked for, what of it is shown, and as which bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from paddle_sam.demo.sessions import Subject
from paddle_sam.errors import ConfigError
from paddle_sam.faces.paste import Patch

PREVIEW_SIDE = 1200
MAX_STRENGTH = 3.0


@dataclass(frozen=True)
class Look:
    """What a face is rendered as.

    age: in years. strength: factor on what ageing changes. reference: number of the face whose
    finer codes are mixed in, aged alike; None for none. mix: its share in these codes. keep: share
    of the photograph that is kept where the model cannot reproduce it; None chooses it, and 0 is
    the model's picture as it is.
    """

    age: float
    strength: float = 1.0
    reference: int | None = None
    mix: float = 1.0
    keep: float | None = None

    def __post_init__(self):
        limits = {"age": (0, 100), "strength": (0, MAX_STRENGTH), "mix": (0, 1), "keep": (0, 1)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"The {name} has to be from {low:g} to {high:g}, not {value:g}.")


def before(subject: Subject) -> np.ndarray:
    """A face as it is in the photograph, uint8 [*, *, 3]."""
    return subject.dial.picture if subject.dial else subject.crop


def blended(rendering: np.ndarray, subject: Subject, look: Look) -> np.ndarray:
    """What is shown of a rendering uint8 [R, R, 3]: by the dial, unless nothing is kept."""
    if subject.dial is None or look.keep == 0:
        return rendering
    return subject.dial.shown(subject.dial.change(rendering, look.age, look.keep))


def patch(quad: np.ndarray, rendering: np.ndarray, subject: Subject, look: Look) -> Patch:
    """What a face becomes in its photograph."""
    if subject.dial is None or look.keep == 0:
        return Patch(quad, rendering)
    return replace(subject.dial.change(rendering, look.age, look.keep), quad=quad)


def preview_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a photograph, its longer side reduced to `PREVIEW_SIDE`.

    >>> preview_size(3000, 4000), preview_size(300, 400)
    ((900, 1200), (300, 400))
    """
    scale = min(1, PREVIEW_SIDE / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)  # a browser is waiting for it
    return stream.getvalue()


def jpeg(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """What `png` was given."""
    return np.asarray(Image.open(io.BytesIO(data)))
