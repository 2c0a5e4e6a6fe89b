"""Videos of a generator: walks through latent space, morphs, its training: `scripts/video.py`."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from paddle_sam.core.images import caption_line, matrix, read_image
from paddle_sam.core.latents import list_codes, read_latent
from paddle_sam.core.processes import batches
from paddle_sam.core.video import ease, write_all
from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2_ops import style_ranges
from paddle_sam.options import parse_formats
from paddle_sam.stylegan2.generator import StyleGenerator, mix, open_generator
from paddle_sam.stylegan2.options import VideosOptions
from paddle_sam.stylegan2.parsing import parse_grid, parse_seeds, parse_styles, split_styles


def videos(config: VideosOptions) -> Iterator[Path]:
    """Write the videos asked for to `exp_dir/videos/NAME.*`; return their paths.

    Raises:
        ConfigError: an option cannot work.
        CheckpointError: a weight file cannot be used.
        OutputError: the system refused to write.
    """
    suffixes, encoding = parse_formats(config.formats), config.encoding
    kinds = config.names
    generator = None if kinds == ["training"] else open_generator(config)
    for kind in kinds:
        if kind == "training":
            frames = grid_frames(config) if config.grids else training_frames(config)
        elif kind == "walk":
            frames = walk_frames(config, generator)
        elif kind == "morph":
            frames = morph_frames(config, generator)
        else:
            frames = mixing_frames(config, generator, kind)
        paths = [config.path(kind, suffix) for suffix in suffixes]
        write_all(paths, frames, config.fps, **encoding)
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
    config: VideosOptions, generator: StyleGenerator, kind: str
) -> Iterator[np.ndarray]:
    """Faces along the top that take on styles of one that walks, which is at the left.

    Args:
        kind: `coarse`, `middle` or `fine` styles, or `mix` for those of `style_ranges`. `face`
            shows nothing but the first face with the walker's styles.
    """
    seeds = parse_seeds(config.destinations, "--destinations")
    seeds = seeds[:1] if kind == "face" else seeds
    ranges = style_ranges(generator.size)
    text = config.style_ranges if kind in ("mix", "face") else kind
    names = split_styles(text, len(seeds), "--style_ranges", "--destinations")
    taken = [parse_styles(name, ranges, "--style_ranges") for name in names]
    tile = generator.tile_size(config.tile_size)
    fixed = generator.seed_codes(seeds, config.truncation, config.truncation_cutoff)

    def mixed(walker: np.ndarray) -> list[np.ndarray]:
        return [mix(face[None], walker, codes)[0] for face, codes in zip(fixed, taken, strict=True)]

    walk = walk_codes(config, generator, 1)
    if kind == "face":
        images = generator.render_all((mixed(walker)[0] for walker in walk), config.frames)
        yield from (matrix([[image]], tile) for image in images)
        return
    top = [None, *generator.render(fixed)]
    captions = ["", *map(str, seeds)] if config.labels else None
    left = ["", f"{names[0] if len(set(names)) == 1 else 'some'}\nstyles"]
    codes = (code for walker in walk for code in (walker[0], *mixed(walker)))
    images = generator.render_all(codes, config.frames * len(top))
    for _ in range(config.frames):
        row = list(islice(images, len(top)))
        yield matrix([top, row], tile, captions, left if config.labels else None)


def morph_frames(config: VideosOptions, generator: StyleGenerator) -> Iterator[np.ndarray]:
    """From each projected face to the next, and from the last back to the first."""
    paths = [Path(part.strip()) for part in config.latents.split(",") if part.strip()]
    shape = (generator.n_codes, generator.dim)
    stops = [
        read_latent(path, *shape, shown=False, name=name).w_plus
        for path in paths
        for name in list_codes(path)
    ]
    if len(stops) < 2:
        raise ConfigError(
            f"--latents: expected two codes or more, in files such as a.npz,b.npz, found"
            f" {config.latents!r}"
        )
    tile = generator.tile_size(config.tile_size)
    images = generator.render_all(round_trip(stops, config.frames), config.frames)
    yield from (matrix([[image]], tile) for image in images)


def round_trip(stops: Sequence[np.ndarray], frames: int) -> Iterator[np.ndarray]:
    """Codes [L, D] that rest at each stop, move linearly to the next, and end before the first."""
    for position in np.arange(frames) * len(stops) / frames:
        place, share = int(position), np.float32(ease(position % 1))
        yield (1 - share) * stops[place] + share * stops[(place + 1) % len(stops)]


def find_snapshots(folder: Path) -> list[tuple[float, Path]]:
    """The files `network_KIMG.pdparams` of a run folder or its `snapshots`: by rising KIMG.

    KIMG is how many thousand images the network had been trained on.

    Raises:
        ConfigError: there are fewer than two.
    """
    names = r"network[_-](\d+(\.\d+)?)\.pdparams"
    return _numbered(folder, "snapshots", names, "--snapshots", "files network_KIMG.pdparams")


def _numbered(
    folder: Path, below: str, names: str, option: str, what: str
) -> list[tuple[float, Path]]:
    """Files of a folder, or of the folder `below` in it, by the number in their names."""
    if (folder / below).is_dir():
        folder = folder / below
    named = [(re.fullmatch(names, path.name), path) for path in folder.glob("*")]
    found = sorted((float(match[1]), path) for match, path in named if match)
    if len(found) < 2:
        raise ConfigError(f"{option}: expected at least two {what} in {folder}, found {len(found)}")
    return found


def training_frames(config: VideosOptions) -> Iterator[np.ndarray]:
    """A grid of the seeds from `seed` on, from the first snapshot to the last."""
    snapshots = find_snapshots(Path(config.snapshots))
    columns, rows = parse_grid(config.grid)
    seeds = range(config.seed, config.seed + columns * rows)
    # Networks that have grown are all shown at the size of the last.
    tile = open_snapshot(config, snapshots[-1][1]).tile_size(config.tile_size)

    @functools.lru_cache(maxsize=2)  # those a frame lies between
    def picture(index: int) -> np.ndarray:
        generator = open_snapshot(config, snapshots[index][1])
        codes = generator.seed_codes(seeds, config.truncation, config.truncation_cutoff)
        images = list(generator.render_all(codes, len(seeds), progress=False))
        return matrix(list(batches(images, columns)), tile)

    positions = np.linspace(0, len(snapshots) - 1, config.frames).tolist()
    for position in tqdm(positions, unit="frame"):
        nearest = round(position)
        frame = crossfade(picture, position) if config.fade else picture(nearest)
        if config.labels:
            captions = [f"{snapshots[nearest][0]:,g} kimg", *[""] * (columns - 1)]
            frame = np.concatenate([frame, caption_line(captions, frame.shape[1] // columns)])
        yield frame


def crossfade(picture, position: float) -> np.ndarray:
    """The picture between two: each rests a while, the change is along half a cosine.

    Args:
        picture: returns the uint8 picture of a whole position.
        position: not below 0.
    """
    before = math.floor(position)
    share = ease(position - before)
    if share == 0:
        return picture(before)
    mixed = (1 - share) * picture(before) + share * picture(before + 1)
    return np.rint(mixed).astype(np.uint8)


def open_snapshot(config: VideosOptions, path: Path) -> StyleGenerator:
    """Open a snapshot in eager Paddle: exporting takes longer than the few images of it."""
    snapshot = dataclasses.replace(config, checkpoint_path=str(path), engine="eager")
    return open_generator(snapshot)


def grid_frames(config: VideosOptions) -> Iterator[np.ndarray]:
    """The sample grids of a run one after the other, `grid_rate` a second, reduced to one size."""
    names = r"fakes\D*(\d+(\.\d+)?).*\.(?i:png|jpg|webp)"
    found = _numbered(Path(config.grids), "samples", names, "--grids", "pictures fakes*.png")
    paths = [path for _, path in found]
    height, width = (round(config.grid_scale * side) for side in read_image(paths[-1]).shape[:2])
    size = (max(width, 2), max(height, 2))
    count = max(round(len(paths) / config.grid_rate * config.fps), 1)
    shown, frame = -1, None
    for index in tqdm(range(count), unit="frame"):
        place = min(int(index * config.grid_rate / config.fps), len(paths) - 1)
        if place != shown:
            picture = Image.fromarray(read_image(paths[place]))
            shown, frame = place, np.asarray(picture.resize(size, Image.Resampling.LANCZOS))
        yield frame
