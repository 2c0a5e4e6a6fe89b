"""Files of W+ codes: what projection writes and ageing reads, plain arrays in an `.npz`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from paddle_sam.ageing.photos import Input, Photo
from paddle_sam.core.files import read_arrays, write_arrays
from paddle_sam.core.images import check_image
from paddle_sam.errors import CheckpointError, ConfigError, ImageError, check_shape
from paddle_sam.faces.alignment import AlignedFace

SAME_CROP = 12.0  # grey levels that two crops of one photograph may differ by, on average


@dataclasses.dataclass(frozen=True, eq=False)
class Latent:
    """A face as a code.

    w_plus: float32 [L, D]. crop: the aligned face it stands for, uint8 [S, S, 3].
    """

    w_plus: np.ndarray
    crop: np.ndarray


def save_latent(
    path: str | os.PathLike, latent: Latent, extra: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write a code with its crop, and further arrays by name."""
    arrays = {"w_plus": latent.w_plus, "crop": latent.crop, **(extra or {})}
    write_arrays(path, arrays, compress=True)


def read_latent(path: str | os.PathLike, codes: int, dim: int) -> Latent:
    """Read what `save_latent` wrote, for a model that takes `codes` codes of `dim` numbers.

    Raises:
        CheckpointError: the file is missing, damaged, or belongs to another model.
    """
    arrays = read_arrays(path, "scripts/project.py writes such files")
    if missing := [name for name in ("w_plus", "crop") if name not in arrays]:
        raise CheckpointError(f"{path}: lacks the array {missing[0]!r}; expected a projected face")
    latent = Latent(arrays["w_plus"].astype(np.float32), arrays["crop"])
    if latent.w_plus.shape != (codes, dim):
        raise CheckpointError(
            f"{path}: holds a code of shape {list(latent.w_plus.shape)}, this model takes"
            f" {[codes, dim]}; project with the same --checkpoint_path"
        )
    if not np.isfinite(latent.w_plus).all():
        raise CheckpointError(f"{path}: the code holds values that are not numbers")
    check_shape(f"{path}: crop", latent.crop, (None, None, 3))
    check_image(f"{path}: crop", latent.crop)
    return latent


def latent_inputs(latent: str, data_path: str) -> list[Input]:
    """The files that `--latent` names, as inputs.

    Raises:
        CheckpointError: there is none.
        ConfigError: it is one file for a folder of photographs.
    """
    root = Path(latent)
    if root.is_dir():
        files = sorted(root.rglob("*.npz"))
        if not files:
            raise CheckpointError(f"--latent: {root}: found no .npz file in this folder")
        return [Input(file.relative_to(root).with_suffix(""), file) for file in files]
    if not root.is_file():
        raise CheckpointError(
            f"--latent: {root}: there is no such file; scripts/project.py writes such files"
        )
    if data_path and Path(data_path).is_dir():
        raise ConfigError(
            f"--latent: {root} is one face, --data_path a folder; give the folder of their latents"
        )
    return [Input(Path(root.stem), root)]


@dataclasses.dataclass(frozen=True)
class LatentReader:
    """Reads the latents of `--latent` for a model.

    root: a file or a folder of them. codes, dim: the shape of the model's codes, [L, D]. size:
    side of its crops.
    """

    root: Path
    codes: int
    dim: int
    size: int

    def alone(self, inputs: list[Input]) -> Iterator[Photo]:
        """Each latent as a photograph that shows nothing but its face."""
        for one in inputs:
            latent = read_latent(one.source, self.codes, self.dim)
            if latent.crop.shape != (self.size, self.size, 3):
                raise ConfigError(
                    f"--latent: the crop in {one.source} has {latent.crop.shape[0]} pixels, this"
                    f" model takes {self.size}"
                )
            corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], np.float64) * self.size
            face = AlignedFace(latent.crop, corners)
            # The pixels are the crop, which is no file to look for a mask beside.
            shown = Input(one.name, latent.crop)
            yield Photo(shown, latent.crop, [face], latent.w_plus[None])

    def with_codes(self, photo: Photo) -> Photo:
        """A photograph with the latents of its faces, found by the names of its results.

        Raises:
            ImageError: one is missing, or stands for another face.
        """
        files = [self.root] if self.root.is_file() else self._files(photo)
        if len(files) != len(photo.faces):
            raise ImageError(
                f"{photo.path}: has {len(photo.faces)} faces, --latent {self.root} one; give a"
                " folder"
            )
        if missing := [file for file in files if not file.is_file()]:
            raise ImageError(f"{photo.path}: its latent {missing[0]} is missing; project it first")
        latents = [read_latent(file, self.codes, self.dim) for file in files]
        for file, latent, face in zip(files, latents, photo.faces, strict=True):
            if not alike(latent.crop, face.image):
                raise ImageError(f"{photo.path}: the latent {file} was projected from another face")
        return dataclasses.replace(photo, codes=np.stack([latent.w_plus for latent in latents]))

    def _files(self, photo: Photo) -> list[Path]:
        """Where projection left the latents; its run may have named the photograph in full."""
        name = photo.input.name
        full, stem = (photo.path.name, photo.path.stem) if photo.path else (name.name, name.name)
        files = []
        for face in photo.face_suffixes():
            in_full, short = (
                self.root / name.with_name(f"{one}{face}.npz") for one in (full, stem)
            )
            files.append(in_full if in_full.is_file() else short)
        return files


def alike(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two crops, uint8 [S, S, 3], are the same up to compression and alignment's jitter."""
    same_size = left.shape == right.shape
    return same_size and np.abs(left.astype(int) - right).mean() < SAME_CROP
