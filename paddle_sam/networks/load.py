"""Weight file to network: `load` builds what the file describes and fills it strictly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeVar

import paddle
from paddle import nn

from paddle_sam.core import limits
from paddle_sam.core.device import on_device
from paddle_sam.core.weight_file import WeightFile, load_strict
from paddle_sam.errors import CheckpointError, PaddleSamError
from paddle_sam.networks import stargan2
from paddle_sam.networks.age_regressor import AgeRegressor
from paddle_sam.networks.face_heatmaps import FaceHeatmaps, MeanFace
from paddle_sam.networks.face_recognition import FaceEmbedder
from paddle_sam.networks.inception import InceptionV3
from paddle_sam.networks.lpips import LPIPS, LpipsFeatures, LpipsWeights
from paddle_sam.networks.psp_encoder import GradualStyleEncoder
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.networks.stylegan2_discriminator import Discriminator

Network = TypeVar("Network", bound=nn.Layer)


def build_sam(
    encoder: Mapping,
    decoder: Mapping,
    pretrained_encoder: Mapping | None = None,
    start: str = "encoded_w_plus",
    iterations: int = 5,
) -> SAM:
    """SAM (or pSp) from the constructor arguments of its parts."""
    return SAM(
        GradualStyleEncoder(**encoder),
        Generator(**decoder),
        None if pretrained_encoder is None else GradualStyleEncoder(**pretrained_encoder),
        start,
        iterations,
    )


BUILDERS = {
    "sam": build_sam,
    "stylegan2_generator": Generator,
    "stylegan2_discriminator": Discriminator,
    "face_embedder": FaceEmbedder,
    "age_regressor": AgeRegressor,
    "lpips": LPIPS,
    "lpips_features": LpipsFeatures,
    "lpips_lin": LpipsWeights,
    "stargan2_generator": stargan2.Generator,
    "stargan2_mapping_network": stargan2.MappingNetwork,
    "stargan2_style_encoder": stargan2.StyleEncoder,
    "stargan2_discriminator": stargan2.Discriminator,
    "face_heatmaps": FaceHeatmaps,
    "inception_v3": InceptionV3,
    "mean_face": MeanFace,
}


# What messages call the networks that commands ask for, and which published weights they are.
_NAMES = {
    SAM: "a SAM or pSp network",
    Generator: "a StyleGAN2 generator",
    Discriminator: "a StyleGAN2 discriminator",
    FaceEmbedder: "a face recognition network",
    AgeRegressor: "an age regressor",
    FaceHeatmaps: "StarGAN v2's face alignment network",
    InceptionV3: "FID's Inception-v3",
    MeanFace: "StarGAN v2's mean face",
}
_USUAL = {
    FaceEmbedder: "ir_se50",
    AgeRegressor: "dex",
    FaceHeatmaps: "wing",
    InceptionV3: "inception",
    MeanFace: "celeba_lm_mean",
}


def build_empty(network: str, arch: Mapping) -> nn.Layer:
    """Build a network whose parameters take no memory until `load_strict` fills them."""
    if network not in BUILDERS:
        raise CheckpointError(
            f"unknown network {network!r}; this version knows {', '.join(sorted(BUILDERS))}"
        )
    if (size := _largest(arch)) > limits.ARCH_SIZE:
        raise CheckpointError(f"{network}: its description names a size of {size}, which is absurd")
    try:
        with paddle.LazyGuard():
            return BUILDERS[network](**arch)
    except PaddleSamError:
        raise
    except Exception as error:  # what constructors make of arguments that they do not expect
        raise CheckpointError(
            f"{network} cannot be built from its description ({error}); update paddle_sam or"
            " convert the file again"
        ) from error


def _largest(value: Any) -> float:
    """Return the largest number in nested containers."""
    if isinstance(value, Mapping):
        return max((_largest(item) for pair in value.items() for item in pair), default=0)
    if isinstance(value, list | tuple):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, int | float) else 0


def load(
    path: str | os.PathLike,
    part: str | None = None,
    device: str = "auto",
    *,
    expect: type[Network] | tuple[type[Network], ...] = nn.Layer,
    option: str = "",
) -> Network:
    """Load the network that a converted or trained weight file holds, in eval mode.

    Paddle's current device stays what it is.

    Args:
        path: a `.pdparams` file written by `convert/convert_weights.py` or by training.
        part: which network of a file with several, such as `d` of a StyleGAN2 file; the first
            (there `g_ema`) when None.
        device: where its parameters lie: `auto`, `cpu`, `gpu` or `gpu:N`. Paddle's current device
            stays what it was.
        expect: the class or classes that the network must be of.
        option: the option or argument that named `path`, for messages.

    Raises:
        CheckpointError: the file is missing, damaged or foreign, does not fit its description, or
            holds another network than expected.
        ConfigError: the device or the part does not exist.
    """
    with on_device(device):
        return build(WeightFile.read(path, option, usual=_USUAL.get(expect, "")), part, expect)


def build(
    file: WeightFile,
    part: str | None = None,
    expect: type[Network] | tuple[type[Network], ...] = nn.Layer,
) -> Network:
    """Build and fill a network of `file`, whose arrays are used up, in eval mode; see `load`."""
    entry = file.entry(part)
    try:
        network = build_empty(entry.network, entry.arch)
    except PaddleSamError as error:
        raise CheckpointError(f"{file.label}: {error}") from error
    if not isinstance(network, expect):
        expected = expect if isinstance(expect, tuple) else (expect,)
        names = " or ".join(_NAMES.get(kind, kind.__name__) for kind in expected)
        found = _NAMES.get(type(network), entry.network)
        raise CheckpointError(f"{file.label}: holds {found}, expected {names}")
    load_strict(network, entry.state, file.label, consume=True)
    if isinstance(network, Generator) and file.latent_avg is not None:
        network.latent_avg = paddle.to_tensor(file.latent_avg, dtype="float32")
    network.eval()
    return network
