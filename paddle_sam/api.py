"""What `import paddle_sam` offers as functions, without the options and files of a command.

Photographs may be paths, bytes, streams, PIL images or arrays (`paddle_sam.core.images.as_image`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle

from paddle_sam.ageing.animate import compose_all, frame_ages, render_between
from paddle_sam.ageing.dial import aims
from paddle_sam.ageing.edits import mix as mix_codes
from paddle_sam.ageing.invert import PictureEncoder, invert_images
from paddle_sam.ageing.latent_options import model_file
from paddle_sam.ageing.options import Ages, list_ages, parse_latent_mask
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.ageing.project import open_inverter
from paddle_sam.ageing.projection import Best, ProjectionSettings
from paddle_sam.ageing.projection import project as optimise
from paddle_sam.ageing.tuning import TuningSettings
from paddle_sam.ageing.tuning import tune as tune_generator
from paddle_sam.core.images import (
    LARGE_TILE,
    ImageLike,
    as_image,
    crop_square,
    resize,
    to_network,
    to_uint8,
)
from paddle_sam.core.video import there_and_back, write_all
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import ConfigError
from paddle_sam.faces.alignment import CropSettings
from paddle_sam.networks.image_features import LPIPS, load_lpips
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.options import expect_numbers


class Inverted(NamedTuple):
    """The result of `invert`.

    images: uint8 [N, R, R, 3], what the codes render. codes: float32 [N, L, D].
    """

    images: np.ndarray
    codes: np.ndarray


def invert(
    images: ImageLike | Sequence[ImageLike],
    encoder: SAM | str | os.PathLike | None = None,
    *,
    steps: int = 0,
    align: bool = True,
    resize_factors: int = 1,
    batch_size: int = 4,
    w_encoder: str | os.PathLike = "",
) -> Inverted:
    """Turn pictures into codes, and those into images, by an encoder.

    >>> images, codes = paddle_sam.invert("photo.jpg", "e4e.pdparams")     # doctest: +SKIP

    Args:
        images: one or several pictures of the kind that the encoder takes: photographs, whose most
            confident face is taken; sketches; or label maps, as files or arrays uint8 [H, W].
        encoder: pSp, e4e or ReStyle, or SAM, whose frozen encoder is meant, or a weight file of
            one, or of HyperStyle; None takes the embedded model.
        steps: of ReStyle or HyperStyle; 0 for as many as it was trained for.
        align: find the face of a photograph; False where they are aligned crops already.
        resize_factors: shrink photographs by this factor first.
        batch_size: pictures encoded and rendered together.
        w_encoder: weight file of the encoder that HyperStyle starts from; its images are of
            generators tuned for each picture, which `HyperStyle.tune` returns.

    Raises:
        ImageError, FaceNotFoundError: a picture cannot be used.
        CheckpointError: the weight file cannot be used, or holds no such encoder.
        ConfigError: an argument cannot work.
    """
    _check(0, steps=steps)
    _check(1, resize_factors=resize_factors, batch_size=batch_size)
    pictures = [one for _, one in _each("images", images)]
    if isinstance(encoder, SAM):
        opened = PictureEncoder(encoder, CropSettings(encoder.input_size), steps, resize_factors)
    else:
        opened = PictureEncoder.open(encoder, steps, resize_factors, w_encoder)
    return Inverted(*invert_images(pictures, opened, align, batch_size))


class Projected(NamedTuple):
    """The result of `project`.

    frames: for each image the pictures uint8 [R, R, 3] of every step, the first being the start.
    codes: float32 [N, L, D], of the lowest loss or the last step. images: uint8 [N, R, R, 3], their
    pictures.
    """

    frames: list[list[np.ndarray]]
    codes: np.ndarray
    images: np.ndarray


def project(
    images: ImageLike | Sequence[ImageLike],
    masks: Sequence[ImageLike] | None = None,
    generator: Generator | str | os.PathLike | None = None,
    psp: SAM | str | os.PathLike | None = None,
    *,
    ckpt: str | os.PathLike | None = None,
    model_type: str | None = None,
    latent_level: Sequence[int] | None = None,
    start_lr: float = 0.1,
    final_lr: float = 0.025,
    step: int = 100,
    mse_weight: float = 1.0,
    mse_mean: str = "batch",
    no_encoder: bool = False,
    returned: str = "best",
    lpips: LPIPS | None = None,
    **numbers: int,
) -> Projected:
    """Find W+ codes for which a generator reproduces images.

    >>> from skimage import data                                          # doctest: +SKIP
    >>> frames, codes, _ = paddle_sam.project(data.astronaut()[:256, 96:352])  # doctest: +SKIP

    The loss is the sum of the images' LPIPS and, by `mse_weight`, the mean squared error over all
    pixels of the masked images and over the batch: a half mask counts half, four images as one.

    Args:
        images: one or several crops of faces; one that is not square is resized by its short side
            and cropped at the centre.
        masks: for each image what counts of it, white; None for everything.
        generator: a StyleGAN2 network, or the weight file of one, or of SAM or pSp; None takes that
            of `psp`, or the embedded model's.
        psp: SAM or pSp, or its weight file, whose encoder gives the codes to start from; None takes
            the encoder of `generator`'s file if it holds one.
        ckpt, model_type: instead of `generator` its file, or the type of a published one
            (`ffhq-config-f`) whose converted file is in `pretrained_models`.
        latent_level: which codes may change, such as `range(10)`; None for all.
        start_lr, final_lr: Adam's learning rate at the first step and at the end.
        step: number of steps; 0 returns where it starts.
        mse_weight: factor of the squared error.
        mse_mean: `batch`, or `image` for the mean over each image, as if it were alone.
        no_encoder: start from the mean code.
        returned: which codes: `best`, of the lowest loss of each image, or `last`.
        lpips: the perceptual distance; None loads VGG16's (`download_weights.py lpips_vgg`).
        numbers: `size`, `style_dim`, `n_mlp`, `channel_multiplier`: what the generator has to have.

    Raises:
        ConfigError: an argument cannot work.
        CheckpointError: a weight file cannot be used, or is missing.
        TrainingError: the loss is no longer a number.
    """
    _check(0, step=step, start_lr=start_lr, final_lr=final_lr, mse_weight=mse_weight)
    if returned not in ("best", "last"):
        raise ConfigError(f"returned: expected best or last, found {returned!r}")
    if mse_mean not in ("batch", "image"):
        raise ConfigError(f"mse_mean: expected batch or image, found {mse_mean!r}")
    named = [one for one in (generator, ckpt, model_type) if one is not None]
    if len(named) > 1:
        raise ConfigError("generator, ckpt, model_type: expected one of them, found several")
    inverter = open_inverter(model_file(model_type) if model_type else generator or ckpt, psp)
    expect_numbers("the generator", numbers, inverter.numbers)
    targets, shown = _targets(images, masks, inverter.crop.size)
    start = inverter.start(targets, encoder=not no_encoder)
    batch = len(targets) if mse_mean == "batch" else 1
    settings = ProjectionSettings(step, start_lr, final_lr, mse_weight, batch, latent_level)
    lpips = lpips or load_lpips(find_weight("lpips_vgg"))
    frames, best = [[] for _ in targets], Best(always_last=returned == "last")
    for state in optimise(inverter.generator, lpips, targets, start, settings, shown):
        best.see(state)
        for film, picture in zip(frames, to_uint8(state.images), strict=True):
            film.append(picture)
    return Projected(frames, best.codes.numpy(), to_uint8(best.images))


class Tuned(NamedTuple):
    """The result of `tune`.

    generator: a StyleGAN2 that renders the face from its code. image: that picture, uint8
    [R, R, 3]. before, after: LPIPS plus the weighted squared error.
    """

    generator: Generator
    image: np.ndarray
    before: float
    after: float


def tune(
    image: ImageLike,
    codes: np.ndarray,
    generator: Generator | SAM | str | os.PathLike | None = None,
    *,
    mask: ImageLike | None = None,
    step: int = 350,
    learning_rate: float = 3e-4,
    mse_weight: float = 1.0,
    locality: float = 0.1,
    lpips: LPIPS | None = None,
) -> Tuned:
    """Tune a copy of a generator for one face, so that its code renders it (pivotal tuning).

    >>> tuned = paddle_sam.tune(crop, codes[0])                            # doctest: +SKIP
    >>> pipeline = paddle_sam.AgePipeline.from_checkpoint(                 # doctest: +SKIP
    ...     generator=tuned.generator
    ... )

    Args:
        image: the crop of a face.
        codes: [L, D], what the face was projected or inverted to.
        generator: a StyleGAN2 network, or the weight file of one, or of SAM or pSp; None takes the
            embedded model's.
        mask: what of the image counts, white; None for everything.
        step: number of steps.
        learning_rate: of Adam.
        mse_weight: factor of the squared error beside LPIPS.
        locality: factor of what keeps the generator as it was near the code; 0 leaves that out.
        lpips: the perceptual distance; None loads AlexNet's (`download_weights.py lpips_alex`).

    Raises:
        ConfigError: an argument cannot work.
        CheckpointError: a weight file cannot be used, or is missing.
        TrainingError: the loss is no longer a number.
    """
    numbers = {"learning_rate": learning_rate, "mse_weight": mse_weight, "locality": locality}
    _check(0, step=step, **numbers)
    inverter = open_inverter(generator)
    target, shown = _targets([image], None if mask is None else [mask], inverter.crop.size)
    settings = TuningSettings(step, learning_rate, mse_weight, locality)
    lpips = lpips or load_lpips(find_weight("lpips_alex"))
    pivot = paddle.to_tensor(np.asarray(codes, np.float32)[None])
    losses = []
    for state in tune_generator(inverter.generator, lpips, target, pivot, settings, shown):
        losses.append(state.lpips + mse_weight * state.mse)
    picture = to_uint8(state.image)[0]
    return Tuned(state.generator, picture, losses[0], losses[-1])


def _targets(
    images: ImageLike | Sequence[ImageLike], masks: Sequence[ImageLike] | None, size: int
) -> tuple[paddle.Tensor, paddle.Tensor | None]:
    """Images [N, 3, S, S] in [-1, 1], and masks [N, 1, S, S] in [0, 1] if any."""
    pictures = [crop_square(as_image(image, name)) for name, image in _each("images", images)]
    if masks is not None and len(masks) != len(pictures):
        raise ConfigError(f"masks: expected one for each of {len(pictures)} images")
    targets = paddle.to_tensor(to_network([resize(one, size) for one in pictures]))
    if masks is None:
        return targets, None
    grey = [resize(crop_square(as_image(one, "masks")), size)[..., :1] for one in masks]
    shown = np.stack(grey).transpose(0, 3, 1, 2).astype(np.float32) / 255
    return targets, paddle.to_tensor(shown)


def animate(
    photo: ImageLike,
    path: str | os.PathLike | None = None,
    ages: Ages = range(0, 101, 10),
    *,
    pipeline: AgePipeline | None = None,
    seconds: float = 6.0,
    fps: float = 25.0,
    size: int = 0,
    back: bool = True,
    captions: bool = True,
    keep: float | None = None,
) -> list[np.ndarray]:
    """Return the frames, uint8 [*, size, 3], of a face that grows old and young again.

    Args:
        photo: the photograph; its most confident face is taken.
        path: video to write (`.mp4`, `.gif`, `.webp`); None writes none.
        ages: ages between which codes are interpolated in W+.
        pipeline: the model; None takes the embedded one.
        seconds, fps: length and frames per second.
        size: side of the face; 0 takes that of the results, but at least 256.
        back: whether it becomes young again.
        captions: whether the age is written below.
        keep: share of the photograph that is kept; see `AgePipeline.__call__`.

    Raises:
        ImageError, FaceNotFoundError: the photograph cannot be used.
    """
    _check(0, seconds=seconds, size=size)
    _check(0.001, fps=fps)
    pipeline = pipeline or AgePipeline.from_checkpoint()
    keys = sorted(set(list_ages(ages)))
    pixels = as_image(photo)
    face = pipeline.faces(pixels)[0]
    crop = paddle.to_tensor(to_network(face.image))
    inverted = pipeline.invert(crop)
    size = size or max(pipeline.output_size, LARGE_TILE)
    (dial,) = pipeline.dials([pixels], [face], inverted, keep, size)
    asked = paddle.to_tensor(aims([dial], keys)[0].astype(np.float32))
    codes = [pipeline.aged_codes(crop, inverted, age) for age in asked.split(len(keys))]
    shown = frame_ages(keys[0], keys[-1], round(fps * seconds), back)
    images = render_between(pipeline, paddle.concat(codes), keys, shown, batch_size=4)
    frames = list(compose_all(images, shown, dial, size, captions))
    if back:
        frames = list(there_and_back(frames, len(frames)))
    if path is not None:
        write_all([Path(path)], iter(frames), fps)
    return frames


def mix(
    photo: ImageLike,
    references: ImageLike | Sequence[ImageLike],
    ages: Ages = 40,
    *,
    pipeline: AgePipeline | None = None,
    latent_mask: str = "",
    alpha: float = 1.0,
) -> np.ndarray:
    """Age a face and give it colours and textures of others: uint8 [references, ages, R, R, 3].

    Args:
        photo: the photograph; its most confident face is taken.
        references: photographs whose faces give their finer codes, aged alike.
        ages: see `AgePipeline`.
        pipeline: the model; None takes the embedded one.
        latent_mask: which codes are taken over, such as "8,9"; by default the model's finer half,
            or 8 and 9 of 18.
        alpha: their share, 0 to 1.

    Raises:
        ImageError, FaceNotFoundError: a photograph cannot be used.
        ConfigError: an argument cannot work.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha: expected 0 to 1, found {alpha:g}")
    pipeline = pipeline or AgePipeline.from_checkpoint()
    levels = parse_latent_mask(latent_mask, pipeline.n_codes)
    ages = list_ages(ages)
    crop = pipeline.faces(photo)[0].image
    rows = []
    for _, reference in _each("references", references):
        donor = paddle.to_tensor(to_network(pipeline.faces(reference)[0].image))
        start = pipeline.invert(donor)
        aged = [pipeline.aged_codes(donor, start, paddle.to_tensor([age])) for age in ages]
        rows.append(
            [
                pipeline.age(crop[None], [age], edit=mix_codes(levels, codes, alpha))[0, 0]
                for age, codes in zip(ages, aged, strict=True)
            ]
        )
    return np.array(rows)


