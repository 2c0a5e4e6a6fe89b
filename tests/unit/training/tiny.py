"""Networks, weight files and images small enough to train in a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
from PIL import Image

from paddle_sam.ageing.train.options import SAMOptions
from paddle_sam.ageing.train.run import assemble, build_loss
from paddle_sam.ageing.train.trainer import SAMTrainer
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.imagesets.loader import Batch
from paddle_sam.networks.face_networks import AgeRegressor, FaceEmbedder
from paddle_sam.networks.image_features import LPIPS
from paddle_sam.networks.sam import build_sam
from paddle_sam.networks.stylegan2 import Generator
from tests import DEVICE

SIZE = 64
ENCODER = {
    "input_size": SIZE,
    "in_channels": 3,
    "n_styles": 8,
    "style_dim": 32,
    "stem": 8,
    "widths": [32, 32, 32, 32],
    "units": [1, 1, 1, 1],
}
DECODER = {
    "size": 32,
    "style_dim": 32,
    "mapping_layers": 2,
    "channels": {4: 8, 8: 8, 16: 4, 32: 4},
}


def write_files(folder: Path) -> None:
    """Every weight file a run needs, with random contents, and twelve images."""
    paddle.seed(0)
    rng = np.random.default_rng(0)
    psp = {"encoder": ENCODER, "decoder": DECODER, "pretrained_encoder": None}
    _write(folder / "psp.pdparams", "psp", "sam", {**psp, "start": "latent_avg"}, build_sam)
    generator = {"latent_avg": rng.normal(size=32).astype("float32")}
    path = folder / "stylegan2.pdparams"
    _write(path, "stylegan2", "stylegan2_generator", DECODER, Generator, "g_ema", **generator)
    regressor = {"input_size": 32, "widths": [4, 4, 4, 4, 4], "fc": 8}
    _write(folder / "age.pdparams", "dex_vgg", "age_regressor", regressor, AgeRegressor)
    embedder = {"input_size": 32, "units": [1, 1, 1, 1], "embedding_dim": 8}
    _write(folder / "ir_se50.pdparams", "ir_se50", "face_embedder", embedder, FaceEmbedder)
    lpips = {name: tensor.numpy() for name, tensor in LPIPS("alex").state_dict().items()}
    lpips |= {name: np.abs(array) for name, array in lpips.items() if name.startswith("lin")}
    np.savez(folder / "lpips.npz", **lpips)
    for split, count in (("train", 8), ("test", 4)):
        (folder / split).mkdir()
        for index in range(count):
            coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(coarse).resize((SIZE, SIZE)).save(folder / split / f"{index}.png")


def options(folder: Path, **changes) -> dict:
    """Options of a small SAM run on the files in `folder`."""
    return {
        "exp_dir": str(folder / "run"),
        "pretrained_psp_path": str(folder / "psp.pdparams"),
        "stylegan_weights": str(folder / "stylegan2.pdparams"),
        "age_regressor_path": str(folder / "age.pdparams"),
        "ir_se50_path": str(folder / "ir_se50.pdparams"),
        "lpips_path": str(folder / "lpips.npz"),
        "train_data": str(folder / "train"),
        "test_data": str(folder / "test"),
        "encoder_start": "psp",
        "start_from_encoded_w_plus": True,
        "use_weighted_id_loss": True,
        "output_size": 32,
        "batch_size": 2,
        "test_batch_size": 3,
        "workers": 0,
        "test_workers": 0,
        "learning_rate": 1e-3,
        "device": DEVICE,
        **changes,
    }


def command_line(folder: Path, **changes) -> list[str]:
    """The same as arguments of `scripts/train.py`."""
    flags = []
    for name, value in options(folder, **changes).items():
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        else:
            flags += [f"--{name}", str(value)]
    return flags


def trainer(folder: Path, **changes) -> SAMTrainer:
    """A trainer on the files in `folder`; two calls with equal options give equal networks."""
    config = SAMOptions(**options(folder, **changes))
    paddle.seed(1)
    assembled = assemble(config)
    return SAMTrainer(assembled, build_loss(config, assembled.network.latent_avg), config)


def batch(size: int = 2, seed: int = 0) -> Batch:
    images = np.random.default_rng(seed).uniform(-1, 1, size=(size, 3, SIZE, SIZE))
    return Batch(images.astype("float32"), None, tuple(Path(str(i)) for i in range(size)))


def state(network) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def _write(path, kind, network, arch, build, name=None, **facts) -> None:
    arrays = state(build(**arch))
    entry = NetworkEntry(network, arch, arrays)
    WeightFile(kind, {name or kind: entry}, **facts).write(path)
