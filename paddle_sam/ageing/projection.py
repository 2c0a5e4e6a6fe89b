"""Optimise W+ codes until a generator reproduces given images.

After Abdal et al., "Image2StyleGAN" (2019), and, for the noise maps, Karras et al., "Analyzing
and Improving the Image Quality of StyleGAN" (2020), appendix D.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import paddle
import paddle.nn.functional as F

from paddle_sam.core.weights import find_weight
from paddle_sam.errors import ConfigError, TrainingError, check_shape
from paddle_sam.networks.image_features import LPIPS, load_lpips
from paddle_sam.networks.load import held
from paddle_sam.networks.stylegan2 import Generator

SMALLEST_NOISE = 8  # side at which the pyramid of a noise map ends


@dataclasses.dataclass(frozen=True)
class ProjectionSettings:
    """How codes are optimised.

    steps: of Adam. start_lr, final_lr: learning rates at the first step and after the last; between
    them it falls geometrically. mse_weight: factor of the squared error beside LPIPS. batch: number
    of images that the squared error is the mean over; 1 lets each image count as if it were alone.
    levels: codes that may change, all if None. in_w: one offset for all of them. noise_weight:
    above 0 the noise maps are optimised too, and this is the factor of what keeps them noise (the
    paper's: 1e5).
    """

    steps: int = 100
    start_lr: float = 0.1
    final_lr: float = 0.025
    mse_weight: float = 1.0
    batch: int = 1
    levels: Sequence[int] | None = None
    in_w: bool = False
    noise_weight: float = 0.0

    def learning_rate(self, step: int) -> float:
        """Of a step 0, 1, ..., `steps`.

        >>> [round(ProjectionSettings(steps=2).learning_rate(step), 3) for step in range(3)]
        [0.1, 0.05, 0.025]
        """
        return self.start_lr * (self.final_lr / self.start_lr) ** (step / max(self.steps, 1))


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """The state before a step, or after the last; without gradients.

    index: 0 to `steps`. images: [N, 3, G, G] in [-1, 1]. codes: [N, L, D]. lpips, mse, loss: [N],
    the loss being what is minimised, without the term of the noise. noise: one map [N, 1, R, R] for
    each layer where they are optimised, else None.
    """

    index: int
    images: paddle.Tensor
    codes: paddle.Tensor
    lpips: paddle.Tensor
    mse: paddle.Tensor
    loss: paddle.Tensor
    noise: list[paddle.Tensor] | None


def project(
    generator: Generator,
    lpips: LPIPS,
    targets: paddle.Tensor,
    start: paddle.Tensor,
    settings: ProjectionSettings,
    masks: paddle.Tensor | None = None,
) -> Iterator[Step]:
    """Optimise codes for several images at once and yield every `Step`.

    An image's result depends on the others by `settings.batch` only.

    Args:
        generator: renders [N, 3, G, G]. It is left as it is found.
        lpips: the perceptual distance, frozen.
        targets: images [N, 3, S, S] in [-1, 1]. They are compared at the smaller of S and G, the
            larger images averaged down.
        start: codes [N, L, D].
        settings: see there.
        masks: [N, 1, S, S] in [0, 1], what of the targets counts; None for everything.

    Raises:
        ConfigError: a shape does not fit.
        TrainingError: a loss is no longer a number.
    """
    check_shape("start", start, (len(targets), generator.n_codes, generator.style_dim))
    compare = Comparison(lpips, targets, masks, min(targets.shape[2], generator.size))
    chosen = _chosen_levels(settings, generator.n_codes)
    if settings.in_w:
        start = start + chosen * (start.mean(axis=1, keepdim=True) - start)
    offset = _parameter(paddle.zeros_like(start[:, :1] if settings.in_w else start))
    noise = [one.expand([len(targets), -1, -1, -1]) for one in generator.noises.as_list()]
    maps = [_parameter(one) for one in noise] if settings.noise_weight > 0 else []
    optimizer = paddle.optimizer.Adam(settings.start_lr, parameters=[offset, *maps])

    for index in range(settings.steps + 1):
        codes = start + chosen * offset
        with held(generator):
            images = generator([codes], input_is_latent=True, noise=maps or noise)
        distance, error = compare(images)
        loss = distance + settings.mse_weight / settings.batch * error
        if not bool(paddle.isfinite(loss).all()):
            raise TrainingError(
                f"projection: the loss is no longer a number at step {index}; use a smaller"
                " --start_lr"
            )
        shown = (images, codes, distance, error, loss)
        kept = [one.detach().clone() for one in maps] or None
        yield Step(index, *(tensor.detach() for tensor in shown), kept)
        if index < settings.steps:
            regularity = settings.noise_weight * noise_regularity(maps).sum() if maps else 0.0
            (loss.sum() + regularity).backward()
            optimizer.set_lr(settings.learning_rate(index))
            optimizer.step()
            optimizer.clear_grad()
            normalise(maps)


class Comparison:
    """LPIPS and masked squared error of images with targets, at `side` pixels; see `project`."""

    def __init__(
        self, lpips: LPIPS, targets: paddle.Tensor, masks: paddle.Tensor | None, side: int
    ):
        n, _, size, _ = targets.shape
        masks = paddle.ones_like(targets[:, :1]) if masks is None else masks
        check_shape("masks", masks, (n, 1, size, size))
        self._lpips, self._side = lpips, side
        self._masks = F.adaptive_avg_pool2d(masks, side)
        self._targets = F.adaptive_avg_pool2d(targets, side)
        self._activations = lpips.extract(self._targets * self._masks)

    def __call__(self, images: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Both [N], of images [N, 3, G, G]."""
        seen = F.adaptive_avg_pool2d(images, self._side)
        distance = self._lpips.distance(self._lpips.extract(seen * self._masks), self._activations)
        return distance, masked_mse(seen, self._targets, self._masks)


def masked_mse(
    images: paddle.Tensor, targets: paddle.Tensor, masks: paddle.Tensor
) -> paddle.Tensor:
    """Mean squared difference [N] of images [N, C, H, W] under masks [N, 1, H, W].

    The mean is over all pixels of the masked images, so that half a mask counts half.
    """
    return ((images - targets) * masks).square().mean(axis=[1, 2, 3])


def noise_regularity(noise: Sequence[paddle.Tensor]) -> paddle.Tensor:
    """How much maps [N, 1, R, R] differ from white noise, per image: [N].

    The squared correlation with neighbours, to the right and below, summed over a pyramid of each
    map that halves its side down to 8 (Karras et al. 2020, eq. 6).
    """
    total = 0.0
    for one in noise:
        while True:
            for axis in (2, 3):
                correlation = (one * paddle.roll(one, 1, axis)).mean(axis=[1, 2, 3])
                total = total + correlation.square()
            if one.shape[-1] <= SMALLEST_NOISE:
                break
            one = F.avg_pool2d(one, 2) * 2.0  # the mean of 4 has half the deviation
    return total


@paddle.no_grad()
def normalise(noise: Sequence[paddle.Tensor]) -> None:
    """Give each map, in place, zero mean and unit variance."""
    for one in noise:
        centred = one - one.mean(axis=[1, 2, 3], keepdim=True)
        deviation = centred.square().mean(axis=[1, 2, 3], keepdim=True).sqrt()
        one.set_value(centred / deviation.clip(min=1e-8))


class Best:
    """Keeps, for each image of a batch, the step with the lowest loss, or always the last one."""

    def __init__(self, always_last: bool = False):
        self._always_last = always_last
        self.loss: paddle.Tensor | None = None
        self.start: Step | None = None
        self.codes: paddle.Tensor | None = None
        self.images: paddle.Tensor | None = None
        self.noise: list[paddle.Tensor] | None = None

    def see(self, step: Step) -> None:
        """Take over the images for which `step` is better than all before."""
        if self.loss is None:
            self.start, self.loss, self.codes = step, step.loss, step.codes
            self.images, self.noise = step.images, step.noise
            return
        better = step.loss < self.loss
        if self._always_last:
            better = paddle.ones_like(better)

        def choose(new: paddle.Tensor, old: paddle.Tensor) -> paddle.Tensor:
            return paddle.where(better.reshape([-1, *[1] * (new.ndim - 1)]), new, old)

        self.loss, self.codes = choose(step.loss, self.loss), choose(step.codes, self.codes)
        self.images = choose(step.images, self.images)
        if step.noise is not None:
            self.noise = [choose(a, b) for a, b in zip(step.noise, self.noise, strict=True)]


def refinement(generator: Generator, steps: int) -> Callable[..., paddle.Tensor]:
    """A function (images, codes, masks) -> codes that brings codes closer to images: `--refine`.

    Gentler than a projection from scratch, so that the codes stay where ageing understands them.
    """
    settings = ProjectionSettings(steps, start_lr=0.05, final_lr=0.01)
    lpips = load_lpips(find_weight("lpips_vgg"))

    def refine(images: paddle.Tensor, codes: paddle.Tensor, masks: paddle.Tensor) -> paddle.Tensor:
        best = Best()
        for step in project(generator, lpips, images, codes, settings, masks):
            best.see(step)
        return best.codes

    return refine


def _chosen_levels(settings: ProjectionSettings, codes: int) -> paddle.Tensor:
    """[1, L, 1]: 1 for codes that may change, 0 for the others."""
    levels = range(codes) if settings.levels is None else settings.levels
    if wrong := [level for level in levels if not 0 <= level < codes]:
        raise ConfigError(
            f"--latent_level: this model has the codes 0 to {codes - 1}, found {wrong[0]}"
        )
    chosen = paddle.zeros([1, codes, 1])
    chosen[:, list(levels)] = 1.0
    return chosen


def _parameter(value: paddle.Tensor) -> paddle.Tensor:
    parameter = paddle.create_parameter(
        value.shape, "float32", default_initializer=paddle.nn.initializer.Constant(0.0)
    )
    parameter.set_value(value)
    return parameter
