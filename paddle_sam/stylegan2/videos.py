"""Videos of walks through latent space, which loop: `scripts/video.py`.

The training video is in `paddle_sam.stylegan2.training_video`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

from paddle_sam.ageing.animate import write_all
from paddle_sam.core.sheets import matrix
from paddle_sam.networks.stylegan2 import style_ranges
from paddle_sam.stylegan2.generator import StyleGenerator, checkpoint, mix
from paddle_sam.stylegan2.options import VideosOptions, parse_grid, parse_seeds
from paddle_sam.stylegan2.training_video import training_frames


def videos(config: VideosOptions) -> Iterator[Path]:
    """Write the videos asked for to `exp_dir/videos/NAME.*`; gives their paths.

    Raises:
        ConfigError: an option cannot work.
        CheckpointError: a weight file cannot be used.
        OutputError: the system refused to write.
    """
    suffixes, bitrate = config.suffixes, config.bits_per_second
    names = config.names
    generator = None
    if names != ["training"]:
        generator = StyleGenerator.open(checkpoint(config), config)
    for name in names:
        if name == "training":
            frames = training_frames(config)
        elif name == "walk":
            frames = walk_frames(config, generator)
        else:
            frames = mixing_frames(config, generator, name)
        paths = [Path(config.exp_dir) / "videos" / f"{name}{suffix}" for suffix in suffixes]
        write_all(paths, frames, config.fps, config.codec, bitrate)
        yield from paths


def smooth_walk(frames: int, walkers: int, dim: int, sigma: float, seed: int) -> np.ndarray:
    """Latents z float32 [F, N, D] that wander smoothly and come back to where they began.

    White noise, smoothed over time by a Gaussian of `sigma` frames that wraps around, so that the
    last frame leads to the first; then scaled to unit variance, which smoothing had lowered.
    """
    z = np.random.RandomState(seed).randn(frames, walkers, dim).astype(np.float32)
    z = gaussian_filter1d(z, sigma, axis=0, mode="wrap")
    return z / np.sqrt(np.mean(np.square(z), dtype=np.float64)).astype(np.float32)


def walk_codes(
    config: VideosOptions, generator: StyleGenerator, walkers: int
) -> Iterator[np.ndarray]:
    """Truncated codes [N, L, D] of the walkers, frame after frame."""
    for z in smooth_walk(
        config.frames, walkers, generator.dim, config.smoothing_frames, config.seed
    ):
        yield generator.codes(generator.map(z), config.truncation, config.truncation_cutoff)


def walk_frames(config: VideosOptions, generator: StyleGenerator) -> Iterator[np.ndarray]:
    """A grid of faces, each on a walk of its own."""
    columns, rows = parse_grid(config.grid)
    tile = generator.tile_size(config.tile_size)
    codes = (code for frame in walk_codes(config, generator, columns * rows) for code in frame)
    count = config.frames * columns * rows
    images = generator.render_all(codes, count)
    for _ in range(config.frames):
        yield matrix([list(islice(images, columns)) for _ in range(rows)], tile)


def mixing_frames(
    config: VideosOptions, generator: StyleGenerator, styles: str
) -> Iterator[np.ndarray]:
    """Faces along the top that take on the `styles` of one that walks, which is at the left."""
    seeds = parse_seeds(config.destinations, "--destinations")
    taken = style_ranges(generator.size)[styles]
    tile = generator.tile_size(config.tile_size)
    fixed = generator.seed_codes(seeds, config.truncation, config.truncation_cutoff)
    top = [None, *generator.render(fixed)]
    captions = ["", *map(str, seeds)] if config.labels else None
    left = ["", f"{styles}\nstyles"] if config.labels else None
    codes = (
        code
        for source in walk_codes(config, generator, 1)
        for code in (source[0], *mix(fixed, source, taken))
    )
    images = generator.render_all(codes, config.frames * len(top))
    for _ in range(config.frames):
        yield matrix([top, list(islice(images, len(top)))], tile, captions, left)
