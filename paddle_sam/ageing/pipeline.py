"""`AgePipeline`: a photograph in, the same face at other ages out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.ageing.engines import EMBEDDED_DEFAULT, ageing_network, check_can_age
from paddle_sam.core.images import to_network, to_uint8
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.export.engine import EngineSAM
from paddle_sam.faces.alignment import AlignedFace, CropSettings
from paddle_sam.faces.cutter import FaceCutter, Image
from paddle_sam.networks.age_regressor import AgeRegressor
from paddle_sam.networks.load import load
from paddle_sam.networks.sam import SAM, add_age_plane

EMBEDDED_NOTE = (
    "No --checkpoint_path: using the small embedded model (64 px, trained on UTKFace, research"
    " use). The published 1024 px model is fetched and converted once; see README, 'The published"
    " models'."
)

# Changes codes [N, L, D] of aged faces, given what they were inverted to, likewise [N, L, D];
# see paddle_sam.ageing.edits.
Edit = Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]


class AgePipeline:
    """Align faces, encode them once, render them at any ages.

    >>> pipeline = AgePipeline.from_checkpoint()                    # the embedded default
    >>> strips = pipeline("photo.jpg", ages=[10, 40, 70])           # doctest: +SKIP
    >>> strips.shape                                                # doctest: +SKIP
    (1, 3, 64, 64, 3)

    Args:
        network: a SAM network in eval mode, or its exported form.
        crop: how its faces are cut from photographs.
        source: what the weights are called, for messages.
    """

    def __init__(self, network: SAM | EngineSAM, crop: CropSettings, source: str = "network"):
        check_can_age(network, source)
        self.network = network
        self.crop = crop
        self.source = source
        self.cut_faces = FaceCutter(crop)

    @classmethod
    def from_checkpoint(
        cls, path: str | os.PathLike | None = None, device: str = "auto", engine: str = "auto"
    ) -> AgePipeline:
        """Build from a converted or trained `.pdparams` file; None takes the embedded default.

        For `device` and `engine` see `paddle_sam.ageing.engines.ageing_network`.

        Raises:
            CheckpointError: the file is missing, damaged, foreign, or no SAM network.
            ConfigError: the device does not exist, or the engine asked for cannot run.
        """
        path = Path(path) if path else find_weight(EMBEDDED_DEFAULT)
        network, crop = ageing_network(path, device, engine)
        return cls(network, crop, str(path))

    @property
    def output_size(self) -> int:
        """Height and width of the images that the decoder renders."""
        return self.network.output_size

    @property
    def n_codes(self) -> int:
        """Number of codes, L, that make up a face."""
        return self.network.n_codes

    @property
    def style_dim(self) -> int:
        """Length of a code, D."""
        return self.network.style_dim

    def __call__(
        self,
        images: Image | Sequence[Image],
        ages: Iterable[float] = range(0, 101, 10),
        face: str = "best",
        align: bool = True,
        resize_outputs: bool = False,
        batch_size: int = 4,
    ) -> np.ndarray:
        """Age the faces of one or several photographs.

        Args:
            images: path or uint8 RGB array [H, W, 3], or a sequence of them.
            ages: target ages in years, 0 to 100.
            face: which faces of a photograph: `best` (the most confident), `largest` or `all`.
            align: find and cut out the face; False where images are aligned crops already.
            resize_outputs: pool the results to the network's input size.
            batch_size: images rendered together.

        Returns:
            uint8 [F, A, S, S, 3]: every face of every image in order, at every age.

        Raises:
            ImageError, FaceNotFoundError: an image cannot be used; the message names it.
            ConfigError: an age or option cannot work.
        """
        single = isinstance(images, (str, os.PathLike)) or (
            isinstance(images, np.ndarray) and images.ndim == 3
        )
        crops = [
            found.image
            for image in ([images] if single else images)
            for found in self.faces(image, face, align)
        ]
        if not crops:
            raise ConfigError("images: expected at least one photograph, found none")
        return self.age(np.stack(crops), ages, resize_outputs, batch_size)

    def faces(self, image: Image, face: str = "best", align: bool = True) -> list[AlignedFace]:
        """Crops of one photograph as this network expects them. See `__call__`."""
        return self.cut_faces(image, face, align)

    def age(
        self,
        crops: np.ndarray,
        ages: Iterable[float] | np.ndarray,
        resize_outputs: bool = False,
        batch_size: int = 4,
        inverted: paddle.Tensor | None = None,
        edit: Edit | None = None,
    ) -> np.ndarray:
        """Aligned crops uint8 [F, S, S, 3] at every age: uint8 [F, A, R, R, 3]. See `__call__`.

        `ages` may also be [F, A], to give each face its own. `inverted` are the faces' codes
        [F, L, D] where they are known already; `edit` changes the aged codes before they are
        rendered.
        """
        size = self.network.input_size
        check_shape("crops", crops, (None, size, size, 3))
        ages = np.asarray(list(ages), np.float32)
        check_ages(ages.ravel())
        ages = np.broadcast_to(ages, (len(crops), ages.shape[-1]))
        if batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, found {batch_size}")
        images = paddle.to_tensor(to_network(crops))
        if inverted is None:
            inverted = self.invert(images, batch_size)
        pairs = list(np.ndindex(ages.shape))  # face and age
        rendered = []
        for start in range(0, len(pairs), batch_size):
            faces, targets = map(list, zip(*pairs[start : start + batch_size], strict=True))
            index = paddle.to_tensor(faces)
            targets = paddle.to_tensor(ages[faces, targets])
            results = self.render(images[index], inverted[index], targets, resize_outputs, edit)
            rendered.extend(to_uint8(results.numpy()))
        return np.stack(rendered).reshape(*ages.shape, *rendered[0].shape)

    def invert(self, images: paddle.Tensor, batch_size: int = 4) -> paddle.Tensor:
        """Codes [F, L, D] of the frozen encoder for images [F, 3, S, S]: once per face."""
        with paddle.no_grad():
            return paddle.concat(
                [
                    self.network.invert(images[start : start + batch_size])
                    for start in range(0, len(images), batch_size)
                ]
            )

    def render(
        self,
        images: paddle.Tensor,
        inverted: paddle.Tensor,
        ages: paddle.Tensor,
        resize_outputs: bool = False,
        edit: Edit | None = None,
    ) -> paddle.Tensor:
        """Images [N, 3, S, S] with their codes [N, L, D] at ages [N]: [N, 3, R, R] in [-1, 1]."""
        codes = self.aged_codes(images, inverted, ages)
        return self.decode(edit(codes, inverted) if edit else codes, resize_outputs)

    def aged_codes(
        self, images: paddle.Tensor, inverted: paddle.Tensor, ages: paddle.Tensor
    ) -> paddle.Tensor:
        """Codes [N, L, D] of images [N, 3, S, S] that were inverted to [N, L, D], at ages [N]."""
        with paddle.no_grad():
            return self.network.encode(add_age_plane(images, ages), inverted)

    def decode(self, codes: paddle.Tensor, resize_outputs: bool = False) -> paddle.Tensor:
        """Images [N, 3, R, R] in [-1, 1] of codes [N, L, D]."""
        with paddle.no_grad():
            return self.network.decode(codes, resize=resize_outputs, randomize_noise=False)[0]

    def pictures(self, codes: paddle.Tensor, batch_size: int = 4) -> np.ndarray:
        """Images uint8 [N, R, R, 3] of codes [N, L, D]."""
        parts = (codes[start : start + batch_size] for start in range(0, len(codes), batch_size))
        return np.concatenate([to_uint8(self.decode(part).numpy()) for part in parts])


def measure_ages(regressor: AgeRegressor, images: np.ndarray) -> np.ndarray:
    """Apparent ages [N] in years of uint8 images [N, H, W, 3]."""
    with paddle.no_grad():
        return regressor.age(paddle.to_tensor(to_network(images))).numpy()


def embedded_age_regressor(device: str = "auto") -> AgeRegressor:
    """The age regressor that belongs to the embedded default, and to its crop."""
    return load(find_weight("age_mini"), device=device)


def check_ages(ages: Iterable[float]) -> list[float]:
    """The ages as a list.

    Raises:
        ConfigError: there is none, or one is outside 0 to 100.
    """
    ages = list(ages)
    if not ages:
        raise ConfigError("--target_age: expected at least one age, found none")
    if wrong := [age for age in ages if not 0 <= age <= 100]:
        raise ConfigError(f"--target_age: expected ages from 0 to 100, found {wrong[0]:g}")
    return ages
