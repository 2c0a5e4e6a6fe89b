"""Features of images, kept on disk so that each image is looked at once.

An entry belongs to the content of an image file and to the settings of the extractor, to nothing
else: renamed, moved or shared images are found again, changed ones are not. An interrupted
evaluation resumes where it stopped. An entry may also belong to several images together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.core.store import PART_SIZE, Store
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import ImageSource, content_digest, read_source


class FeatureStore(Store):
    """Features by image content.

    Args:
        folder: where to keep them; None keeps them in memory.
        extract: uint8 RGB images [H, W, 3] -> float features [N, D].
        settings: everything else that the features depend on, as plain values.
    """

    def __init__(
        self,
        folder: Path | None,
        extract: Callable[[Sequence[np.ndarray]], np.ndarray],
        settings: Mapping,
    ):
        super().__init__(folder, settings)
        self._extract = extract

    def of_files(
        self, paths: Sequence[ImageSource], what: str = "features", keep: bool = True
    ) -> np.ndarray:
        """Return the features [N, D] of image files, in their order; compute what is missing.

        Args:
            paths: at least one image, in folders or archives.
            what: label of the progress bar.
            keep: keep what is computed, in memory and in the folder.

        Raises:
            ImageError: a file cannot be read. What was computed before is kept.
            OutputError: the folder cannot be written.
        """
        bar = tqdm(paths, desc=f"{what}: reading", unit="image", disable=None, leave=False)
        digests = [content_digest(path) for path in bar]
        return self.of_made(
            digests, lambda chosen: [read_source(paths[i]) for i in chosen], what, keep
        )

    def of_made(
        self,
        keys: Sequence[str],
        make: Callable[[Sequence[int]], Sequence[np.ndarray]],
        what: str = "features",
        keep: bool = True,
    ) -> np.ndarray:
        """Return the features [N, D] of images that `make` makes; compute what is missing.

        Args:
            keys: for each image, a text that no other image has.
            make: positions among the keys -> their images, uint8 RGB [H, W, 3].
            what: label of the progress bar.
            keep: keep what is computed, in memory and in the folder.
        """
        if not keys:
            raise ConfigError("features: expected at least one image, found none")
        # Equal images are computed once.
        missing = list({key: i for i, key in enumerate(keys) if key not in self.rows}.values())
        made: dict[str, np.ndarray] = {}
        with tqdm(total=len(missing), desc=what, unit="image", disable=None) as progress:
            for start in range(0, len(missing), PART_SIZE):
                part = missing[start : start + PART_SIZE]
                found = dict(zip((keys[i] for i in part), self._extract(make(part)), strict=True))
                made |= found
                if keep:
                    self.keep(found)
                progress.update(len(part))
        return np.stack([made[key] if key in made else self.rows[key] for key in keys])
