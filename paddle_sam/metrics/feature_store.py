"""Features of images, kept on disk so that each image is looked at once.

An entry belongs to the content of an image file and to the settings of the extractor, to nothing
else: renamed, moved or shared images are found again, changed ones are not. An evaluation that
was interrupted goes on where it stopped. What is looked at may also be several images together.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.core.files import atomic_path
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import ImageSource, content_digest, read_source

FORMAT = 1
_PART_SIZE = 64  # images in memory together, and lost at most when a run is killed


class FeatureStore:
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
        self._extract = extract
        self._rows: dict[str, np.ndarray] = {}
        self._folder = None
        if folder is not None:
            text = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
            self._folder = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:16]
            self._read_parts(text)

    def of_files(
        self, paths: Sequence[ImageSource], what: str = "features", keep: bool = True
    ) -> np.ndarray:
        """Give the features [N, D] of image files, in their order; computes what is missing.

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
        """Give the features [N, D] of images that `make` makes; computes what is missing.

        Args:
            keys: for each image, what tells it from every other.
            make: positions among the keys -> their images, uint8 RGB [H, W, 3].
            what: label of the progress bar.
            keep: keep what is computed, in memory and in the folder.
        """
        if not keys:
            raise ConfigError("features: expected at least one image, found none")
        # Equal images are looked at once.
        missing = list({key: i for i, key in enumerate(keys) if key not in self._rows}.values())
        made: dict[str, np.ndarray] = {}
        with tqdm(total=len(missing), desc=what, unit="image", disable=None) as progress:
            for start in range(0, len(missing), _PART_SIZE):
                part = missing[start : start + _PART_SIZE]
                found = dict(zip((keys[i] for i in part), self._extract(make(part)), strict=True))
                made |= found
                if keep:
                    self._keep(found)
                progress.update(len(part))
        return np.stack([made[key] if key in made else self._rows[key] for key in keys])

    def _keep(self, rows: dict[str, np.ndarray]) -> None:
        self._rows |= rows
        if self._folder is None:
            return
        name = hashlib.sha256("".join(rows).encode()).hexdigest()[:16]
        with (
            atomic_path(self._folder / f"part_{name}.npz") as temporary,
            temporary.open("wb") as stream,
        ):
            np.savez(stream, digests=np.array(list(rows)), features=np.stack(list(rows.values())))

    def _read_parts(self, settings: str) -> None:
        note = self._folder / "settings.json"
        if not note.exists():
            with atomic_path(note) as temporary:
                temporary.write_text(settings, encoding="utf-8")
        for path in sorted(self._folder.glob("part_*.npz")):
            try:
                with np.load(path, allow_pickle=False) as part:
                    rows = zip(part["digests"].tolist(), part["features"], strict=True)
                    self._rows.update(rows)
            except Exception as error:  # zip, header and array readers raise their own kinds
                tqdm.write(
                    f"{path}: is damaged ({error}); what it held is computed again", file=sys.stderr
                )
