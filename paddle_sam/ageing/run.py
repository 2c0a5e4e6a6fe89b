"""A run of a command that ages: its options become inputs and a network, results come one by one.

The faces of several photographs are inverted, refined, aged, edited and rendered together. The
inference scripts write what comes: age strips, or a folder per age.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.ageing.dial import FaceDial
from paddle_sam.ageing.measures import Calibration, MeasureWriter
from paddle_sam.ageing.options import (
    AgeingOptions,
    FolderPerAgeOptions,
    InferenceOptions,
    SideBySideOptions,
    parse_ages,
    parse_keep,
)
from paddle_sam.ageing.photos import (
    AgedPhoto,
    Failure,
    Input,
    Photo,
    Summary,
    age_strip,
    counted,
    face_mask,
    find_inputs,
    grouped,
    read_photos,
    without_done,
)
from paddle_sam.ageing.pipeline import EMBEDDED_NOTE, AgePipeline, Edit
from paddle_sam.core.device import fitting_batch
from paddle_sam.core.images import save_image, save_sheet, stack, strip, to_network
from paddle_sam.core.processes import InBackground, batches
from paddle_sam.errors import ConfigError
from paddle_sam.export.engine import EngineSAM
from paddle_sam.faces.paste import has_deep_colours, paste, save_pasted

LARGE_TOGETHER = 4  # faces; loading both encoders costs about a fifth of one face's strip
SHEET_TILE = 96
SHEET_ROWS = 40


class AgeingRun:
    """The photographs that options name, and what ages them.

    `summary` counts what was done. `pipeline` encodes and renders, `batch_size` images together.
    `edit` changes aged codes before they are rendered. `refine` brings inverted codes [N, L, D]
    closer to images [N, 3, S, S], of which masks [N, 1, S, S] count. Both may be None.

    Args:
        options: of the command.
        path_of: where the result of an input is written, the last of them if there are several,
            for `--skip_existing`.

    Raises:
        PaddleSamError: an input is missing (this is found before weights are read), or the model
            or an option cannot be used.
    """

    def __init__(self, options: AgeingOptions, path_of: Callable[[Input], Path] | None = None):
        self.options, self.summary = options, Summary()
        latents = []
        if options.latent:
            from paddle_sam.ageing.latents import latent_inputs

            latents = latent_inputs(options.latent, options.data_path)[: options.n_images or None]
        self._alone = bool(latents) and not options.data_path
        self._inputs = latents if self._alone else find_inputs(options)
        if path_of is not None:
            self._inputs = without_done(options, self._inputs, self.summary, path_of)
        options.check_files()
        self.pipeline = _open_pipeline(options)
        self.keep = parse_keep(options.keep)
        self.batch_size = options.test_batch_size
        if not self.batch_size:
            self.batch_size = fitting_batch(self.pipeline.output_size, bool(options.refine))
        self.edit: Edit | None = None
        self.refine: Callable[..., paddle.Tensor] | None = None
        if options.strength != 1 or options.edit or options.directions:
            from paddle_sam.ageing.edits import open_edit

            self.edit = open_edit(options, self.pipeline)
        if options.refine:
            from paddle_sam.ageing.projection import refinement

            self.refine = refinement(self.pipeline.network.decoder, options.refine)

    def photos(self) -> Iterator[Photo]:
        """The photographs that can be used; failures are reported, and a summary at the end."""
        return self._counted(self._read())

    def faces(self) -> Iterator[tuple[Path, np.ndarray, paddle.Tensor]]:
        """Of each face of these the name of its results, its crop, and its code [1, L, D]."""
        for photo in self.photos():
            codes = batches(self.invert(photo), 1)
            yield from zip(photo.face_names(), photo.crops, codes, strict=True)

    def aged_photos(self, ages: list[float], resize_outputs: bool = False) -> Iterator[AgedPhoto]:
        """The photographs with their faces at every age. Several are aged together."""
        _say_what_is_out_of_reach(self.pipeline.calibration, ages)
        groups = self.groups(self._read(), len(ages))
        aged = (self.age_group(group, ages, resize_outputs) for group in groups)
        return self._counted(itertools.chain.from_iterable(aged))

    def _counted(self, results: Iterator) -> Iterator:
        folder = self.options.results
        return counted(results, self.summary, len(self._inputs), folder)

    def _read(self) -> Iterator[Photo | Failure]:
        options, cut_faces = self.options, self.pipeline.cut_faces
        if not options.latent:
            return read_photos(options, self._inputs, cut_faces, self._with_masks)
        from paddle_sam.ageing.latents import LatentReader

        reader = LatentReader(Path(options.latent), self.pipeline)
        if self._alone:
            return reader.alone(self._inputs)
        return read_photos(
            options,
            self._inputs,
            cut_faces,
            lambda photo: self._with_masks(reader.with_codes(photo)),
        )

    def _with_masks(self, photo: Photo) -> Photo:
        """A photograph, once the masks that refining needs are known to leave something of it."""
        for face in photo.faces if self.options.refine else ():
            face_mask(photo.pixels, face, photo.path)
        return photo

    def groups(self, photos: Iterator[Photo | Failure], ages: int) -> Iterator[list]:
        """Group photographs so that each group's faces, at `ages` ages, fill a batch.

        Large exported networks load one encoder after the other; several faces together make that
        rare.
        """
        network = self.pipeline.network
        large = isinstance(network, EngineSAM) and network.large
        return grouped(photos, LARGE_TOGETHER if large else -(-self.batch_size // ages))

    def age_group(
        self, group: Sequence[Photo | Failure], ages: list[float], resize_outputs: bool = False
    ) -> list[AgedPhoto | Failure]:
        """Age the faces of a group's photographs together; a `Failure` stays in its place."""
        photos = [one for one in group if isinstance(one, Photo)]
        if not photos:
            return list(group)
        pixels = [photo.pixels for photo in photos for _ in photo.faces]
        faces = [face for photo in photos for face in photo.faces]
        inverted = paddle.concat([self.invert(photo) for photo in photos])
        options = (self.keep, resize_outputs, self.batch_size, self.edit)
        aged = iter(self.pipeline.blended(pixels, faces, ages, inverted, *options))

        def result(photo: Photo) -> AgedPhoto:
            images, patches = zip(*itertools.islice(aged, len(photo.faces)), strict=True)
            return AgedPhoto(photo, list(images), list(patches), ages)

        return [result(one) if isinstance(one, Photo) else one for one in group]

    def invert(self, photo: Photo) -> paddle.Tensor:
        """The codes [F, L, D] that the faces of a photograph start from."""
        images = paddle.to_tensor(to_network(photo.crops))
        if photo.codes is not None:
            codes = paddle.to_tensor(photo.codes)
        else:
            codes = self.pipeline.invert(images, self.batch_size)
        if self.refine is None:
            return codes
        masks = [face_mask(photo.pixels, face, photo.path)[None] for face in photo.faces]
        masks = paddle.to_tensor(np.stack(masks))
        parts = (batches(whole, self.batch_size) for whole in (images, codes, masks))
        return paddle.concat([self.refine(*part) for part in zip(*parts, strict=True)])

    def codes(self, images: paddle.Tensor, inverted: paddle.Tensor, age: float) -> paddle.Tensor:
        """Edited codes [N, L, D] of images [N, 3, S, S], inverted to [N, L, D], at one age."""
        ages = paddle.full_like(images[:, 0, 0, 0], age)
        codes = self.pipeline.aged_codes(images, inverted, ages)
        return self.edit(codes, inverted) if self.edit else codes

    def dials(self, photo: Photo, inverted: paddle.Tensor, side: int) -> list[FaceDial | None]:
        """What blends the faces of a photograph, inverted to [F, L, D], into it; None: nothing."""
        pixels = [photo.pixels] * len(photo.faces)
        return self.pipeline.dials(pixels, photo.faces, inverted, self.keep, side, self.batch_size)


