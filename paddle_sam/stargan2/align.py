"""Aligning photographs for StarGAN v2 (`scripts/stargan2.py --mode align`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.core.command import exit_status
from paddle_sam.core.device import resolve_device
from paddle_sam.core.files import read_arrays
from paddle_sam.core.images import read_image, resize, result_names, save_image, to_network
from paddle_sam.core.listing import list_images
from paddle_sam.core.weights import locate
from paddle_sam.errors import CheckpointError, ConfigError, ImageError
from paddle_sam.faces.mean_face import MEAN_FACE_SIZE, align_to_mean_face
from paddle_sam.networks.face_heatmaps import MeanFace
from paddle_sam.networks.load import load
from paddle_sam.stargan2.options import AlignOptions
from paddle_sam.stargan2.system import load_fan


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
            tqdm.write(f"error: {where}{error}", file=sys.stderr)
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
            f"--lm_path: {path}: file not found. Get the mean face with: python"
            " scripts/download_weights.py celeba_lm_mean"
        )
    if path.suffix != ".npz":
        layer = load(path, expect=MeanFace, option="--lm_path")
        return layer.mean.numpy().astype(np.float64)
    arrays = read_arrays(path, "fetch it again")
    if "mean" not in arrays:
        raise CheckpointError(f"{path}: holds no array `mean`, as celeba_lm_mean.npz does")
    return arrays["mean"].astype(np.float64)
