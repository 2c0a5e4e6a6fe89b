"""Tune a generator for one face, so that a code it cannot reach otherwise renders that face.

After Roich et al., "Pivotal Tuning for Latent-based Editing of Real Images" (2021): with the code,
the pivot w_p, held, the synthesis network's weights minimise

    LPIPS(x, G(w_p)) + mse_weight * MSE(x, G(w_p))                                        (eq. 2)

and near the pivot the generator is kept what it was: for a random code w, at a distance `radius`
from the pivot towards it,

    w_r = w_p + radius * (w - w_p) / |w - w_p|                                            (eq. 4)
    locality * (LPIPS(G(w_r), G_0(w_r)) + MSE(G(w_r), G_0(w_r)))                          (eq. 5)
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterator, Mapping

import numpy as np
import paddle

from paddle_sam.ageing.projection import Comparison
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import CheckpointError, ConfigError, TrainingError, check_shape
from paddle_sam.faces.alignment import CropSettings
from paddle_sam.networks.image_features import LPIPS
from paddle_sam.networks.load import freeze, load
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Generator

TRUNCATION = 0.5  # of the random codes that the generator is kept at, as published


@dataclasses.dataclass(frozen=True)
class TuningSettings:
    """How a generator is tuned; the defaults are the published values.

    steps: of Adam. learning_rate: of Adam. mse_weight: factor of the squared error beside LPIPS.
    locality: factor of what keeps the generator as it was near the pivot; 0 leaves it out, which
    halves the time. radius: how far from the pivot, in W+. seed: of the random codes.
    """

    steps: int = 350
    learning_rate: float = 3e-4
    mse_weight: float = 1.0
    locality: float = 0.1
    radius: float = 30.0
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class TuningStep:
    """The state before a step, or after the last; without gradients.

    index: 0 to `steps`. image: [1, 3, G, G] in [-1, 1]. lpips, mse: of it, floats. generator: so
    far; the same object in every step.
    """

    index: int
    image: paddle.Tensor
    lpips: float
    mse: float
    generator: Generator


def tune(
    generator: Generator,
    lpips: LPIPS,
    target: paddle.Tensor,
    codes: paddle.Tensor,
    settings: TuningSettings,
    mask: paddle.Tensor | None = None,
) -> Iterator[TuningStep]:
    """Tune a copy of `generator` for one image; yield every `TuningStep`.

    Args:
        generator: what to start from; it is left as it is found.
        lpips: the perceptual distance, frozen.
        target: the image [1, 3, S, S] in [-1, 1]. It is compared at the smaller of S and G.
        codes: the pivot [1, L, D], such as a projection's.
        settings: see there.
        mask: [1, 1, S, S] in [0, 1], what of the target counts; None for everything.

    Raises:
        ConfigError: a shape does not fit, or the generator is conditional or not RGB.
        TrainingError: the loss is no longer a number.
    """
    check_shape("codes", codes, (1, generator.n_codes, generator.style_dim))
    check_shape("target", target, (1, generator.image_channels, None, None))
    if generator.classes and settings.locality > 0:
        raise ConfigError("locality: a conditional generator has no random codes; expected 0")
    side = min(target.shape[2], generator.size)
    compare = Comparison(lpips, target, mask, side)
    tuned = copy.deepcopy(generator)
    tuned.latent_avg = generator.latent_avg
    synthesis = [
        parameter
        for name, parameter in tuned.named_parameters()
        if not name.startswith(("style.", "embed."))
    ]
    freeze(tuned)
    for parameter in synthesis:
        parameter.stop_gradient = False
    optimizer = paddle.optimizer.Adam(settings.learning_rate, parameters=synthesis)
    near = _Neighbours(generator, lpips, codes, settings, side) if settings.locality > 0 else None
    for index in range(settings.steps + 1):
        image = tuned.render(codes)
        distance, error = compare(image)
        loss = (distance + settings.mse_weight * error).sum()
        if not bool(paddle.isfinite(loss)):
            raise TrainingError(
                f"tuning: the loss is no longer a number at step {index}; use a smaller --tune_lr"
            )
        yield TuningStep(index, image.detach(), distance.item(), error.item(), tuned)
        if index < settings.steps:
            if near is not None:
                loss = loss + settings.locality * near.change(tuned)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
    freeze(tuned)


def write_tuned(
    path: str | os.PathLike,
    generator: Generator,
    arch: Mapping,
    average: paddle.Tensor,
    crop: CropSettings,
) -> None:
    """Write a generator that was tuned for a face, for `--generator` and StyleGAN2's commands.

    Args:
        generator: what was tuned.
        arch: its constructor arguments.
        average: its mean code, [L, D] or [1, D].
        crop: of the photograph that it was tuned for.
    """
    entry = NetworkEntry.of("stylegan2_generator", arch, generator)
    mean, alignment = average.numpy().mean(axis=0), dataclasses.asdict(crop)
    WeightFile("stylegan2", {"g_ema": entry}, latent_avg=mean, alignment=alignment).write(path)


class _Neighbours:
    """Random codes near a pivot, and how much a tuned generator has changed there."""

    def __init__(
        self,
        generator: Generator,
        lpips: LPIPS,
        pivot: paddle.Tensor,
        settings: TuningSettings,
        side: int,
    ):
        self._generator, self._lpips, self._pivot = generator, lpips, pivot
        self._radius, self._side = settings.radius, side
        self._random = np.random.RandomState(settings.seed)
        average = generator.latent_avg
        average = generator.mean_latent() if average is None else average
        self._average = average.reshape([-1, generator.style_dim]).mean(axis=0, keepdim=True)
        self._no_noise = [paddle.zeros_like(one) for one in generator.noises.as_list()]

    def draw(self) -> paddle.Tensor:
        """A code [1, L, D] at the radius from the pivot, towards a random one (eq. 4)."""
        z = self._random.standard_normal((1, self._generator.style_dim)).astype(np.float32)
        with paddle.no_grad():
            w = self._generator.map_latents(paddle.to_tensor(z))
            w = self._average + TRUNCATION * (w - self._average)
            way = w.unsqueeze(1) - self._pivot
            return self._pivot + self._radius * way / way.square().sum().sqrt()

    def change(self, tuned: Generator) -> paddle.Tensor:
        """LPIPS and squared error between the tuned and the first generator at such a code."""
        code = self.draw()
        with paddle.no_grad():
            before, _ = self._generator.synthesis(code, self._no_noise)
            compare = Comparison(self._lpips, before, None, self._side)
        after, _ = tuned.synthesis(code, self._no_noise)
        distance, error = compare(after)
        return (distance + error).sum()


def fitting_generator(given: Generator | str | os.PathLike, network: SAM, device: str) -> Generator:
    """A generator, or that of a weight file, to take the place of a network's own."""
    generator = given
    if not isinstance(given, Generator):
        generator = load(given, device=device, expect=Generator, option="--generator")
    found, expected = (
        (one.n_codes, one.style_dim, one.size) for one in (generator, network.decoder)
    )
    if found != expected:
        raise CheckpointError(
            f"--generator: renders {found[2]} px from {found[0]} codes of {found[1]}, this model"
            f" {expected[2]} px from {expected[0]} codes of {expected[1]}; expected one that was"
            " tuned from this model"
        )
    return generator
