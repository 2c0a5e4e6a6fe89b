"""What the inference scripts write for each photograph: age strips, or a folder per age."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.ageing.ageing import Ageing
from paddle_sam.ageing.measures import Measures, Report, report_lpips, table
from paddle_sam.ageing.options import (
    FolderPerAgeOptions,
    InferenceOptions,
    SideBySideOptions,
    parse_ages,
)
from paddle_sam.ageing.photos import OtherFormat, Photo, Summary, results_folder
from paddle_sam.core.images import save_image
from paddle_sam.core.processes import InBackground
from paddle_sam.core.sheets import SMALLEST_TILE, save_sheet, stack, strip
from paddle_sam.errors import ConfigError
from paddle_sam.faces.paste import paste_back

SHEET_TILE = 96
SHEET_ROWS = 40


@dataclass(frozen=True)
class FaceResult:
    """One face of one input.

    name: relative path for its results. crop: uint8 [S, S, 3]. images: uint8 [A, R, R, 3], one
    for each of the A `ages`.
    """

    name: Path
    crop: np.ndarray
    images: np.ndarray
    ages: list[float]


def side_by_side(config: SideBySideOptions) -> Summary:
    """One strip per face, the input first, under `exp_dir/inference_side_by_side/`."""
    root = results_folder(config)
    sheet = ContactSheet(root)

    def write(result: FaceResult) -> None:
        tiles = [result.crop, *result.images]
        captions = ["input", *[f"{age:g}" for age in result.ages]]
        tile = config.tile_size or max(result.images.shape[2], SMALLEST_TILE)
        picture = strip(tiles, tile, captions if config.labels else None)
        save_sheet(root / "inference_side_by_side" / result.name, picture)
        if config.contact_sheet:
            sheet.add(strip(tiles, SHEET_TILE, captions if config.labels else None))

    summary = run(config, write, measure=True)
    if config.contact_sheet and summary.faces > 1:
        sheet.finish()
    return summary


def folder_per_age(config: FolderPerAgeOptions) -> Summary:
    """`exp_dir/inference_results/AGE/NAME`, and input beside result in `inference_coupled`."""
    root = results_folder(config)

    def write(result: FaceResult) -> None:
        for age, image in zip(result.ages, result.images, strict=True):
            save_image(root / "inference_results" / f"{age:g}" / result.name, image)
            if config.couple_outputs:
                coupled = strip([result.crop, image], image.shape[0])
                save_image(root / "inference_coupled" / f"{age:g}" / result.name, coupled)

    return run(config, write)


def run(
    config: InferenceOptions, write: Callable[[FaceResult], None], measure: bool = False
) -> Summary:
    """Age all inputs and hand each face to `write`; an input that fails is reported, not fatal.

    Results are measured, and the numbers printed, with `measure` or where an option asks for it.
    """
    ages = parse_ages(config.target_age)
    if config.paste_back and config.latent and not config.data_path:
        raise ConfigError("--paste_back: needs the photograph; give --data_path beside --latent")
    ageing = Ageing(config)
    measure = measure or config.report or bool(config.identity_path or config.age_regressor_path)
    lpips = report_lpips() if config.report else None
    measures = None
    if measure:
        files = (config.checkpoint_path, config.age_regressor_path, config.identity_path)
        measures = Measures.from_files(ageing.pipeline.crop, *files, config.device, lpips)
    report = Report(ageing.pipeline.source)
    summary, pasted = Summary(), OtherFormat()
    with contextlib.ExitStack() as at_the_end:
        if config.report:  # also of a run that is cut off
            at_the_end.callback(report.write, results_folder(config) / "report.json")
        in_background = at_the_end.enter_context(InBackground())
        for photo, images in ageing.aged_photos(summary, ages, config.resize_outputs):
            for name, crop, aged in zip(photo.face_names(), photo.crops, images, strict=True):
                in_background(write, FaceResult(name, crop, aged, ages))
                if measures:
                    measured = measures(crop, aged)
                    if measured:
                        tqdm.write(f"{name}:\n{table(ages, measured)}")
                    report.add(name, measures.input_age(crop), ages, measured)
            if config.paste_back:
                name = pasted(photo.name, ".png")
                in_background(write_pasted, config, photo, images, ages, name)
    return summary


def write_pasted(
    config: InferenceOptions, photo: Photo, images: np.ndarray, ages: list[float], name: Path
) -> None:
    """`exp_dir/inference_pasted/AGE/NAME`, the photograph with all its faces at each age.

    Always PNG, which keeps what is around the faces bit for bit.
    """
    quads = [face.quad for face in photo.faces]
    for at, age in enumerate(ages):
        path = results_folder(config) / "inference_pasted" / f"{age:g}" / name
        save_image(path, paste_back(photo.pixels, images[:, at], quads, config.feather))


class ContactSheet:
    """Collects strips and writes `contact_sheet_N.jpg`, each of up to `SHEET_ROWS` of them."""

    def __init__(self, folder: Path):
        self.folder, self.strips, self.count = folder, [], 0

    def add(self, picture: np.ndarray) -> None:
        self.strips.append(picture)
        if len(self.strips) == SHEET_ROWS:
            self.finish()

    def finish(self) -> None:
        """Write the strips that are waiting."""
        if self.strips:
            self.count += 1
            path = self.folder / f"contact_sheet_{self.count}.jpg"
            save_image(path, stack(self.strips))
            print(f"all strips: {path}")
            self.strips = []
