"""How well SAM or pSp gives a face back from its codes: `scripts/evaluate.py reconstruction`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.ageing.engines import read_inverter
from paddle_sam.ageing.measures import RegionIdentity
from paddle_sam.ageing.options import ReconstructionOptions
from paddle_sam.ageing.photos import (
    Summary,
    find_inputs,
    read_photos,
    results_folder,
    with_progress,
)
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT
from paddle_sam.core.device import resolve_device
from paddle_sam.core.files import claim_folder, sha256, write_json
from paddle_sam.core.images import to_network, to_uint8
from paddle_sam.core.weights import find_weight, locate
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.faces.cutter import FaceCutter
from paddle_sam.metrics.pairs import AlignedIdentity, face_key, reconstruction
from paddle_sam.networks.lpips_weights import load_lpips
from paddle_sam.networks.sam import SAM

_FILES = ("identity_path", "aligned_identity_path", "lpips_path")


def evaluate_reconstruction(config: ReconstructionOptions) -> dict:
    """Judge a network on photographs; writes `report.json` to `exp_dir`.

    Returns:
        what `report.json` holds, less the single faces.

    Raises:
        PaddleSamError: a file or option cannot be used, or no face was found.
    """
    inputs = find_inputs(config)
    resolve_device(config.device)
    path = config.checkpoint_path or find_weight(EMBEDDED_DEFAULT)
    network, crop_settings = read_inverter(Path(path))
    check_inverts(network, str(path))
    judge = ReconstructionJudge(config, network, crop_settings)
    folder = Path(config.exp_dir)
    files = {"model": path} | {name: getattr(config, name) for name in _FILES}
    facts = {name: sha256(locate(file)) for name, file in files.items() if file}
    claim_folder(folder, facts, "--exp_dir", "results")
    summary, records = Summary(), []
    photos = read_photos(config, inputs, FaceCutter(crop_settings), summary)
    for photo in with_progress(photos, summary, len(inputs), results_folder(config)):
        for name, face in zip(photo.face_names(), photo.faces, strict=True):
            file = folder / "faces" / f"{face_key(face.image)}.json"
            if not file.is_file():
                write_json(file, judge(face.image))
            measured = json.loads(file.read_text(encoding="utf-8"))
            records.append({"name": name.as_posix(), **measured})
    if not records:
        raise ImageError(f"{config.data_path}: found no face to evaluate on")
    measures = [name for name in records[0] if name != "name"]
    report = {
        "settings": dataclasses.asdict(config),
        "number_of_faces": len(records),
        **{name: _summary([record[name] for record in records]) for name in measures},
        "failed": summary.failures,
    }
    write_json(folder / "report.json", report | {"faces": records})
    return report


class ReconstructionJudge:
    """Inverts single crops and compares what the codes give with them."""

    def __init__(self, config: ReconstructionOptions, network: SAM, crop_settings):
        self._network = network
        self._lpips = load_lpips(config.lpips_path)
        path, aligned = config.identity_path, config.aligned_identity_path
        self._region = RegionIdentity(path, crop_settings, config.device) if path else None
        self._aligned = AlignedIdentity(aligned, config.device) if aligned else None

    def __call__(self, crop: np.ndarray) -> dict[str, float | None]:
        """Every measure of a crop, uint8 [S, S, 3]."""
        with paddle.no_grad():
            x = paddle.to_tensor(to_network(crop))
            codes = invert(self._network, x)
            y = self._network.decode(codes, randomize_noise=False)[0].clip(-1, 1)
        image = to_uint8(y.numpy())[0]
        measured = reconstruction(self._lpips, crop, image)
        if self._region:
            measured["identity, face region"] = self._region(x, y).item()
        if self._aligned:
            measured["identity, five points"] = self._aligned(crop, image[None])[0]
        return measured


def invert(network: SAM, x: paddle.Tensor) -> paddle.Tensor:
    """Codes [N, L, D] that stand for images [N, 3, S, S] themselves, at no age.

    Of pSp its encoder's; of SAM those of the frozen encoder, which ageing starts from.
    """
    return network.encode(x) if network.encoder.in_channels == 3 else network.invert(x)


def check_inverts(network: SAM, source: str) -> None:
    """Raise `ConfigError`, naming `source`, where the network has no code for a face itself."""
    if network.encoder.in_channels != 3 and network.start != "encoded_w_plus":
        raise ConfigError(
            f"{source}: does not invert faces before it ages them; `evaluate.py ageing` tells how"
            " well they come back at their own age"
        )


def _summary(values: list[float | None]) -> dict:
    found = [value for value in values if value is not None]
    if not found:
        return {"mean": None, "deviation": None, "number": 0}
    return {
        "mean": float(np.mean(found)),
        "deviation": float(np.std(found)),
        "number": len(found),
    }
