"""Project the faces of photographs: `scripts/project.py`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.ageing.latent_options import ProjectOptions
from paddle_sam.ageing.photos import (
    Failure,
    Photo,
    Summary,
    counted,
    face_mask,
    find_inputs,
    grouped,
    read_photos,
    without_done,
)
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT, EMBEDDED_NOTE, stated_crop
from paddle_sam.ageing.projection import Best, Comparison, ProjectionSettings, project
from paddle_sam.ageing.tuning import TuningSettings, tune, write_tuned
from paddle_sam.core.device import fitting_batch, resolve_device
from paddle_sam.core.files import write_json
from paddle_sam.core.images import LARGE_TILE, resize, save_image, strip, to_network, to_uint8
from paddle_sam.core.latents import Latent, picture_beside, save_latent
from paddle_sam.core.processes import batches
from paddle_sam.core.video import open_video
from paddle_sam.core.weights import WeightFile, find_weight
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.faces.alignment import CropSettings, FaceCutter
from paddle_sam.metrics.judges import as_judged, open_judges
from paddle_sam.networks.image_features import LPIPS, load_lpips
from paddle_sam.networks.load import build
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Generator, published_channels
from paddle_sam.options import parse_codes


@dataclass(frozen=True, eq=False)
class Inverter:
    """What a weight file offers for projecting.

    generator: renders codes. encode: images [N, 3, S, S] to codes [N, L, D] to start from; None
    where the file has no such encoder. mean: [L, D] or [1, D]. crop: of the photographs.
    """

    generator: Generator
    encode: Callable[[paddle.Tensor], paddle.Tensor] | None
    mean: paddle.Tensor
    crop: CropSettings
    arch: dict | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """The generator's size, code length and layers, under their published names."""
        found = {"size": self.generator.size, "style_dim": self.generator.style_dim}
        found["n_mlp"] = len(self.generator.style) - 1
        channels = self.generator.to_rgbs[-1].conv.weight.shape[1]
        published = published_channels(self.generator.size, channel_multiplier=2)
        found["channel_multiplier"] = 2 * channels / published[self.generator.size]
        return found

    def start(self, images: paddle.Tensor, encoder: bool = True) -> paddle.Tensor:
        """Codes [N, L, D] to start from for images [N, 3, S, S]: the encoder's, or the mean."""
        if encoder and self.encode is not None:
            with paddle.no_grad():
                return self.encode(images)
        return self.mean.unsqueeze(0).expand([len(images), self.generator.n_codes, -1])


@dataclass(frozen=True, eq=False)
class Target:
    """A face to project.

    path: of its code, `STEM.npz`. mask: float32 [S, S] in [0, 1], what of the crop counts.
    """

    path: Path
    crop: np.ndarray
    mask: np.ndarray

    @property
    def video(self) -> Path:
        """`STEM-project.mp4`, beside the picture `STEM-project.png`."""
        return picture_beside(self.path).with_suffix(".mp4")


def project_photos(options: ProjectOptions) -> Summary:
    """Latent, final image and video of every face: under `exp_dir/projection/`, or `output`."""
    summary, folder = Summary(), options.results
    results = folder if options.output else folder / "projection"
    inputs = find_inputs(options)
    batch = len(inputs) if options.mse_mean == "batch" else 1
    inputs = without_done(options, inputs, summary, lambda one: results / one.result(".npz"))
    options.check_files()
    if not options.checkpoint_path:
        print(EMBEDDED_NOTE)
    resolve_device(options.device)
    projector = Projector(options, batch)
    photos = read_photos(options, inputs, FaceCutter(projector.inverter.crop, centre=True))

    def projected() -> Iterator[Photo | Failure]:
        """Each input when its faces are projected; faces of several are projected together."""
        for group in grouped(photos, projector.together):
            targets = []
            for index, photo in enumerate(group):
                try:
                    targets += targets_of(photo, results) if isinstance(photo, Photo) else []
                except ImageError as error:
                    group[index] = Failure(str(photo.input.name), str(error))
            projector.project(targets)
            yield from group

    for _ in counted(projected(), summary, len(inputs), folder):
        pass
    if projector.report is not None:
        projector.report.write(results / "report.json")
    return summary


