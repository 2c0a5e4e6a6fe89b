"""What a step of StyleGAN2 training draws at random, image by image, and how a batch is cut up.

Every number is a function of the seed, the step, what it is for, and the image's place in the
batch. Resumed runs, parts of a batch and several processes therefore see what an unbroken run
in one piece sees.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import paddle

from paddle_sam.core.device import seed_of
from paddle_sam.errors import ConfigError
from paddle_sam.options import parse_names
from paddle_sam.stylegan2.train import ada
from paddle_sam.stylegan2.train.options import AUGMENTATIONS, StyleGAN2Options
from paddle_sam.training.distributed import World

# Streams of random numbers; 20 to 23 are the trainer's.
_LATENTS, _MIXING, _NOISE, _AUGMENT, _LABELS = 24, 25, 26, 27, 28


@dataclasses.dataclass(frozen=True)
class Part:
    """Some images of a batch: their places in it, and their share of this process's images."""

    places: np.ndarray
    share: float

    def every(self, step: int) -> Part:
        """The images whose places `step` divides; the share stays."""
        return dataclasses.replace(self, places=self.places[self.places % step == 0])


def split_batch(config: StyleGAN2Options, group: int, world: World) -> list[Part]:
    """The parts in which a process computes its share of a batch.

    Parts hold whole groups of the minibatch deviation, each group neighbouring places, ordered so
    that the discriminator, which takes every (N/G)-th image into a group, forms these groups.

    Raises:
        ConfigError: images or groups cannot be shared out equally.
    """
    batch, parts = config.batch_size, config.accumulate
    places = np.arange(batch)[world.share(batch)]
    size, rest = divmod(len(places), parts)
    unit = math.lcm(group, config.path_shrink)
    if rest or (size < batch and size % unit):
        raise ConfigError(
            f"batch_size: {batch} images cannot be computed in {parts * world.size} equal parts of"
            f" a multiple of {unit} (--accumulate times processes; --mbstd_group, --path_shrink)"
        )
    found = []
    for chunk in np.split(places, parts):
        whole = chunk.reshape([-1, group]).T.ravel() if size % group == 0 else chunk
        found.append(Part(whole, size / len(places)))
    return found


class StepDraws:
    """Random numbers for parts of a step's batch.

    Args:
        config: the run's options.

    In every method `use` tells apart what the numbers are for.
    """

    def __init__(self, config: StyleGAN2Options):
        self.config = config
        self._groups = parse_names(config.augment_ops, AUGMENTATIONS, "augment_ops")

    def latents(self, part: Part, step: int, use: int, length: int) -> np.ndarray:
        """Two z for each image, float32 [N, 2, length]."""
        size = [self.config.batch_size, 2, length]
        return self._rng(_LATENTS, use, step).standard_normal(size, np.float32)[part.places]

    def first_style(self, part: Part, step: int, use: int, count: int) -> np.ndarray:
        """Which of `count` codes are the first style's: float32 [N, count] of 0 and 1.

        Without mixing all of them, else those before a random one.
        """
        rng, batch = self._rng(_MIXING, use, step), self.config.batch_size
        mixed = rng.random(batch) < self.config.style_mixing
        change = np.where(mixed, rng.integers(1, count, batch), count)[part.places]
        return (np.arange(count) < change[:, None]).astype("float32")

    def labels(self, part: Part, step: int, use: int, numbers: np.ndarray) -> np.ndarray:
        """Classes of generated images [N], as frequent as those of the training images."""
        places = self._rng(_LABELS, use, step).integers(len(numbers), size=self.config.batch_size)
        return numbers[places][part.places]

    def normal(self, part: Part, step: int, use: int, shape: Sequence[int]) -> paddle.Tensor:
        """Standard normal [N, *shape], made on the device."""
        rows = []
        for place in part.places:
            paddle.seed(seed_of(self.config.seed, _NOISE, use, step, int(place)))
            rows.append(paddle.randn([1, *shape]))
        return paddle.concat(rows)

    def transform(self, part: Part, step: int, use: int, p: float, size: int) -> ada.Transform:
        """Augmentations of images of `size` pixels, each with probability `p`."""
        rng = self._rng(_AUGMENT, use, step)
        return ada.draw(rng, p, self.config.batch_size, size, self._groups).of(part.places)

    def _rng(self, stream: int, use: int, step: int) -> np.random.Generator:
        return np.random.default_rng((self.config.seed, stream, use, step))
