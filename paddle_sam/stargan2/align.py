"""Aligning photographs for StarGAN v2 (`scripts/stargan2.py --mode align`).

The crop is turned, scaled and moved onto the mean face of CelebA-HQ. Landmarks are the 98 of
`FaceHeatmaps`, x and y in continuous coordinates (the first pixel covers 0..1). Unlike the
published code, which stretches a photograph to a square before it looks for the face, a photograph
keeps its shape here and is sampled once, from its own pixels.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.core.command import exit_status
from paddle_sam.core.device import resolve_device
from paddle_sam.core.files import read_arrays
from paddle_sam.core.folders import list_images, printable
from paddle_sam.core.images import (
    check_image,
    read_image,
    resize,
    result_names,
    save_image,
    to_network,
)
from paddle_sam.core.weights import command_for, locate
from paddle_sam.errors import CheckpointError, ConfigError, ImageError, check_shape
from paddle_sam.faces.alignment import cut_out
from paddle_sam.networks.face_heatmaps import MeanFace
from paddle_sam.networks.load import load
from paddle_sam.stargan2.options import AlignOptions
from paddle_sam.stargan2.system import load_fan

LANDMARKS = 98
MEAN_FACE_SIZE = 256  # pixels that the mean face's coordinates are in
_LEFT_EYE = [*range(60, 68), 96]
_RIGHT_EYE = [*range(68, 76), 97]
_MOUTH = [76, 82]
_SCALE_BY = [96, 97, *_MOUTH]  # pupils and corners of the mouth
_OVERSAMPLE = 4


def align_for_stargan2(config: AlignOptions) -> int:
    """Align every photograph of `inp_dir` into `out_dir`, as PNG, named by `result_names`.

    Files that cannot be used are reported on stderr and the others are still aligned.

    Returns:
        the exit status: 0 all done, 1 some failed, 2 none was done.
    """
    if not config.inp_dir:
        raise ConfigError("--inp_dir: name a photograph or a folder of them")
    resolve_device(config.device)
    fan = load_fan(config.wing_path, config.device)
    mean_face = load_mean_face(config.lm_path)

    def find_landmarks(square: np.ndarray) -> np.ndarray:
        small = to_network(resize(square, MEAN_FACE_SIZE))
        return fan.landmarks(paddle.to_tensor(small))[0] * (len(square) / MEAN_FACE_SIZE)

    inputs = list_images(config.inp_dir)
    root = Path(config.inp_dir)
    root = root if root.is_dir() else root.parent
    names, done = result_names([path.relative_to(root) for path in inputs]), 0
    for path, name in zip(tqdm(inputs, unit="photo", disable=None), names, strict=True):
        try:
            photograph = read_image(path)
            crop = align_to_mean_face(photograph, find_landmarks, mean_face, config.img_size)
            save_image(Path(config.out_dir) / name.with_name(f"{name.name}.png"), crop)
        except ImageError as error:
            where = "" if str(path) in str(error) else f"{path}: "
            tqdm.write(f"error: {printable(f'{where}{error}')}", file=sys.stderr)
        else:
            done += 1
    print(f"{done} of {len(inputs)} aligned: {config.out_dir}")
    return exit_status(done, len(inputs) - done)


def load_mean_face(path: str | os.PathLike) -> np.ndarray:
    """Read the mean face [98, 2] at 256 pixels, converted or as it is published (`.npz`).

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    path = locate(path)
    if not path.is_file():
        raise CheckpointError(
            f"--lm_path: {path}: file not found. Get the mean face with:"
            f" {command_for('celeba_lm_mean')}"
        )
    if path.suffix != ".npz":
        layer = load(path, expect=MeanFace, option="--lm_path")
        return layer.mean.numpy().astype(np.float64)
    arrays = read_arrays(path, "fetch it again")
    if "mean" not in arrays:
        raise CheckpointError(f"{path}: holds no array `mean`, as celeba_lm_mean.npz does")
    return arrays["mean"].astype(np.float64)


def align_to_mean_face(
    image: np.ndarray,
    find_landmarks: Callable[[np.ndarray], np.ndarray],
    mean_face: np.ndarray,
    size: int,
) -> np.ndarray:
    """Cut the face out of a photograph that shows one, about in the middle.

    Args:
        image: uint8 RGB [H, W, 3].
        find_landmarks: returns the landmarks [98, 2] of a square uint8 image, in its pixels.
        mean_face: landmarks [98, 2] at 256 pixels.
        size: height and width of the crop.

    Raises:
        ImageError: what was found describes no face within the image.
    """
    check_image("image to align", image)
    check_shape("mean face", mean_face, (LANDMARKS, 2))
    square, corner = mirrored_to_square(image)
    landmarks = find_landmarks(square) - corner
    factor, shift = onto(landmarks, mean_face * (size / MEAN_FACE_SIZE))
    corners = np.array([0, 1j, 1 + 1j, 1]) * size
    quad = (corners - shift) / factor
    # `cut_out` counts from the centre of the first pixel.
    return cut_out(image, np.stack([quad.real, quad.imag], 1) - 0.5, size, _OVERSAMPLE).image


def onto(source: np.ndarray, target: np.ndarray) -> tuple[complex, complex]:
    """Give a and b of z -> a z + b, in the complex plane, that lays one face upon another.

    It brings the centres of all landmarks and the directions of the faces together; the scale is
    the mean, over pupils and corners of the mouth, of their distances from the centre in `target`
    relative to those in `source`.

    Raises:
        ImageError: the landmarks of `source` coincide.
    """
    z, w = _complex(source), _complex(target)
    turn = _direction(w) / abs(_direction(w))
    before, arms = _direction(z), np.abs(z[_SCALE_BY] - z.mean())
    if not (abs(before) > 0 and arms.min() > 0):
        raise ImageError("the landmarks of the face coincide, so it has no direction")
    scale = (np.abs(w[_SCALE_BY] - w.mean()) / arms).mean()
    factor = scale * turn / (before / abs(before))
    return factor, w.mean() - factor * z.mean()


def mirrored_to_square(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Continue an image by its mirror image to a square; also give where its corner went."""
    height, width = image.shape[:2]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    pad = ((top, side - height - top), (left, side - width - left), (0, 0))
    return np.pad(image, pad, "symmetric"), np.array([left, top])


def _direction(z: np.ndarray) -> complex:
    """The face's right, from its eyes and, turned by 90 degrees, from eyes and mouth."""
    left, right = z[_LEFT_EYE].mean(), z[_RIGHT_EYE].mean()
    mouth = z[_MOUTH].mean()
    upwards = (left + right) / 2 - mouth
    return (right - left) + upwards * 1j


def _complex(points: np.ndarray) -> np.ndarray:
    check_shape("landmarks", points, (LANDMARKS, 2))
    return points[:, 0] + 1j * points[:, 1]
