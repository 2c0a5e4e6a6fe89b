"""The same latents through the snapshots of a training run, as a video."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.core.sheets import caption_line, matrix
from paddle_sam.errors import ConfigError
from paddle_sam.stylegan2.generator import StyleGenerator
from paddle_sam.stylegan2.options import VideosOptions, parse_grid


def find_snapshots(folder: Path) -> list[tuple[float, Path]]:
    """The files `network_KIMG.pdparams` of a run folder or its `snapshots`: by rising KIMG.

    KIMG is how many thousand images the network had been trained on.

    Raises:
        ConfigError: there are fewer than two.
    """
    if (folder / "snapshots").is_dir():
        folder = folder / "snapshots"
    named = [
        (re.fullmatch(r"network[_-](\d+(\.\d+)?)", path.stem), path)
        for path in folder.glob("*.pdparams")
    ]
    found = sorted((float(match[1]), path) for match, path in named if match)
    if len(found) < 2:
        raise ConfigError(
            f"--snapshots: expected at least two files network_KIMG.pdparams in {folder}, found"
            f" {len(found)}"
        )
    return found


def training_frames(config: VideosOptions) -> Iterator[np.ndarray]:
    """A grid of the seeds from `seed` on, from the first snapshot to the last."""
    snapshots = find_snapshots(Path(config.snapshots))
    columns, rows = parse_grid(config.grid)
    seeds = range(config.seed, config.seed + columns * rows)
    config = dataclasses.replace(config, engine="eager")  # not worth exporting for one batch
    # Networks that have grown are all shown at the size of the last.
    last = StyleGenerator.open(snapshots[-1][1], config)
    config = dataclasses.replace(config, tile_size=last.tile_size(config.tile_size))

    @functools.lru_cache(maxsize=2)  # those a frame lies between
    def picture(index: int) -> np.ndarray:
        return snapshot_grid(config, snapshots[index][1], seeds, columns)

    for position in tqdm(snapshot_positions(len(snapshots), config.frames), unit="frame"):
        nearest = round(position)
        frame = crossfade(picture, position) if config.fade else picture(nearest)
        if config.labels:
            captions = [f"{snapshots[nearest][0]:,g} kimg", *[""] * (columns - 1)]
            frame = np.concatenate([frame, caption_line(captions, frame.shape[1] // columns)])
        yield frame


def snapshot_positions(snapshots: int, frames: int) -> list[float]:
    """Where each frame lies among the snapshots, from 0 to their number - 1, evenly.

    >>> snapshot_positions(3, 5)
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    return np.linspace(0, snapshots - 1, frames).tolist()


def crossfade(picture, position: float) -> np.ndarray:
    """The picture between two: each rests a while, the change is along half a cosine.

    Args:
        picture: gives the uint8 picture of a whole position.
        position: not below 0.
    """
    before = math.floor(position)
    share = (1 - math.cos(math.pi * (position - before))) / 2
    if share == 0:
        return picture(before)
    mixed = (1 - share) * picture(before) + share * picture(before + 1)
    return np.rint(mixed).astype(np.uint8)


def snapshot_grid(config: VideosOptions, path: Path, seeds: range, columns: int) -> np.ndarray:
    """The faces of one snapshot in rows: uint8 [H, W, 3]."""
    generator = StyleGenerator.open(path, config)
    codes = generator.seed_codes(seeds, config.truncation, config.truncation_cutoff)
    images = []
    for start in range(0, len(seeds), generator.batch_size):
        images += list(generator.render(codes[start : start + generator.batch_size]))
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    return matrix(rows, generator.tile_size(config.tile_size))