class Projector:
    """Projects faces, `together` at once, and writes what comes out.

    Args:
        options: of the command.
        batch: how many images the squared error is the mean over.
    """

    def __init__(self, options: ProjectOptions, batch: int):
        self._options = options
        path = options.checkpoint_path or find_weight(EMBEDDED_DEFAULT)
        self.inverter = open_inverter(path)
        options.expect_numbers(path, self.inverter.numbers)
        if options.start == "encoder" and self.inverter.encode is None:
            raise ConfigError(
                f"--start: {path} holds no encoder of photographs to start from; use --start mean"
            )
        self._lpips = load_lpips(options.lpips_path or find_weight(f"lpips_{options.lpips}"))
        if batch > 1:
            print(
                f"note: the squared error is the mean over {batch} photographs, so that each"
                f" counts by --mse_weight {options.mse_weight / batch:.3g}; --mse_mean image counts"
                " each in full",
                file=sys.stderr,
            )
        size, codes = self.inverter.generator.size, self.inverter.generator.n_codes
        levels = ",".join(options.latent_level)
        self._settings = ProjectionSettings(
            steps=options.step,
            start_lr=options.start_lr,
            final_lr=options.final_lr,
            mse_weight=options.mse_weight,
            batch=batch,
            levels=parse_codes(levels, codes, "--latent_level") if levels else None,
            in_w=options.space == "w",
            noise_weight=options.noise_regularize,
        )
        self.together = options.test_batch_size or fitting_batch(size, gradients=True)
        self.report = Report(self._lpips, size) if options.report else None

    def project(self, targets: list[Target]) -> None:
        """Project faces and write what comes out."""
        for batch in batches(targets, self.together):
            images = paddle.to_tensor(to_network([target.crop for target in batch]))
            masks = paddle.to_tensor(np.stack([target.mask for target in batch])[:, None])
            best = self._optimise(batch, images, masks)
            write_results(batch, best)
            for index, target in enumerate(batch):
                at = slice(index, index + 1)
                shown = {"start": best.start.images[at], "code": best.images[at]}
                if self._options.tune:
                    shown["generator"] = self._tune(target, best.codes[at], images[at], masks[at])
                for stage, rendered in shown.items() if self.report else ():
                    self.report.add(stage, target, rendered, images[at])

    def _optimise(self, batch: list[Target], images: paddle.Tensor, masks: paddle.Tensor) -> Best:
        """Find the codes of images [N, 3, S, S] under masks [N, 1, S, S]; film it if asked to."""
        options, settings = self._options, self._settings
        codes = self.inverter.start(images, encoder=options.start == "encoder")
        best = Best(always_last=options.returned == "last")
        with contextlib.ExitStack() as stack:
            paths = [one.video for one in batch] if options.save_mp4 else []
            videos = [stack.enter_context(open_video(path, options.fps)) for path in paths]
            frames = round(options.fps * options.duration) or settings.steps + 1
            steps = project(self.inverter.generator, self._lpips, images, codes, settings, masks)
            for step in tqdm(steps, total=settings.steps + 1, unit="step", leave=False):
                best.see(step)
                times = repeats(step.index, settings.steps + 1, frames)
                if not (videos and times):
                    continue
                for video, target, image in zip(videos, batch, to_uint8(step.images), strict=True):
                    size = max(image.shape[0], LARGE_TILE)
                    frame = resize(image, size)
                    if options.couple_outputs:
                        captions = ["target", f"step {step.index}"]
                        frame = strip([target.crop, frame], size, captions)
                    for _ in range(times):
                        video.add(frame)
        return best

    def _tune(
        self, target: Target, codes: paddle.Tensor, image: paddle.Tensor, mask: paddle.Tensor
    ) -> paddle.Tensor:
        """Tune the generator for a face, and write it as `STEM-generator.pdparams` with a picture.

        codes: the pivot [1, L, D]. image: [1, 3, S, S]. mask: [1, 1, S, S]. Returns the picture,
        [1, 3, G, G].
        """
        options, inverter = self._options, self.inverter
        factors = (options.mse_weight, options.locality)
        settings = TuningSettings(options.tune, options.tune_lr, *factors)
        steps = tune(inverter.generator, self._lpips, image, codes, settings, mask)
        losses = []
        for step in tqdm(steps, total=options.tune + 1, unit="step", leave=False):
            losses.append(step.lpips + options.mse_weight * step.mse)
        path = target.path.with_name(f"{target.path.stem}-generator.pdparams")
        write_tuned(path, step.generator, inverter.arch, inverter.mean, inverter.crop)
        save_image(picture_beside(target.path, "tuned"), to_uint8(step.image)[0])
        first, last = losses[0], losses[-1]
        tqdm.write(f"{path}: {_closer('LPIPS + MSE', first, last)}")
        return step.image


