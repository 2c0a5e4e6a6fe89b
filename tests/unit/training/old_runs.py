"""The run folders in tests/fixtures/runs, which version 0.1 wrote, and what they trained on.

Each archive holds a run as it was left at half its steps, and in `expected.jsonl` the records of
the same run without a break.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from paddle_sam.core.weight_file import save_file
from paddle_sam.networks.age_regressor import AgeRegressor
from paddle_sam.networks.load import build_sam
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
_INTERVALS = {"board_interval": 1, "image_interval": 2, "val_interval": 2, "save_interval": 2}

# Options by kind of run.
SAM = {
    "pretrained_psp_path": "psp.pdparams",
    "stylegan_weights": "stylegan2.pdparams",
    "age_regressor_path": "age.pdparams",
    "train_data": "faces",
    "test_data": "faces",
    "encoder_start": "psp",
    "start_from_encoded_w_plus": True,
    "output_size": 8,
    "batch_size": 2,
    "test_batch_size": 3,
    "workers": 0,
    "test_workers": 0,
    "learning_rate": 1e-3,
    "id_lambda": 0.0,
    "lpips_lambda": 0.0,
    "lpips_lambda_crop": 0.0,
    "device": "cpu",
    **_INTERVALS,
}
AGE = {
    "train_data": "faces",
    "network": "mini",
    "input_size": 32,
    "workers": 0,
    "batch_size": 3,
    "holdout": 0.25,
    "device": "cpu",
    **_INTERVALS,
}
STYLEGAN2 = {
    "train_data": "faces",
    "resolution": 16,
    "latent_dim": 4,
    "mapping_layers": 1,
    "channel_base": 64,
    "channel_max": 4,
    "batch_size": 4,
    "mbstd_group": 2,
    "path_interval": 2,
    "r1_interval": 2,
    "r1_gamma": 5.0,
    "ada_kimg": 1.0,
    "augment_p": 0.3,
    "g_lr": 1e-3,
    "d_lr": 2e-3,
    "stages": "8:0.016",
    "num_workers": 0,
    "log_kimg": 0.004,
    "snapshot_kimg": 0.012,
    "save_kimg": 0.012,
    "keep_checkpoints": 1,
    "device": "cpu",
}
STARGAN2 = {
    "train_img_dir": "domains",
    "val_img_dir": "domains",
    "img_size": 32,
    "latent_dim": 4,
    "hidden_dim": 4,
    "style_dim": 4,
    "max_conv_dim": 4,
    "base_dim": 4,
    "w_hpf": 0.0,
    "lambda_ds": 2.0,
    "ds_iter": 3,
    "batch_size": 2,
    "lr": 1e-3,
    "f_lr": 1e-4,
    "no_fid": True,
    "no_lpips": True,
    "num_workers": 0,
    "print_every": 1,
    "sample_every": 2,
    "save_every": 2,
    "eval_every": 2,
    "device": "cpu",
}


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
    entry = {"network": network, "arch": arch, "state": state}
    save_file(path, {"kind": kind, "networks": {name: entry}, **dict(facts)})
