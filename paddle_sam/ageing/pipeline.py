"""`AgePipeline`: a photograph in, the same face at other ages out.

Its network is that of a weight file, run by the fast engine, or else by eager Paddle.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle

from paddle_sam.ageing.dial import FaceDial, aims, blend
from paddle_sam.ageing.measures import Calibration, embedded_ages
from paddle_sam.ageing.options import Ages, list_ages
from paddle_sam.ageing.photos import Aged
from paddle_sam.core.device import fitting_batch
from paddle_sam.core.images import ImageLike, as_image, to_network, to_uint8
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import WeightFile, find_weight
from paddle_sam.errors import CheckpointError, ConfigError, ImageError, check_shape
from paddle_sam.export.cache import open_exported
from paddle_sam.export.engine import EngineSAM
from paddle_sam.faces.alignment import AlignedFace, CropSettings, FaceCutter
from paddle_sam.faces.paste import Patch
from paddle_sam.networks.load import build
from paddle_sam.networks.sam import SAM, add_age_plane
from paddle_sam.networks.stylegan2 import Generator

EMBEDDED_DEFAULT = "sam_mini"
EMBEDDED_NOTE = (
    "No --checkpoint_path: using the small embedded model (trained on UTKFace, research use). The"
    " published 1024 px model is fetched and converted once; see README, 'The published models'."
)

_CROP, _CALIBRATION = "crop.json", "calibration.json"  # beside exported models

# Changes codes [N, L, D] of aged faces, given what they were inverted to, likewise [N, L, D];
# see paddle_sam.ageing.edits.
Edit = Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]


class AgePipeline:
    """Align faces, encode them once, render them at any ages.

    `output_size` is the side of the images that it renders, `n_codes` how many codes, L, make up a
    face, and `style_dim` the length of each, D.

    >>> pipeline = AgePipeline.from_checkpoint()                    # the embedded default
    >>> aged = pipeline("photo.jpg", ages=[10, 40, 70])             # doctest: +SKIP
    >>> aged[0].shape                                               # doctest: +SKIP
    (3, 64, 64, 3)

    Args:
        network: a SAM network in eval mode, or its exported form.
        crop: how its faces are cut from photographs.
        source: what the weights are called, for messages.
        calibration: which age to ask for, so that faces look the age that is wanted; None asks
            for the age itself.
        read_ages: reads the apparent ages [F] of crops uint8 [F, S, S, 3], by which the dial
            chooses how much of a photograph to keep; None where nothing can.
    """

    def __init__(
        self,
        network: SAM | EngineSAM,
        crop: CropSettings,
        source: str = "network",
        calibration: Calibration | None = None,
        read_ages: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        check_can_age(network, source)
        self.network = network
        self.crop = crop
        self.source = source
        self.calibration, self.read_ages = calibration, read_ages
        self.cut_faces = FaceCutter(crop)
        self.output_size: int = network.output_size
        self.n_codes: int = network.n_codes
        self.style_dim: int = network.style_dim

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike | None = None,
        device: str = "auto",
        engine: str = "auto",
        raw_age: bool = False,
        *,
        generator: Generator | str | os.PathLike | None = None,
    ) -> AgePipeline:
        """Build from a converted or trained `.pdparams` file; None takes the embedded default.

        For `device` and `engine` see `ageing_network`. With `raw_age` the file's calibration is
        not used. `generator` is a StyleGAN2 to render with, or its weight file, such as one tuned
        for a face; it is run layer by layer.

        Raises:
            CheckpointError: the file is missing, damaged, foreign, or not a SAM network.
            ConfigError: the device does not exist, or the engine asked for cannot run.
        """
        embedded = find_weight(EMBEDDED_DEFAULT)
        path = Path(path) if path else embedded
        engine = engine if generator is None else "eager"
        network, crop, calibration = ageing_network(path, device, engine)
        if generator is not None:
            from paddle_sam.ageing.tuning import fitting_generator

            network.decoder = fitting_generator(generator, network, device)
        read_ages = embedded_ages(device) if path.samefile(embedded) else None
        return cls(network, crop, str(path), None if raw_age else calibration, read_ages)

    def __call__(
        self,
        photos: ImageLike | Iterable[ImageLike],
        ages: Ages = range(0, 101, 10),
        face: str = "best",
        align: bool = True,
        resize_outputs: bool = False,
        batch_size: int | None = None,
        keep: float | None = None,
    ) -> Aged:
        """Age the faces of one or several photographs.

        Args:
            photos: a path, file content as bytes or stream, PIL image or array (see `as_image`),
                or several of them. An array [N, H, W, 3] is N photographs.
            ages: target ages in years, 0 to 100: one, several, or text such as "20,40-60:10".
            face: which faces of a photograph: `best` (the most confident), `largest` or `all`.
            align: find and cut out the face; False where photographs are aligned crops already.
            resize_outputs: pool the results to the network's input size.
            batch_size: images rendered together; None for as many as memory allows.
            keep: share of the photograph that results keep where the model cannot reproduce it,
                0 to 1 (see `paddle_sam.ageing.dial`). 0 gives the model's pictures as they are;
                None keeps less the more years a face is aged.

        Raises:
            ImageError, FaceNotFoundError: a photograph cannot be used; the message names it.
            ConfigError: an age or option cannot work.
        """
        ages = list_ages(ages)
        if batch_size is None:
            batch_size = fitting_batch(self.output_size)
        pictures, faces, photo_of_face = [], [], []
        for number, (name, photo) in enumerate(_named(photos)):
            pictures.append(as_image(photo, name))
            found = self.cut_faces(pictures[-1], face, align, name)
            faces += found
            photo_of_face += [number] * len(found)
        if not faces:
            raise ConfigError("photos: expected at least one photograph, found none")
        crops = np.stack([one.image for one in faces])
        inverted = self.invert(paddle.to_tensor(to_network(crops)), batch_size)
        of = [pictures[number] for number in photo_of_face]
        results = self.blended(of, faces, ages, inverted, keep, resize_outputs, batch_size)
        images, patches = map(list, zip(*results, strict=True))
        return Aged(images, ages, faces, photo_of_face, pictures, patches)

    def blended(
        self,
        photos: Sequence[np.ndarray],
        faces: Sequence[AlignedFace],
        ages: Sequence[float],
        inverted: paddle.Tensor,
        keep: float | None = None,
        resize_outputs: bool = False,
        batch_size: int = 4,
        edit: Edit | None = None,
    ) -> list[tuple[np.ndarray, list[Patch]]]:
        """Age faces: of each what `blend` returns, its images uint8 [A, R, R, 3] and patches.

        For `photos`, `faces` and `inverted` see `dials`, for the others `__call__` and `age`.
        """
        side = self.network.input_size if resize_outputs else None
        dials = self.dials(photos, faces, inverted, keep, side, batch_size)
        crops = np.stack([face.image for face in faces])
        pooled = resize_outputs and None in dials  # which resize by themselves
        images = self.age(crops, aims(dials, ages), pooled, batch_size, inverted, edit)
        return [blend(one, ages, *rest) for one, *rest in zip(images, faces, dials, strict=True)]

    def dials(
        self,
        photos: Sequence[np.ndarray],
        faces: Sequence[AlignedFace],
        inverted: paddle.Tensor,
        keep: float | None = None,
        side: int | None = None,
        batch_size: int = 4,
    ) -> list[FaceDial | None]:
        """What blends each face's renderings into its photograph; None for `keep` 0.

        Args:
            photos: of each face its photograph, uint8 [H, W, 3].
            faces: cut from them.
            inverted: the faces' codes [F, L, D].
            keep, side: see `FaceDial`.
            batch_size: images rendered together.

        Raises:
            ConfigError: `keep` cannot work, or this network does not invert faces.
        """
        if keep is not None and not 0 <= keep <= 1:
            raise ConfigError(f"keep: expected a number from 0 to 1, found {keep:g}")
        inverts = self.network.start == "encoded_w_plus"
        if keep and not inverts:
            raise ConfigError(f"keep: {self.source} does not invert faces before it ages them")
        if keep == 0 or not inverts:
            return [None] * len(faces)
        ages = [None] * len(faces)
        if self.read_ages is not None:
            ages = self.read_ages(np.stack([face.image for face in faces])).tolist()
        overshoot = self.calibration is not None
        inversions = self.pictures(inverted, batch_size)
        found = any(face.landmarks is not None for face in faces)
        near = self.cut_faces.landmarker.near if found else None
        return [
            FaceDial(photo, face, self.crop, inversion, age, keep, side, overshoot, near)
            for photo, face, inversion, age in zip(photos, faces, inversions, ages, strict=True)
        ]

    def iterate(
        self,
        photos: Iterable[ImageLike],
        ages: Ages = range(0, 101, 10),
        failed: Callable[[ImageLike, ImageError], None] | None = None,
        **options,
    ) -> Iterator[Aged]:
        """Age any number of photographs one by one; only one is in memory at a time.

        Args:
            photos, ages: see `__call__`.
            failed: called with each photograph that cannot be used and the reason; the others
                are aged all the same. Without it the first such photograph raises.
            options: further arguments of `__call__`.

        Yields:
            the result of each photograph, in order.
        """
        ages = list_ages(ages)
        for name, photo in _named(photos):
            try:
                yield self([as_image(photo, name)], ages, **options)
            except ImageError as error:
                if failed is None:
                    raise
                failed(photo, error)

    def faces(self, photo: ImageLike, face: str = "best", align: bool = True) -> list[AlignedFace]:
        """Cut the faces out of one photograph as this network expects them. See `__call__`."""
        ((name, photo),) = _named([photo])
        return self.cut_faces(as_image(photo, name), face, align, name)

    def age(
        self,
        crops: np.ndarray,
        ages: Iterable[float] | np.ndarray,
        resize_outputs: bool = False,
        batch_size: int = 4,
        inverted: paddle.Tensor | None = None,
        edit: Edit | None = None,
    ) -> np.ndarray:
        """Age crops uint8 [F, S, S, 3] to every age: uint8 [F, A, R, R, 3]. See `__call__`.

        `ages` may also be [F, A], to give each face its own. `inverted` are the faces' codes
        [F, L, D] if they are known already; `edit` changes the aged codes before they are
        rendered.
        """
        size = self.network.input_size
        check_shape("crops", crops, (None, size, size, 3))
        ages = np.asarray(list(ages), np.float32)
        list_ages(ages.ravel())
        ages = np.broadcast_to(ages, (len(crops), ages.shape[-1]))
        if batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, found {batch_size}")
        place = None if inverted is None else inverted.place
        images = paddle.to_tensor(to_network(crops), place=place)
        if inverted is None:
            inverted = self.invert(images, batch_size)
        pairs = list(np.ndindex(ages.shape))  # face and age
        rendered = []
        for part in batches(pairs, batch_size):
            faces, targets = map(list, zip(*part, strict=True))
            index = paddle.to_tensor(faces, place=images.place)
            targets = paddle.to_tensor(ages[faces, targets], place=images.place)
            codes = self.aged_codes(images[index], inverted[index], targets)
            codes = edit(codes, inverted[index]) if edit else codes
            rendered.extend(to_uint8(self.decode(codes, resize_outputs)))
        return np.stack(rendered).reshape(*ages.shape, *rendered[0].shape)

    def invert(self, images: paddle.Tensor, batch_size: int = 4) -> paddle.Tensor:
        """Codes [F, L, D] of the frozen encoder for images [F, 3, S, S]: once per face."""
        with paddle.no_grad():
            return paddle.concat([*map(self.network.invert, batches(images, batch_size))])

    def aged_codes(
        self, images: paddle.Tensor, inverted: paddle.Tensor, ages: paddle.Tensor
    ) -> paddle.Tensor:
        """Codes [N, L, D] of images [N, 3, S, S] that were inverted to [N, L, D], at ages [N].

        The ages are those that faces should look; see `Calibration`.
        """
        if self.calibration is not None:
            asked = self.calibration.asks(ages.numpy())
            ages = paddle.to_tensor(asked, place=ages.place)
        with paddle.no_grad():
            return self.network.encode(add_age_plane(images, ages), inverted)

    def decode(self, codes: paddle.Tensor, resize_outputs: bool = False) -> paddle.Tensor:
        """Images [N, 3, R, R] in [-1, 1] of codes [N, L, D]."""
        with paddle.no_grad():
            return self.network.decode(codes, resize=resize_outputs, randomize_noise=False)[0]

    def pictures(self, codes: paddle.Tensor, batch_size: int = 4) -> np.ndarray:
        """Images uint8 [N, R, R, 3] of codes [N, L, D]."""
        parts = map(self.decode, batches(codes, batch_size))
        return np.concatenate([to_uint8(images) for images in parts])


def _named(photos: ImageLike | Iterable[ImageLike]) -> Iterator[tuple[str, ImageLike]]:
    """Each photograph, and what messages call it: its path, or its number among several."""
    single = isinstance(photos, str | bytes | bytearray | os.PathLike) or hasattr(photos, "read")
    if single or not np.iterable(photos) or getattr(photos, "ndim", 4) < 4:
        photos, name = [photos], "photo"
    else:
        name = "photos[{}]"
    for number, photo in enumerate(photos):
        path = isinstance(photo, str | os.PathLike)
        yield str(photo) if path else name.format(number), photo


class Opened(NamedTuple):
    """What a weight file holds: a network in eval mode, how its faces are cut, and its ages."""

    network: SAM | EngineSAM
    crop: CropSettings
    calibration: Calibration | None


def ageing_network(path: Path, device: str = "auto", engine: str = "auto") -> Opened:
    """Open the network of a weight file.

    Args:
        path: a converted or trained `.pdparams` file.
        device: `auto`, `cpu`, `gpu` or `gpu:N`.
        engine: `onednn` and `onednn-bf16` run exported models, which are made and cached on first
            use, in float32 or bfloat16; `eager` runs the layers one by one; `auto` is `onednn`,
            or `eager` with a note where that cannot run.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or no network that ages faces.
        ConfigError: the device does not exist, or the engine asked for cannot run.
    """
    loaded = open_exported(path, device, engine, EngineSAM, _export_sam)
    if loaded is None:
        return read_sam(path)
    network, entry = loaded
    crop, calibration = (
        json.loads((entry / name).read_text(encoding="utf-8")) for name in (_CROP, _CALIBRATION)
    )
    return Opened(network, CropSettings(**crop), Calibration.of(calibration, str(path)))


def read_sam(path: Path) -> Opened:
    """Open the eager network of a weight file."""
    opened = read_inverter(path)
    check_can_age(opened.network, str(path))
    return opened


def read_inverter(given: Path | WeightFile) -> Opened:
    """Open the SAM or pSp network of a weight file, or of one that was read.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or no such network.
    """
    file = given if isinstance(given, WeightFile) else WeightFile.read(given)
    network = build(file, expect=SAM)
    calibration = Calibration.of(file.calibration, file.label)
    return Opened(network, stated_crop(file, network.input_size), calibration)


def stated_crop(file: WeightFile, size: int) -> CropSettings:
    """How the faces of a weight file's network are cut, to its input's `size`.

    The size is a fact of the network: what the file says of it is not needed, nor trusted.
    """
    try:
        return CropSettings(**{**(file.alignment or {}), "size": size})
    except TypeError as error:
        raise CheckpointError(f"{file.label}: its `alignment` cannot be used: {error}") from error


def check_can_age(network: object, source: str) -> None:
    """Raise `CheckpointError`, naming `source`, unless `network` ages faces."""
    if isinstance(network, EngineSAM):
        return
    if not isinstance(network, SAM) or network.encoder.in_channels != 4:
        raise CheckpointError(
            f"{source}: holds a {type(network).__name__} that cannot age a face; expected a"
            " SAM checkpoint, whose encoder takes an image and an age"
        )


def _export_sam(path: Path, folder: Path, precision: str) -> None:
    from paddle_sam.export.static_model import export_sam

    network, crop, calibration = read_sam(path)
    export_sam(network, folder, precision)
    (folder / _CROP).write_text(json.dumps(asdict(crop)), encoding="utf-8")
    entry = calibration and calibration.entry()
    (folder / _CALIBRATION).write_text(json.dumps(entry), encoding="utf-8")
