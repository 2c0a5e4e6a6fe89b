"""Read NVIDIA's StyleGAN2 pickles (stylegan2-ada-pytorch, stylegan3 repository) as NumPy arrays.

Such a file references classes and carries their source code, which the original loader executes.
Here an unpickler admits tensors and plain containers, turns every network object into the dict of
its attributes, and refuses anything else by name. Nothing is executed and torch is not needed.

The keys are then given the names of the rosinality layout, so that one table converts both.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paddle_sam.convert.paddle_file import torch_layout
from paddle_sam.convert.tensorflow_pickle import (
    NETWORK,
    Taker,
    TensorFlowNetwork,
    is_tensorflow,
    torch_networks,
)
from paddle_sam.core.files import open_file
from paddle_sam.core.pickles import (
    TENSOR_GLOBALS,
    TORCH_LEGACY,
    CountedStream,
    SafeUnpickler,
    check_size,
    container,
    read_torch_stream,
    refusing,
)
from paddle_sam.core.weights import FORMAT
from paddle_sam.errors import CheckpointError

# Under this key, sentences on networks of a file that are not converted.
LEFT_OUT = "left out"
# By which the weights of mapping networks are multiplied when they run.
LR_MULTIPLIER = 0.01
PERSISTENCE = ("torch_utils.persistence", "_reconstruct_persistent_obj")


class _EasyDict(dict):
    """Stands for `dnnlib.EasyDict`, a plain dict with attribute access."""

    def __setstate__(self, state):
        self.update(state)


class _Opaque:
    """Stands for values the networks do not need, such as `torch.device`."""

    def __init__(self, *args):
        self.args = args


_ADMITTED = {
    PERSISTENCE: lambda meta: _network_object(meta),
    ("torch.storage", "_load_from_bytes"): lambda blob: read_torch_stream(io.BytesIO(blob)),
    ("torch", "device"): _Opaque,
    **{("torch", name): name for name in ("float16", "float32", "float64", "int64", "bool")},
    ("dnnlib.util", "EasyDict"): _EasyDict,
    NETWORK: TensorFlowNetwork,
    # Pickles of protocol 2 spell the builtins' module as Python 2 did.
    **{(module, "set"): container(set) for module in ("builtins", "__builtin__")},
    # How Paddle keeps a tensor with its name.
    **{(module, "tuple"): container(tuple) for module in ("builtins", "__builtin__")},
    **TENSOR_GLOBALS,
}


class _NetworkUnpickler(SafeUnpickler):
    admitted = _ADMITTED


def _network_object(meta: Mapping) -> dict:
    """What a persistent object stands for: its class name and attributes, its source unread."""
    state = meta["state"]
    return {"class_name": meta["class_name"], **(state if isinstance(state, dict) else {})}


def is_pickle(path: str | os.PathLike) -> bool:
    """Whether a file begins as NVIDIA's snapshots do: a pickle, not a torch archive."""
    try:
        with open_file(path) as stream:
            start = stream.read(32)
    except OSError:  # whoever reads the file will say why
        return False
    return (
        start[:1] == b"\x80" and start[2:3] in (b"}", b"c", b"\x95") and TORCH_LEGACY not in start
    )


def read_pickle(path: str | os.PathLike) -> dict:
    """Networks of an NVIDIA StyleGAN2 pickle, or of a Paddle checkpoint, in the torch layout.

    Returns:
        `g_ema`, `g`, `d`: torch-layout state dicts, those that the file holds; `latent_avg` [D].

    Raises:
        CheckpointError: damaged, refers to code, or not a StyleGAN2 network.
    """
    path = Path(path)
    with refusing(path, "an NVIDIA network pickle"):
        with open_file(path) as stream:
            content = _NetworkUnpickler(CountedStream(stream)).load()
        check_size(content, path.stat().st_size)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        raise CheckpointError(
            f"{path}: a weight file of this package, which needs no conversion; --reverse turns it"
            " into a PyTorch file"
        )
    if is_tensorflow(content):
        networks = {
            key: _with_multiplier(*found, f"{path}: {key}")
            for key, found in torch_networks(content, path).items()
        }
        return _rosinality(networks, path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: a pickle of a {type(content).__name__}, expected a dict of networks: a"
            " checkpoint of another project"
        )
    if not isinstance(content.get("G_ema"), dict):
        return torch_layout(content)  # of Paddle, or refused by whoever looks at its keys
    networks = {
        key: _as_usual(_flatten(value), value.get("_init_kwargs"), f"{path}: {key}")
        for key in ("G_ema", "G", "D")
        if isinstance(value := content.get(key), dict)
    }
    return _rosinality(networks, path)


