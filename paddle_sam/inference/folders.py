"""What the inference scripts write for each photograph: age strips, or a folder per age."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.common.images import LONGEST_SIDES, save_image
from paddle_sam.configs.inference import (
    FolderPerAgeConfig,
    InferenceConfig,
    SideBySideConfig,
    parse_ages,
)
from paddle_sam.inference.ageing import Ageing
from paddle_sam.inference.photos import Summary, results_folder
from paddle_sam.inference.pipeline import embedded_age_regressor, measure_ages
from paddle_sam.inference.sheets import SMALLEST_TILE, stack, strip

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


def side_by_side(config: SideBySideConfig) -> Summary:
    """One strip per face, the input first, under `exp_dir/inference_side_by_side/`."""
    root = results_folder(config)
    sheet = ContactSheet(root)
    # The embedded age regressor reads the embedded default's crop, not that of other models.
    regressor = None if config.checkpoint_path else embedded_age_regressor(config.device)

    def write(result: FaceResult) -> None:
        tiles = [result.crop, *result.images]
        captions = ["input", *[f"{age:g}" for age in result.ages]]
        tile = config.tile_size or max(result.images.shape[2], SMALLEST_TILE)
        picture = strip(tiles, tile, captions if config.labels else None)
        path = root / "inference_side_by_side" / result.name
        if max(picture.shape) > LONGEST_SIDES.get(path.suffix.lower(), max(picture.shape)):
            path = path.with_name(f"{path.name}.png")
        save_image(path, picture)
        tqdm.write(str(path))
        if config.contact_sheet:
            sheet.add(strip(tiles, SHEET_TILE, captions if config.labels else None))
        if regressor is not None:
            tqdm.write(ages_table(result.ages, measure_ages(regressor, result.images)))

    summary = run(config, write)
    if config.contact_sheet and summary.faces > 1:
        sheet.finish()
    return summary


def folder_per_age(config: FolderPerAgeConfig) -> Summary:
    """`exp_dir/inference_results/AGE/NAME`, and input beside result in `inference_coupled`."""
    root = results_folder(config)

    def write(result: FaceResult) -> None:
        for age, image in zip(result.ages, result.images, strict=True):
            save_image(root / "inference_results" / f"{age:g}" / result.name, image)
            if config.couple_outputs:
                coupled = strip([result.crop, image], image.shape[0])
                save_image(root / "inference_coupled" / f"{age:g}" / result.name, coupled)

    return run(config, write)


def run(config: InferenceConfig, write: Callable[[FaceResult], None]) -> Summary:
    """Age all inputs and hand each face to `write`; an input that fails is reported, not fatal."""
    ages = parse_ages(config.target_age)
    ageing = Ageing(config)
    summary = Summary()
    for photo in ageing.photos(summary):
        images = ageing.age(photo, ages, config.resize_outputs)
        for name, crop, aged in zip(photo.face_names(), photo.crops, images, strict=True):
            write(FaceResult(name, crop, aged, ages))
    return summary


def ages_table(targets: list[float], measured: np.ndarray) -> str:
    """Two lines of text: the target ages and those the embedded regressor reads."""
    rows = (("target age", targets), ("measured", measured))
    return "\n".join(f"  {name:<11}" + "".join(f"{v:6.0f}" for v in row) for name, row in rows)


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
