"""StyleGAN2's losses (Karras et al. 2020), and what they draw at random in a step.

Each loss is a mean over the images of a part of a batch. Every random number is a function of the
seed, the step, what it is for, and the image's place in the batch. Resumed runs, parts of a batch
and several processes therefore see what an unbroken run in one piece sees.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import paddle

from paddle_sam.core.device import seed_of
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import ImageSource, open_image_set
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.networks.stylegan2_discriminator import Discriminator
from paddle_sam.options import parse_names
from paddle_sam.stylegan2.train import ada
from paddle_sam.stylegan2.train.options import AUGMENTATIONS, StyleGAN2Options
from paddle_sam.training.distributed import World
from paddle_sam.training.gan_losses import logistic, path_lengths, r1_penalty_through

# What the random numbers of a step are for.
_USES = 6
G, PATH, PATH_NOISE, D_FAKE, D_REAL, R1 = range(_USES)

# The loss to descend, and values to log.
Found = tuple[paddle.Tensor, dict[str, paddle.Tensor]]
# Streams of random numbers; 20 to 23 are the trainer's.
_LATENTS, _MIXING, _NOISE, _AUGMENT, _LABELS = 24, 25, 26, 27, 28


@dataclasses.dataclass(frozen=True)
class Step:
    """What the losses of a step are computed from.

    Attributes:
        options: of the run.
        generator, discriminator: the networks.
        draws: random numbers, by image.
        number: of the step; 0 is the first.
        reals: [N, 3, S, S], this process's images of the batch, and
        first: the place in the batch of the first one.
        repeat: of the discriminator's updates in a step; each has images of its own.
        augment_p: probability of each augmentation.
        path_mean: running mean of path lengths.
        exact: makes the context for what 16-bit arithmetic is too coarse for.
        labels: of a conditional run, the classes of the training images, and
        real_labels: [N, classes], those of `reals`.
    """

    options: StyleGAN2Options
    generator: Generator
    discriminator: Discriminator
    draws: StepDraws
    number: int
    reals: paddle.Tensor
    first: int
    augment_p: float
    path_mean: float
    repeat: int = 0
    exact: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    labels: Labels | None = None
    real_labels: paddle.Tensor | None = None

    def real(self, part: Part) -> paddle.Tensor:
        """Return the real images at the places of `part`."""
        return self.reals[self._real_places(part)]

    def labels_of_real(self, part: Part) -> paddle.Tensor | None:
        """Return the labels of `real(part)`; None if the run is not conditional."""
        return None if self.labels is None else self.real_labels[self._real_places(part)]

    def labels_of_fake(self, part: Part, use: int) -> paddle.Tensor | None:
        """Return the labels of `render(part, use)`; None if the run is not conditional."""
        if self.labels is None:
            return None
        use = self._of_repeat(use)
        numbers = self.draws.labels(part, self.number, use, self.labels.numbers)
        return paddle.to_tensor(self.labels.one_hot(numbers))

    def _real_places(self, part: Part) -> np.ndarray:
        return self.options.d_repeats * (part.places - self.first) + self.repeat

    def render(self, part: Part, use: int) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return generated images [N, 3, S, S] and their codes [N, L, D] for `part`."""
        labels = self.labels_of_fake(part, use)
        labels = None if labels is None else labels.repeat_interleave(2, axis=0)
        generator, draws, use = self.generator, self.draws, self._of_repeat(use)
        z = draws.latents(part, self.number, use, generator.style_dim)
        with self.exact():
            z = paddle.to_tensor(z.reshape([-1, generator.style_dim]))
            w = generator.map_latents(z, labels)
        w = w.reshape([-1, 2, generator.style_dim])
        first = draws.first_style(part, self.number, use, generator.n_codes)
        first = paddle.to_tensor(first).unsqueeze(2)
        w_plus = w[:, :1] * first + w[:, 1:] * (1 - first)
        shapes = [buffer.shape[1:] for buffer in generator.noises.as_list()]
        sizes = [math.prod(shape) for shape in shapes]
        noise = draws.normal(part, self.number, use, [sum(sizes)]).split(sizes, axis=1)
        noise = [one.reshape([-1, *shape]) for one, shape in zip(noise, shapes, strict=True)]
        return generator.synthesis(w_plus, noise)[0], w_plus

    def transform(self, part: Part, use: int) -> ada.Transform:
        """Draw the augmentations of `part`."""
        size, use = self.generator.size, self._of_repeat(use)
        return self.draws.transform(part, self.number, use, self.augment_p, size)

    def _of_repeat(self, use: int) -> int:
        """Tell apart the random numbers of the repeats of a step."""
        return use + _USES * self.repeat

    def scores(
        self, images: paddle.Tensor, part: Part, use: int, labels: paddle.Tensor | None
    ) -> paddle.Tensor:
        """Return the discriminator's scores [N] of images after augmentation, given labels."""
        with self.exact():  # 16 bits do not even name every pixel
            seen = self.transform(part, use)(images.astype("float32"))
        return self.discriminator(seen, labels)[:, 0]