def train(preset: str | None = None, **options: Any) -> Path:
    """Start or resume a training of SAM; returns its run folder.

    >>> paddle_sam.train("mini", train_data="faces", exp_dir="log/mine")   # doctest: +SKIP

    The options are those of `scripts/train.py`, checked as there.
    """
    from paddle_sam.ageing.train.options import SAMOptions
    from paddle_sam.ageing.train.run import train_sam

    return train_sam(SAMOptions(preset=preset, **options))


def train_age(**options: Any) -> Path:
    """Start or resume the training of an age regressor; the options of `scripts/train_age.py`."""
    from paddle_sam.ageing.train.age import train_age
    from paddle_sam.ageing.train.options import AgeOptions

    return train_age(AgeOptions(**options))


def train_stylegan2(preset: str | None = None, **options: Any) -> Path:
    """Start or resume a training of StyleGAN2; the options of `scripts/train_stylegan2.py`."""
    from paddle_sam.stylegan2.train.options import StyleGAN2Options
    from paddle_sam.stylegan2.train.run import train_stylegan2

    return train_stylegan2(StyleGAN2Options(preset=preset, **options))


def train_stargan2(preset: str | None = None, **options: Any) -> Path:
    """Start or resume a training of StarGAN v2; options of `scripts/stargan2.py --mode train`."""
    from paddle_sam.stargan2.options import StarGAN2Options
    from paddle_sam.stargan2.trainer import train_stargan2

    return train_stargan2(StarGAN2Options(preset=preset, **options))


def _each(name: str, images: ImageLike | Sequence[ImageLike]) -> list[tuple[str, ImageLike]]:
    """One image of an argument, or each of several, with what messages call it."""
    several = isinstance(images, list | tuple) or (
        isinstance(images, np.ndarray) and images.ndim == 4
    )
    each = [(f"{name}[{n}]", image) for n, image in enumerate(images if several else [images])]
    if not each:
        raise ConfigError(f"{name}: expected at least one, found none")
    return each


def _check(least: float, **arguments: float) -> None:
    """Raise `ConfigError` for an argument that is not a number of at least `least`."""
    for name, value in arguments.items():
        if not least <= value < math.inf:
            raise ConfigError(f"{name}: expected a number of at least {least}, found {value}")
