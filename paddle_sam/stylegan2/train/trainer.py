"""StyleGAN2's training step (Karras et al. 2020), with adaptive augmentation.

A step updates the generator, every few steps also by the path length penalty, then the
discriminator, every few steps also by R1; last it moves the averaged generator and, every few
steps, the probability of augmentation.

A batch can be computed in parts, one after another (`--accumulate`) or in several processes, and
gives the same gradients as in one piece: everything random belongs to an image of the batch
(`draws`), the parts hold whole groups of the minibatch deviation, the losses are means over images,
and the running mean of path lengths, over the whole batch, is moved after the penalty has been
computed with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import paddle

from paddle_sam.core.images import grid_columns, tiled, to_uint8
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.imagesets.loader import Batch
from paddle_sam.networks.load import held, trained
from paddle_sam.stylegan2.train.draws import (
    D_FAKE,
    D_REAL,
    PATH,
    PATH_NOISE,
    R1,
    Draws,
    G,
    Labels,
    Part,
    Transform,
    split_batch,
)
from paddle_sam.stylegan2.train.growth import KINDS, Archs, networks_at
from paddle_sam.stylegan2.train.options import StyleGAN2Options
from paddle_sam.training.distributed import GradientMeans, World, check_finite, read_values
from paddle_sam.training.trainers import (
    MixedPrecision,
    RunState,
    lazy_adam,
    logistic,
    path_lengths,
    r1_penalty_through,
    update_average,
)

# Streams of random numbers; others are in `draws` and `growth`.
_GRID, _JUDGE = 21, 23
# The share of the way that the running mean of path lengths moves at each penalty.
_PATH_DECAY = 0.01
_RENDERED_AT_ONCE = 16
_ADVICE = (
    "Resume from the last checkpoint with smaller --g_lr and --d_lr, or another --r1_gamma, in a"
    " new --exp_dir."
)

# The loss to descend, and values to log.
Found = tuple[paddle.Tensor, dict[str, paddle.Tensor]]
Judge = Callable[[Callable[[int], Iterator[np.ndarray]]], dict[str, float]]


class StyleGAN2Trainer:
    """Trains generator and discriminator, and averages the generator.

    Args:
        archs: the networks at full resolution.
        options: of the run.
        augmentation: `ada`, `fixed` or `none`.
        start: networks of any size to start from.
        judge: returns measures of images, which it gets from a function (how many -> batches).
        world: the processes of the run.
        size: of the images that the next step trains on; None for the first step's.
        image_offset: images trained on beyond steps times batch size, if that has changed.
        labels: classes of the training images, of conditional networks.
    """

    def __init__(
        self,
        archs: Archs,
        options: StyleGAN2Options,
        augmentation: str = "none",
        start: Mapping[str, NetworkEntry] | None = None,
        judge: Judge | None = None,
        world: World | None = None,
        size: int | None = None,
        image_offset: int = 0,
        labels: Labels | None = None,
    ):
        self.options = options
        self.archs = archs
        self.augmentation = augmentation
        self.judge = judge
        self.world = world or World()
        self.image_offset = image_offset
        self.labels = labels
        self.augment_p = 0.0 if augmentation == "none" else options.augment_p
        self.path_mean = 0.0
        self.signs: list[float] = []  # of real images, since the last move of augment_p
        self.penalties: dict[str, float] = {}  # the last, for records at any interval
        self.phases = phases(options)
        self.amp = {name: MixedPrecision(options.amp) for name in ("g", "d")}
        group = archs.discriminator.get("group_size", 4)
        self.parts = split_batch(options, group, self.world)
        self.state = RunState(self._description)
        self.state.values(self, "path_mean", "augment_p", "signs")
        self.state.values(self, "penalties", optional=True)
        # A resumed run reads it before its trainer exists.
        self.state.add("image_offset", lambda: image_offset, lambda saved: None, optional=True)
        for name, amp in self.amp.items():
            scaler = amp.scaler
            self.state.add(f"loss_scale/{name}", scaler.state_dict, scaler.load_state_dict)
        self.enter_size(size or options.size_at(0), start or {})

    def enter_size(self, size: int, entries: Mapping[str, NetworkEntry]) -> None:
        """Take networks for images of `size` pixels, filled from `entries` as far as they go."""
        networks = networks_at(size, self.archs, self.options, entries, self.world)
        self.generator, self.discriminator, self.average = networks
        self._trained = {"g": self.generator, "d": self.discriminator}
        for name, network in {"g_ema": self.average, **self._trained}.items():
            self.state.network(name, network, KINDS[name], self.archs.at(name, size))
        # Updates of the main loss between two of the regularisation.
        intervals = {phase.network: phase.every for phase in self.phases if phase.lazy}
        if "d" in intervals:
            intervals["d"] *= self.options.d_repeats
        rates = self.options.rates_at(size)
        self.learning_rate = rates[0]
        self.optimizers: dict[str, paddle.optimizer.Adam] = {}
        self.means: dict[str, GradientMeans] = {}
        for (name, network), rate in zip(self._trained.items(), rates, strict=True):
            self.optimizers[name] = lazy_adam(trained(network), rate, intervals.get(name))
            self.means[name] = GradientMeans(network.parameters(), self.world)
            self.state.optimizer(f"optimizers/{name}", self.optimizers[name], network)

    def images(self, steps: int) -> int:
        """Return how many images `steps` steps have trained on."""
        return steps * self.options.images_per_step + self.image_offset

    # Training

    def train_step(self, batch: Batch, step: int) -> dict[str, float]:
        """Do a step; returns losses, scores and the last penalties. See `run.Trainer`."""
        options = self.options
        scheduled = self.images(step - step % options.minibatch_repeats)
        if (size := options.size_at(scheduled)) != self.generator.size:
            self.enter_size(size, self.state.entries())
        real_labels = self.labels and paddle.to_tensor(self.labels.of(batch.paths))
        reals = batch.tensors(size)[0]
        values: dict[str, paddle.Tensor] = {}
        lazy: set[str] = set()
        for phase in self.phases:
            for repeat in range(phase.repeats if step % phase.every == 0 else 0):
                now = Step(self, Draws(options, step, repeat), reals, real_labels)
                found = self._update(phase, now)
                for name, value in found.items():
                    values[name] = values.get(name, 0.0) + value / phase.repeats
                lazy |= set(found) if phase.lazy else set()
        logged = read_values(values, self.world)
        check_finite(logged, step, _ADVICE)
        self.penalties |= {name: logged[name] for name in lazy}
        if "G/path_length" in logged:
            self.path_mean += _PATH_DECAY * (logged["G/path_length"] - self.path_mean)
        update_average(self.average, self.generator, averaging(options, self.images(step)))
        self._adapt(step, logged["D/sign_real"])
        state = {"augment_p": self.augment_p, "size": float(size)}
        kimg = self.images(step + 1) / 1000
        state |= {"kimg": kimg, "loss": logged["G/loss"] + logged["D/loss"]}
        return logged | self.penalties | state

    def _update(self, phase: Phase, step: Step) -> dict[str, paddle.Tensor]:
        """Step the optimizer of a phase down the gradient of its loss; returns values to log."""
        optimizer, amp = self.optimizers[phase.network], self.amp[phase.network]
        means = self.means[phase.network]
        logged: dict[str, paddle.Tensor] = {}
        with held(self.discriminator if phase.network == "g" else self.generator):
            for part in self.parts:
                with contextlib.nullcontext() if phase.lazy else amp.arithmetic():
                    loss, values = phase.loss(step, part)
                loss = loss.astype("float32") * part.share
                with means.sending(last=part is self.parts[-1]):
                    (loss if phase.lazy else amp.scale(loss)).backward()
                for key, value in values.items():
                    logged[key] = logged.get(key, 0.0) + part.share * value.detach()
        means.finish()
        optimizer.step() if phase.lazy else amp.step(optimizer)
        optimizer.clear_grad(set_to_zero=False)
        return logged

    def _adapt(self, step: int, sign: float) -> None:
        """Steer the probability of augmentation by the sign statistic r_t."""
        options = self.options
        if self.augmentation != "ada":
            return
        self.signs.append(sign)
        if (step + 1) % options.ada_interval == 0:
            images = len(self.signs) * options.images_per_step
            mean = float(np.mean(self.signs))
            self.augment_p = adjusted(
                self.augment_p, mean, options.ada_target, images, options.ada_kimg
            )
            self.signs = []

    def fakes(self, count: int, stream: int = _JUDGE) -> Iterator[np.ndarray]:
        """Yield batches of images of the averaged generator, uint8 [N, S, S, 3], at full size.

        They belong to the same latents at every call, and to each class in turn; without
        truncation, stored noise.
        """
        rng = np.random.default_rng((self.options.seed, stream))
        for start in range(0, count, _RENDERED_AT_ONCE):
            size = [min(_RENDERED_AT_ONCE, count - start), self.average.style_dim]
            z = paddle.to_tensor(rng.standard_normal(size, np.float32))
            labels = None
            if self.labels is not None:
                numbers = np.arange(start, start + len(z)) % self.labels.classes
                labels = paddle.to_tensor(self.labels.one_hot(numbers))
            images = self.average([z], randomize_noise=False, labels=labels)
            images = to_uint8(images)
            factor = self.options.resolution // self.average.size
            yield images.repeat(factor, axis=1).repeat(factor, axis=2)

    def panel(self) -> np.ndarray:
        """Return a grid of generated images, of the same latents at every call."""
        columns = grid_columns(self.options.resolution)
        return tiled(np.concatenate(list(self.fakes(columns * columns, _GRID))), columns)

    def evaluate(self, batches: Iterable) -> dict[str, float]:
        """Return what the judge says of generated images; nothing if there is no judge."""
        return self.judge(self.fakes) if self.judge is not None else {}

    def _description(self) -> WeightFile:
        mean = self.average.mean_latent()[0].numpy()
        options = dataclasses.asdict(self.options)
        return WeightFile("stylegan2", latent_avg=mean, options=options)


def averaging(options: StyleGAN2Options, images: int) -> float:
    """Return the averaged generator's decay in the step after `images` images.

    Half of it is forgotten in `ema_kimg`, in the beginning sooner: in the `ema_rampup`-th part of
    what has been trained on.
    """
    half_life = 1000 * options.ema_kimg
    if options.ema_rampup:
        half_life = min(half_life, images * options.ema_rampup)
    return 0.5 ** (options.images_per_step / max(half_life, 1e-8))


def adjusted(p: float, sign: float, target: float, images: int, kimg: float) -> float:
    """p after `images` more images whose mean sign was `sign`; it moves 1 in `kimg` thousand.

    >>> adjusted(0.5, sign=0.7, target=0.6, images=1000, kimg=100)
    0.51
    >>> adjusted(0.0, sign=0.5, target=0.6, images=1000, kimg=100)
    0.0
    """
    return min(max(p + float(np.sign(sign - target)) * images / (1000 * kimg), 0.0), 1.0)


@dataclasses.dataclass(frozen=True)
class Step:
    """What the losses of a step are computed from.

    Attributes:
        trainer: its networks, options and running values.
        draws: random numbers, by image.
        reals: [N, 3, S, S], this process's images of the batch.
        real_labels: [N, classes], theirs; None if the run is not conditional.
    """

    trainer: StyleGAN2Trainer
    draws: Draws
    reals: paddle.Tensor
    real_labels: paddle.Tensor | None = None

    def real(self, part: Part) -> paddle.Tensor:
        """Return the real images at the places of `part`."""
        return self.reals[self._real_places(part)]

    def labels_of_real(self, part: Part) -> paddle.Tensor | None:
        """Return the labels of `real(part)`; None if the run is not conditional."""
        return None if self.real_labels is None else self.real_labels[self._real_places(part)]

    def labels_of_fake(self, part: Part, use: int) -> paddle.Tensor | None:
        """Return the labels of `render(part, use)`; None if the run is not conditional."""
        if (known := self.trainer.labels) is None:
            return None
        return paddle.to_tensor(known.one_hot(self.draws.labels(part, use, known.numbers)))

    def _real_places(self, part: Part) -> np.ndarray:
        options = self.draws.options
        first = self.trainer.world.share(options.batch_size).start
        return options.d_repeats * (part.places - first) + self.draws.repeat

    def render(self, part: Part, use: int) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return generated images [N, 3, S, S] and their codes [N, L, D] for `part`."""
        labels = self.labels_of_fake(part, use)
        labels = None if labels is None else labels.repeat_interleave(2, axis=0)
        generator, draws = self.trainer.generator, self.draws
        z = draws.latents(part, use, generator.style_dim)
        with self.trainer.amp["g"].exact():
            z = paddle.to_tensor(z.reshape([-1, generator.style_dim]))
            w = generator.map_latents(z, labels)
        w = w.reshape([-1, 2, generator.style_dim])
        first = draws.first_style(part, use, generator.n_codes)
        first = paddle.to_tensor(first).unsqueeze(2)
        w_plus = w[:, :1] * first + w[:, 1:] * (1 - first)
        shapes = [buffer.shape[1:] for buffer in generator.noises.as_list()]
        sizes = [math.prod(shape) for shape in shapes]
        noise = draws.normal(part, use, [sum(sizes)]).split(sizes, axis=1)
        noise = [one.reshape([-1, *shape]) for one, shape in zip(noise, shapes, strict=True)]
        return generator.synthesis(w_plus, noise)[0], w_plus

    def transform(self, part: Part, use: int) -> Transform:
        """Draw the augmentations of `part`."""
        trainer = self.trainer
        return self.draws.transform(part, use, trainer.augment_p, trainer.generator.size)

    def scores(
        self, images: paddle.Tensor, part: Part, use: int, labels: paddle.Tensor | None
    ) -> paddle.Tensor:
        """Return the discriminator's scores [N] of images after augmentation, given labels."""
        with self.trainer.amp["g"].exact():  # 16 bits do not even name every pixel
            seen = self.transform(part, use)(images.astype("float32"))
        return self.trainer.discriminator(seen, labels)[:, 0]


