"""Folders of training images, and the order in which a run sees them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paddle_sam.common.checks import ConfigError
from paddle_sam.common.images import list_images, read_image
from paddle_sam.data.transforms import fit


class ImagePairs:
    """Source images and, where they differ, the target images they should become.

    Args:
        source: folder of images at any depth, or the image files themselves.
        target: folder with an image for each source, under the same relative path whatever the
            suffix; the sources are their own targets when empty.
        limit: use only the first so many; 0 for all.

    Raises:
        ImageError: a folder is missing or holds no image.
        ConfigError: a source has no target.
    """

    def __init__(self, source: str | Sequence[Path], target: str = "", limit: int = 0):
        files = list_images(source) if isinstance(source, str | Path) else list(source)
        self.sources = files[: limit or None]
        self.targets: list[Path] | None = None
        if target:
            by_name = {_key(path, target): path for path in list_images(target)}
            names = [_key(path, source) for path in self.sources]
            if missing := [name for name in names if name not in by_name]:
                raise ConfigError(
                    f"{target}: has no image for {missing[0]} of {source}"
                    f" ({len(missing)} of {len(names)} are missing)."
                )
            self.targets = [by_name[name] for name in names]

    def __len__(self) -> int:
        return len(self.sources)

    def paths(self, index: int) -> tuple[Path, ...]:
        """The source file, and the target file where there are targets."""
        if self.targets is None:
            return (self.sources[index],)
        return self.sources[index], self.targets[index]


def read_sample(paths: Sequence[Path], size: int) -> tuple[np.ndarray, ...]:
    """Read images and resize them to `size`: uint8 RGB [size, size, 3] each.

    Raises:
        ImageError: one of them cannot be read.
    """
    return tuple(fit(read_image(path), size) for path in paths)


def shuffled(position: int, length: int, seed: int) -> int:
    """Index of the sample at `position` of a run: every pass shows each sample once, reshuffled.

    A function of its arguments alone, so that a resumed run goes on exactly where it was.
    """
    epoch, place = divmod(position, length)
    return int(_permutation(length, seed, epoch)[place])


@functools.lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(length)


def _key(path: Path, folder: str) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()
