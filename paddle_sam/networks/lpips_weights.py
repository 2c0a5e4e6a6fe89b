"""Load LPIPS (`paddle_sam.networks.lpips`) from the files that hold its weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from paddle_sam.core.files import read_arrays
from paddle_sam.core.weight_file import WeightFile, load_strict
from paddle_sam.core.weights import locate
from paddle_sam.networks.lpips import LPIPS


def load_lpips(path: str | os.PathLike, lin: str | os.PathLike | None = None) -> LPIPS:
    """Build the LPIPS whose weights `path` holds, AlexNet or VGG16, in eval mode.

    Args:
        path: an `.npz` of arrays under the published names (`scripts/download_weights.py` makes
            it), or a converted `.pdparams` file of the features.
        lin: the converted `.pdparams` file of the channel weights, where `path` has none.

    Raises:
        CheckpointError: a file is missing, damaged, or holds something else.
    """
    state = {}
    for part in filter(None, (path, lin)):
        state |= _read(locate(part))
    network = LPIPS("vgg" if "features.28.weight" in state else "alex")
    load_strict(network, state, str(path), consume=True)
    network.eval()
    return network


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        name = path.stem if path.stem in ("lpips_alex", "lpips_vgg") else "lpips_alex"
        arrays = read_arrays(path, f"get it with: python scripts/download_weights.py {name}")
        return {key: array for key, array in arrays.items() if key not in ("mean", "std")}
    entries = WeightFile.read(path).networks.values()
    return {name: array for entry in entries for name, array in entry.state.items()}