def generator_loss(step: Step, part: Part) -> Found:
    """-log D(G(z)), non-saturating."""
    images, _ = step.render(part, G)
    loss = logistic(step.scores(images, part, G, step.labels_of_fake(part, G)), real=True).mean()
    return loss, {"G/loss": loss}


def path_penalty(step: Step, part: Part) -> Found:
    """weight * (|J^T y| - a)^2, times the steps that it stands for (lazy regularisation)."""
    options = step.options
    part = part.every(options.path_shrink)
    with step.generator.second_derivatives():
        images, w_plus = step.render(part, PATH)
        noise = step.draws.normal(part, step.number, PATH_NOISE, images.shape[1:])
        lengths = path_lengths(images, w_plus, noise)
        penalty = (lengths - step.path_mean).square().mean()
    loss = penalty * options.path_weight * options.path_interval
    return loss, {"G/path_penalty": penalty, "G/path_length": lengths.mean()}


def discriminator_loss(step: Step, part: Part) -> Found:
    """-log D(x) - log(1 - D(G(z)))."""
    with paddle.no_grad():
        images, _ = step.render(part, D_FAKE)
    fake = step.scores(images, part, D_FAKE, step.labels_of_fake(part, D_FAKE))
    real = step.scores(step.real(part), part, D_REAL, step.labels_of_real(part))
    loss = logistic(fake, real=False).mean() + logistic(real, real=True).mean()
    return loss, {
        "D/loss": loss,
        "D/score_real": real.mean(),
        "D/score_fake": fake.mean(),
        "D/sign_real": real.sign().mean(),
    }


def r1(step: Step, part: Part) -> Found:
    """gamma / 2 |grad D(x)|^2 with respect to x before augmentation, times its steps.

    The squared gradient norm grows as the pixel count shrinks, so gamma is scaled down with it.
    """
    transform = step.transform(part, R1)
    with paddle.no_grad():
        seen = transform(step.real(part))
    seen = seen.detach()
    seen.stop_gradient = False
    scores = step.discriminator(seen, step.labels_of_real(part))[:, 0]
    penalty = r1_penalty_through(scores, seen, transform.linear()).mean()
    gamma = step.options.r1_gamma * (step.generator.size / step.options.resolution) ** 2
    return penalty * gamma * step.options.r1_interval, {"D/r1": penalty}


@dataclasses.dataclass(frozen=True)
class Phase:
    """One update of a step.

    Attributes:
        network: the one that it trains, `g` or `d`.
        loss: what it descends.
        every: its interval in steps.
        repeats: how many times it is done in a step.
        lazy: whether it is a regularisation with second derivatives, which 16-bit numbers are too
            coarse for.
    """

    network: str
    loss: Callable[[Step, Part], Found]
    every: int = 1
    repeats: int = 1
    lazy: bool = False


def phases(options: StyleGAN2Options) -> list[Phase]:
    """Return the updates of a step in their order."""
    found = [Phase("g", generator_loss)]
    if options.path_weight:
        found.append(Phase("g", path_penalty, options.path_interval, lazy=True))
    found.append(Phase("d", discriminator_loss, repeats=options.d_repeats))
    if options.r1_gamma:
        found.append(Phase("d", r1, options.r1_interval, lazy=True))
    return found


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


@dataclasses.dataclass(frozen=True)
class Labels:
    """The class of each image.

    by_image: class numbers from 0 on. numbers: those of all images, in their order and as often as
    they are trained on. classes: how many there are.
    """

    by_image: Mapping[ImageSource, int]
    numbers: np.ndarray
    classes: int

    def of(self, images: Iterable[ImageSource]) -> np.ndarray:
        """One-hot labels of images, float32 [N, classes]."""
        return self.one_hot([self.by_image[image] for image in images])

    def one_hot(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """One-hot labels of classes, float32 [N, classes]."""
        return np.eye(self.classes, dtype=np.float32)[np.asarray(numbers, np.int64)]


def read_labels(sets: Iterable[tuple[str, Sequence[ImageSource], int]]) -> Labels:
    """The classes that archives state, of data sets (path, images, weight).

    Raises:
        ConfigError: one states none, or all images are of one class.
    """
    by_image: dict[ImageSource, int] = {}
    numbers: list[int] = []
    for path, images, weight in sets:
        found = open_image_set(path)
        if found.labels is None:
            raise ConfigError(
                f"--cond: {path} states no classes of its images; make it with"
                " scripts/prepare_dataset.py --labels folders"
            )
        by_image |= dict(zip(found.images, found.labels, strict=True))
        numbers += [by_image[image] for image in images] * weight
    classes = max(numbers) + 1
    if classes < 2:
        raise ConfigError("--cond: expected at least two classes, found one")
    return Labels(by_image, np.asarray(numbers), classes)
