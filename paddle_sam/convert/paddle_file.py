"""Checkpoints that other Paddle projects wrote (paddle-SAM, PaddleGAN), in PyTorch's layout.

They hold the networks of the PyTorch projects under nearly the same names, as Paddle keeps tensors:
weights of linear layers are [in, out], statistics and PReLU slopes have names of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# What `paddle.save` adds to a state dict.
_BOOKKEEPING = "StructuredToParameterName@@"
_ENDINGS = {"._mean": ".running_mean", "._variance": ".running_var", "._weight": ".weight"}
# Networks that paddle-SAM keeps in dicts of their own.
_PARTS = {"encoder", "decoder", "pretrained_encoder"}


def torch_layout(content: Mapping) -> dict[str, Any]:
    """Return the content of a Paddle checkpoint as a PyTorch one would hold it."""
    result: dict[str, Any] = {}
    for key, value in content.items():
        if key == _BOOKKEEPING:
            continue
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray):
            value = value[1]  # a tensor outside of a state dict, with its name
        if isinstance(value, Mapping):
            inner = torch_layout(value)
            if key in _PARTS and any(isinstance(item, np.ndarray) for item in inner.values()):
                result |= {f"{key}.{name}": item for name, item in inner.items()}
            else:
                result[key] = inner
        elif isinstance(value, np.ndarray):
            name, array = _tensor(str(key), value)
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
