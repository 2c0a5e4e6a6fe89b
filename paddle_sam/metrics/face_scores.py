"""Two faces compared: how far apart the pictures are, and whether it is the same person."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_sam.core.images import to_network, to_uint8
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.faces.five_points import align_five_points, five_points
from paddle_sam.faces.landmarks import FaceLandmarker
from paddle_sam.metrics.pair_scores import (
    embeddings,
    perceptual_distance,
    similarity,
    squared_error,
    ssim,
)
from paddle_sam.networks.face_recognition import FaceEmbedder
from paddle_sam.networks.load import load
from paddle_sam.networks.lpips import LPIPS

RECONSTRUCTION = ("l2", "lpips", "ssim")


def reconstruction(lpips: LPIPS, crop: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """How close an image, uint8 [R, R, 3], is to its crop [S, S, 3]: `RECONSTRUCTION` by name.

    The larger one is averaged down to the other's size.
    """
    crop, image = at_one_size(crop, image)
    left, right = to_network(crop), to_network(image)
    return {
        "l2": squared_error(left, right).item(),
        "lpips": perceptual_distance(lpips, left, right).item(),
        "ssim": ssim(crop[None], image[None]).item(),
    }


def at_one_size(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two square uint8 images, the larger one averaged down to the size of the other."""
    side = min(len(left), len(right))
    pooled = [F.adaptive_avg_pool2d(paddle.to_tensor(to_network(i)), side) for i in (left, right)]
    return tuple(to_uint8(image.numpy())[0] for image in pooled)


def face_key(crop: np.ndarray, *more: np.ndarray | None) -> str:
    """What tells a crop, and what else a result depends on (arrays or None), from any other."""
    parts = [crop, *(array for array in more if array is not None)]
    return hashlib.sha256(b"".join(array.tobytes() for array in parts)).hexdigest()[:16]


class AlignedIdentity:
    """Identity as judged from outside: faces are found anew and moved onto five points.

    That is how CurricularFace expects them, and a judge that training did not use.

    Args:
        path: face recognition weights.
        device: `auto`, `cpu`, `gpu` or `gpu:N`.

    Raises:
        PaddleSamError: the weights are no such network, or the landmark predictor is missing.
    """

    def __init__(self, path: str | os.PathLike, device: str = "auto"):
        self._embedder = load(path, device=device)
        if not isinstance(self._embedder, FaceEmbedder):
            raise ConfigError(f"--aligned_identity_path: {path} recognises no faces")
        self._landmarker = FaceLandmarker()

    def __call__(self, crop: np.ndarray, images: np.ndarray) -> list[float | None]:
        """Cosine of a crop, uint8 [S, S, 3], with each of images [N, R, R, 3].

        None where no face is found, in the crop or in the image.
        """
        reference = self._embedding(crop)
        found = [None if reference is None else self._embedding(image) for image in images]
        return [None if one is None else similarity(one, reference).item() for one in found]

    def _embedding(self, image: np.ndarray) -> np.ndarray | None:
        faces = self._landmarker.find(image)
        if not faces:
            return None
        try:
            aligned = align_five_points(image, five_points(faces[0].landmarks))
        except ImageError:  # landmarks in one place: nothing that could be aligned was found
            return None
        return embeddings(self._embedder, aligned[None])
