"""A run of a command that ages: its options become inputs and a network, results come one by one.

The faces of several photographs are inverted, refined, aged, edited and rendered together. The
inference scripts write what comes: age strips, or a folder per age.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.ageing.dial import FaceDial, aims, blend
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
    counted,
    face_mask,
    find_inputs,
    read_photos,
    results_folder,
    without_done,
)
from paddle_sam.ageing.pipeline import EMBEDDED_NOTE, AgePipeline, Edit
from paddle_sam.core.device import fitting_batch
from paddle_sam.core.images import (
    SMALLEST_TILE,
    save_image,
    save_sheet,
    stack,
    strip,
    to_network,
)
from paddle_sam.core.processes import InBackground, batches
from paddle_sam.errors import ConfigError
from paddle_sam.export.engine import EngineSAM
from paddle_sam.faces.paste import Patch, has_deep_colours, paste, save_pasted

# Brings codes [N, L, D] closer to images [N, 3, S, S], of which masks [N, 1, S, S] count.
Refine = Callable[[paddle.Tensor, paddle.Tensor, paddle.Tensor], paddle.Tensor]

LARGE_TOGETHER = 4  # faces; loading both encoders costs about a fifth of one face's strip
SHEET_TILE = 96
SHEET_ROWS = 40


class AgeingRun:
    """The photographs that options name, and what ages them.

    `summary` counts what was done. `path_of` tells, for `--skip_existing`, where the result of an
    input is written, the last of them if there are several.

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
        self.ageing = open_ageing(options)

    def photos(self) -> Iterator[Photo]:
        """The photographs that can be used; failures are reported, and a summary at the end."""
        return self._counted(self._read())

    def aged_photos(self, ages: list[float], resize_outputs: bool = False) -> Iterator[AgedPhoto]:
        """The same, with their faces at every age. Several are aged together."""
        _say_what_is_out_of_reach(self.ageing.pipeline.calibration, ages)

        def results() -> Iterator[AgedPhoto | Failure]:
            for group in self.ageing.groups(self._read(), len(ages)):
                photos = [one for one in group if isinstance(one, Photo)]
                found = self.ageing.age_group(photos, ages, resize_outputs) if photos else []
                aged = iter(found)
                for one in group:
                    if isinstance(one, Photo):
                        images, patches = map(list, zip(*next(aged), strict=True))
                        one = AgedPhoto(one, images, patches, ages)
                    yield one

        return self._counted(results())

    def _counted(self, results: Iterator) -> Iterator:
        folder = results_folder(self.options)
        return counted(results, self.summary, len(self._inputs), folder)

    def _read(self) -> Iterator[Photo | Failure]:
        pipeline, options = self.ageing.pipeline, self.options
        if not options.latent:
            return read_photos(options, self._inputs, pipeline.cut_faces)
        from paddle_sam.ageing.latents import LatentReader

        root = Path(options.latent)
        reader = LatentReader(
            root,
            pipeline.n_codes,
            pipeline.style_dim,
            pipeline.crop.size,
            lambda code: pipeline.pictures(paddle.to_tensor(code[None]))[0],
        )
        if self._alone:
            return reader.alone(self._inputs)
        return read_photos(options, self._inputs, pipeline.cut_faces, reader.with_codes)


def open_ageing(options: AgeingOptions) -> Ageing:
    """Load the network, and prepare the edits and refinement that the options ask for.

    Raises:
        PaddleSamError: the model or an option cannot be used.
    """
    if not options.checkpoint_path:
        print(EMBEDDED_NOTE)
    if options.needs_layers and options.engine not in ("auto", "eager"):
        raise ConfigError(
            f"--engine {options.engine}: exported models can neither refine faces, move them"
            " along directions nor take another generator; use --engine eager"
        )
    engine = "eager" if options.needs_layers else options.engine
    path = options.checkpoint_path or None
    generator = options.generator or None
    pipeline = AgePipeline.from_checkpoint(
        path, options.device, engine, options.raw_age, generator=generator
    )
    keep = parse_keep(options.keep)
    if options.needs_inversion and pipeline.network.start != "encoded_w_plus":
        raise ConfigError(
            f"--{options.needs_inversion}: {pipeline.source} does not invert faces before it ages"
            " them"
        )
    batch_size = options.test_batch_size
    batch_size = batch_size or fitting_batch(pipeline.output_size, bool(options.refine))
    refine = None
    if options.refine:
        from paddle_sam.ageing.projection import refinement

        refine = refinement(pipeline.network.decoder, options.refine)
    return Ageing(pipeline, _edit(options, pipeline), refine, batch_size, keep)


