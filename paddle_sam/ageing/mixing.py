"""Aged faces with codes of another face, or moved along directions, as sheets.

`scripts/style_mixing.py`, `scripts/reference_guided_inference.py` and `scripts/edit.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.ageing.edits import mix, open_directions, save_directions, shifted_styles
from paddle_sam.ageing.latent_options import EditOptions
from paddle_sam.ageing.learning import learn
from paddle_sam.ageing.options import (
    MixingOptions,
    ReferenceOptions,
    StyleMixingOptions,
    parse_ages,
    parse_latent_mask,
)
from paddle_sam.ageing.photos import Summary
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.ageing.run import AgeingRun
from paddle_sam.core import files
from paddle_sam.core.images import SMALLEST_TILE, save_sheet, stack, strip, to_network
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


def style_mixing(options: StyleMixingOptions) -> Summary:
    """`exp_dir/style_mixing/NAME`: random faces on top, below them a row for each age."""
    root = options.results / "style_mixing"
    run = AgeingRun(options, lambda one: root / one.result())
    pipeline = run.pipeline
    codes = random_codes(pipeline, options.n_outputs_to_generate, options.seed, options.truncation)
    tiles = pipeline.pictures(codes, run.batch_size)
    donors = Donors(tiles, lambda age: codes, options.keep_age)
    for name, crop, mixed in mix_photos(options, run, donors):
        rows = [sheet_row(options, run, [crop, *tiles], "input")]
        rows += [sheet_row(options, run, images, f"{age:g}") for age, images in mixed.items()]
        save_sheet(root / name, stack(rows))
    return run.summary


def reference_guided(options: ReferenceOptions) -> Summary:
    """`exp_dir/reference_guided/AGE/NAME`: references on top, below them the results."""
    paths = read_paths(options.ref_images_paths_file)
    root = options.results / "reference_guided"
    last = f"{parse_ages(options.target_age)[-1]:g}"
    run = AgeingRun(options, lambda one: root / last / one.result())
    donors = references(options, run, paths)
    for name, crop, mixed in mix_photos(options, run, donors):
        top = sheet_row(options, run, [crop, *donors.tiles], "input")
        for age, images in mixed.items():
            sheet = stack([top, sheet_row(options, run, images, f"{age:g}")])
            save_sheet(root / f"{age:g}" / name, sheet)
    return run.summary


def mix_photos(
    options: MixingOptions, run: AgeingRun, donors: Donors
) -> Iterator[tuple[Path, np.ndarray, dict[float, np.ndarray]]]:
    """Mix every face with every donor at every age.

    Yields:
        of each face the name of its results, its crop, and by age the face without mixing and
        mixed with each of N donors, uint8 [N + 1, R, R, 3].
    """
    ages = parse_ages(options.target_age)
    latent_mask = parse_latent_mask(options.latent_mask, run.pipeline.n_codes)
    injected = [donors.codes(age) for age in ages]
    for name, crop, start in run.faces():
        image, mixed = paddle.to_tensor(to_network(crop)), {}
        for age, donated in zip(ages, injected, strict=True):
            aged = run.codes(image, start, age)
            if donors.age_with_face:
                donated = donated + (aged - start)
            blend = mix(latent_mask, donated, options.mix_alpha)
            codes = paddle.concat([aged, blend(aged.expand_as(donated), start)])
            mixed[age] = run.pipeline.pictures(codes, run.batch_size)
        yield name, crop, mixed


def random_codes(pipeline: AgePipeline, count: int, seed: int, truncation: float) -> paddle.Tensor:
    """Codes [N, L, D] of random faces, the same for one seed on every device."""
    network = pipeline.network
    z = np.random.default_rng(seed).standard_normal((count, network.style_dim), np.float32)
    with paddle.no_grad():
        w = network.map_latents(paddle.to_tensor(z)).unsqueeze(1)
        return network.latent_avg + truncation * (w - network.latent_avg)


def references(options: ReferenceOptions, run: AgeingRun, paths: list[Path]) -> Donors:
    """The faces of the images at `paths`, aged like the faces they are mixed with."""
    align = not options.no_align
    choice = "best" if options.face == "all" else options.face
    faces = [run.pipeline.faces(path, choice, align)[0].image for path in paths]
    images = paddle.to_tensor(to_network(faces))
    inverted = run.pipeline.invert(images, run.batch_size)
    return Donors(np.stack(faces), lambda age: run.codes(images, inverted, age))


def read_paths(file: str) -> list[Path]:
    """Paths on the lines of a text file, relative ones as seen from here or from the file."""
    option = "--ref_images_paths_file"
    if not file:
        raise ConfigError(f"{option}: expected a text file that names an image on each line")
    paths = files.read_paths(file, option)
    if not paths:
        raise ConfigError(f"{option}: {file} names no image; expected one on each line")
    paths = [path if path.exists() else Path(file).parent / path for path in paths]
    if missing := [path for path in paths if not path.exists()]:
        raise ConfigError(f"{option}: {file} names {missing[0]}: there is no such file")
    return paths


def sheet_row(
    options: MixingOptions, run: AgeingRun, images: Sequence[np.ndarray], caption: str
) -> np.ndarray:
    """One row of a sheet, the first image captioned."""
    tile = options.tile_size or max(run.pipeline.output_size, SMALLEST_TILE)
    return strip(images, tile, [caption, *[""] * (len(images) - 1)])


def edit_sheets(options: EditOptions) -> Summary:
    """`exp_dir/directions/NAME`, or `directions/AGE/NAME` with ages: a row for each direction."""
    ages = parse_ages(options.target_age) if options.target_age else [None]
    amounts = options.steps
    root = options.results / "directions"
    last = "" if ages[-1] is None else f"{ages[-1]:g}"
    run = AgeingRun(options, lambda one: root / last / one.result())
    learned = _learned(options, run.pipeline, root) if options.learn else {}
    known = open_directions(options, run.pipeline.network.decoder, learned)
    names = list(learned) if learned and not options.explore else options.names
    directions = {name: known[name] for name in names}
    if options.save_directions:
        save_directions(options.save_directions, directions)
        print(f"directions: {options.save_directions}")
    for name, crop, start in run.faces():
        for age in ages:
            if age is None:
                codes = run.edit(start, start) if run.edit else start
            else:
                codes = run.codes(paddle.to_tensor(to_network(crop)), start, age)
            rows = [
                _row(run, options, codes, direction, amounts, label)
                for label, direction in directions.items()
            ]
            save_sheet(root / (name if age is None else Path(f"{age:g}") / name), stack(rows))
    return run.summary


def _learned(options: EditOptions, pipeline: AgePipeline, root: Path) -> dict[str, np.ndarray]:
    """The direction that `--learn` asks for, by its name; it is written to a file, and rated."""
    name, found = learn(options, pipeline)
    path = root / f"{name}.npz"
    save_directions(path, {name: found.direction})
    print(f"{name}: {found}")
    print(f"direction: {path}, for --directions {path} --edit {name}=1")
    return {name: found.direction}


def _row(
    run: AgeingRun,
    options: EditOptions,
    codes: paddle.Tensor,
    direction: np.ndarray,
    amounts: list[float],
    label: str,
) -> np.ndarray:
    """The face moved by each of `amounts` along a direction [L, D] or [C], side by side."""
    pipeline, tiles = run.pipeline, []
    if direction.ndim == 1:
        for amount in amounts:
            with shifted_styles(pipeline.network.decoder, amount * direction):
                tiles += list(pipeline.pictures(codes, run.batch_size))
    else:
        steps = np.stack([amount * direction for amount in amounts])
        moved = codes + paddle.to_tensor(steps, place=codes.place)
        tiles = pipeline.pictures(moved, run.batch_size)
    tile = options.tile_size or max(run.pipeline.output_size, SMALLEST_TILE)
    return strip(tiles, tile, [f"{label} {amount:+g}" for amount in amounts])