class Report:
    """How close each face's pictures come to it: LPIPS, squared error, and identity.

    Identity is the distance of an open judge's descriptors (`paddle_sam.metrics.judges`): below 0.6
    is the same person; None where it sees no face.
    """

    def __init__(self, lpips: LPIPS, size: int):
        self._lpips, self._size = lpips, size
        self._judges = open_judges()
        self._faces: dict[str, dict[str, dict[str, float | None]]] = {}

    def add(
        self, stage: str, target: Target, rendered: paddle.Tensor, image: paddle.Tensor
    ) -> None:
        """Measure what is `rendered` [1, 3, G, G] of a face [1, 3, S, S], without any mask."""
        compare = Comparison(self._lpips, image, None, min(image.shape[2], self._size))
        with paddle.no_grad():
            distance, error = (value.item() for value in compare(rendered))
        row = {"lpips": distance, "mse": error, "identity": None}
        if self._judges is not None:
            seen = [self._judges(as_judged(one)) for one in (target.crop, to_uint8(rendered)[0])]
            row["identity"] = seen[0].distance(seen[1]) if all(seen) else None
        self._faces.setdefault(target.path.stem, {})[stage] = row

    def write(self, path: Path) -> None:
        """Write the rows and their means, and print those."""
        means = {}
        for stage in {stage: None for face in self._faces.values() for stage in face}:
            rows = [face[stage] for face in self._faces.values()]
            values = {
                name: [row[name] for row in rows if row[name] is not None] for name in rows[0]
            }
            means[stage] = {name: float(np.mean(v)) if v else None for name, v in values.items()}
            shown = ", ".join(f"{k} {v:.3f}" for k, v in means[stage].items() if v is not None)
            print(f"{stage}: {shown}")
        write_json(path, {"mean": means, "faces": self._faces})


def open_inverter(
    generator: Generator | SAM | str | os.PathLike | None = None,
    psp: SAM | str | os.PathLike | None = None,
) -> Inverter:
    """Build from networks or weight files of SAM, pSp or StyleGAN2.

    Args:
        generator: what renders; None takes the decoder of `psp`, or else the embedded model.
        psp: what gives the codes to start from; None takes the encoder of `generator`, if any.

    Raises:
        CheckpointError: a file cannot be used, or holds no generator.
        ConfigError: the two do not have the same number of codes.
    """
    if generator is None and psp is None:
        generator = find_weight(EMBEDDED_DEFAULT)
    if generator is None or psp is None:
        return _inverter(psp if generator is None else generator)
    renders, encodes = _inverter(generator), _inverter(psp)
    codes, expected = encodes.generator.n_codes, renders.generator.n_codes
    if encodes.encode is None or codes != expected:
        raise ConfigError(f"psp: expected an encoder of {expected} codes, found one of {codes}")
    return dataclasses.replace(
        encodes, generator=renders.generator, mean=renders.mean, arch=renders.arch
    )


def _inverter(given: Generator | SAM | str | os.PathLike) -> Inverter:
    network, crop, arch = given, None, None
    if not isinstance(given, Generator | SAM):
        file = WeightFile.read(given)
        arch = file.entry().arch
        arch = arch.get("decoder", arch)
        network = build(file, expect=(SAM, Generator))
        crop = stated_crop(file, size=getattr(network, "input_size", min(network.output_size, 256)))
    if isinstance(network, Generator):
        mean = network.latent_avg
        if mean is None:
            mean = network.mean_latent()
        mean = mean.reshape([-1, network.style_dim])
        return Inverter(network, None, mean, crop or CropSettings(min(network.size, 256)), arch)
    faces = network.encodes_photographs and network.encoder.rows == network.input_size
    encode = network.encode if faces else None  # pSp itself, or
    encode = network.invert if network.start == "encoded_w_plus" else encode  # SAM's frozen one
    crop = crop or CropSettings(network.input_size)
    return Inverter(network.decoder, encode, network.latent_avg, crop, arch)


def targets_of(photo: Photo, folder: Path) -> list[Target]:
    """The faces of a photograph with their masks; raises `ImageError` if one cannot be used."""
    return [
        Target(folder / name, face.image, face_mask(photo.pixels, face, photo.path))
        for name, face in zip(photo.face_names(".npz"), photo.faces, strict=True)
    ]


def repeats(index: int, steps: int, frames: int) -> int:
    """How often step `index` of `steps` is shown in a video of `frames` that ends with the last.

    >>> [repeats(index, 3, 7) for index in range(3)], [repeats(index, 3, 2) for index in range(3)]
    ([2, 2, 3], [0, 1, 1])
    """
    return frames * (index + 1) // steps - frames * index // steps


def write_results(batch: list[Target], best: Best) -> None:
    """Write each face's latent (with its noise maps, if optimised) and image, and say how close."""
    images, codes = to_uint8(best.images), best.codes.numpy()
    for index, target in enumerate(batch):
        noise = {f"noise_{k}": one[index].numpy() for k, one in enumerate(best.noise or [])}
        save_latent(target.path, Latent(codes[index], target.crop), noise)
        save_image(picture_beside(target.path), images[index])
        start, end = best.start.loss[index].item(), best.loss[index].item()
        tqdm.write(f"{target.path}: {_closer('loss', start, end)}")


def _closer(name: str, first: float, last: float) -> str:
    return f"{name} {first:.4f} -> {last:.4f}, {first / last:.1f} times closer"
