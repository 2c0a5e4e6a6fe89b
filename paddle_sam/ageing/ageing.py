"""A pipeline with the options of a run: the codes that faces start from, and their edits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.ageing.directions import Directions, parse_edits, read_directions
from paddle_sam.ageing.edits import chain, shift, strengthen
from paddle_sam.ageing.latents import read_latent
from paddle_sam.ageing.options import AgeingOptions
from paddle_sam.ageing.photos import (
    Photo,
    Result,
    Summary,
    check_present,
    face_mask,
    find_inputs,
    read_photos,
    results_folder,
    with_progress,
)
from paddle_sam.ageing.pipeline import EMBEDDED_NOTE, AgePipeline
from paddle_sam.ageing.projection import Best, ProjectionSettings, project
from paddle_sam.core.device import fitting_batch
from paddle_sam.core.images import to_network
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError, ConfigError, ImageError
from paddle_sam.export.engine import EngineSAM
from paddle_sam.faces.alignment import AlignedFace
from paddle_sam.networks.lpips_weights import load_lpips
from paddle_sam.options import parse_codes

# Gentler than a projection from scratch, so that the code stays where ageing understands it.
REFINEMENT = ProjectionSettings(start_lr=0.05, final_lr=0.01)

LARGE_TOGETHER = 4  # faces; loading both encoders costs about a fifth of one face's strip

SAME_CROP = 12.0  # grey levels that two crops of one photograph may differ by, on average


class Ageing:
    """Ages the faces of photographs as the options say.

    Raises:
        PaddleSamError: an input is missing (this is found before weights are read), or the model
            or an option cannot be used.
    """

    def __init__(self, config: AgeingOptions):
        self._latents = latent_files(config)[: config.n_images or None] if config.latent else []
        self._inputs = find_inputs(config) if config.data_path or not config.latent else []
        names = ("checkpoint_path", "directions", "identity_path", "age_regressor_path")
        check_present(config, *names)
        if not config.checkpoint_path:
            print(EMBEDDED_NOTE)
        self.config = config
        edits_directions = config.edit or config.directions or getattr(config, "explore", "")
        engine = config.engine
        if config.refine or edits_directions:
            # Exported models have neither gradients, which refinement follows, nor weights to
            # factorise, which directions come from.
            if engine not in ("auto", "eager"):
                raise ConfigError(
                    f"--engine {engine}: can neither refine faces nor move them along directions;"
                    " use --engine eager"
                )
            engine = "eager"
        path = config.checkpoint_path or None
        self.pipeline = AgePipeline.from_checkpoint(path, config.device, engine)
        size = self.pipeline.output_size
        self.batch_size = config.test_batch_size or fitting_batch(size, bool(config.refine))
        self._needs_inversion()
        self.directions = self._read_directions() if edits_directions else None
        edits = [] if config.strength == 1 else [strengthen(config.strength)]
        if amounts := parse_edits(config.edit):
            edits.append(shift(paddle.to_tensor(self.directions.offset(amounts))))
        self.edit = chain(edits)
        self._lpips = load_lpips(find_weight("lpips_vgg")) if config.refine else None

    def photos(self, summary: Summary) -> Iterator[Photo]:
        """The photographs of the run, or the projected faces of `--latent`. See `read_photos`."""
        return self._watched(self._usable(summary), summary)

    def invert(self, photo: Photo) -> paddle.Tensor:
        """The codes [F, L, D] that the faces of a photograph start from."""
        images = paddle.to_tensor(to_network(photo.crops))
        if photo.codes is not None:
            codes = paddle.to_tensor(photo.codes)
        else:
            codes = self.pipeline.invert(images, self.batch_size)
        return self._refined(photo, images, codes) if self._lpips else codes

    def codes(self, images: paddle.Tensor, inverted: paddle.Tensor, age: float) -> paddle.Tensor:
        """Edited codes [N, L, D] of images [N, 3, S, S], inverted to [N, L, D], at one age."""
        ages = paddle.full([len(images)], age, "float32")
        codes = self.pipeline.aged_codes(images, inverted, ages)
        return self.edit(codes, inverted) if self.edit else codes

    def aged_photos(
        self, summary: Summary, ages: list[float], resize_outputs: bool = False
    ) -> Iterator[tuple[Photo, np.ndarray]]:
        """Each of `photos`, and its faces at every age: uint8 [F, A, R, R, 3]."""

        def aged():
            for group in self.groups(self._usable(summary), len(ages)):
                yield from zip(group, self.age_group(group, ages, resize_outputs), strict=True)

        return self._watched(aged(), summary)

    def age_group(
        self, group: Sequence[Photo], ages: Sequence, resize_outputs: bool = False
    ) -> list[np.ndarray]:
        """The faces of each of a group's photographs at every age: uint8 [F, A, R, R, 3].

        `ages` are [A], or of all the group's faces their own, [sum of F, A].
        """
        images = self.pipeline.age(
            np.concatenate([photo.crops for photo in group]),
            ages,
            resize_outputs,
            self.batch_size,
            paddle.concat([self.invert(photo) for photo in group]),
            self.edit,
        )
        ends = np.cumsum([len(photo.faces) for photo in group])
        return np.split(images, ends[:-1])

    def groups(self, photos: Iterable[Photo], ages: int) -> Iterator[list[Photo]]:
        """Photographs whose faces, at so many ages, are worth doing at once.

        Small networks get full batches; large exported ones load one encoder after the other,
        which several faces together make rare.
        """
        faces = -(-self.batch_size // ages)
        if isinstance(self.pipeline.network, EngineSAM) and self.pipeline.network.large:
            faces = LARGE_TOGETHER
        group: list[Photo] = []
        for photo in photos:
            group.append(photo)
            if sum(len(each.faces) for each in group) >= faces:
                yield group
                group = []
        if group:
            yield group

    def _usable(self, summary: Summary) -> Iterator[Photo]:
        config = self.config
        if self._latents and not config.data_path:
            return self._projected(summary)
        cut_faces = self.pipeline.cut_faces
        if not self._latents:
            return read_photos(config, self._inputs, cut_faces, summary)
        return read_photos(config, self._inputs, cut_faces, summary, self._with_codes)

    def _watched(self, results: Iterable[Result], summary: Summary) -> Iterator[Result]:
        inputs = len(self._inputs or self._latents)
        return with_progress(results, summary, inputs, results_folder(self.config))

    def _needs_inversion(self) -> None:
        """Refuse options that need the frozen encoder's code, where the model has none."""
        config, plain = self.config, AgeingOptions()
        names = ("strength", "refine", "latent")
        used = [name for name in names if getattr(config, name) != getattr(plain, name)]
        if getattr(config, "explore", "") and not config.target_age:
            used.append("explore")  # of the face as it is
        if used and self.pipeline.network.start != "encoded_w_plus":
            raise ConfigError(
                f"--{used[0]}: {self.pipeline.source} does not invert faces before it ages them"
            )

    def _read_directions(self) -> Directions:
        text, codes = self.config.edit_level, self.pipeline.n_codes
        levels = parse_codes(text, codes, "--edit_level") if text else None
        given = read_directions(self.config.directions) if self.config.directions else None
        return Directions(self.pipeline.network.decoder, levels, given)

    def _refined(self, photo: Photo, images: paddle.Tensor, codes: paddle.Tensor) -> paddle.Tensor:
        settings = dataclasses.replace(REFINEMENT, steps=self.config.refine)
        masks = paddle.to_tensor(np.stack([face_mask(photo, face)[None] for face in photo.faces]))
        refined = []
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            best, decoder = Best(), self.pipeline.network.decoder
            for step in project(
                decoder, self._lpips, images[part], codes[part], settings, masks[part]
            ):
                best.see(step)
            refined.append(best.codes)
        return paddle.concat(refined)

    def _projected(self, summary: Summary) -> Iterator[Photo]:
        """The faces of `--latent`, each as a photograph that shows nothing else."""
        root = Path(self.config.latent)
        for file in self._latents:
            latent = read_latent(file, self.pipeline.n_codes, self.pipeline.style_dim)
            size = self.pipeline.crop.size
            if latent.crop.shape != (size, size, 3):
                raise ConfigError(
                    f"--latent: the crop in {file} has {latent.crop.shape[0]} pixels, this model"
                    f" takes {size}"
                )
            square = np.array([[0, 0], [0, size], [size, size], [size, 0]], np.float64)
            face = AlignedFace(latent.crop, square)
            summary.faces += 1
            name = file.relative_to(root if root.is_dir() else root.parent).with_suffix(".png")
            yield Photo(name, latent.crop, [face], codes=latent.w_plus[None])

    def _with_codes(self, photo: Photo) -> Photo:
        """A photograph with the latents of its faces, found by the names of their results."""
        root = Path(self.config.latent)
        files = [root]
        if root.is_dir():
            files = [latent_of(root, name) for name in photo.face_names()]
        if len(files) != len(photo.faces):
            raise ImageError(
                f"{photo.path}: has {len(photo.faces)} faces, --latent {root} one; give a folder"
            )
        if missing := [file for file in files if not file.is_file()]:
            raise ImageError(f"{photo.path}: its latent {missing[0]} is missing; project it first")
        shape = self.pipeline.n_codes, self.pipeline.style_dim
        latents = [read_latent(file, *shape) for file in files]
        for file, latent, face in zip(files, latents, photo.faces, strict=True):
            if not alike(latent.crop, face.image):
                raise ImageError(f"{photo.path}: the latent {file} was projected from another face")
        return dataclasses.replace(photo, codes=np.stack([latent.w_plus for latent in latents]))


def latent_files(config: AgeingOptions) -> list[Path]:
    """The files that `--latent` names.

    Raises:
        CheckpointError: there is none.
        ConfigError: it is one for a folder of photographs.
    """
    root = Path(config.latent)
    if root.is_dir():
        if files := sorted(root.rglob("*.npz")):
            return files
        raise CheckpointError(f"--latent: {root} holds no .npz file")
    if not root.is_file():
        raise CheckpointError(
            f"--latent: {root}: there is no such file; scripts/project.py writes such files"
        )
    if config.data_path and Path(config.data_path).is_dir():
        raise ConfigError(
            f"--latent: {root} is one face, --data_path a folder; give the folder of their latents"
        )
    return [root]


def latent_of(folder: Path, name: Path) -> Path:
    """Where projection left the latent of the photograph or face `name`; see `OtherFormat`."""
    own = folder / name.with_name(f"{name.name}.npz")
    return own if own.is_file() else folder / name.with_suffix(".npz")


def alike(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two crops, uint8 [S, S, 3], are the same up to compression and alignment's jitter."""
    same_size = left.shape == right.shape
    return same_size and np.abs(left.astype(int) - right).mean() < SAME_CROP
