"""StyleGAN2's training step (Karras et al. 2020), with adaptive augmentation.

A step updates the generator, every few steps also by the path length penalty, then the
discriminator, every few steps also by R1; last it moves the averaged generator and, every few
steps, the probability of augmentation.

A batch can be computed in parts, one after another (`--accumulate`) or in several processes, and
gives the same gradients as in one piece: everything random belongs to an image of the batch
(`stylegan2_draws`), the parts hold whole groups of the minibatch deviation, the losses are means
over images, and the running mean of path lengths, over the whole batch, is moved after the penalty
has been computed with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import paddle

from paddle_sam.core.device import seed_of
from paddle_sam.core.images import to_uint8
from paddle_sam.core.sheets import grid_columns, tiled
from paddle_sam.errors import TrainingError
from paddle_sam.imagesets.loader import Batch
from paddle_sam.networks.frozen import held, trained
from paddle_sam.stylegan2.train import ada
from paddle_sam.stylegan2.train.draws import Part, StepDraws, split_batch
from paddle_sam.stylegan2.train.growth import (
    Archs,
    Entries,
    doubled_up_to,
    entry_of,
    freeze_first,
    take_over,
)
from paddle_sam.stylegan2.train.options import StyleGAN2Options
from paddle_sam.training.adam import averaged_copy, lazy_adam, update_average
from paddle_sam.training.amp import MixedPrecision
from paddle_sam.training.distributed import (
    World,
    average_gradients,
    average_values,
    send_from_first,
)
from paddle_sam.training.gan_losses import logistic, path_lengths, r1_penalty_through
from paddle_sam.training.optimizer_state import named_state, restore_named_state

# Streams of random numbers; those of a step are in `stylegan2_draws`.
_BUILD, _GRID, _JUDGE = 20, 21, 23
# What the random numbers of a step are for.
_G, _PATH, _PATH_NOISE, _D_FAKE, _D_REAL, _R1 = range(6)
# Path lengths' running mean moves this share of the way at each penalty.
_PATH_DECAY = 0.01
_RENDERED_AT_ONCE = 16

Judge = Callable[[Callable[[int], Iterator[np.ndarray]]], dict[str, float]]


class StyleGAN2Trainer:
    """Trains generator and discriminator, and averages the generator.

    Args:
        archs: the networks at full resolution.
        config: the run's options.
        augmentation: `ada`, `fixed` or `none`.
        start: networks of any size to start from.
        judge: gives measures of images, which it gets from a function (how many -> batches).
        world: the processes of the run.
    """

    def __init__(
        self,
        archs: Archs,
        config: StyleGAN2Options,
        augmentation: str = "none",
        start: Entries | None = None,
        judge: Judge | None = None,
        world: World | None = None,
    ):
        self.config = config
        self.archs = archs
        self.augmentation = augmentation
        self.judge = judge
        self.world = world or World()
        self.augment_p = 0.0 if augmentation == "none" else config.augment_p
        self.path_mean = 0.0
        self._signs: list[float] = []
        self._penalties: dict[str, float] = {}  # the last, for records at any interval
        self.draws = StepDraws(config)
        self._amp = {name: MixedPrecision(config.amp) for name in ("g", "d")}
        group = archs.discriminator.get("group_size", 4)
        self.parts = split_batch(config, group, self.world)
        self._enter_size(config.size_at(0), start)

    # Networks

    def _enter_size(self, size: int, entries: Entries | None) -> None:
        """Build the networks for `size` pixels and fill them from `entries`, as far as they go."""
        paddle.seed(seed_of(self.config.seed, _BUILD, size))
        self.generator, self.discriminator = self.archs.build(size)
        archs = {"g": self.archs.generator, "g_ema": self.archs.generator}
        archs["d"] = self.archs.discriminator
        entries = {n: doubled_up_to(e, archs[n], size) for n, e in (entries or {}).items()}
        source = self.config.init_from or "checkpoint"
        if live := entries.get("g") or entries.get("g_ema"):
            take_over(self.generator, live, source)
        if "d" in entries:
            take_over(self.discriminator, entries["d"], source)
        for network in (self.generator, self.discriminator):
            send_from_first(network.state_dict().values(), self.world)
        freeze_first(self.discriminator, self.config.freeze_d)
        self.average = averaged_copy(self.generator)
        if "g_ema" in entries:
            take_over(self.average, entries["g_ema"], source)
            send_from_first(self.average.state_dict().values(), self.world)
        config = self.config
        path = config.path_interval if config.path_weight else None
        r1 = config.r1_interval if config.r1_gamma else None
        self.optimizers = {
            "g": lazy_adam(trained(self.generator), config.g_lr, path),
            "d": lazy_adam(trained(self.discriminator), config.d_lr, r1),
        }

    def _entries(self) -> dict[str, dict[str, Any]]:
        return {
            "g_ema": entry_of(self.average, self.archs.generator),
            "g": entry_of(self.generator, self.archs.generator),
            "d": entry_of(self.discriminator, self.archs.discriminator),
        }

    # Training

    def train_step(self, batch: Batch, step: int) -> dict[str, float]:
        """Do step number `step` (0 is the first) on this process's share of its batch.

        Returns:
            losses, scores and the last penalties by name, averaged over the share.

        Raises:
            TrainingError: a loss is not a finite number. The update that it belongs to was left.
        """
        config = self.config
        if (size := config.size_at(step)) != self.generator.size:
            self._enter_size(size, self._entries())
        reals, _ = batch.tensors(size)
        with held(self.discriminator):
            logged = self._update("g", step, lambda part: self._generator_loss(part, step))
        if config.path_weight and step % config.path_interval == 0:
            found = self._update("g", step, lambda part: self._path_penalty(part, step), plain=True)
            mean = average_values({"": found["G/path_length"]}, self.world)[""]
            self.path_mean += _PATH_DECAY * (mean - self.path_mean)
            self._penalties |= found
        logged |= self._update("d", step, lambda part: self._discriminator_loss(part, step, reals))
        if config.r1_gamma and step % config.r1_interval == 0:
            found = self._update("d", step, lambda part: self._r1(part, step, reals), plain=True)
            self._penalties |= found
        update_average(self.average, self.generator, averaging(config, step))
        self._adapt(step, logged["D/sign_real"])
        state = {"augment_p": self.augment_p, "size": float(size)}
        kimg = (step + 1) * config.batch_size / 1000
        state |= {"kimg": kimg, "loss": logged["G/loss"] + logged["D/loss"]}
        return logged | self._penalties | state

    def _update(
        self, name: str, step: int, loss_of: Callable, plain: bool = False
    ) -> dict[str, float]:
        """Step one optimizer down the gradient of a mean loss; give what is to be logged.

        `loss_of` gives, for a part of the batch, the loss and what is to be logged. `plain` is
        for losses with second derivatives, which 16-bit numbers are too coarse for.
        """
        network = self.generator if name == "g" else self.discriminator
        optimizer, amp = self.optimizers[name], self._amp[name]
        logged: dict[str, float] = {}
        for part in self.parts:
            with contextlib.nullcontext() if plain else amp.arithmetic():
                loss, values = loss_of(part)
            loss = loss.astype("float32") * part.share
            (loss if plain else amp.scale(loss)).backward()
            for key, value in values.items():
                logged[key] = logged.get(key, 0.0) + part.share * float(value)
        if bad := [key for key, value in logged.items() if not np.isfinite(value)]:
            raise TrainingError(
                f"step {step + 1}: {bad[0]} is {logged[bad[0]]}. Resume from the last checkpoint"
                " with smaller --g_lr and --d_lr, or another --r1_gamma, in a new --exp_dir."
            )
        average_gradients(network.parameters(), self.world)
        optimizer.step() if plain else amp.step(optimizer)
        optimizer.clear_grad(set_to_zero=False)
        return logged

    def _generator_loss(self, part: Part, step: int):
        """-log D(G(z)), non-saturating."""
        images, _ = self.render(part, step, _G)
        scores = self._judged(images, part, step, _G)
        loss = logistic(scores, real=True).mean()
        return loss, {"G/loss": loss}

    def _path_penalty(self, part: Part, step: int):
        """weight * (|J^T y| - a)^2, times the steps that it stands for (lazy regularisation)."""
        config = self.config
        part = part.every(config.path_shrink)
        with self.generator.second_derivatives():
            images, w_plus = self.render(part, step, _PATH)
            noise = self.draws.normal(part, step, _PATH_NOISE, images.shape[1:])
            lengths = path_lengths(images, w_plus, noise)
            penalty = (lengths - self.path_mean).square().mean()
        loss = penalty * config.path_weight * config.path_interval
        return loss, {"G/path_penalty": penalty, "G/path_length": lengths.mean()}

    def _discriminator_loss(self, part: Part, step: int, reals: paddle.Tensor):
        """-log D(x) - log(1 - D(G(z)))."""
        with paddle.no_grad():
            images, _ = self.render(part, step, _D_FAKE)
        fake = self._judged(images, part, step, _D_FAKE)
        real = self._judged(self._reals(reals, part), part, step, _D_REAL)
        loss = logistic(fake, real=False).mean() + logistic(real, real=True).mean()
        return loss, {
            "D/loss": loss,
            "D/score_real": real.mean(),
            "D/score_fake": fake.mean(),
            "D/sign_real": real.sign().mean(),
        }

    def _r1(self, part: Part, step: int, reals: paddle.Tensor):
        """gamma / 2 |grad D(x)|^2, times the steps that it stands for; by x before augmentation.

        A smaller image's gradient is larger, in the square as its number of pixels is smaller;
        gamma follows.
        """
        images = self._reals(reals, part)
        transform = self._transform(part, step, _R1)
        with paddle.no_grad():
            seen = transform(images)
        seen = seen.detach()
        seen.stop_gradient = False
        scores = self.discriminator(seen)[:, 0]
        penalty = r1_penalty_through(scores, seen, transform.linear()).mean()
        smaller = (self.generator.size / self.config.resolution) ** 2
        gamma = self.config.r1_gamma * smaller
        return penalty * gamma * self.config.r1_interval, {"D/r1": penalty}

    def _judged(self, images: paddle.Tensor, part: Part, step: int, use: int) -> paddle.Tensor:
        """Scores [N] of images after augmentation."""
        with self._amp["d"].exact():  # 16 bits do not even name every pixel
            seen = self._transform(part, step, use)(images.astype("float32"))
        return self.discriminator(seen)[:, 0]

    def _adapt(self, step: int, sign: float) -> None:
        """Steer the probability of augmentation by the sign statistic r_t."""
        config = self.config
        if self.augmentation != "ada":
            return
        self._signs.append(average_values({"sign": sign}, self.world)["sign"])
        if (step + 1) % config.ada_interval == 0:
            images = len(self._signs) * config.batch_size
            mean = float(np.mean(self._signs))
            self.augment_p = ada.adjusted(
                self.augment_p, mean, config.ada_target, images, config.ada_kimg
            )
            self._signs = []

    def render(self, part: Part, step: int, use: int) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Generated images [N, 3, S, S] and their codes [N, L, D], for the places of `part`."""
        generator, draws = self.generator, self.draws
        z = draws.latents(part, step, use, generator.style_dim)
        with self._amp["g"].exact():
            w = generator.style(paddle.to_tensor(z.reshape([-1, generator.style_dim])))
        w = w.reshape([-1, 2, generator.style_dim])
        first = draws.first_style(part, step, use, generator.n_codes)
        first = paddle.to_tensor(first).unsqueeze(2)
        w_plus = w[:, :1] * first + w[:, 1:] * (1 - first)
        shapes = [buffer.shape[1:] for buffer in generator.noises.as_list()]
        sizes = [math.prod(shape) for shape in shapes]
        noise = draws.normal(part, step, use, [sum(sizes)]).split(sizes, axis=1)
        noise = [one.reshape([-1, *shape]) for one, shape in zip(noise, shapes, strict=True)]
        return generator.synthesis(w_plus, noise)[0], w_plus

    def _transform(self, part: Part, step: int, use: int) -> ada.Transform:
        return self.draws.transform(part, step, use, self.augment_p, self.generator.size)

    def _reals(self, reals: paddle.Tensor, part: Part) -> paddle.Tensor:
        return reals[part.places - self.world.share(self.config.batch_size).start]

    # Looking at the averaged generator

    def fakes(self, count: int, stream: int = _JUDGE) -> Iterator[np.ndarray]:
        """Batches of images of the averaged generator, uint8 [N, S, S, 3], S the full resolution.

        They belong to the same latents at every call; without truncation, stored noise.
        """
        rng = np.random.default_rng((self.config.seed, stream))
        for start in range(0, count, _RENDERED_AT_ONCE):
            size = [min(_RENDERED_AT_ONCE, count - start), self.average.style_dim]
            z = paddle.to_tensor(rng.standard_normal(size, np.float32))
            images = to_uint8(self.average([z], randomize_noise=False).numpy())
            factor = self.config.resolution // self.average.size
            yield images.repeat(factor, axis=1).repeat(factor, axis=2)

    def panel(self) -> np.ndarray:
        """A grid of generated images, the same latents at every call."""
        columns = grid_columns(self.config.resolution)
        return tiled(np.concatenate(list(self.fakes(columns * columns, _GRID))), columns)

    def evaluate(self, batches: Iterable) -> dict[str, float]:
        """What the judge says of generated images; nothing where there is no judge."""
        return self.judge(self.fakes) if self.judge is not None else {}

    # State

    def snapshot(self) -> dict[str, Any]:
        """Contents of a weight file of the averaged generator alone."""
        return self._file({"g_ema": entry_of(self.average, self.archs.generator)})

    def weights(self) -> dict[str, Any]:
        """Contents of a weight file with the discriminator too, for transfer and resuming."""
        return self._file(self._entries())

    @paddle.no_grad()
    def _file(self, entries: Entries) -> dict[str, Any]:
        return {
            "kind": "stylegan2",
            "networks": dict(entries),
            "latent_avg": self.average.mean_latent()[0].numpy(),
            "options": dataclasses.asdict(self.config),
        }

    def state(self) -> dict[str, Any]:
        """What resuming needs beside the networks."""
        return {
            "optimizers": {
                name: {
                    key: tensor.numpy()
                    for key, tensor in named_state(optimizer, self._parameters(name)).items()
                }
                for name, optimizer in self.optimizers.items()
            },
            "path_mean": self.path_mean,
            "augment_p": self.augment_p,
            "signs": list(self._signs),
            "penalties": dict(self._penalties),
            "loss_scale": {name: amp.state() for name, amp in self._amp.items()},
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Take up the networks and state of a checkpoint's content."""
        entries, training = content["networks"], content["training"]
        self._enter_size(entries["g"]["arch"]["size"], entries)
        for name, optimizer in self.optimizers.items():
            state = training["optimizers"][name]
            restore_named_state(optimizer, self._parameters(name), state)
        self.path_mean = training["path_mean"]
        self.augment_p = training["augment_p"]
        self._signs = list(training["signs"])
        self._penalties = dict(training.get("penalties", {}))  # older checkpoints have none
        for name, amp in self._amp.items():
            amp.restore(training["loss_scale"][name])

    def _parameters(self, name: str) -> dict[str, paddle.Tensor]:
        network = self.generator if name == "g" else self.discriminator
        return dict(network.named_parameters())


def averaging(config: StyleGAN2Options, step: int) -> float:
    """Decay of the averaged generator at `step`: half of it is forgotten in `ema_kimg`.

    In the beginning sooner: in the `ema_rampup`-th part of what has been trained on.
    """
    half_life = 1000 * config.ema_kimg
    if config.ema_rampup:
        half_life = min(half_life, step * config.batch_size * config.ema_rampup)
    return 0.5 ** (config.batch_size / max(half_life, 1e-8))
