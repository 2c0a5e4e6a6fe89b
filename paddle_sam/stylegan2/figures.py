"""The figures of the StyleGAN papers, for any generator: `scripts/figures.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from paddle_sam.ageing.options import parse_numbers
from paddle_sam.core.images import resize, save_image
from paddle_sam.core.sheets import LARGE_TILE, PAPER, matrix
from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2 import style_ranges
from paddle_sam.stylegan2.generator import StyleGenerator, checkpoint, mix, truncate
from paddle_sam.stylegan2.noise_figures import components_figure, noise_figure
from paddle_sam.stylegan2.options import FiguresOptions, parse_levels, parse_seeds, parse_styles

NOISE_FIGURES = {"noise": noise_figure, "components": components_figure}


def figures(config: FiguresOptions) -> Iterator[Path]:
    """Write the figures asked for to `exp_dir/figures/NAME.FORMAT`; gives their paths.

    Raises:
        ConfigError: an option cannot work.
        CheckpointError: the weight file cannot be used.
        OutputError: the system refused to write.
    """
    path = checkpoint(config)
    names = config.names
    drawn = {}
    if noisy := [name for name in names if name in NOISE_FIGURES]:
        generator = StyleGenerator.open(path, config, any_noise=True)
        drawn |= {name: (NOISE_FIGURES[name], generator) for name in noisy}
    if plain := [name for name in names if name in PLAIN_FIGURES]:
        generator = StyleGenerator.open(path, config)
        drawn |= {name: (PLAIN_FIGURES[name], generator) for name in plain}
    for name in names:
        draw, generator = drawn[name]
        target = Path(config.exp_dir) / "figures" / f"{name}.{config.format}"
        save_image(target, draw(config, generator))
        yield target


def uncurated_figure(config: FiguresOptions, generator: StyleGenerator) -> np.ndarray:
    """Consecutive seeds, nobody's choice: large images at the left, smaller ones at the right."""
    levels = parse_levels(config.uncurated_levels, "--uncurated_levels")
    tile = generator.tile_size(config.tile_size, LARGE_TILE)
    if tile >> max(levels) < 4:
        raise ConfigError(
            f"--uncurated_levels: {max(levels)} halvings of {tile} px leave nothing to see; use"
            " fewer, or a larger --tile_size"
        )
    count = sum(config.uncurated_rows << level for level in levels)
    seeds = range(config.uncurated_seed, config.uncurated_seed + count)
    codes = generator.seed_codes(seeds, config.truncation, config.truncation_cutoff)
    images = generator.render_all(codes, count)
    return packed(images, config.uncurated_rows, levels, tile)


def packed(images: Iterator[np.ndarray], rows: int, levels: Sequence[int], tile: int) -> np.ndarray:
    """Columns of images of falling size: uint8 [rows * tile, sum of tile / 2^level, 3].

    Args:
        images: uint8 [*, *, 3], as many as the columns take: `rows * 2^level` each.
        rows: of the largest images.
        levels: halvings of `tile` in each column.
    """
    sides = [tile >> level for level in levels]
    picture = np.full((rows * tile, sum(sides), 3), PAPER, np.uint8)
    left = 0
    for level, side in zip(levels, sides, strict=True):
        for row in range(rows << level):
            picture[row * side : (row + 1) * side, left : left + side] = resize(next(images), side)
        left += side
    return picture


def mixing_figure(config: FiguresOptions, generator: StyleGenerator) -> np.ndarray:
    """Faces at the left with styles of the faces on top: coarse, middle or fine ones."""
    columns = parse_seeds(config.mix_columns, "--mix_columns")
    rows = parse_seeds(config.mix_rows, "--mix_rows")
    names = row_styles(config.mix_styles, len(rows))
    ranges = style_ranges(generator.size)
    styles = [parse_styles(name, ranges, "--mix_styles") for name in names]
    sources = generator.seed_codes(columns, config.truncation, config.truncation_cutoff)
    faces = generator.seed_codes(rows, config.truncation, config.truncation_cutoff)
    codes = [sources]
    for face, style in zip(faces, styles, strict=True):
        mixed = mix(np.repeat(face[None], len(columns), axis=0), sources, style)
        codes += [face[None], mixed]
    count = len(columns) + len(rows) * (len(columns) + 1)
    images = generator.render_all(np.concatenate(codes), count)
    lines = [[None, *islice(images, len(columns))]]
    lines += [list(islice(images, len(columns) + 1)) for _ in rows]
    left = ["", *[f"{name}\n{seed}" for name, seed in zip(names, rows, strict=True)]]
    return matrix(lines, generator.tile_size(config.tile_size), ["", *map(str, columns)], left)


def row_styles(text: str, rows: int) -> list[str]:
    """What `--mix_styles` says for each row: one entry for each, or one for all."""
    names = [name.strip() for name in text.split(",")]
    names = names * rows if len(names) == 1 else names
    if len(names) != rows:
        raise ConfigError(
            f"--mix_styles: expected one entry for each of the {rows} --mix_rows, or one for all,"
            f" found {len(names)}"
        )
    return names


def truncation_figure(config: FiguresOptions, generator: StyleGenerator) -> np.ndarray:
    """Faces at falling truncation psi, through the average face to their opposites."""
    seeds = parse_seeds(config.truncation_seeds, "--truncation_seeds")
    psis = parse_numbers(config.psis, "--psis")
    whole = generator.seed_codes(seeds)
    codes = (
        truncate(code[None], generator.w_avg, psi, config.truncation_cutoff)[0]
        for code in whole
        for psi in psis
    )
    images = generator.render_all(codes, len(seeds) * len(psis))
    lines = [list(islice(images, len(psis))) for _ in seeds]
    top = [f"psi {psi:g}" for psi in psis]
    return matrix(lines, generator.tile_size(config.tile_size), top, list(map(str, seeds)))


PLAIN_FIGURES = {
    "uncurated": uncurated_figure,
    "mixing": mixing_figure,
    "truncation": truncation_figure,
}
