"""What the inference scripts write for each photograph: age strips, or a folder per age."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from paddle_sam.ageing.options import (
    FolderPerAgeOptions,
    InferenceOptions,
    SideBySideOptions,
    parse_ages,
)
from paddle_sam.ageing.photos import Input, Summary, results_folder
from paddle_sam.ageing.run import AgedPhoto, AgeingRun
from paddle_sam.core.images import SMALLEST_TILE, save_image, save_sheet, stack, strip
from paddle_sam.core.processes import InBackground
from paddle_sam.faces.paste import has_deep_colours, paste, save_pasted

SHEET_TILE = 96
SHEET_ROWS = 40


class Writer(Protocol):
    """Writes results as they come, in another thread than the networks run in."""

    def path_of(self, one: Input) -> Path: ...

    def add(self, result: AgedPhoto) -> None: ...

    def close(self) -> None: ...


def side_by_side(options: SideBySideOptions) -> Summary:
    """Write one strip per face, the input first, under `exp_dir/inference_side_by_side/`."""
    return write_results(options, StripWriter(options), measure=True)


def folder_per_age(options: FolderPerAgeOptions) -> Summary:
    """Write `exp_dir/inference_results/AGE/NAME`; input beside result in `inference_coupled`."""
    return write_results(options, FolderWriter(options))


def write_results(options: InferenceOptions, writer: Writer, measure: bool = False) -> Summary:
    """Age all inputs and have the results written; an input that fails is reported, not fatal.

    Results are measured, and the numbers printed, with `measure` or where an option asks for it.
    """
    ages = parse_ages(options.target_age)
    run = AgeingRun(options, writer.path_of)
    writers = [writer, PasteWriter(options)] if options.paste_back else [writer]
    measures = None
    with contextlib.ExitStack() as at_the_end:
        if measure or options.measured:
            measures = MeasureWriter(options, run)
            at_the_end.callback(measures.close)  # also of a run that is cut off
        in_background = at_the_end.enter_context(InBackground())
        run.summary.finish = in_background.wait
        for result in run.aged_photos(ages, options.resize_outputs):
            for one in writers:
                in_background(one.add, result)
            if measures:
                measures.add(result)
    for one in writers:
        one.close()
    return run.summary


class StripWriter:
    """Age strips, and contact sheets `contact_sheet_N.jpg` of up to `SHEET_ROWS` of them."""

    def __init__(self, options: SideBySideOptions):
        self._options, self._root = options, results_folder(options)
        self._strips, self._strip_count, self._sheet_count = [], 0, 0

    def path_of(self, one: Input) -> Path:
        return self._root / "inference_side_by_side" / one.result()

    def add(self, result: AgedPhoto) -> None:
        options = self._options
        captions = ["input", *[f"{age:g}" for age in result.ages]] if options.labels else None
        for name, shown, images in result.strips():
            tiles = [shown, *images]
            tile = options.tile_size or max(images.shape[2], SMALLEST_TILE)
            save_sheet(self._root / "inference_side_by_side" / name, strip(tiles, tile, captions))
            self._strip_count += 1
            if options.contact_sheet:
                self._strips.append(strip(tiles, SHEET_TILE, captions))
            if len(self._strips) == SHEET_ROWS:
                self._finish_sheet()

    def close(self) -> None:
        if self._strips and self._strip_count > 1:
            self._finish_sheet()

    def _finish_sheet(self) -> None:
        self._sheet_count += 1
        path = self._root / f"contact_sheet_{self._sheet_count}.jpg"
        save_image(path, stack(self._strips))
        tqdm.write(f"all strips: {path}")
        self._strips = []


class FolderWriter:
    """Single results, in a folder for each age."""

    def __init__(self, options: FolderPerAgeOptions):
        self._options, self._root = options, results_folder(options)

    def path_of(self, one: Input) -> Path:
        last = parse_ages(self._options.target_age)[-1]
        return self._root / "inference_results" / f"{last:g}" / one.result()

    def add(self, result: AgedPhoto) -> None:
        for name, shown, images in result.strips():
            for age, image in zip(result.ages, images, strict=True):
                save_image(self._root / "inference_results" / f"{age:g}" / name, image)
                if self._options.couple_outputs:
                    coupled = strip([shown, image], image.shape[0])
                    save_image(self._root / "inference_coupled" / f"{age:g}" / name, coupled)

    def close(self) -> None:
        pass


class PasteWriter:
    """`exp_dir/inference_pasted/AGE/NAME`, the photograph with all its faces at each age.

    Always PNG, which keeps what is around the faces bit for bit.
    """

    def __init__(self, options: InferenceOptions):
        self._options, self._root = options, results_folder(options) / "inference_pasted"

    def add(self, result: AgedPhoto) -> None:
        photo = result.photo
        if photo.path and has_deep_colours(photo.path):
            note = f"note: {photo.path}: more than 8 bits a channel; pasted photographs have 8"
            tqdm.write(note, file=sys.stderr)
        for age, patches in zip(result.ages, zip(*result.patches, strict=True), strict=True):
            pasted = paste(photo.pixels, patches, self._options.feather)
            path = self._root / f"{age:g}" / photo.face_names(".png")[0]
            save_pasted(path, photo.path, photo.pixels, pasted)

    def close(self) -> None:
        pass


class MeasureWriter:
    """Prints what results are like in numbers; on `--report` also writes `report.json`."""

    def __init__(self, options: InferenceOptions, run: AgeingRun):
        from paddle_sam.ageing import measures

        pipeline = run.ageing.pipeline
        lpips = judges = None
        if options.report:  # slower than the ageing itself
            from paddle_sam.metrics.judges import open_judges, picture_of

            lpips, judges = measures.report_lpips(), open_judges()
            self._picture_of = picture_of
        self._path = results_folder(options) / "report.json" if options.report else None
        files = (options.checkpoint_path, options.age_regressor_path, options.identity_path)
        load = measures.Measures.from_files
        self._measures = load(pipeline.crop, *files, options.device, lpips, judges)
        self._table = measures.table
        self._report = measures.Report(pipeline.source, judges)

    def add(self, result: AgedPhoto) -> None:
        for name, face, images in result.by_face():
            picture = self._picture_of(face, result.photo.pixels) if self._measures.judges else None
            measured = self._measures(face.image, images, picture)
            if measured:
                tqdm.write(f"{name}:\n{self._table(result.ages, measured)}")
            input_age = self._measures.input_age(face.image)
            self._report.add(name, input_age, result.ages, measured)

    def close(self) -> None:
        if self._path:
            self._report.write(self._path)
