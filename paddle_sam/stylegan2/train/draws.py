"""What a step of StyleGAN2's training draws at random, augmentations among it.

Every random number is a function of the seed, the step, what it is for, and the image's place in
the batch. Resumed runs, parts of a batch and several processes therefore see what an unbroken run
in one piece sees.

Augmentations are those of ADA (Karras et al. 2020, arXiv 2006.06676). The discriminator sees every
image, real or generated, through random transformations, each applied with probability p. While p
stays well below 1 the generator cannot profit from imitating them, and a discriminator that would
learn a small data set by heart has a harder time (section 2). Of the paper's pipeline (appendix B)
the groups pixel blitting, geometry and colour, which are what it recommends. All of them are linear
in the image, up to an added constant.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_sam.core.device import constant_beside, seed_of
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import ImageSource
from paddle_sam.options import parse_names
from paddle_sam.stylegan2.train.options import AUGMENTATIONS, StyleGAN2Options
from paddle_sam.training.distributed import World

# Streams of random numbers; 20 to 23 are the trainer's.
_LATENTS, _MIXING, _NOISE, _AUGMENT, _LABELS = 24, 25, 26, 27, 28
# What the random numbers of a step are for.
_USES = 6
G, PATH, PATH_NOISE, D_FAKE, D_REAL, R1 = range(_USES)
BLIT, GEOMETRY, COLOUR = AUGMENTATIONS

# Low-pass filter of the orthogonal wavelet Symlet 6: its even shifts are orthonormal, so that
# doubling the resolution with it and halving it again gives back every image exactly.
SYM6 = np.array(
    [
        *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057),
        *(-0.048311742585633, 0.4910559419267466, 0.787641141030194),
        *(0.3379294217276218, -0.07263752278646252, -0.021060292512300564),
        *(0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
    ]
)
_HALF = len(SYM6) // 2
# The filter is not quite symmetric: its offset, in enlarged pixels.
_BESIDE = (len(SYM6) - 1) / 2 - (np.arange(len(SYM6)) * SYM6).sum() / SYM6.sum()
_MARGIN_STEP = 8
_GREY_AXIS = np.array([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3)


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


@dataclasses.dataclass(frozen=True)
class Draws:
    """Random numbers of a step, for parts of its batch.

    In every method `use` tells apart what the numbers are for.

    Attributes:
        options: of the run.
        step: its number.
        repeat: of the discriminator's updates in a step; each has numbers of its own.
    """

    options: StyleGAN2Options
    step: int
    repeat: int = 0

    def latents(self, part: Part, use: int, length: int) -> np.ndarray:
        """Two z for each image, float32 [N, 2, length]."""
        size = [self.options.batch_size, 2, length]
        return self._rng(_LATENTS, use).standard_normal(size, np.float32)[part.places]

    def first_style(self, part: Part, use: int, count: int) -> np.ndarray:
        """Which of `count` codes are the first style's: float32 [N, count] of 0 and 1.

        Without mixing all of them, else those before a random one.
        """
        rng, batch = self._rng(_MIXING, use), self.options.batch_size
        mixed = rng.random(batch) < self.options.style_mixing
        change = np.where(mixed, rng.integers(1, count, batch), count)[part.places]
        return (np.arange(count) < change[:, None]).astype("float32")

    def labels(self, part: Part, use: int, numbers: np.ndarray) -> np.ndarray:
        """Classes of generated images [N], as frequent as those of the training images."""
        places = self._rng(_LABELS, use).integers(len(numbers), size=self.options.batch_size)
        return numbers[places][part.places]

    def normal(self, part: Part, use: int, shape: Sequence[int]) -> paddle.Tensor:
        """Standard normal [N, *shape], made on the device."""
        rows = []
        for place in part.places:
            paddle.seed(seed_of(*self._key(_NOISE, use), int(place)))
            rows.append(paddle.randn([1, *shape]))
        return paddle.concat(rows)

    def transform(self, part: Part, use: int, p: float, size: int) -> Transform:
        """Augmentations of images of `size` pixels, each with probability `p`."""
        groups = parse_names(self.options.augment_ops, AUGMENTATIONS, "augment_ops")
        rng = self._rng(_AUGMENT, use)
        return draw(rng, p, self.options.batch_size, size, groups).of(part.places)

    def _rng(self, stream: int, use: int) -> np.random.Generator:
        return np.random.default_rng(self._key(stream, use))

    def _key(self, stream: int, use: int) -> tuple[int, ...]:
        return self.options.seed, stream, use + _USES * self.repeat, self.step


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


@dataclasses.dataclass(frozen=True)
class Transform:
    """What happens to each image of a batch; called with images [N, 3, S, S], it returns such.

    Attributes:
        inverse: [N, 3, 3], from places in the result to places in the image, both from -1 to 1
            in x (rightwards) and y (downwards); None where no image moves.
        colour: [N, 3, 4], new RGB from old RGB in [-1, 1] and 1; None where colours stay.
    """

    inverse: np.ndarray | None
    colour: np.ndarray | None

    def __call__(self, images: paddle.Tensor) -> paddle.Tensor:
        if self.inverse is not None:
            images = warped(images, self.inverse)
        if self.colour is not None:
            images = recoloured(images, self.colour)
        return images

    def of(self, indices: np.ndarray) -> Transform:
        """The transformations of some images of the batch."""
        return Transform(
            None if self.inverse is None else self.inverse[indices],
            None if self.colour is None else self.colour[indices],
        )

    def linear(self) -> Transform:
        """The linear part A of images -> A images + constant."""
        if self.colour is None:
            return self
        return Transform(self.inverse, self.colour * [1, 1, 1, 0])

    def transposed(self, gradient: paddle.Tensor) -> paddle.Tensor:
        """A^T times `gradient` [N, 3, S, S]: the gradient by the images before transformation."""
        images = paddle.zeros_like(gradient)
        images.stop_gradient = False
        result = self(images)
        if result is images:
            return gradient
        return paddle.grad(result, images, grad_outputs=gradient)[0]


def draw(
    rng: np.random.Generator, p: float, count: int, size: int, groups: Sequence[str]
) -> Transform:
    """Draw the transformations of `count` images of `size` pixels.

    For p = 0 nothing is transformed. The same generator draws the same transformations, whatever
    p is; p decides which of them happen.
    """
    moves, colours = _Draws(rng, p, count), _Draws(rng, p, count)
    inverse = _geometry(moves, size, groups)
    colour = _colours(colours)
    return Transform(
        inverse if p > 0 and {BLIT, GEOMETRY} & set(groups) else None,
        colour if p > 0 and COLOUR in groups else None,
    )


class _Draws:
    """Random parameters of one image each, replaced by `still` where nothing should happen."""

    def __init__(self, rng: np.random.Generator, p: float, count: int):
        self.rng = rng
        self.p = p
        self.count = count

    def _kept(self, values: np.ndarray, still: float, p: float | None = None) -> np.ndarray:
        happens = self.rng.random(self.count) < (self.p if p is None else p)
        return np.where(happens, values, still)

    def integer(self, choices: int) -> np.ndarray:
        return self._kept(self.rng.integers(choices, size=self.count), 0)

    def uniform(self, limit: float, p: float | None = None) -> np.ndarray:
        return self._kept(self.rng.uniform(-limit, limit, self.count), 0.0, p)

    def normal(self, deviation: float) -> np.ndarray:
        return self._kept(self.rng.normal(0.0, deviation, self.count), 0.0)

    def factor(self, octaves: float) -> np.ndarray:
        return self._kept(np.exp2(self.rng.normal(0.0, octaves, self.count)), 1.0)


def _geometry(draws: _Draws, size: int, groups: Sequence[str]) -> np.ndarray:
    """Inverse [N, 3, 3] of all that moves pixels; drawn in full, whichever `groups` are used."""
    # Pixel blitting: mirror, quarter turns, shifts by whole pixels.
    mirror = scaling(1.0 - 2.0 * draws.integer(2), np.ones(draws.count))
    turn = rotation(-math.pi / 2 * draws.integer(4))
    shift = [np.rint(draws.uniform(0.125) * size) * 2 / size for _ in range(2)]
    blit = translation(*shift) @ turn @ mirror
    # Geometry. Two rotations around the stretching, either of them with probability p in all.
    once = 1 - math.sqrt(1 - min(draws.p, 1.0))
    scale = draws.factor(0.2)
    before = rotation(draws.uniform(math.pi, once))
    stretch = draws.factor(0.2)
    after = rotation(draws.uniform(math.pi, once))
    slide = [2 * draws.normal(0.125) for _ in range(2)]
    geometry = translation(*slide) @ after @ scaling(stretch, 1 / stretch) @ before
    geometry = geometry @ scaling(scale, scale)

    chosen = np.eye(3)
    if BLIT in groups:
        chosen = blit @ chosen
    if GEOMETRY in groups:
        chosen = geometry @ chosen
    return np.linalg.inv(np.broadcast_to(chosen, (draws.count, 3, 3)))


def _colours(draws: _Draws) -> np.ndarray:
    """Colour transformations [N, 3, 4]: brightness, contrast, luma flip, hue, saturation."""
    grey = np.outer(_GREY_AXIS, _GREY_AXIS)
    matrix = np.eye(4) + draws.normal(0.2)[:, None, None] * np.outer([1, 1, 1, 0], [0, 0, 0, 1])
    contrast = draws.factor(0.5)[:, None, None]
    matrix = np.where(np.diag([True, True, True, False]), contrast, np.eye(4)) @ matrix
    matrix = (np.eye(4) - 2 * grey * draws.integer(2)[:, None, None]) @ matrix
    matrix = hue_rotation(draws.uniform(math.pi)) @ matrix
    saturation = draws.factor(1.0)[:, None, None]
    colourless = grey + np.diag([0.0, 0.0, 0.0, 1.0])
    matrix = (colourless + (np.eye(4) - colourless) * saturation) @ matrix
    return matrix[:, :3]


def translation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Matrices [N, 3, 3] that move by x and y."""
    matrix = np.tile(np.eye(3), (len(x), 1, 1))
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def scaling(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Matrices [N, 3, 3] that stretch by x and y."""
    matrix = np.tile(np.eye(3), (len(x), 1, 1))
    matrix[:, 0, 0], matrix[:, 1, 1] = x, y
    return matrix


def rotation(angle: np.ndarray) -> np.ndarray:
    """Matrices [N, 3, 3] that rotate by `angle` from the x axis towards the y axis."""
    matrix = np.tile(np.eye(3), (len(angle), 1, 1))
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle)
    matrix[:, 1, 0] = np.sin(angle)
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    return matrix


def hue_rotation(angle: np.ndarray) -> np.ndarray:
    """Matrices [N, 4, 4] that rotate RGB about the axis of greys (Rodrigues' formula)."""
    x, y, z, _ = _GREY_AXIS
    cross = np.zeros((4, 4))
    cross[:3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(4) + sine * cross + (1 - cosine) * (cross @ cross)


def warped(images: paddle.Tensor, inverse: np.ndarray) -> paddle.Tensor:
    """Images [N, 3, S, S] seen through `inverse` [N, 3, 3] (see `Transform`).

    They are continued by reflection, doubled in resolution, sampled bilinearly and halved again,
    so that repeated edges show no aliasing (appendix B). The identity changes nothing.
    """
    size = images.shape[-1]
    aside = translation(*np.full([2, 1], _BESIDE / size))
    inverse = np.linalg.inv(aside) @ inverse @ aside
    margin = _margin(inverse, size)
    wide = _resample(images, enlarging, size, margin)
    # The halving filter reaches beyond the result's border.
    reach, room = 1 + _HALF / size, 1 + 2 * margin / size
    theta = np.concatenate([inverse[:, :2, :2] * reach, inverse[:, :2, 2:]], axis=2) / room
    side = 2 * (size + _HALF)
    theta = paddle.to_tensor(theta, images.dtype, images.place)
    grid = F.affine_grid(theta, [len(theta), 3, side, side], align_corners=False)
    wide = F.grid_sample(wide, grid, padding_mode="reflection", align_corners=False)
    return _resample(wide, halving, size)


def recoloured(images: paddle.Tensor, colour: np.ndarray) -> paddle.Tensor:
    """Images [N, 3, S, S] with each pixel's RGB multiplied by `colour` [N, 3, 4]."""
    colour = paddle.to_tensor(colour, images.dtype, images.place)
    n, channels, height, width = images.shape
    pixels = paddle.matmul(colour[:, :, :3], images.reshape([n, channels, height * width]))
    return (pixels + colour[:, :, 3:]).reshape(images.shape)


def _resample(images: paddle.Tensor, matrix_of: Callable, *arguments: int) -> paddle.Tensor:
    """Multiply rows and columns of [N, C, S, S] by a matrix [R, S]: [N, C, R, R]."""
    matrix = constant_beside(images, matrix_of, *arguments)
    images = paddle.matmul(images, matrix, transpose_y=True)
    return paddle.matmul(matrix, images)


def _margin(inverse: np.ndarray, size: int) -> int:
    """Pixels beyond the border that the results show, rounded up, at most one image."""
    corners = np.array([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)])
    furthest = np.abs(corners @ inverse.transpose(0, 2, 1))[:, :, :2].max()
    needed = math.ceil((furthest - 1) * size / 2) + _HALF
    return int(np.clip(-(-needed // _MARGIN_STEP) * _MARGIN_STEP, _MARGIN_STEP, size))


@functools.lru_cache(maxsize=64)
def enlarging(size: int, margin: int) -> np.ndarray:
    """Matrix [2 (S + 2 margin), S] that continues a row by reflection and doubles its resolution.

    Adjoint to `halving` up to the border, with the gain that keeps a constant row constant.
    """
    extended = np.pad(np.arange(size), margin + _HALF, mode="symmetric")
    matrix = np.zeros((2 * (size + 2 * margin), size))
    for place, source in zip(range(-margin - _HALF, size + margin + _HALF), extended, strict=True):
        for tap, value in enumerate(SYM6):
            row = 2 * (place + margin) + tap - _HALF + 1
            if 0 <= row < len(matrix):
                matrix[row, source] += math.sqrt(2) * value
    return matrix


@functools.lru_cache(maxsize=16)
def halving(size: int) -> np.ndarray:
    """Matrix [S, 2 (S + 6)] that halves the resolution of a row with 6 more at either end."""
    matrix = np.zeros((size, 2 * (size + _HALF)))
    for place in range(size):
        start = 2 * place + 1
        matrix[place, start : start + len(SYM6)] = SYM6 / math.sqrt(2)
    return matrix
