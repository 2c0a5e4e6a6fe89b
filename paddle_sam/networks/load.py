"""Weight file to network: `load` builds what the file describes and fills it strictly.

Networks that are used but not trained, for good or for a while, are frozen here as well.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import paddle
from paddle import nn

from paddle_sam.core.device import on_device
from paddle_sam.core.weights import WeightFile, load_strict
from paddle_sam.errors import CheckpointError, PaddleSamError

Network = TypeVar("Network", bound=nn.Layer)


# What a weight file calls a network -> what builds it, imported when a file names it. Classes that
# commands ask for say what messages call them (`title`) and which published weights are `usual`.
BUILDERS = {
    "sam": "sam:build_sam",
    "hyperstyle": "hyperstyle:build_hyperstyle",
    "stylegan2_generator": "stylegan2:Generator",
    "stylegan2_discriminator": "stylegan2:Discriminator",
    "face_embedder": "face_networks:FaceEmbedder",
    "age_regressor": "face_networks:AgeRegressor",
    "lpips": "image_features:LPIPS",
    "lpips_features": "image_features:LpipsFeatures",
    "lpips_lin": "image_features:LpipsWeights",
    "stargan2_generator": "stargan2:Generator",
    "stargan2_mapping_network": "stargan2:MappingNetwork",
    "stargan2_style_encoder": "stargan2:StyleEncoder",
    "stargan2_discriminator": "stargan2:Discriminator",
    "face_heatmaps": "face_heatmaps:FaceHeatmaps",
    "inception_v3": "image_features:InceptionV3",
    "mean_face": "face_heatmaps:MeanFace",
    "self_supervised": "image_features:SelfSupervisedFeatures",
}
# Any number in a network's description. The largest known is 25,088, the features of a face.
_LARGEST_NUMBER = 1 << 16


def build_empty(network: str, arch: Mapping) -> nn.Layer:
    """Build a network whose parameters take no memory until `load_strict` fills them."""
    if network not in BUILDERS:
        raise CheckpointError(
            f"unknown network {network!r}; this version knows {', '.join(sorted(BUILDERS))}"
        )
    if (size := _largest(arch)) > _LARGEST_NUMBER:
        raise CheckpointError(f"{network}: its description names a size of {size}, which is absurd")
    try:
        with paddle.LazyGuard():
            return pkgutil.resolve_name(f"paddle_sam.networks.{BUILDERS[network]}")(**arch)
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
        file = WeightFile.read(path, option, usual=getattr(expect, "usual", ""))
        return build(file, part, expect)


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
        names = " or ".join(getattr(kind, "title", kind.__name__) for kind in expected)
        found = getattr(network, "title", entry.network)
        raise CheckpointError(f"{file.label}: holds {found}, expected {names}")
    load_strict(network, entry.state, file.label, consume=True)
    if entry.network == "stylegan2_generator" and file.latent_avg is not None:
        network.latent_avg = paddle.to_tensor(file.latent_avg, dtype="float32")
    network.eval()
    return network


def freeze(*networks: nn.Layer) -> None:
    """Compute no gradients with respect to these networks' parameters."""
    for network in networks:
        for parameter in network.parameters():
            parameter.stop_gradient = True


def trained(network: nn.Layer) -> list[paddle.Tensor]:
    """Return the parameters of `network` that are not frozen."""
    return [parameter for parameter in network.parameters() if not parameter.stop_gradient]


@contextlib.contextmanager
def held(*networks: nn.Layer) -> Iterator[None]:
    """Within this context, freeze these networks; afterwards each parameter is as it was."""
    parameters = [parameter for network in networks for parameter in trained(network)]
    freeze(*networks)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.stop_gradient = False
