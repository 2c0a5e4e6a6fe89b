"""The run folders in tests/fixtures/runs, which version 0.1 wrote, and what they trained on.

Each archive holds a run as it was left at half its steps, and in `expected.jsonl` the records of
the same run without a break.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.networks.face_networks import AgeRegressor
from paddle_sam.networks.sam import build_sam
from paddle_sam.networks.stylegan2 import Generator
from tests import ROOT

FOLDER = ROOT / "tests" / "fixtures" / "runs"
AGE_SIZE = ((4, 4, 4, 4, 4), 8)  # instead of that of --network mini
_ENCODER = {
    "input_size": 32,
    "in_channels": 3,
    "n_styles": 4,
    "style_dim": 4,
    "stem": 4,
    "widths": [4, 4, 4, 4],
    "units": [1, 1, 1, 1],
    "squeeze_excite": False,
}
_DECODER = {"size": 8, "style_dim": 4, "mapping_layers": 1, "channels": {4: 4, 8: 4}}


def unpack(kind: str, folder: Path) -> Path:
    """Write a run as it was left, and its inputs, below `folder`; returns the run's folder."""
    write_inputs(folder)
    with zipfile.ZipFile(FOLDER / f"{kind}.zip") as archive:
        archive.extractall(folder / kind)
    return folder / kind


def write_inputs(folder: Path) -> None:
    """Weight files and images by relative names that the runs' options hold."""
    parts = {"encoder": _ENCODER, "decoder": _DECODER, "pretrained_encoder": None}
    psp = {**parts, "start": "latent_avg"}
    _write(folder / "psp.pdparams", "psp", "psp", "sam", psp, build_sam)
    _write(
        *(folder / "stylegan2.pdparams", "stylegan2", "g_ema", "stylegan2_generator", _DECODER),
        *(Generator, {"latent_avg": np.zeros(4, "float32")}),
    )
    age = {"input_size": 32, "widths": [4, 4, 4, 4, 4], "fc": 8}
    _write(folder / "age.pdparams", "dex_vgg", "dex_vgg", "age_regressor", age, AgeRegressor)
    rng = np.random.default_rng(0)
    for index in range(8):
        places = [folder / "faces" / f"{10 * index + 5}_{index}.png"]
        places.append(folder / "domains" / ("old", "young")[index % 2] / f"{index}.png")
        image = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((32, 32))
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            image.save(place)


def _write(path, kind, name, network, arch, build, facts=()) -> None:
    rng = np.random.default_rng(1)
    state = {
        key: (0.1 * rng.normal(size=tensor.shape)).astype("float32") ** (2 if "var" in key else 1)
        for key, tensor in build(**arch).state_dict().items()
    }
    WeightFile(kind, {name: NetworkEntry(network, arch, state)}, **dict(facts)).write(path)
