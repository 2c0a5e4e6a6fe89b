"""Weight file to network: `load` builds what the file describes and fills it strictly.

A file (see `paddle_sam.core.weight_file`) holds

- `kind`: what was converted or trained (`sam`, `psp`, `stylegan2`, ...);
- `networks`: by name, each with `network` (a key of `BUILDERS`), `arch` (its constructor's
  arguments) and `state` (arrays by parameter name);
- optionally `latent_avg`, `alignment` (the crop the network was trained on), `options` (those of
  the training run) and `source` (where a converted file came from).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import paddle
from paddle import nn

from paddle_sam.core.device import on_device
from paddle_sam.core.weight_file import load_strict, read_file
from paddle_sam.errors import CheckpointError, ConfigError, PaddleSamError
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


def build_sam(
    encoder: Mapping,
    decoder: Mapping,
    pretrained_encoder: Mapping | None = None,
    start: str = "encoded_w_plus",
) -> SAM:
    """SAM (or pSp) from the constructor arguments of its parts."""
    return SAM(
        GradualStyleEncoder(**encoder),
        Generator(**decoder),
        None if pretrained_encoder is None else GradualStyleEncoder(**pretrained_encoder),
        start,
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


def build_empty(network: str, arch: Mapping) -> nn.Layer:
    """Build a network whose parameters take no memory until `load_strict` fills them."""
    if network not in BUILDERS:
        raise CheckpointError(
            f"unknown network {network!r}; this version knows {', '.join(sorted(BUILDERS))}"
        )
    try:
        with paddle.LazyGuard():
            return BUILDERS[network](**arch)
    except TypeError as error:
        raise CheckpointError(
            f"{network} cannot be built from its description ({error}); update paddle_sam or"
            " convert the file again"
        ) from error


def load(path: str | os.PathLike, part: str | None = None, device: str = "auto") -> nn.Layer:
    """Load the network that a converted or trained weight file holds, in eval mode.

    Args:
        path: a `.pdparams` file written by `convert/convert_weights.py` or by training.
        part: which network of a file with several, such as `d` of a StyleGAN2 file; the first
            (there `g_ema`) when None.
        device: where its parameters lie: `auto`, `cpu`, `gpu` or `gpu:N`. Paddle's current device
            stays what it was.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or does not fit its description.
        ConfigError: the device or the part does not exist.
    """
    with on_device(device):
        return network_from(read_file(path), str(path), part)


def network_from(content: dict, source: str, part: str | None = None) -> nn.Layer:
    """The network in a file's `content`, whose arrays are used up. See `load`."""
    networks = content.get("networks")
    if not networks:
        raise CheckpointError(f"{source}: holds no network; it is a {content.get('kind')!r} file")
    part = part or next(iter(networks))
    if part not in networks:
        raise ConfigError(f"part: {source} holds {', '.join(networks)}, found {part!r}")
    entry = networks[part]
    try:
        network = build_empty(entry["network"], entry["arch"])
    except PaddleSamError as error:
        raise CheckpointError(f"{source}: {error}") from error
    load_strict(network, entry["state"], source, consume=True)
    if isinstance(network, Generator) and content.get("latent_avg") is not None:
        network.latent_avg = paddle.to_tensor(content["latent_avg"], dtype="float32")
    network.eval()
    return network