def _rosinality(networks: Mapping[str, dict], path: str | os.PathLike) -> dict:
    """Rename the tensors of G_ema, G and D; see `read_pickle`."""
    result: dict = {}
    for key, name in (("G_ema", "g_ema"), ("G", "g")):
        if key in networks:
            result[name] = _generator_names(networks[key], f"{path}: {key}")
            if "mapping.w_avg" in networks[key]:
                result.setdefault("latent_avg", np.array(networks[key]["mapping.w_avg"]))
    if "D" in networks and result and not any(".skip." in name for name in networks["D"]):
        result[LEFT_OUT] = ["D is left out: only residual discriminators (`resnet`) are supported"]
    elif "D" in networks:
        result["d"] = _discriminator_names(networks["D"], f"{path}: D")
    return result


def _flatten(network: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    """Parameters and buffers of a pickled module tree by dotted name."""
    tensors = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (network.get(kind) or {}).items():
            if isinstance(value, np.ndarray):
                tensors[prefix + name] = value
    for name, child in (network.get("_modules") or {}).items():
        if isinstance(child, dict):
            tensors |= _flatten(child, f"{prefix}{name}.")
    return tensors


def _generator_names(tensors: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """stylegan2-ada-pytorch generator names to the rosinality layout."""
    if any(name.startswith(("synthesis.L", "synthesis.input.freqs")) for name in tensors):
        raise CheckpointError(f"{where}: a network of StyleGAN3, not of StyleGAN2")
    take = Taker(tensors, where)
    result = _mapping(take, "style")
    result["input.input"] = take("synthesis.b4.const")[None]
    resolutions = take.sizes(r"synthesis\.b(\d+)\.")
    fir = take(f"synthesis.b{resolutions[-1]}.resample_filter")
    styled = [("synthesis.b4.conv1", "conv1")]
    rgbs = [("synthesis.b4.torgb", "to_rgb1")]
    for level, resolution in enumerate(resolutions[1:]):
        block = f"synthesis.b{resolution}"
        styled += [(f"{block}.conv{i}", f"convs.{2 * level + i}") for i in (0, 1)]
        rgbs.append((f"{block}.torgb", f"to_rgbs.{level}"))
        result[f"convs.{2 * level}.conv.blur.kernel"] = 4 * fir
        result[f"to_rgbs.{level}.upsample.kernel"] = 4 * fir
    for index, (old, new) in enumerate(styled):
        result |= _modulated(take, old, new)
        result[f"{new}.noise.weight"] = take(f"{old}.noise_strength").reshape(1)
        result[f"{new}.activate.bias"] = take(f"{old}.bias")
        result[f"noises.noise_{index}"] = take(f"{old}.noise_const")[None, None]
    for old, new in rgbs:
        result |= _modulated(take, old, new)
        result[f"{new}.bias"] = take(f"{old}.bias").reshape(1, -1, 1, 1)
    take.left.pop("mapping.w_avg", None)
    return _finished(take, result, fir)


def _modulated(take: Taker, old: str, new: str) -> dict[str, np.ndarray]:
    return {
        f"{new}.conv.weight": take(f"{old}.weight")[None],
        f"{new}.conv.modulation.weight": take(f"{old}.affine.weight"),
        f"{new}.conv.modulation.bias": take(f"{old}.affine.bias"),
    }


def _discriminator_names(tensors: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """stylegan2-ada-pytorch residual discriminator names to the rosinality layout."""
    take = Taker(tensors, where)
    result = _mapping(take, "mapping")
    resolutions = take.sizes(r"b(\d+)\.")[::-1]
    fir = take(f"b{resolutions[0]}.resample_filter")
    names = {f"b{resolutions[0]}.fromrgb": ("convs.0.0", "convs.0.1")}
    for block, resolution in enumerate(resolutions[:-1], start=1):
        old, new = f"b{resolution}", f"convs.{block}"
        names[f"{old}.conv0"] = (f"{new}.conv1.0", f"{new}.conv1.1")
        names[f"{old}.conv1"] = (f"{new}.conv2.1", f"{new}.conv2.2")
        result[f"{new}.skip.1.weight"] = take(f"{old}.skip.weight")
        result[f"{new}.conv2.0.kernel"] = fir
        result[f"{new}.skip.0.kernel"] = fir
    names["b4.conv"] = ("final_conv.0", "final_conv.1")
    names["b4.fc"] = ("final_linear.0", "final_linear.0")
    names["b4.out"] = ("final_linear.1", "final_linear.1")
    for old, (weight, bias) in names.items():
        result[f"{weight}.weight"] = take(f"{old}.weight")
        result[f"{bias}.bias"] = take(f"{old}.bias")
    return _finished(take, result, fir)


def _finished(take: Taker, result: dict, fir: np.ndarray) -> dict[str, np.ndarray]:
    """Return the result, once all that is left are copies of the resampling filter."""
    for name in [name for name in take.left if name.endswith("resample_filter")]:
        if np.array_equal(take.left[name], fir):
            del take.left[name]
    take.finish()
    return result


def _as_usual(tensors: dict, kwargs: Any, where: str) -> dict[str, np.ndarray]:
    """Return the tensors of a network as if it had been made with the usual arguments.

    Raises:
        CheckpointError: one of its arguments means another network.
    """
    kwargs = kwargs if isinstance(kwargs, Mapping) else {}
    parts = [kwargs, *(value for value in kwargs.values() if isinstance(value, Mapping))]
    for key, usual in (("activation", "lrelu"), ("use_noise", True), ("mbstd_num_channels", 1)):
        for stated in (part[key] for part in parts if key in part):
            if stated != usual:
                raise CheckpointError(f"{where}: its {key} is {stated!r}; supported is {usual!r}")
    mapping = kwargs.get("mapping_kwargs")
    stated = mapping.get("lr_multiplier", LR_MULTIPLIER) if isinstance(mapping, Mapping) else None
    return _with_multiplier(tensors, stated or LR_MULTIPLIER, where)


def _with_multiplier(tensors: dict, multiplier: Any, where: str) -> dict[str, np.ndarray]:
    """Scale a mapping network's weights, which `multiplier` multiplies, for the usual 0.01."""
    if multiplier == LR_MULTIPLIER:
        return tensors
    if not isinstance(multiplier, int | float) or not 0 < multiplier < 1e6:
        raise CheckpointError(f"{where}: its mapping network's multiplier is {multiplier!r}")
    factor = np.float32(multiplier / LR_MULTIPLIER)
    layers = {name for name in tensors if name.startswith("mapping.fc")}
    return {n: (array * factor if n in layers else array) for n, array in tensors.items()}


def _mapping(take: Taker, target: str) -> dict[str, np.ndarray]:
    """Take a mapping network, and of a conditional one the layer that reads labels."""
    names = {"embed": "mapping.embed"} if "mapping.embed.weight" in take.left else {}
    layers = [n for n in take.left if n.startswith("mapping.fc") and n.endswith(".weight")]
    names |= {f"{target}.{layer + 1}": f"mapping.fc{layer}" for layer in range(len(layers))}
    return {
        f"{new}.{leaf}": take(f"{old}.{leaf}")
        for new, old in names.items()
        for leaf in ("weight", "bias")
    }
