"""Pictures of any kind to codes and images: `scripts/invert.py`.

The encoder is of pSp, e4e or ReStyle; HyperStyle tunes the generator for a photograph as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_sam.ageing.latent_options import InvertOptions
from paddle_sam.ageing.photos import (
    Failure,
    Input,
    Photo,
    Summary,
    counted,
    find_inputs,
    grouped,
    read_photos,
    without_done,
)
from paddle_sam.ageing.picture_encoder import PictureEncoder
from paddle_sam.ageing.pipeline import EMBEDDED_NOTE
from paddle_sam.ageing.tuning import write_tuned
from paddle_sam.core.device import fitting_batch, resolve_device
from paddle_sam.core.files import check_name
from paddle_sam.core.images import LARGE_TILE, ImageLike, as_image, resize, save_image, stack, strip
from paddle_sam.core.latents import Latent, picture_beside, save_latent
from paddle_sam.core.processes import batches
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.faces.alignment import FaceCutter


@dataclass(frozen=True, eq=False)
class Pictures:
    """What is encoded of one input: of a photograph each face, of another picture itself.

    names: of the results, without suffix. fitted: see `PictureEncoder.fit`.
    """

    names: list[Path]
    fitted: list[np.ndarray]

    @property
    def faces(self) -> list[np.ndarray]:
        """What `counted` counts."""
        return self.fitted


def invert_pictures(options: InvertOptions) -> Summary:
    """Codes, image and sheet of every picture, under `exp_dir/inversion/`."""
    summary, root = Summary(), options.results / "inversion"
    inputs = find_inputs(options)
    inputs = without_done(options, inputs, summary, lambda one: root / one.result(".npz"))
    options.check_files()
    if not options.checkpoint_path:
        print(EMBEDDED_NOTE)
    resolve_device(options.device)
    encoder = PictureEncoder.open(
        options.checkpoint_path,
        options.steps,
        options.resize_factors,
        options.w_encoder_checkpoint_path,
    )
    together = options.test_batch_size or fitting_batch(encoder.network.output_size)
    if encoder.tuner is not None:
        if options.latent_mask:
            raise ConfigError(
                "--latent_mask: HyperStyle tunes its generator for one code; leave it"
            )
        together = 1

    def inverted() -> Iterator[Pictures | Failure]:
        for group in grouped(_read(options, inputs, encoder), together):
            pictures = [one for one in group if isinstance(one, Pictures)]
            _write(options, encoder, pictures, root, together)
            yield from group

    for _ in counted(inverted(), summary, len(inputs), root):
        pass
    return summary


def _read(
    options: InvertOptions, inputs: list[Input], encoder: PictureEncoder
) -> Iterator[Pictures | Failure]:
    """Each input as the encoder takes it, or why it cannot be used."""
    if encoder.kind == "photo":
        cutter = FaceCutter(encoder.crop, centre=True)
        for photo in read_photos(options, inputs, cutter):
            if isinstance(photo, Photo):
                photo = Pictures(photo.face_names(".npz"), list(photo.crops))
            yield photo
        return
    if any(one.path is None for one in inputs):
        raise ConfigError(
            f"--data_path: expected {encoder.kind} images, which this encoder takes; found none"
        )
    for one in inputs:
        try:
            check_name(one.result(".npz"))
            yield Pictures([one.result(".npz")], [encoder.read(one.path)])
        except ImageError as error:
            yield Failure(str(one.name), str(error))


def _write(
    options: InvertOptions,
    encoder: PictureEncoder,
    inputs: list[Pictures],
    root: Path,
    together: int,
) -> None:
    """Encode pictures, at most `together` at once, and write what comes out."""
    pairs = [pair for one in inputs for pair in zip(one.names, one.fitted, strict=True)]
    for part in batches(pairs, together):
        names, fitted = zip(*part, strict=True)
        planes, shown = encoder.prepare(fitted)
        steps, images, (*_, tuned) = zip(*encoder.inversions(planes), strict=True)
        tile = max(encoder.network.output_size, LARGE_TILE)
        tile = (tile * encoder.rows // encoder.size, tile)
        captions = ["input", *[f"step {k}" for k in range(1, len(steps))], "inversion"]
        for index, name in enumerate(names):
            image = images[-1][index]
            fitting = encoder.rows, encoder.size
            stands_for = resize(image, fitting) if encoder.kind != "photo" else shown[index]
            save_latent(root / name, Latent(steps[-1][index].numpy(), stands_for))
            save_image(picture_beside(root / name, "inversion"), image)
            if tuned is not None:
                generator = (root / name).with_name(f"{name.stem}-generator.pdparams")
                average = encoder.tuner.latent_avg
                write_tuned(generator, tuned, encoder.decoder_arch, average, encoder.crop)
            rows = [strip([shown[index], *[each[index] for each in images]], tile, captions)]
            if options.latent_mask:
                styled = encoder.styled(steps[-1][index : index + 1], options)
                variants = [encoder.render(one.unsqueeze(0))[0] for one in styled]
                seeds = range(options.seed, options.seed + len(variants))
                for seed, variant in zip(seeds, variants, strict=True):
                    save_image(picture_beside(root / name, f"style{seed}"), variant)
                rows.append(strip(variants, tile, [f"style {seed}" for seed in seeds]))
            save_image((root / name).with_name(f"{name.stem}-sheet.jpg"), stack(rows))


def invert_images(
    images: Sequence[ImageLike], encoder: PictureEncoder, align: bool = True, batch_size: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `paddle_sam.invert` does: images uint8 [N, R, R, 3], codes float32 [N, L, D]."""
    cutter = FaceCutter(encoder.crop, centre=True)
    fitted = []
    for number, one in enumerate(images):
        name = str(one) if isinstance(one, str | os.PathLike) else f"images[{number}]"
        if encoder.kind == "photo":
            fitted.append(cutter(as_image(one, name), "best", align, name)[0].image)
        elif isinstance(one, str | os.PathLike):
            fitted.append(encoder.read(Path(one)))
        elif encoder.kind == "labels":
            fitted.append(encoder.fit(np.asarray(one), name))
        else:
            fitted.append(encoder.fit(as_image(one, name), name))
    rendered, codes = [], []
    batch_size = 1 if encoder.tuner is not None else batch_size
    for part in batches(fitted, batch_size):
        planes, _ = encoder.prepare(part)
        *_, (last, images, _) = encoder.inversions(planes)
        codes.append(last.numpy())
        rendered.append(images)
    return np.concatenate(rendered), np.concatenate(codes)
