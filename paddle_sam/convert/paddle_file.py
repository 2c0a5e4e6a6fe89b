"""Checkpoints that other Paddle projects wrote (paddle-SAM, PaddleGAN), in PyTorch's layout.

They hold the networks of the PyTorch projects under nearly the same names, as Paddle keeps tensors:
weights of linear layers are [in, out], statistics and PReLU slopes have names of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from paddle_sam.networks.stylegan2 import DEFAULT_FIR
from paddle_sam.networks.stylegan2_ops import fir_kernel

# What `paddle.save` adds to a state dict.
_BOOKKEEPING = "StructuredToParameterName@@"
_ENDINGS = {
    **{"._mean": ".running_mean", "._variance": ".running_var"},
    **{"._weight": ".weight", ".scale": ".weight"},
}
# Networks that paddle-SAM keeps in dicts of their own.
_PARTS = {"encoder", "decoder", "pretrained_encoder"}
# What PaddleGAN's trainings call the networks of StyleGAN2.
_NETWORKS = {"gen": "g", "disc": "d", "gen_ema": "g_ema"}
# Filters that PyTorch's projects store and Paddle's in part: all are this one.
_FILTERS = (fir_kernel(DEFAULT_FIR), fir_kernel(DEFAULT_FIR, 4.0))


def torch_layout(content: Mapping) -> dict[str, Any]:
    """Return the content of a Paddle checkpoint as a PyTorch one would hold it."""
    result = _torch_layout(content)
    result = {_NETWORKS.get(key, key): value for key, value in result.items()}
    if "opts" in result and any(str(name).startswith("decoder.") for name in result):
        # PaddleGAN's pSp: everything in one dict, the average [1, L, D]
        average = result.pop("latent_avg", None)
        if isinstance(average, np.ndarray):
            average = average[0] if average.ndim == 3 else average
        state = {name: value for name, value in result.items() if isinstance(value, np.ndarray)}
        rest = {name: value for name, value in result.items() if name not in state}
        result = {"state_dict": state, "latent_avg": average, **rest}
    return result


def _torch_layout(content: Mapping) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in content.items():
        if key == _BOOKKEEPING:
            continue
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray):
            value = value[1]  # a tensor outside of a state dict, with its name
        if isinstance(value, Mapping):
            if _of_an_optimizer(value):
                result["optimizer"] = {}
                continue
            inner = _torch_layout(value)
            if key in _PARTS and any(isinstance(item, np.ndarray) for item in inner.values()):
                result |= {f"{key}.{name}": item for name, item in inner.items()}
            else:
                result[key] = inner
        elif isinstance(value, np.ndarray):
            name, array = _tensor(str(key), value)
            if not _implied(name, array):
                result[name] = array
        else:
            result[key] = value
    return result


def _tensor(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    for ours, theirs in _ENDINGS.items():
        if name.endswith(ours):
            return name.removesuffix(ours) + theirs, array
    linear = array.ndim == 2 and name.endswith(".weight")
    return name, np.ascontiguousarray(array.T) if linear else array


def _implied(name: str, array: np.ndarray) -> bool:
    """Whether a filter is the one that `convert` adds where PyTorch's projects have it."""
    return name.endswith(".kernel") and any(np.array_equal(array, kernel) for kernel in _FILTERS)


def _of_an_optimizer(content: Mapping) -> bool:
    return any(
        key in ("LR_Scheduler", "master_weights") or str(key).endswith("_moment1_0")
        for key in content
    )
