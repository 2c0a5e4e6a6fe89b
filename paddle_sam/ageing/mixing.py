"""Aged faces whose finer codes come from another face: a random one, or one of a photograph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.ageing.ageing import Ageing
from paddle_sam.ageing.editing_options import (
    MixingOptions,
    ReferenceOptions,
    StyleMixingOptions,
    parse_latent_mask,
)
from paddle_sam.ageing.edits import mix
from paddle_sam.ageing.options import parse_ages
from paddle_sam.ageing.photos import Summary, results_folder
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.images import to_network
from paddle_sam.core.sheets import SMALLEST_TILE, save_sheet, stack, strip
from paddle_sam.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Donors:
    """The faces whose codes are mixed in.

    tiles: how they look, uint8 [N, *, *, 3]. codes: their codes [N, L, D] at an age in years.
    age_with_face: whether what ageing changes in the other face is added to their codes.
    """

    tiles: np.ndarray
    codes: Callable[[float], paddle.Tensor]
    age_with_face: bool = False


@dataclass(frozen=True, eq=False)
class Mixed:
    """One face, mixed with every donor at one age.

    aged: uint8 [R, R, 3], without mixing. images: uint8 [N, R, R, 3], one for each donor.
    """

    age: float
    aged: np.ndarray
    images: np.ndarray


def style_mixing(config: StyleMixingOptions) -> Summary:
    """`exp_dir/style_mixing/NAME`: random faces on top, below them a row for each age."""
    ageing = Ageing(config)
    pipeline = ageing.pipeline
    codes = random_codes(pipeline, config.n_outputs_to_generate, config.seed, config.truncation)
    tiles = pipeline.pictures(codes, ageing.batch_size)
    donors = Donors(tiles, lambda age: codes, config.keep_age)
    root = results_folder(config) / "style_mixing"

    def write(name: Path, crop: np.ndarray, mixed: list[Mixed]) -> None:
        rows = [sheet_row(config, pipeline, crop, donors.tiles, "input")]
        rows += [row_of(config, pipeline, one) for one in mixed]
        save_sheet(root / name, stack(rows))

    return mix_photos(config, ageing, donors, write)


def reference_guided(config: ReferenceOptions) -> Summary:
    """`exp_dir/reference_guided/AGE/NAME`: references on top, below them the results."""
    paths = read_paths(config.ref_images_paths_file)
    ageing = Ageing(config)
    donors = references(ageing, paths)
    root = results_folder(config) / "reference_guided"

    def write(name: Path, crop: np.ndarray, mixed: list[Mixed]) -> None:
        top = sheet_row(config, ageing.pipeline, crop, donors.tiles, "input")
        for one in mixed:
            sheet = stack([top, row_of(config, ageing.pipeline, one)])
            save_sheet(root / f"{one.age:g}" / name, sheet)

    return mix_photos(config, ageing, donors, write)


def mix_photos(
    config: MixingOptions,
    ageing: Ageing,
    donors: Donors,
    write: Callable[[Path, np.ndarray, list[Mixed]], None],
) -> Summary:
    """Mix every face with every donor at every age, and hand name, crop and results to `write`."""
    ages = parse_ages(config.target_age)
    latent_mask = parse_latent_mask(config.latent_mask, ageing.pipeline.n_codes)
    injected = [donors.codes(age) for age in ages]
    summary = Summary()
    for photo in ageing.photos(summary):
        inverted = ageing.invert(photo)
        for index, (name, crop) in enumerate(zip(photo.face_names(), photo.crops, strict=True)):
            image = paddle.to_tensor(to_network(crop))
            mixed = []
            for age, donated in zip(ages, injected, strict=True):
                start = inverted[index : index + 1]
                aged = ageing.codes(image, start, age)
                if donors.age_with_face:
                    donated = donated + (aged - start)
                blend = mix(latent_mask, donated, config.mix_alpha)
                codes = paddle.concat([aged, blend(aged.expand_as(donated), start)])
                images = ageing.pipeline.pictures(codes, ageing.batch_size)
                mixed.append(Mixed(age, images[0], images[1:]))
            write(name, crop, mixed)
    return summary


def random_codes(pipeline: AgePipeline, count: int, seed: int, truncation: float) -> paddle.Tensor:
    """Codes [N, L, D] of random faces, the same for one seed on every device."""
    network = pipeline.network
    z = np.random.default_rng(seed).standard_normal((count, network.style_dim), np.float32)
    with paddle.no_grad():
        w = network.map_latents(paddle.to_tensor(z)).unsqueeze(1)
        return network.latent_avg + truncation * (w - network.latent_avg)


def references(ageing: Ageing, paths: list[Path]) -> Donors:
    """The faces of the images at `paths`, aged like the faces they are mixed with."""
    config = ageing.config
    align = not config.no_align
    choice = "best" if config.face == "all" else config.face
    faces = [ageing.pipeline.faces(path, choice, align)[0].image for path in paths]
    images = paddle.to_tensor(to_network(faces))
    inverted = ageing.pipeline.invert(images, ageing.batch_size)
    return Donors(np.stack(faces), lambda age: ageing.codes(images, inverted, age))


def read_paths(file: str) -> list[Path]:
    """Paths on the lines of a text file, relative ones as seen from here or from the file.

    Raises:
        ConfigError: the file cannot be read, names nothing, or something that is not there.
    """
    option = "--ref_images_paths_file"
    if not file:
        raise ConfigError(f"{option}: expected a text file that names an image on each line")
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {file} could not be read as text ({error})") from error
    paths = [Path(line.strip()).expanduser() for line in lines if line.strip()]
    if not paths:
        raise ConfigError(f"{option}: {file} names no image; expected one on each line")
    paths = [path if path.exists() else Path(file).parent / path for path in paths]
    if missing := [path for path in paths if not path.exists()]:
        raise ConfigError(f"{option}: {file} names {missing[0]}: there is no such file")
    return paths


def sheet_row(
    config: MixingOptions,
    pipeline: AgePipeline,
    first: np.ndarray,
    others: np.ndarray,
    caption: str,
) -> np.ndarray:
    """One row of a sheet, the first image captioned."""
    tile = config.tile_size or max(pipeline.output_size, SMALLEST_TILE)
    return strip([first, *others], tile, [caption, *[""] * len(others)])


def row_of(config: MixingOptions, pipeline: AgePipeline, mixed: Mixed) -> np.ndarray:
    """The row of one age."""
    return sheet_row(config, pipeline, mixed.aged, mixed.images, f"{mixed.age:g}")