def generator_loss(step: Step, part: Part) -> Found:
    """-log D(G(z)), non-saturating."""
    images, _ = step.render(part, G)
    loss = logistic(step.scores(images, part, G, step.labels_of_fake(part, G)), real=True).mean()
    return loss, {"G/loss": loss}


def path_penalty(step: Step, part: Part) -> Found:
    """weight * (|J^T y| - a)^2, times the steps that it stands for (lazy regularisation)."""
    trainer, options = step.trainer, step.trainer.options
    part = part.every(options.path_shrink)
    with trainer.generator.second_derivatives():
        images, w_plus = step.render(part, PATH)
        noise = step.draws.normal(part, PATH_NOISE, images.shape[1:])
        lengths = path_lengths(images, w_plus, noise)
        penalty = (lengths - trainer.path_mean).square().mean()
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
    options, transform = step.trainer.options, step.transform(part, R1)
    with paddle.no_grad():
        seen = transform(step.real(part))
    seen = seen.detach()
    seen.stop_gradient = False
    scores = step.trainer.discriminator(seen, step.labels_of_real(part))[:, 0]
    penalty = r1_penalty_through(scores, seen, transform.linear()).mean()
    gamma = options.r1_gamma * (step.trainer.generator.size / options.resolution) ** 2
    return penalty * gamma * options.r1_interval, {"D/r1": penalty}


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