def _open_pipeline(options: AgeingOptions) -> AgePipeline:
    if not options.checkpoint_path:
        print(EMBEDDED_NOTE)
    if options.needs_layers and options.engine not in ("auto", "eager"):
        raise ConfigError(
            f"--engine {options.engine}: exported models can neither refine faces, move them"
            " along directions nor take another generator; use --engine eager"
        )
    pipeline = AgePipeline.from_checkpoint(
        options.checkpoint_path or None,
        options.device,
        "eager" if options.needs_layers else options.engine,
        options.raw_age,
        generator=options.generator or None,
    )
    if options.needs_inversion and pipeline.network.start != "encoded_w_plus":
        raise ConfigError(
            f"--{options.needs_inversion}: {pipeline.source} does not invert faces before it ages"
            " them"
        )
    return pipeline


def _say_what_is_out_of_reach(calibration: Calibration | None, ages: list[float]) -> None:
    if calibration is None:
        return
    youngest, oldest = calibration.reach
    if min(ages) < youngest or max(ages) > oldest:
        print(
            f"note: to {calibration.judge} this model's faces look {youngest:.0f} to {oldest:.0f}"
            " years; for other target ages it gives its youngest or oldest"
        )


def side_by_side(options: SideBySideOptions) -> Summary:
    """Write one strip per face, the input first, under `exp_dir/inference_side_by_side/`."""
    writer = StripWriter(options)
    summary = write_results(options, writer, measure=True)
    writer.close()
    return summary


