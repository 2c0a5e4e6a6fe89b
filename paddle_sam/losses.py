"""The losses of the published methods as functions of tensors, in one place to import from."""

from paddle_sam.ageing.losses import (
    LossWeights,
    SAMLoss,
    age_error,
    identity_weights,
    l2,
    latent_norm,
)
from paddle_sam.networks.face_networks import cosine, face_region
from paddle_sam.networks.image_features import LPIPS, load_lpips
from paddle_sam.training.trainers import (
    distance,
    logistic,
    path_lengths,
    r1_penalty,
)

__all__ = [
    "LPIPS",
    "LossWeights",
    "SAMLoss",
    "age_error",
    "cosine",
    "distance",
    "face_region",
    "identity_weights",
    "l2",
    "latent_norm",
    "load_lpips",
    "logistic",
    "path_lengths",
    "r1_penalty",
]
