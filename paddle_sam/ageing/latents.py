"""Projected faces in the place of inverting: `--latent`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.ageing.photos import Failure, Input, Photo
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.images import resize
from paddle_sam.core.latents import BARE, SUFFIXES, Latent, list_codes, read_latent
from paddle_sam.errors import CheckpointError, ConfigError, ImageError
from paddle_sam.faces.alignment import AlignedFace

SAME_CROP = 12.0  # grey levels that two crops of one photograph may differ by, on average


def latent_inputs(latent: str, data_path: str) -> list[Input]:
    """The files that `--latent` names, as inputs."""
    root = Path(latent)
    if root.is_dir():
        found = [path for path in root.rglob("*") if path.suffix in SUFFIXES]
        bare = [p for p in found if p.suffix == BARE and p.with_suffix(".npz").is_file()]
        files = sorted(set(found) - set(bare))
        if not files:
            raise CheckpointError(
                f"--latent: {root}: found none of {', '.join(SUFFIXES)} in this folder"
            )
        inputs = []
        for file in files:
            try:
                inputs += _codes_of(file, file.relative_to(root))
            except CheckpointError:  # which is reported when it is the file's turn
                inputs.append(CodeInput(file.relative_to(root).with_suffix(""), file))
        return inputs
    if not root.is_file():
        raise CheckpointError(
            f"--latent: {root}: there is no such file; scripts/project.py writes such files"
        )
    codes = _codes_of(root, Path(root.name))
    if data_path and Path(data_path).is_dir() and len(codes) == 1:
        raise ConfigError(
            f"--latent: {root} is one face, --data_path a folder; give the folder of their latents"
        )
    return codes


def _codes_of(file: Path, name: Path) -> list[Input]:
    """Each code of a file as an input; of several the file's name and their own is the name."""
    return [
        CodeInput(name.with_name(f"{name.stem}_{code}" if code else name.stem), file, code=code)
        for code in list_codes(file)
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class CodeInput(Input):
    """A code of a file, `source`, which may hold several."""

    code: str = ""


@dataclasses.dataclass(frozen=True)
class LatentReader:
    """Reads the latents of `--latent`, a file or a folder of them, for a pipeline."""

    root: Path
    pipeline: AgePipeline

    def alone(self, inputs: list[CodeInput]) -> Iterator[Photo | Failure]:
        """Each latent as a photograph that shows nothing but its face."""
        for one in inputs:
            try:
                photo = self._photo_of(one)
            except (CheckpointError, ConfigError, ImageError) as error:
                photo = Failure(str(one.name), str(error))
            yield photo

    def _photo_of(self, one: CodeInput) -> Photo:
        size = self.pipeline.crop.size
        latent = self._latent(one.source, one.code)
        if latent.projected:
            crop = latent.crop
            if crop is None:
                (crop,) = self.pipeline.pictures(paddle.to_tensor(latent.w_plus[None]))
            latent = dataclasses.replace(latent, crop=resize(crop, size))
        if latent.crop.shape != (size, size, 3):
            raise ImageError(
                f"--latent: the crop in {one.source} has {latent.crop.shape[0]} pixels, this"
                f" model takes {size}"
            )
        corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], np.float64) * size
        face = AlignedFace(latent.crop, corners)
        # The pixels are the crop, which is no file to look for a mask beside.
        return Photo(Input(one.name, latent.crop), latent.crop, [face], latent.w_plus[None])

    def with_codes(self, photo: Photo) -> Photo:
        """A photograph with the latents of its faces, found by the names of its results.

        Raises:
            ImageError: one is missing, cannot be used, or belongs to another face.
        """
        try:
            return dataclasses.replace(photo, codes=self._codes_of(photo))
        except (CheckpointError, ConfigError) as error:  # which concerns this photograph alone
            raise ImageError(str(error)) from error

    def _codes_of(self, photo: Photo) -> np.ndarray:
        files = [self.root] if self.root.is_file() else self._files(photo)
        if len(files) != len(photo.faces):
            raise ImageError(
                f"{photo.path}: has {len(photo.faces)} faces, --latent {self.root} one; give a"
                " folder"
            )
        if missing := [file for file in files if not file.is_file()]:
            raise ImageError(f"{photo.path}: its latent {missing[0]} is missing; project it first")
        latents = [self._latent(file, self._name_in(file, photo)) for file in files]
        for file, latent, face in zip(files, latents, photo.faces, strict=True):
            if not latent.projected and not alike(latent.crop, face.image):
                raise ImageError(f"{photo.path}: the latent {file} was projected from another face")
        return np.stack([latent.w_plus for latent in latents])

    def _latent(self, file: Path, code: str) -> Latent:
        return read_latent(file, self.pipeline.n_codes, self.pipeline.style_dim, False, code)

    def _name_in(self, file: Path, photo: Photo) -> str:
        """Which code of a file is a photograph's: of several the one with its name."""
        found = list_codes(file)
        stem = photo.path.stem if photo.path else photo.input.name.name
        if len(found) > 1 and stem not in found:
            raise ImageError(f"{photo.path}: {file} holds no code called {stem}")
        return stem if stem in found else next(iter(found))

    def _files(self, photo: Photo) -> list[Path]:
        """Where projection left the latents; its run may have named the photograph in full."""
        name = photo.input.name
        full, stem = (photo.path.name, photo.path.stem) if photo.path else (name.name, name.name)
        files = []
        for face in photo.face_suffixes():
            in_full, short = (
                self.root / name.with_name(f"{one}{face}.npz") for one in (full, stem)
            )
            found = in_full if in_full.is_file() else short
            bare = found.with_suffix(BARE)
            files.append(bare if bare.is_file() and not found.is_file() else found)
        return files


def alike(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two crops, uint8 [S, S, 3], are the same up to compression and alignment's jitter."""
    same_size = left.shape == right.shape
    return same_size and np.abs(left.astype(int) - right).mean() < SAME_CROP
