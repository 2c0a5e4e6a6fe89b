"""Sets of training images: the order and form in which a run sees them, and what they are."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from paddle_sam.core.processes import spread
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import (
    ImageSource,
    content_digest,
    list_sources,
    read_source,
    relative_name,
    source_size,
)

# Names and sizes of all images count; of so many from all over the set also the content.
_LOOKED_INTO = 256


class ImagePairs:
    """Source images and, where they differ, the target images they should become.

    Args:
        source: folder (at any depth) or archive of images, or the images themselves.
        target: folder or archive with an image for each source, under the same relative path
            whatever the suffix; the sources are their own targets when empty.
        limit: use the first N only; 0 for all.

    Raises:
        ImageError: a folder or archive is missing or holds no image.
        ConfigError: a source has no target.
    """

    def __init__(self, source: str | Sequence[ImageSource], target: str = "", limit: int = 0):
        files = list_sources(source) if isinstance(source, str | Path) else list(source)
        self.sources = files[: limit or None]
        self.targets: list[ImageSource] | None = None
        if target:
            by_name = {_key(image, target): image for image in list_sources(target)}
            names = [_key(image, source) for image in self.sources]
            if missing := [name for name in names if name not in by_name]:
                raise ConfigError(
                    f"{target}: has no image for {missing[0]} of {source}"
                    f" ({len(missing)} of {len(names)} are missing)."
                )
            self.targets = [by_name[name] for name in names]

    def __len__(self) -> int:
        return len(self.sources)

    def paths(self, index: int) -> tuple[ImageSource, ...]:
        """The source file, and the target file where there are targets."""
        if self.targets is None:
            return (self.sources[index],)
        return self.sources[index], self.targets[index]


class Sample(NamedTuple):
    """Images uint8 RGB [S, S, 3]; `squeezed` says of which one that was not square, if any was."""

    images: tuple[np.ndarray, ...]
    squeezed: str = ""


def read_sample(paths: Sequence[ImageSource], size: int) -> Sample:
    """Read images and resize them to `size`.

    Raises:
        ImageError: one of them cannot be read.
    """
    images = [read_source(path) for path in paths]
    shapes = zip(paths, (image.shape for image in images), strict=True)
    squeezed = next((f"{path}, {w} x {h} pixels" for path, (h, w, _) in shapes if h != w), "")
    return Sample(tuple(resize_bilinear(image, size) for image in images), squeezed)


def resize_bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 RGB [H, W, 3] to [size, size, 3], antialiased, as the published training does.

    The whole picture is kept: one that is not square is squeezed.
    """
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def sample_index(position: int, length: int, seed: int) -> int:
    """Return which sample a run shows at `position`: each once in every pass, reshuffled.

    A function of its arguments alone, so that a resumed run sees what an unbroken one would.
    """
    epoch, place = divmod(position, length)
    return int(_permutation(length, seed, epoch)[place])


@functools.lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(length)


def draw_mirrored(positions: np.ndarray, seed: int) -> np.ndarray:
    """Draw which samples of a run, by their positions, are mirrored: bool [N], half of them."""
    return np.array([np.random.default_rng((seed, 1, p)).random() < 0.5 for p in positions], bool)


def _key(image: ImageSource, root: str) -> str:
    return str(PurePosixPath(relative_name(image, Path(root))).with_suffix(""))


def identify_images(root: str, images: Sequence[ImageSource], facts: Any = None) -> dict[str, Any]:
    """Describe a set of images by its content, and `facts` that belong to them, such as ages."""
    looked_into = set(spread(_LOOKED_INTO, len(images)))
    digest = hashlib.sha256(json.dumps(facts).encode())
    for index, image in enumerate(images):
        content = ""
        if index in looked_into:
            try:
                content = content_digest(image)
            except ImageError:
                content = "unreadable"  # the loader says so
        line = f"{relative_name(image, Path(root))}\0{source_size(image)}\0{content}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return {"images": len(images), "sha256": digest.hexdigest()}


def joined(sets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Describe several sets of images as one."""
    if len(sets) == 1:
        return sets[0]
    digest = hashlib.sha256(json.dumps(sets).encode()).hexdigest()
    return {"images": sum(one["images"] for one in sets), "sha256": digest}
