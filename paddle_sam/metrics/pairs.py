"""How alike two images are, and two faces.

Images are network input, float [N, 3, H, W] in [-1, 1], and results one value per pair [N], unless
something else is said. Faces are compared by recognition networks, which see them cut out by five
points moved onto ArcFace's template.
"""

from __future__ import annotations

import hashlib
import itertools
import os

import numpy as np
import paddle
import paddle.nn.functional as F
from PIL import Image
from skimage.metrics import structural_similarity

from paddle_sam.core.images import check_image, to_network, to_uint8
from paddle_sam.errors import ConfigError, ImageError, check_shape
from paddle_sam.faces.landmarks import FaceLandmarker
from paddle_sam.networks.face_networks import FaceEmbedder
from paddle_sam.networks.image_features import LPIPS
from paddle_sam.networks.load import load

_SSIM_SIGMA = 1.5
_SSIM_WINDOW = 11
SIZE = 112
# Eyes, tip of the nose and corners of the mouth, x and y in a crop of 112 pixels, first pixel 0.
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def squared_error(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the mean squared difference in the units of [-1, 1], as SAM's pixel loss has it."""
    check_shape("images", right, left.shape)
    return np.square(left.astype(np.float64) - right).mean(axis=(1, 2, 3))


def ssim(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return SSIM (Wang et al. 2004) of uint8 images [N, H, W, 3]; 1 for equal images.

    Gaussian window of deviation 1.5, population covariance, mean over the colours: the settings
    of the paper.
    """
    check_shape("images", right, left.shape)
    if min(left.shape[1:3]) < _SSIM_WINDOW:
        raise ConfigError(
            f"SSIM: expected images of at least {_SSIM_WINDOW} pixels, found {left.shape[1:3]}"
        )
    options = {
        "channel_axis": 2,
        "data_range": 255,
        "gaussian_weights": True,
        "sigma": _SSIM_SIGMA,
        "use_sample_covariance": False,
    }
    pairs = zip(left, right, strict=True)
    return np.array([structural_similarity(a, b, **options) for a, b in pairs])


@paddle.no_grad()
def perceptual_distance(lpips: LPIPS, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return LPIPS of two batches."""
    check_shape("images", right, left.shape)
    return lpips(paddle.to_tensor(left), paddle.to_tensor(right)).numpy()


@paddle.no_grad()
def diversity(lpips: LPIPS, outputs: np.ndarray) -> float:
    """Return the mean LPIPS over all pairs of M outputs [M, 3, H, W] of one source."""
    if len(outputs) < 2:
        raise ConfigError(f"diversity: expected at least 2 outputs, found {len(outputs)}")
    activations = lpips.extract(paddle.to_tensor(outputs))
    pairs = np.array(list(itertools.combinations(range(len(outputs)), 2)))
    left, right = (
        [paddle.index_select(one, paddle.to_tensor(side)) for one in activations]
        for side in pairs.T
    )
    return float(lpips.distance(left, right).mean())


@paddle.no_grad()
def embeddings(embedder: FaceEmbedder, faces: np.ndarray) -> np.ndarray:
    """Return unit embeddings [N, E] of face crops, uint8 [N, H, W, 3].

    Crops are averaged to the network's size. What they must show depends on the network: SAM's
    face region for IR-SE50, `align_five_points` for CurricularFace.
    """
    x = paddle.to_tensor(to_network(faces))
    return embedder(F.adaptive_avg_pool2d(x, embedder.input_size)).numpy()


def similarity(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cosines [N] of unit embeddings [N, E]; 1 at best."""
    check_shape("embeddings", right, left.shape)
    return (left * right).sum(axis=1)


def reconstruction(lpips: LPIPS, crop: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """Return L2, LPIPS and SSIM by name of an image, uint8 [R, R, 3], and its crop [S, S, 3].

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
    """Return two square uint8 images, the larger one averaged down to the size of the other."""
    side = min(len(left), len(right))
    pooled = [F.adaptive_avg_pool2d(paddle.to_tensor(to_network(i)), side) for i in (left, right)]
    return tuple(to_uint8(image)[0] for image in pooled)


def face_key(crop: np.ndarray, *more: np.ndarray | None) -> str:
    """Return a name for a crop and whatever else its result depends on (arrays or None)."""
    parts = [crop, *(array for array in more if array is not None)]
    return hashlib.sha256(b"".join(array.tobytes() for array in parts)).hexdigest()[:16]


class AlignedIdentity:
    """Identity by a network that SAM is not trained with, such as CurricularFace.

    Faces are detected in the crop and in the results, and aligned by five points.

    Args:
        path: face recognition weights.
        device: `auto`, `cpu`, `gpu` or `gpu:N`.

    Raises:
        PaddleSamError: the weights hold another network, or the landmark predictor is missing.
    """

    def __init__(self, path: str | os.PathLike, device: str = "auto"):
        self._embedder = load(
            path, device=device, expect=FaceEmbedder, option="--aligned_identity_path"
        )
        self._landmarker = FaceLandmarker()

    def __call__(self, crop: np.ndarray, images: np.ndarray) -> list[float | None]:
        """Return the cosine of a crop, uint8 [S, S, 3], with each of images [N, R, R, 3].

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
        except ImageError:  # the landmarks coincide: not a face
            return None
        return embeddings(self._embedder, aligned[None])


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """68 landmarks [68, 2] -> centres of the eyes, tip of the nose, corners of the mouth [5, 2]."""
    check_shape("landmarks", landmarks, (68, 2))
    eyes = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])


def align_five_points(image: np.ndarray, points: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Cut out a face: uint8 RGB [H, W, 3] and its five points [5, 2] -> uint8 [size, size, 3].

    By the similarity (turn, scale, shift) that brings the points closest to the template, in the
    least squares sense. Large faces are reduced before they are sampled, so nothing is aliased.

    Raises:
        ImageError: the points coincide.
    """
    check_image("image", image)
    check_shape("points", points, (5, 2))
    span = np.ptp(points, axis=0).max()
    if not span > 0:
        raise ImageError("the five points of the face coincide, so it has no direction")
    wanted = (TEMPLATE + 0.5) * (size / SIZE)
    # Edges count from here on: the first pixel covers 0..1.
    found = np.asarray(points, np.float64) + 0.5
    reduction = max(int(span / np.ptp(wanted, axis=0).max()), 1)
    picture = Image.fromarray(image)
    if reduction > 1:
        reduced = [max(round(side / reduction), 1) for side in picture.size]
        found = found * reduced / picture.size
        picture = picture.resize(reduced, Image.Resampling.LANCZOS)
    crop = picture.transform(
        (size, size),
        Image.Transform.AFFINE,
        tuple(similarity_between(wanted, found).ravel()),  # the picture's place of the crop's
        Image.Resampling.BICUBIC,
    )
    return np.array(crop)


def similarity_between(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Turn, scale and shift [2, 3] that take points [N, 2] `left` closest to `right`.

    In the complex plane such a map is z -> a z + b, and least squares give a and b at once.
    """
    z, w = (points[:, 0] + 1j * points[:, 1] for points in (left, right))
    centred = z - z.mean()
    a = (centred.conj() * (w - w.mean())).sum() / np.square(np.abs(centred)).sum()
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
