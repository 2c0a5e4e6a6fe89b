"""How alike two images are, and two faces: one value per pair, [N].

Images are network input, float [N, 3, H, W] in [-1, 1], unless something else is said.
"""

from __future__ import annotations

import itertools

import numpy as np
import paddle
import paddle.nn.functional as F
from skimage.metrics import structural_similarity

from paddle_sam.core.images import to_network
from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.face_recognition import FaceEmbedder
from paddle_sam.networks.lpips import LPIPS

_SSIM_SIGMA = 1.5
_SSIM_WINDOW = 11


def squared_error(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mean squared difference, as SAM's pixel loss has it: in the units of [-1, 1]."""
    check_shape("images", right, left.shape)
    return np.square(left.astype(np.float64) - right).mean(axis=(1, 2, 3))


def ssim(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) of uint8 images [N, H, W, 3]; 1 for the same.

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
    """LPIPS of two batches."""
    check_shape("images", right, left.shape)
    return lpips(paddle.to_tensor(left), paddle.to_tensor(right)).numpy()


@paddle.no_grad()
def diversity(lpips: LPIPS, outputs: np.ndarray) -> float:
    """Mean LPIPS over all pairs of M outputs [M, 3, H, W] that one source was given."""
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
    """Unit embeddings [N, E] of face crops, uint8 [N, H, W, 3], averaged to the network's size.

    What a crop must show is the network's affair: SAM's face region for IR-SE50 as it is trained
    with, `align_five_points` for a network such as CurricularFace that judges from outside.
    """
    x = paddle.to_tensor(to_network(faces))
    return embedder(F.adaptive_avg_pool2d(x, embedder.input_size)).numpy()


def similarity(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine [N] of unit embeddings [N, E]; 1 for the same person at best."""
    check_shape("embeddings", right, left.shape)
    return (left * right).sum(axis=1)
