"""How well SAM or pSp reconstructs a face from its codes: `scripts/evaluate.py reconstruction`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.ageing.eval_options import ReconstructionOptions
from paddle_sam.ageing.measures import Measures
from paddle_sam.ageing.photos import (
    Summary,
    counted,
    find_inputs,
    read_photos,
    results_folder,
)
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT, read_inverter
from paddle_sam.core.device import resolve_device
from paddle_sam.core.files import sha256, write_json
from paddle_sam.core.folders import claim_folder
from paddle_sam.core.images import to_network, to_uint8
from paddle_sam.core.weights import find_weight, locate
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.faces.alignment import FaceCutter
from paddle_sam.metrics.pairs import AlignedIdentity, face_key, reconstruction
from paddle_sam.networks.image_features import LPIPS, load_lpips
from paddle_sam.networks.sam import SAM

_FILES = ("identity_path", "aligned_identity_path", "lpips_path")


def evaluate_reconstruction(config: ReconstructionOptions) -> dict:
    """Measure a network on photographs; write `report.json` to `exp_dir`.

    Returns:
        what `report.json` holds, without the single faces.

    Raises:
        PaddleSamError: a file or option cannot be used, or no face was found.
    """
    inputs = find_inputs(config)
    resolve_device(config.device)
    path = config.checkpoint_path or find_weight(EMBEDDED_DEFAULT)
    network, crop_settings, _ = read_inverter(Path(path))
    check_inverts(network, str(path))
    region = Measures.from_files(
        crop_settings, str(path), identity_path=config.identity_path, device=config.device
    )
    aligned = config.aligned_identity_path
    aligned = AlignedIdentity(aligned, config.device) if aligned else None
    lpips = load_lpips(config.lpips_path)
    folder = Path(config.exp_dir)
    files = {"model": path} | {name: getattr(config, name) for name in _FILES}
    facts = {name: sha256(locate(file)) for name, file in files.items() if file}
    claim_folder(folder, facts, "--exp_dir", "results")
    summary, records = Summary(), []
    photos = read_photos(config, inputs, FaceCutter(crop_settings))
    for photo in counted(photos, summary, len(inputs), results_folder(config)):
        for name, face in zip(photo.face_names(), photo.faces, strict=True):
            file = folder / "faces" / f"{face_key(face.image)}.json"
            if not file.is_file():
                write_json(file, _measure(network, face.image, lpips, region, aligned))
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


def _measure(
    network: SAM,
    crop: np.ndarray,
    lpips: LPIPS,
    region: Measures,
    aligned: AlignedIdentity | None,
) -> dict[str, float | None]:
    """Invert a crop, uint8 [S, S, 3], and compare what its codes render with it."""
    with paddle.no_grad():
        codes = invert(network, paddle.to_tensor(to_network(crop)))
        y = network.decode(codes, randomize_noise=False)[0].clip(-1, 1)
    image = to_uint8(y)
    measured = reconstruction(lpips, crop, image[0])
    if "identity" in (found := region(crop, image)):
        measured["identity, face region"] = found["identity"].item()
    if aligned:
        measured["identity, five points"] = aligned(crop, image)[0]
    return measured


def invert(network: SAM, x: paddle.Tensor) -> paddle.Tensor:
    """Return codes [N, L, D] of images [N, 3, S, S] at their own age.

    For pSp those of its encoder, for SAM those of the frozen encoder, from which ageing starts.
    """
    return network.encode(x) if network.encodes_photographs else network.invert(x)


def check_inverts(network: SAM, source: str) -> None:
    """Raise `ConfigError`, naming `source`, where the network has no code for a face itself."""
    if not network.encodes_photographs and network.start != "encoded_w_plus":
        raise ConfigError(
            f"{source}: its encoder takes {network.encoder.in_channels} channels and starts from"
            f" {network.start}, so that it has no code for a photograph itself"
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
