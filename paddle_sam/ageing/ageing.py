"""Ages the faces of photographs: inverted, refined, aged, edited and rendered together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import paddle

from paddle_sam.ageing.dial import FaceDial
from paddle_sam.ageing.masks import face_mask
from paddle_sam.ageing.photos import Photo
from paddle_sam.ageing.pipeline import AgePipeline, Edit, blend
from paddle_sam.core.images import to_network
from paddle_sam.export.engine import EngineSAM
from paddle_sam.faces.paste import Patch

# Brings codes [N, L, D] closer to images [N, 3, S, S], of which masks [N, 1, S, S] count.
Refine = Callable[[paddle.Tensor, paddle.Tensor, paddle.Tensor], paddle.Tensor]

LARGE_TOGETHER = 4  # faces; loading both encoders costs about a fifth of one face's strip


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
        parts = (slice(k, k + self.batch_size) for k in range(0, len(images), self.batch_size))
        return paddle.concat([self.refine(images[at], codes[at], masks[at]) for at in parts])

    def codes(self, images: paddle.Tensor, inverted: paddle.Tensor, age: float) -> paddle.Tensor:
        """Edited codes [N, L, D] of images [N, 3, S, S], inverted to [N, L, D], at one age."""
        ages = paddle.full([len(images)], age, "float32")
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
        rendered = self.render_group(group, ages, pooled, paddle.concat(inverted))
        side = self.pipeline.network.input_size if resize_outputs else None
        return [
            [
                blend(images, ages, face, dial)
                for images, face, dial in zip(faces, photo.faces, dials, strict=True)
            ]
            for photo, faces, dials in zip(
                group,
                rendered,
                (self.dials(*pair, side) for pair in zip(group, inverted, strict=True)),
                strict=True,
            )
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
