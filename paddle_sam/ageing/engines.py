"""A weight file to a network that ages or renders faces: the fast engine, else eager Paddle.

With it comes which age to ask the network for, so that its faces look the age that is wanted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paddle_sam.ageing.options import ExportOptions
from paddle_sam.core.device import resolve_device
from paddle_sam.core.weights import WeightFile, find_weight
from paddle_sam.errors import CheckpointError
from paddle_sam.export.cache import open_exported
from paddle_sam.export.engine import EngineSAM
from paddle_sam.faces.alignment import CropSettings
from paddle_sam.networks.load import build, load
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Generator

EMBEDDED_DEFAULT = "sam_mini"
CROP, CALIBRATION = "crop.json", "calibration.json"


class Opened(NamedTuple):
    """What a weight file holds: a network in eval mode, how its faces are cut, and its ages."""

    network: SAM | EngineSAM
    crop: CropSettings
    calibration: Calibration | None


def ageing_network(path: Path, device: str = "auto", engine: str = "auto") -> Opened:
    """Open the network of a weight file.

    Args:
        path: a converted or trained `.pdparams` file.
        device: `auto`, `cpu`, `gpu` or `gpu:N`.
        engine: `onednn` and `onednn-bf16` run exported models, which are made and cached on first
            use, in float32 or bfloat16; `eager` runs the layers one by one; `auto` is `onednn`,
            or `eager` with a note where that cannot run.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or no network that ages faces.
        ConfigError: the device does not exist, or the engine asked for cannot run.
    """
    loaded = open_exported(path, device, engine, EngineSAM, _export_sam)
    if loaded is None:
        return read_sam(path)
    network, entry = loaded
    crop, calibration = (
        json.loads((entry / name).read_text(encoding="utf-8")) for name in (CROP, CALIBRATION)
    )
    return Opened(network, CropSettings(**crop), Calibration.of(calibration, str(path)))


def read_sam(path: Path) -> Opened:
    """Open the eager network of a weight file.

    Raises:
        CheckpointError: as for `ageing_network`.
    """
    opened = read_inverter(path)
    check_can_age(opened.network, str(path))
    return opened


def read_inverter(given: Path | WeightFile) -> Opened:
    """Open the SAM or pSp network of a weight file, or of one that was read.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or no such network.
    """
    file = given if isinstance(given, WeightFile) else WeightFile.read(given)
    network = build(file, expect=SAM)
    calibration = Calibration.of(file.calibration, file.label)
    return Opened(network, stated_crop(file, network.input_size), calibration)


def stated_crop(file: WeightFile, size: int) -> CropSettings:
    """How the faces of a weight file's network are cut, to its input's `size`.

    The size is a fact of the network: what the file says of it is not needed, nor trusted.

    Raises:
        CheckpointError: what it says is of another kind.
    """
    try:
        return CropSettings(**{**(file.alignment or {}), "size": size})
    except TypeError as error:
        raise CheckpointError(f"{file.label}: its `alignment` cannot be used: {error}") from error


def check_can_age(network: object, source: str) -> None:
    """Raise `CheckpointError`, naming `source`, unless `network` ages faces."""
    if isinstance(network, EngineSAM):
        return
    if not isinstance(network, SAM) or network.encoder.in_channels != 4:
        raise CheckpointError(
            f"{source}: holds a {type(network).__name__} that cannot age a face; expected a"
            " SAM checkpoint, whose encoder takes an image and an age"
        )


def fitting_generator(given: Generator | str | os.PathLike, network: SAM, device: str) -> Generator:
    """A generator, or that of a weight file, to take the place of a network's own.

    Raises:
        CheckpointError: the file cannot be used, or the generator takes other codes.
    """
    generator = given
    if not isinstance(given, Generator):
        generator = load(given, device=device, expect=Generator, option="--generator")
    found, expected = (
        (one.n_codes, one.style_dim, one.size) for one in (generator, network.decoder)
    )
    if found != expected:
        raise CheckpointError(
            f"--generator: renders {found[2]} px from {found[0]} codes of {found[1]}, this model"
            f" {expected[2]} px from {expected[0]} codes of {expected[1]}; expected one that was"
            " tuned from this model"
        )
    return generator


def _export_sam(path: Path, folder: Path, precision: str) -> None:
    from paddle_sam.export.static_model import export_sam

    network, crop, calibration = read_sam(path)
    export_sam(network, folder, precision)
    (folder / CROP).write_text(json.dumps(asdict(crop)), encoding="utf-8")
    entry = calibration and calibration.entry()
    (folder / CALIBRATION).write_text(json.dumps(entry), encoding="utf-8")


def export(config: ExportOptions) -> None:
    """Write the models of an ageing network to `exp_dir`; the command `scripts/export.py`.

    Raises:
        CheckpointError: the weight file cannot be used.
        ConfigError: ONNX was asked for without the packages it needs.
        EngineError: an ONNX model does not give what Paddle's gives.
    """
    from paddle_sam.export.static_model import export_sam, to_onnx

    resolve_device("cpu")
    path = Path(config.checkpoint_path or find_weight(EMBEDDED_DEFAULT))
    folder = Path(config.exp_dir)
    network = read_sam(path).network
    folder.mkdir(parents=True, exist_ok=True)
    export_sam(network, folder)
    for model in sorted(folder.glob("*.pdiparams")):
        print(f"{model.with_suffix('')}.json, .pdiparams: {model.stat().st_size / 1e6:.1f} MB")
        if config.onnx:
            target, error = to_onnx(model.with_suffix(""))
            print(f"{target}: largest difference from Paddle {error:.1e}")


@dataclass(frozen=True)
class Calibration:
    """A measured curve from the age that a model is asked for to the age its faces look.

    asked, seen: years; both rise strictly. judge: what read the ages.
    """

    asked: tuple[float, ...]
    seen: tuple[float, ...]
    judge: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any] | None, label: str) -> Calibration | None:
        """Build from a weight file's entry `calibration`; None without one.

        Raises:
            CheckpointError: it is not such a curve; the message begins with `label`.
        """
        if not entry:
            return None
        try:
            found = cls(*(tuple(map(float, entry[name])) for name in ("asked", "seen")))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{label}: its `calibration` cannot be used: {error}") from error
        rising = all(len(one) > 1 and (np.diff(one) > 0).all() for one in (found.asked, found.seen))
        if not rising or len(found.asked) != len(found.seen):
            raise CheckpointError(f"{label}: its `calibration` is not a rising curve")
        return cls(found.asked, found.seen, str(entry.get("judge", "")))

    @classmethod
    def fitted(cls, asked: np.ndarray, seen: np.ndarray, judge: str) -> Calibration:
        """The curve through measured ages [N], made to rise: where it does not, points go.

        >>> Calibration.fitted(np.array([0, 50, 80, 100]), np.array([9, 40, 38, 60]), "x").seen
        (9.0, 40.0, 60.0)
        """
        rising = [0]
        for at in range(1, len(asked)):
            if seen[at] > seen[rising[-1]]:
                rising.append(at)
        picked = [tuple(round(float(of[at]), 2) for at in rising) for of in (asked, seen)]
        return cls(*picked, judge)

    @property
    def reach(self) -> tuple[float, float]:
        """The youngest and the oldest age that the model's faces look."""
        return self.seen[0], self.seen[-1]

    def asks(self, ages: np.ndarray) -> np.ndarray:
        """Return what to ask for, float32, so that faces look `ages`, as far as they can."""
        return np.interp(ages, self.seen, self.asked).astype(np.float32)

    def entry(self) -> dict[str, Any]:
        """What a weight file holds of it."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
