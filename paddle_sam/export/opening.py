"""A weight file to its exported network, ready to run, or the reason why eager Paddle has to do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from paddle_sam.core.device import resolve_device
from paddle_sam.core.weight_file import WeightFile
from paddle_sam.errors import CheckpointError, ConfigError, EngineError, OutputError
from paddle_sam.export import cache
from paddle_sam.export.engine import LARGE, EngineGenerator
from paddle_sam.export.static_model import export_generator
from paddle_sam.export.trial import opened_bfloat16, opened_fastest
from paddle_sam.networks.load import build
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Generator

GENERATOR_ENTRY = ".generator"
ENGINES = ("auto", "eager", "onednn", "onednn-bf16")

Engine = TypeVar("Engine", bound=EngineGenerator)
Export = Callable[[Path, Path, str], None]


def open_exported(
    path: Path,
    device: str,
    engine: str,
    network: type[Engine],
    export: Export,
    kind: str = "",
) -> tuple[Engine, Path] | None:
    """Return the exported network of a weight file and its cache entry; None: use eager Paddle.

    Args:
        path: the weight file.
        device: `auto`, `cpu`, `gpu` or `gpu:N`.
        engine: one of `ENGINES`; see `ageing.engines.ageing_network`.
        network: what runs the models.
        export: called with the weight file, a folder to write its models to, and the precision
            that they will be run in, `float32` or `bfloat16`.
        kind: keeps apart what different exports make of one file; see `cache.exported`.

    Raises:
        CheckpointError: the file is missing, or as `export` raises.
        ConfigError: the device does not exist, or the engine asked for by name cannot run.

    `auto` is float32, or bfloat16 where this machine computes it, and a trial found it right and
    faster (see `export.trial`).
    """
    if engine not in ENGINES:
        raise ConfigError(f"--engine: expected one of {', '.join(ENGINES)}, found {engine!r}")
    device = resolve_device(device)
    if engine == "eager":
        return None
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    if engine == "onednn-bf16" and device != "cpu":
        raise ConfigError(f"--engine onednn-bf16: is for CPUs, found --device {device}")

    def opened(precision: str) -> tuple[Engine, Path]:
        suffix = "" if precision == "float32" else f".{precision}"
        entry = cache.exported(path, lambda to: _build(path, export, to, precision), kind + suffix)
        return network(entry, device, precision), entry

    try:
        if engine == "onednn-bf16":
            loaded, entry = opened_bfloat16(opened)
        elif engine == "auto" and device == "cpu":
            loaded, entry = opened_fastest(opened)
        else:
            loaded, entry = opened("float32")
        loaded.check()
        return loaded, entry
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


def rendering_network(
    path: Path, device: str = "auto", engine: str = "auto"
) -> Generator | EngineGenerator:
    """The generator of a weight file in eval mode: its own, or the decoder of SAM or pSp.

    Args:
        path: a StyleGAN2, pSp or SAM weight file.
        device, engine: see `open_exported`.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or renders nothing.
        ConfigError: the device does not exist, or the engine asked for cannot run.
    """
    loaded = open_exported(
        path, device, engine, EngineGenerator, _export_generator, GENERATOR_ENTRY
    )
    return read_generator(path) if loaded is None else loaded[0]


def read_generator(path: Path) -> Generator:
    """The eager generator of a weight file, with the file's `latent_avg` if it has one.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or renders nothing.
    """
    network = build(WeightFile.read(path), expect=(SAM, Generator))
    if isinstance(network, SAM):
        known = network.latent_avg.numpy().any()  # zero where the file did not state it
        network.decoder.latent_avg = network.latent_avg if known else None
        return network.decoder
    return network


def _export_generator(path: Path, folder: Path, _precision: str) -> None:
    generator = read_generator(path)
    if generator.classes or generator.image_channels != 3:
        raise EngineError(f"{path}: conditional generators and those that are not RGB run eagerly")
    export_generator(generator, folder)


def _build(path: Path, export: Export, folder: Path, precision: str) -> None:
    """Fill a cache entry; where that takes long, say so."""
    large = path.stat().st_size > LARGE
    start = time.monotonic()
    if large:
        print(f"making the fast models of {path}, once; about a minute", file=sys.stderr)
    try:
        export(path, folder, precision)
    except (ValueError, RuntimeError) as error:
        # Paddle's tracer reads its own call stack as text, and a file name with ", " ends it.
        raise EngineError(f"{path}: could not be exported ({error})") from error
    if large:
        print(f"made in {time.monotonic() - start:.0f} s: {cache.cache_dir()}", file=sys.stderr)
