"""The figures of the StyleGAN papers, for any generator: `scripts/figures.py`.

The noise figures are figures 4 and 5 of "A Style-Based Generator Architecture for GANs".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from paddle_sam.core.images import LARGE_TILE, PAPER, matrix, resize, save_image
from paddle_sam.core.processes import batches
from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2_ops import first_resolution, noise_resolutions, style_ranges
from paddle_sam.options import parse_codes, parse_numbers
from paddle_sam.stylegan2.generator import StyleGenerator, mix, open_generator, seed_noise, truncate
from paddle_sam.stylegan2.options import FiguresOptions
from paddle_sam.stylegan2.parsing import parse_levels, parse_seeds, parse_styles, split_styles

SHOWN_DRAWS = 4
CROP_SHARE = 4  # the crop's side is this part of the image's
FRAME = (255, 64, 32)


def figures(config: FiguresOptions) -> Iterator[Path]:
    """Write the figures asked for to `exp_dir/figures/NAME.FORMAT`; return their paths.

    Raises:
        ConfigError: an option cannot work.
        CheckpointError: the weight file cannot be used.
        OutputError: the system refused to write.
    """
    names = config.names
    opened = {
        other: open_generator(config, any_noise=other)
        for other in {name in OTHER_NOISE for name in names}
    }
    for name in names:
        target = Path(config.exp_dir) / "figures" / f"{name}.{config.format}"
        save_image(target, FIGURES[name](config, opened[name in OTHER_NOISE]))
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
    names = split_styles(config.mix_styles, len(rows), "--mix_styles", "--mix_rows")
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


def noise_figure(config: FiguresOptions, generator: StyleGenerator) -> np.ndarray:
    """Each face, a detail of it under four noise draws, and the deviation over many.

    White is the largest deviation, which is written beside it in grey levels of 255.
    """
    tile = generator.tile_size(config.tile_size, LARGE_TILE)
    lines, left = [], []
    for seed in parse_seeds(config.noise_seeds, "--noise_seeds"):
        code = generator.seed_codes([seed], config.truncation, config.truncation_cutoff)
        images, spread = study_noise(generator, code, config.noise_draws)
        box = busiest(spread, generator.size // CROP_SHARE)
        peak = spread.max()
        shade = np.rint(255 * spread / max(peak, 1e-9)).astype(np.uint8)
        details = [zoom(image, box, tile // 2) for image in images]
        details = matrix([details[:2], details[2:]], tile // 2)
        lines.append([framed(images[0], box, tile), details, np.dstack([shade] * 3)])
        left.append(f"{seed}\nwhite:\nstd. {peak:.0f}")
    top = ["generated image", "four noise draws", f"std. of {config.noise_draws} draws"]
    return matrix(lines, tile, top, left, gap=2)


def study_noise(
    generator: StyleGenerator, code: np.ndarray, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Render a code [1, L, D] with the noise of the seeds 0 to `draws` - 1, keeping only sums.

    Returns:
        the first images, uint8 [SHOWN_DRAWS, R, R, 3], and the deviation of each pixel over all, in
        grey levels, root mean square over the channels, float64 [R, R].
    """
    resolutions = noise_resolutions(generator.size)
    total = np.zeros((generator.size, generator.size, 3))
    squares = np.zeros_like(total)
    shown: list[np.ndarray] = []
    with tqdm(total=draws, unit="draw") as progress:
        for seeds in batches(range(draws), generator.batch_size):
            noise = seed_noise(seeds, resolutions)
            images = generator.render(np.repeat(code, len(seeds), axis=0), noise)
            shown += list(images[: SHOWN_DRAWS - len(shown)])
            total += images.sum(axis=0, dtype=np.float64)
            squares += np.square(images, dtype=np.float64).sum(axis=0)
            progress.update(len(seeds))
    variance = np.maximum(squares / draws - (total / draws) ** 2, 0)
    return np.stack(shown), np.sqrt(variance.mean(axis=-1))


