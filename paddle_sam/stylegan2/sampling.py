"""Images of seeds, in files and on sheets: `scripts/sample.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.core.files import sha256
from paddle_sam.core.folders import CLAIM, claim_folder
from paddle_sam.core.images import SMALLEST_TILE, read_image, save_image, stack, strip
from paddle_sam.core.processes import InBackground, batches
from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2_ops import noise_resolutions
from paddle_sam.stylegan2.generator import StyleGenerator, open_generator, seed_noise
from paddle_sam.stylegan2.options import SamplingOptions
from paddle_sam.stylegan2.parsing import parse_grid, parse_seeds

WRITERS = 4  # threads that compress and write; compression releases Python's lock


def sample(config: SamplingOptions) -> list[Path]:
    """Write `exp_dir/samples/seedNNNN.png` for each seed, and sheets if asked; return the sheets.

    Images that are there already are not made again, so the same command resumes a run that was
    cut off (`skip_existing`). Images are written while the next ones are rendered.

    Raises:
        ConfigError: an option cannot work, or the folder holds samples made with other options.
        CheckpointError: the weight file cannot be used.
        OutputError: the system refused to write; what is finished stays.
    """
    seeds = parse_seeds(config.seeds)
    grid = parse_grid(config.grid) if config.grid else None
    folder = Path(config.exp_dir) / "samples"
    generator = open_generator(config, any_noise=config.noise != "stored")
    if config.rows > generator.size:
        raise ConfigError(f"--rows: this model has {generator.size} rows, found {config.rows}")
    claim(folder, config, Path(generator.source))

    name = "seed{:04d}" if config.names == "seed" else "example-{}"
    paths = {seed: folder / f"{name.format(seed)}.{config.format}" for seed in seeds}
    rows = config.rows or generator.size
    middle = slice((generator.size - rows) // 2, (generator.size + rows) // 2)
    todo = [seed for seed in seeds if not (config.skip_existing and paths[seed].exists())]
    with (
        tqdm(total=len(seeds), initial=len(seeds) - len(todo), unit="image") as progress,
        InBackground(waiting=2 * WRITERS, threads=WRITERS) as write,
    ):
        for batch in batches(todo, config.batch_size):
            for seed, image in zip(batch, render_seeds(generator, batch, config), strict=True):
                write(save_image, paths[seed], image[middle])
                progress.update()
    print(f"{len(todo)} images made, {len(seeds) - len(todo)} were there: {folder}")
    return [] if grid is None else write_sheets(config, grid, paths)


def render_seeds(
    generator: StyleGenerator, seeds: Sequence[int], config: SamplingOptions
) -> np.ndarray:
    """Images uint8 [N, R, R, 3] of seeds, truncated and with noise as the options say."""
    codes = generator.seed_codes(seeds, config.truncation, config.truncation_cutoff)
    resolutions, noise = noise_resolutions(generator.size), None
    if config.noise == "random":
        noise = seed_noise(seeds, resolutions)
    elif config.noise == "none":
        noise = [np.zeros((1, 1, r, r), np.float32) for r in resolutions]
    return generator.render(codes, noise)


def write_sheets(
    config: SamplingOptions, grid: tuple[int, int], paths: dict[int, Path]
) -> list[Path]:
    """`exp_dir/sample_sheets/sheet_N.png`, each of columns times rows images."""
    columns, rows = grid
    sheets = []
    for part in batches(list(paths), columns * rows):
        lines = []
        for line in batches(part, columns):
            tiles = [read_image(paths[seed]) for seed in line]
            height, width, _ = tiles[0].shape
            tile = config.tile_size or max(width, SMALLEST_TILE)
            tile = (tile * height // width, tile)
            lines.append(strip(tiles, tile, list(map(str, line)) if config.labels else None))
        sheets.append(Path(config.exp_dir) / "sample_sheets" / f"sheet_{len(sheets) + 1}.png")
        save_image(sheets[-1], stack(lines, gap=4 if config.labels else 0))
    return sheets


def claim(folder: Path, config: SamplingOptions, weights: Path) -> None:
    """Note beside the samples how they are made, or check that those there were made alike.

    Raises:
        ConfigError: the folder holds samples made in another way.
    """
    if not (folder / CLAIM).exists() and (
        any(folder.glob("seed*")) or any(folder.glob("example-*"))
    ):
        raise ConfigError(
            f"{folder}: holds samples, but no {CLAIM} that says how they were made; choose another"
            " --exp_dir, or remove them"
        )
    names = ("truncation", "truncation_cutoff", "mean_samples", "noise", "label", "rows")
    facts = {"weights": sha256(weights), **{name: getattr(config, name) for name in names}}
    claim_folder(folder, facts, "--exp_dir", "samples")
