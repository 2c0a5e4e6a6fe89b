"""What the noise inputs of a generator do: the two noise figures of `scripts/figures.py`.

"A Style-Based Generator Architecture for GANs", figures 4 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from paddle_sam.core.images import resize
from paddle_sam.core.sheets import LARGE_TILE, matrix
from paddle_sam.networks.stylegan2 import first_resolution, noise_resolutions, style_ranges
from paddle_sam.stylegan2.generator import StyleGenerator, seed_noise
from paddle_sam.stylegan2.options import FiguresOptions, parse_seeds

SHOWN_DRAWS = 4
CROP_SHARE = 4  # the crop's side is this part of the image's
FRAME = (255, 64, 32)


@dataclass(frozen=True, eq=False)
class NoiseStudy:
    """One code under many noise draws.

    images: the first draws, uint8 [SHOWN_DRAWS, R, R, 3]. deviation: of each pixel over all draws,
    in grey levels, root mean square over the channels, float64 [R, R].
    """

    images: np.ndarray
    deviation: np.ndarray


def noise_figure(config: FiguresOptions, generator: StyleGenerator) -> np.ndarray:
    """Each face, a detail of it under four noise draws, and the deviation over many.

    White is the largest deviation, which is written beside it in grey levels of 255.
    """
    tile = generator.tile_size(config.tile_size, LARGE_TILE)
    lines, left = [], []
    for seed in parse_seeds(config.noise_seeds, "--noise_seeds"):
        code = generator.seed_codes([seed], config.truncation, config.truncation_cutoff)
        study = study_noise(generator, code, config.noise_draws)
        box = busiest(study.deviation, generator.size // CROP_SHARE)
        peak = study.deviation.max()
        shade = np.rint(255 * study.deviation / max(peak, 1e-9)).astype(np.uint8)
        details = matrix(
            [[zoom(image, box, tile // 2) for image in study.images[k : k + 2]] for k in (0, 2)],
            tile // 2,
        )
        lines.append([framed(study.images[0], box, tile), details, np.dstack([shade] * 3)])
        left.append(f"{seed}\nwhite:\nstd. {peak:.0f}")
    top = ["generated image", "four noise draws", f"std. of {config.noise_draws} draws"]
    return matrix(lines, tile, top, left, gap=2)


def study_noise(generator: StyleGenerator, code: np.ndarray, draws: int) -> NoiseStudy:
    """Render a code [1, L, D] with the noise of the seeds 0 to `draws` - 1, keeping only sums."""
    resolutions = noise_resolutions(generator.size)
    total = np.zeros((generator.size, generator.size, 3))
    squares = np.zeros_like(total)
    shown: list[np.ndarray] = []
    with tqdm(total=draws, unit="draw") as progress:
        for start in range(0, draws, generator.batch_size):
            seeds = range(start, min(start + generator.batch_size, draws))
            noise = seed_noise(seeds, resolutions)
            images = generator.render(np.repeat(code, len(seeds), axis=0), noise)
            shown += list(images[: SHOWN_DRAWS - len(shown)])
            total += images.sum(axis=0, dtype=np.float64)
            squares += np.square(images, dtype=np.float64).sum(axis=0)
            progress.update(len(seeds))
    variance = np.maximum(squares / draws - (total / draws) ** 2, 0)
    return NoiseStudy(np.stack(shown), np.sqrt(variance.mean(axis=-1)))


def components_figure(config: FiguresOptions, generator: StyleGenerator) -> np.ndarray:
    """Each face with all noise, with none, with the fine maps only, and the coarser ones only."""
    tile = generator.tile_size(config.tile_size, LARGE_TILE)
    resolutions = noise_resolutions(generator.size)
    border = first_resolution(style_ranges(generator.size)["fine"])
    kept = {
        "all noise": [True for _ in resolutions],
        "no noise": [False for _ in resolutions],
        f"fine, {border}-{generator.size} px": [r >= border for r in resolutions],
        f"coarse, 4-{border // 2} px": [r < border for r in resolutions],
    }
    lines, left = [], []
    for seed in parse_seeds(config.component_seeds, "--component_seeds"):
        code = generator.seed_codes([seed], config.truncation, config.truncation_cutoff)
        images = [
            generator.render(
                code,
                [noise * on for noise, on in zip(generator.stored_noise(), layers, strict=True)],
            )[0]
            for layers in kept.values()
        ]
        box = busiest(deviation(np.stack(images)), generator.size // CROP_SHARE)
        lines += [
            [framed(images[0], box, tile), *images[1:]],
            [zoom(image, box, tile) for image in images],
        ]
        left += [str(seed), "detail"]
    return matrix(lines, tile, list(kept), left, gap=2)


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
