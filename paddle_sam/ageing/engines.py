"""A weight file to a network that ages or renders faces: the fast engine, else eager Paddle."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from paddle_sam.core.device import resolve_device
from paddle_sam.core.weight_file import read_file
from paddle_sam.errors import CheckpointError, ConfigError, EngineError, OutputError
from paddle_sam.export import cache
from paddle_sam.export.engine import ENGINES, LARGE, EngineGenerator, EngineSAM
from paddle_sam.export.static_model import export_generator, export_sam
from paddle_sam.faces.alignment import CropSettings
from paddle_sam.networks.load import network_from
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Generator

CROP = "crop.json"
GENERATOR_ENTRY = ".generator"

Engine = TypeVar("Engine", bound=EngineGenerator)


def ageing_network(
    path: Path, device: str = "auto", engine: str = "auto"
) -> tuple[SAM | EngineSAM, CropSettings]:
    """The network of a weight file in eval mode, and how its faces are cut.

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
    loaded = _fast(path, device, engine, EngineSAM, _export_sam)
    if loaded is None:
        return read_sam(path)
    network, entry = loaded
    return network, CropSettings(**json.loads((entry / CROP).read_text(encoding="utf-8")))


def rendering_network(
    path: Path, device: str = "auto", engine: str = "auto"
) -> Generator | EngineGenerator:
    """The generator of a weight file in eval mode: its own, or the decoder of SAM or pSp.

    For the arguments and errors see `ageing_network`.
    """
    loaded = _fast(path, device, engine, EngineGenerator, _export_generator, GENERATOR_ENTRY)
    return read_generator(path) if loaded is None else loaded[0]


def read_sam(path: Path) -> tuple[SAM, CropSettings]:
    """The eager network of a weight file, and how its faces are cut.

    Raises:
        CheckpointError: as for `ageing_network`.
    """
    network, crop = read_inverter(path)
    check_can_age(network, str(path))
    return network, crop


def read_inverter(path: Path) -> tuple[SAM, CropSettings]:
    """The SAM or pSp network of a weight file, and how its faces are cut.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or no such network.
    """
    content = read_file(path)
    crop = stated_crop(content, path)
    network = network_from(content, str(path))
    if not isinstance(network, SAM):
        raise CheckpointError(
            f"{path}: holds a {type(network).__name__} that cannot age a face or give it back;"
            " expected SAM or pSp"
        )
    return network, crop


def stated_crop(content: Mapping[str, Any], path: str | Path, **unstated) -> CropSettings:
    """How the faces of a weight file's network are cut; by `unstated` where the file is silent.

    Raises:
        CheckpointError: what it says is of another kind.
    """
    try:
        return CropSettings(**(content.get("alignment") or unstated))
    except TypeError as error:
        raise CheckpointError(f"{path}: its `alignment` cannot be used: {error}") from error


def read_generator(path: Path) -> Generator:
    """The eager generator of a weight file, with the file's `latent_avg` if it has one.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or renders nothing.
    """
    network = network_from(read_file(path), str(path))
    if isinstance(network, SAM):
        known = network.latent_avg.numpy().any()  # zero where the file did not state it
        network.decoder.latent_avg = network.latent_avg if known else None
        return network.decoder
    if not isinstance(network, Generator):
        raise CheckpointError(
            f"{path}: holds a {type(network).__name__}, which renders nothing; expected a"
            " StyleGAN2, pSp or SAM weight file"
        )
    return network


def check_can_age(network: object, source: str) -> None:
    """Raise `CheckpointError`, naming `source`, unless `network` ages faces."""
    if isinstance(network, EngineSAM):
        return
    if not isinstance(network, SAM) or network.encoder.in_channels != 4:
        raise CheckpointError(
            f"{source}: holds a {type(network).__name__} that cannot age a face; expected a"
            " SAM checkpoint, whose encoder takes an image and an age"
        )


def _fast(
    path: Path,
    device: str,
    engine: str,
    network: type[Engine],
    export: Callable[[Path, Path], None],
    kind: str = "",
) -> tuple[Engine, Path] | None:
    """The exported network of a weight file and its cache entry; None where eager Paddle is due."""
    if engine not in ENGINES:
        raise ConfigError(f"--engine: expected one of {', '.join(ENGINES)}, found {engine!r}")
    device = resolve_device(device)
    if engine == "eager":
        return None
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    precision = "bfloat16" if engine == "onednn-bf16" else "float32"
    try:
        entry = _entry(path, export, kind)
        try:
            return _checked(network(entry, device, precision)), entry
        except EngineError:  # an entry can be damaged in ways its stamps do not show: make it anew
            cache.discard(entry)
            entry = _entry(path, export, kind)
            return _checked(network(entry, device, precision)), entry
    except (EngineError, OutputError, OSError) as error:
        if engine != "auto":
            raise ConfigError(
                f"--engine {engine}: cannot run here: {error}. Use --engine eager."
            ) from error
        print(
            f"note: the fast engine cannot run here ({error}); using eager Paddle, which gives"
            " the same images several times slower",
            file=sys.stderr,
        )
        return None


def _checked(network: Engine) -> Engine:
    network.check()
    return network


def _entry(path: Path, export: Callable[[Path, Path], None], kind: str) -> Path:
    """The cache entry of a weight file; where it is made, and takes long, that is said."""

    def build(folder: Path) -> None:
        large = path.stat().st_size > LARGE
        start = time.monotonic()
        if large:
            print(f"making the fast models of {path}, once; about a minute", file=sys.stderr)
        try:
            export(path, folder)
        except (ValueError, RuntimeError) as error:
            # Paddle's tracer reads its own call stack as text, and a file name with ", " ends it.
            raise EngineError(f"{path}: could not be exported ({error})") from error
        if large:
            print(f"made in {time.monotonic() - start:.0f} s: {cache.cache_dir()}", file=sys.stderr)

    return cache.exported(path, build, kind)


def _export_sam(path: Path, folder: Path) -> None:
    network, crop = read_sam(path)
    export_sam(network, folder)
    (folder / CROP).write_text(json.dumps(asdict(crop)), encoding="utf-8")


def _export_generator(path: Path, folder: Path) -> None:
    export_generator(read_generator(path), folder)
