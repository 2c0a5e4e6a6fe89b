"""Age every photograph of a folder: N inputs give N results or N reported errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.common.checks import ImageError
from paddle_sam.common.images import WRITABLE_SUFFIXES, list_images, save_image
from paddle_sam.configs.inference import (
    FolderPerAgeConfig,
    InferenceConfig,
    SideBySideConfig,
    parse_ages,
)
from paddle_sam.inference.pipeline import (
    EMBEDDED_NOTE,
    AgePipeline,
    Image,
    embedded_age_regressor,
    measure_ages,
)
from paddle_sam.inference.sheets import stack, strip

SMALLEST_TILE = 128
SHEET_TILE = 96
SHEET_ROWS = 40
PORTRAIT = "astronaut.png"


@dataclass
class Summary:
    """What a run over a folder did."""

    faces: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def status(self) -> int:
        """Exit status: 0 all done, 1 some inputs failed, 2 nothing was written."""
        if not self.faces:
            return 2
        return 1 if self.failures else 0


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
        path = root / "inference_side_by_side" / result.name
        save_image(path, strip(tiles, tile, captions if config.labels else None))
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
    inputs = find_inputs(config)
    if not config.checkpoint_path:
        print(EMBEDDED_NOTE)
    pipeline = AgePipeline.from_checkpoint(config.checkpoint_path or None, config.device)
    summary = Summary()
    progress = tqdm(total=len(inputs), unit="photo", disable=len(inputs) == 1)
    for name, future in _crops_ahead(pipeline, inputs, config):
        try:
            crops = future.result()
        except ImageError as error:
            summary.failures[str(name)] = str(error)
            tqdm.write(f"skipped: {error}", file=sys.stderr)
        else:
            images = pipeline.age(crops, ages, config.resize_outputs, config.test_batch_size)
            for number, (crop, aged) in enumerate(zip(crops, images, strict=True), start=1):
                write(FaceResult(face_name(name, number), crop, aged, ages))
                summary.faces += 1
        progress.update()
    progress.close()
    report(summary, len(inputs), results_folder(config))
    return summary


def _crops_ahead(
    pipeline: AgePipeline, inputs: list[tuple[Path, Image]], config: InferenceConfig
) -> Iterator[tuple[Path, Future]]:
    """Read and align in threads, a few inputs ahead of the network; in the order of `inputs`."""

    def crops(image: Image) -> np.ndarray:
        found = pipeline.faces(image, config.face, not config.no_align)
        return np.stack([face.image for face in found])

    with ThreadPoolExecutor(max(config.test_workers, 1)) as pool:
        waiting = []
        for name, image in inputs:
            waiting.append((name, pool.submit(crops, image)))
            if len(waiting) > 2 * config.test_workers:
                yield waiting.pop(0)
        yield from waiting


def find_inputs(config: InferenceConfig) -> list[tuple[Path, Image]]:
    """Relative path for each input's result, and the input."""
    if not config.data_path:
        return [(Path(PORTRAIT), portrait())]
    paths = list_images(config.data_path)
    root = Path(config.data_path)
    root = root if root.is_dir() else root.parent
    paths = paths[: config.n_images or None]
    return [(_result_name(path.relative_to(root)), path) for path in paths]


def portrait() -> np.ndarray:
    """NASA's public-domain portrait of Eileen Collins, which scikit-image ships."""
    from skimage import data

    return data.astronaut()


def _result_name(path: Path) -> Path:
    """`path` itself; with `.png` added where its format cannot be written."""
    if path.suffix.lower() in WRITABLE_SUFFIXES:
        return path
    return path.with_name(f"{path.name}.png")


def face_name(name: Path, number: int) -> Path:
    """Name for the results of a photograph's face: the second gets `_face2`, and so on."""
    return name if number == 1 else name.with_name(f"{name.stem}_face{number}{name.suffix}")


def results_folder(config: InferenceConfig) -> Path:
    """`--exp_dir`, or where results go without it."""
    return Path(config.exp_dir or ("results" if config.data_path else "examples"))


def ages_table(targets: list[float], measured: np.ndarray) -> str:
    """Two lines of text: the target ages and those the embedded regressor reads."""
    rows = (("target age", targets), ("measured", measured))
    return "\n".join(f"  {name:<11}" + "".join(f"{v:6.0f}" for v in row) for name, row in rows)


def report(summary: Summary, inputs: int, root: Path) -> None:
    """Print how many inputs gave results and, after a folder, once more why others did not."""
    print(
        f"{inputs - len(summary.failures)} of {inputs} photographs, {summary.faces} faces: {root}"
    )
    if inputs > 1:
        for reason in summary.failures.values():
            print(f"failed: {reason}", file=sys.stderr)


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