def _say_what_is_out_of_reach(calibration: Calibration | None, ages: list[float]) -> None:
    if calibration is None:
        return
    youngest, oldest = calibration.reach
    if min(ages) < youngest or max(ages) > oldest:
        print(
            f"note: to {calibration.judge} this model's faces look {youngest:.0f} to {oldest:.0f}"
            " years; for other target ages it gives its youngest or oldest"
        )


def _edit(options: AgeingOptions, pipeline: AgePipeline) -> Edit | None:
    if options.strength == 1 and not options.edit and not options.directions:
        return None
    from paddle_sam.ageing.edits import chain, open_directions, parse_edits, shift, strengthen

    edits = [] if options.strength == 1 else [strengthen(options.strength)]
    if options.edit or options.directions:
        directions = open_directions(options, pipeline.network.decoder)
        if amounts := parse_edits(options.edit):
            edits.append(shift(paddle.to_tensor(directions.offset(amounts))))
    return chain(edits)


class Ageing:
    """A pipeline with the steps around it.

    Args:
        pipeline: encodes and renders.
        edit: changes the aged codes before they are rendered.
        refine: brings inverted codes closer to the face before it is aged.
        batch_size: images rendered, or refined, together.
        keep: see `AgePipeline.__call__`.
    """

    def __init__(
        self,
        pipeline: AgePipeline,
        edit: Edit | None = None,
        refine: Refine | None = None,
        batch_size: int = 4,
        keep: float | None = None,
    ):
        self.pipeline, self.edit, self.refine = pipeline, edit, refine
        self.batch_size, self.keep = batch_size, keep

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

    def dials(
        self, photo: Photo, inverted: paddle.Tensor, side: int | None = None
    ) -> list[FaceDial | None]:
        """What blends the faces of a photograph, inverted to [F, L, D], into it; None: nothing."""
        pixels = [photo.pixels] * len(photo.faces)
        return self.pipeline.dials(pixels, photo.faces, inverted, self.keep, side, self.batch_size)

    def age_group(
        self, group: Sequence[Photo], ages: Sequence[float], resize_outputs: bool = False
    ) -> list[list[tuple[np.ndarray, list[Patch]]]]:
        """Age the faces of a group's photographs.

        Returns:
            of each photograph, of each face, what `blend` returns: images uint8 [A, R, R, 3] and
            what to paste at each age.
        """
        inverted = [self.invert(photo) for photo in group]
        pooled = resize_outputs and self.keep == 0
        side = self.pipeline.network.input_size if resize_outputs else None
        dials = [self.dials(*pair, side) for pair in zip(group, inverted, strict=True)]
        asked = np.concatenate([aims(of_photo, ages) for of_photo in dials])
        rendered = self.render_group(group, asked, pooled, paddle.concat(inverted))
        return [
            [
                blend(images, ages, face, dial)
                for images, face, dial in zip(faces, photo.faces, dials, strict=True)
            ]
            for photo, faces, dials in zip(group, rendered, dials, strict=True)
        ]

    def render_group(
        self,
        group: Sequence[Photo],
        ages: Sequence,
        resize_outputs: bool = False,
        inverted: paddle.Tensor | None = None,
    ) -> list[np.ndarray]:
        """Render the faces of each of a group's photographs, uint8 [F, A, R, R, 3]: no dial.

        `ages` are [A], or for each face of the group its own, [sum of F, A].
        """
        if inverted is None:
            inverted = paddle.concat([self.invert(photo) for photo in group])
        crops = np.concatenate([photo.crops for photo in group])
        images = self.pipeline.age(
            crops, ages, resize_outputs, self.batch_size, inverted, self.edit
        )
        ends = np.cumsum([len(photo.faces) for photo in group])
        return np.split(images, ends[:-1])

    def groups(self, photos: Iterable, ages: int) -> Iterator[list]:
        """Group photographs so that each group's faces, at `ages` ages, fill a batch.

        Large exported networks load one encoder after the other; several faces together make that
        rare. What is not a photograph, a `Failure`, stays in its place.
        """
        faces = -(-self.batch_size // ages)
        if isinstance(self.pipeline.network, EngineSAM) and self.pipeline.network.large:
            faces = LARGE_TOGETHER
        group, waiting = [], 0
        for photo in photos:
            group.append(photo)
            waiting += len(photo.faces) if isinstance(photo, Photo) else 0
            if waiting >= faces:
                yield group
                group, waiting = [], 0
        if group:
            yield group


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
            pipeline = run.ageing.pipeline
            measures = MeasureWriter(options, pipeline.crop, pipeline.source)
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