def folder_per_age(options: FolderPerAgeOptions) -> Summary:
    """Write `exp_dir/inference_results/AGE/NAME`; input beside result in `inference_coupled`."""
    return write_results(options, FolderWriter(options), options.measured)


def write_results(
    options: InferenceOptions, writer: StripWriter | FolderWriter, measure: bool
) -> Summary:
    """Age all inputs and have the results written; an input that fails is reported, not fatal.

    With `measure` the results are measured, and the numbers printed.
    """
    ages = parse_ages(options.target_age)
    run = AgeingRun(options, writer.path_of)
    writers = [writer, PasteWriter(options)] if options.paste_back else [writer]
    with contextlib.ExitStack() as at_the_end:
        measures = None
        if measure:
            measures = MeasureWriter(options, run.pipeline.crop, run.pipeline.source)
            at_the_end.callback(measures.close)  # also of a run that is cut off
        in_background = at_the_end.enter_context(InBackground())
        run.summary.finish = in_background.wait
        for result in run.aged_photos(ages, options.resize_outputs):
            for one in writers:
                in_background(one.add, result)
            if measures:
                measures.add(result)
    return run.summary


class StripWriter:
    """Age strips, and contact sheets `contact_sheet_N.jpg` of up to `SHEET_ROWS` of them."""

    def __init__(self, options: SideBySideOptions):
        self._options, self._root = options, options.results
        self._strips, self._sheets = [], 0

    def path_of(self, one: Input) -> Path:
        return self._root / "inference_side_by_side" / one.result()

    def add(self, result: AgedPhoto) -> None:
        options = self._options
        for name, shown, images in result.strips():
            sheet = age_strip(shown, images, result.ages, options.tile_size, options.labels)
            save_sheet(self._root / "inference_side_by_side" / name, sheet)
            if options.contact_sheet:
                row = age_strip(shown, images, result.ages, SHEET_TILE, options.labels)
                self._strips.append(row)
            if len(self._strips) == SHEET_ROWS:
                self._finish_sheet()

    def close(self) -> None:
        if len(self._strips) > (0 if self._sheets else 1):  # no sheet of a single strip
            self._finish_sheet()

    def _finish_sheet(self) -> None:
        self._sheets += 1
        path = self._root / f"contact_sheet_{self._sheets}.jpg"
        save_image(path, stack(self._strips))
        tqdm.write(f"all strips: {path}")
        self._strips = []


class FolderWriter:
    """Single results, in a folder for each age."""

    def __init__(self, options: FolderPerAgeOptions):
        self._options, self._root = options, options.results

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


class PasteWriter:
    """`exp_dir/inference_pasted/AGE/NAME`, the photograph with all its faces at each age.

    Always PNG, which keeps what is around the faces bit for bit.
    """

    def __init__(self, options: InferenceOptions):
        self._options, self._root = options, options.results / "inference_pasted"

    def add(self, result: AgedPhoto) -> None:
        photo = result.photo
        if photo.path and has_deep_colours(photo.path):
            note = f"note: {photo.path}: more than 8 bits a channel; pasted photographs have 8"
            tqdm.write(note, file=sys.stderr)
        for age, patches in zip(result.ages, zip(*result.patches, strict=True), strict=True):
            pasted = paste(photo.pixels, patches, self._options.feather)
            path = self._root / f"{age:g}" / photo.face_names(".png")[0]
            save_pasted(path, photo.path, photo.pixels, pasted)
