"""A pipeline with the options of a run: the codes that faces start from, and their edits."""

from __future__ import annotations

import numpy as np
import paddle

from paddle_sam.common.images import to_network
from paddle_sam.configs.inference import AgeingConfig
from paddle_sam.inference.editing import chain, strengthen
from paddle_sam.inference.photos import Photo
from paddle_sam.inference.pipeline import EMBEDDED_NOTE, AgePipeline


class Ageing:
    """Ages the faces of photographs as the options say.

    Raises:
        PaddleSamError: the model or an option cannot be used.
    """

    def __init__(self, config: AgeingConfig):
        if not config.checkpoint_path:
            print(EMBEDDED_NOTE)
        self.config = config
        self.pipeline = AgePipeline.from_checkpoint(config.checkpoint_path or None, config.device)
        edits = [] if config.strength == 1 else [strengthen(config.strength)]
        self.edit = chain(edits)

    def invert(self, photo: Photo) -> paddle.Tensor:
        """The codes [F, L, D] that the faces of a photograph start from."""
        images = paddle.to_tensor(to_network(photo.crops))
        return self.pipeline.invert(images, self.config.test_batch_size)

    def codes(self, images: paddle.Tensor, inverted: paddle.Tensor, age: float) -> paddle.Tensor:
        """Edited codes [N, L, D] of images [N, 3, S, S], inverted to [N, L, D], at one age."""
        ages = paddle.full([len(images)], age, "float32")
        codes = self.pipeline.aged_codes(images, inverted, ages)
        return self.edit(codes, inverted) if self.edit else codes

    def age(self, photo: Photo, ages: list[float], resize_outputs: bool = False) -> np.ndarray:
        """The faces of a photograph at every age: uint8 [F, A, R, R, 3]."""
        return self.pipeline.age(
            photo.crops,
            ages,
            resize_outputs,
            self.config.test_batch_size,
            self.invert(photo),
            self.edit,
        )