def components_figure(config: FiguresOptions, generator: StyleGenerator) -> np.ndarray:
    """Each face with all noise, with none, with the fine maps only, and the coarser ones only."""
    tile = generator.tile_size(config.tile_size, LARGE_TILE)
    columns = noise_columns(config.noise_ranges, generator.size)
    seeds = parse_seeds(config.component_seeds, "--component_seeds")
    flips = []
    if config.component_flips:  # the published default names the second of two faces
        flips = parse_codes(config.component_flips, max(len(seeds), 2), "--component_flips")
    lines, left = [], []
    for place, seed in enumerate(seeds):
        code = generator.seed_codes([seed], config.truncation, config.truncation_cutoff)
        stored = generator.stored_noise()
        images = []
        for layers in columns.values():
            noise = [stored_map * on for stored_map, on in zip(stored, layers, strict=True)]
            (image,) = generator.render(code, noise)
            images.append(image[:, ::-1] if place in flips else image)
        box = busiest(deviation(np.stack(images)), generator.size // CROP_SHARE)
        lines += [
            [framed(images[0], box, tile), *images[1:]],
            [zoom(image, box, tile) for image in images],
        ]
        left += [str(seed), "detail"]
    return matrix(lines, tile, list(columns), left, gap=2)


def noise_columns(text: str, size: int) -> dict[str, list[bool]]:
    """Which noise layers are on in each column of `components`, by the column's caption.

    >>> noise_columns("3-", 16)
    {'layers 3-': [False, False, False, True, True]}
    """
    resolutions = noise_resolutions(size)
    border = first_resolution(style_ranges(size)["fine"])
    named = {
        "all": ("all noise", [True for _ in resolutions]),
        "none": ("no noise", [False for _ in resolutions]),
        "fine": (f"fine, {border}-{size} px", [r >= border for r in resolutions]),
        "coarse": (f"coarse, 4-{border // 2} px", [r < border for r in resolutions]),
    }
    columns = {}
    for entry in (part.strip() for part in text.split(",")):
        if entry in named:
            caption, layers = named[entry]
        else:
            # One more than there are, so that the published 0-17 and 8-17 work at 1024 px.
            known = {name: range(len(resolutions) + 1) for name in named}
            kept = parse_styles(entry, known, "--noise_ranges")
            caption = f"layers {entry}"
            layers = [layer in kept for layer in range(len(resolutions))]
        columns[caption] = layers
    return columns


def deviation(images: np.ndarray) -> np.ndarray:
    """Deviation of each pixel over images [N, R, R, 3], root mean square over channels: [R, R]."""
    return np.sqrt(images.astype(np.float64).var(axis=0).mean(axis=-1))


def busiest(plane: np.ndarray, side: int) -> tuple[int, int, int]:
    """The square of `side` pixels in which a plane [H, W] is largest: its top, left and side."""
    sums = np.pad(plane, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    squares = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(squares.argmax(), squares.shape)
    return int(top), int(left), side


def zoom(image: np.ndarray, box: tuple[int, int, int], size: int) -> np.ndarray:
    """A square of an image, enlarged to `size`."""
    top, left, side = box
    return resize(np.ascontiguousarray(image[top : top + side, left : left + side]), size)


def framed(image: np.ndarray, box: tuple[int, int, int], size: int) -> np.ndarray:
    """An image resized to `size`, with a frame around a square of it."""
    picture = Image.fromarray(resize(image, size))
    scale = size / len(image)
    top, left, side = (edge * scale for edge in box)
    corners = (left, top, left + side - 1, top + side - 1)
    ImageDraw.Draw(picture).rectangle(corners, outline=FRAME, width=max(size // 128, 1))
    return np.asarray(picture)


def classes_figure(config: FiguresOptions, generator: StyleGenerator) -> np.ndarray:
    """The same seeds in every class of a conditional generator, a column for each class."""
    if not generator.classes:
        raise ConfigError("--figures classes: this model is not conditional")
    seeds = parse_seeds(config.class_seeds, "--class_seeds")
    columns = []
    for label in np.eye(generator.classes, dtype=np.float32):
        codes = generator.of_class(label).seed_codes(
            seeds, config.truncation, config.truncation_cutoff
        )
        columns.append(list(generator.render_all(codes, len(seeds))))
    top = [f"class {index}" for index in range(generator.classes)]
    rows = list(zip(*columns, strict=True))
    return matrix(rows, generator.tile_size(config.tile_size), top, list(map(str, seeds)))


FIGURES = {
    "uncurated": uncurated_figure,
    "mixing": mixing_figure,
    "noise": noise_figure,
    "components": components_figure,
    "truncation": truncation_figure,
    "classes": classes_figure,
}
OTHER_NOISE = ("noise", "components")  # rendered with other noise than the stored one
