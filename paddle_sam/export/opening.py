"""A weight file to its exported network, ready to run, or the reason why eager Paddle has to do.

Whether bfloat16 is right and faster is measured once for a network on a machine, and remembered:
Paddle's kernels for it differ between CPUs, and not all are right. So a network is tried on a face
of its own making, both precisions side by side, before anybody sees a picture of it.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from paddle_sam.core.device import check_engine, cpu_threads, resolve_device
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import CheckpointError, ConfigError, EngineError, OutputError
from paddle_sam.export import cache
from paddle_sam.export.engine import LARGE, EngineGenerator
from paddle_sam.networks.load import build
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.options import ENGINES

GENERATOR_ENTRY = ".generator"
# Engines of 16 bits: what they compute in, and where.
_HALF = {"onednn-bf16": ("bfloat16", "cpu"), "gpu-fp16": ("float16", "gpu")}

Engine = TypeVar("Engine", bound=EngineGenerator)
Export = Callable[[Path, Path, str], None]
LOWEST_PSNR = 35.0  # dB of images in [-1, 1]; right networks reach 45 and more, wrong ones 20
WORTHWHILE = 0.85  # of float32's time; less gain is not worth the precision

Opened = tuple[EngineGenerator, Path]
Open = Callable[[str], Opened]  # by precision


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
        engine: one of `options.ENGINES`; see `ageing.engines.ageing_network`.
        network: what runs the models.
        export: called with the weight file, a folder to write its models to, and the precision
            that they will be run in, `float32` or `bfloat16`.
        kind: keeps apart what different exports make of one file; see `cache.exported`.

    Raises:
        CheckpointError: the file is missing, or as `export` raises.
        ConfigError: the device does not exist, or the engine asked for by name cannot run.

    `auto` is float32, or bfloat16 where this machine computes it, and a trial found it right and
    faster (see `Trial`).
    """
    if engine not in ENGINES:
        raise ConfigError(f"--engine: expected one of {', '.join(ENGINES)}, found {engine!r}")
    device = resolve_device(device)
    if engine == "eager":
        return None
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    precision, kind_of_device = _HALF.get(engine, ("float32", device))
    if not device.startswith(kind_of_device):
        raise ConfigError(
            f"--engine {engine}: is for {kind_of_device.upper()}s, found --device {device}"
        )

    def opened(precision: str) -> tuple[Engine, Path]:
        suffix = "" if precision == "float32" else f".{precision}"
        entry = cache.exported(path, lambda to: _build(path, export, to, precision), kind + suffix)
        return network(entry, device, precision), entry

    try:
        check_engine(device)
        if engine in _HALF:
            loaded, entry = opened_half(opened, precision)
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
    from paddle_sam.export.static_model import export_generator

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


@dataclass(frozen=True)
class Trial:
    """What was measured: PSNR of 16 bits against float32 (dB), and seconds of an image in each.

    `failed` is why 16 bits did not run at all, else empty.
    """

    psnr: float = 0.0
    float32_s: float = 0.0
    bfloat16_s: float = 0.0
    failed: str = ""

    @property
    def problem(self) -> str:
        """Why 16 bits must not be used; empty where they may."""
        if self.failed:
            return self.failed
        if not self.psnr >= LOWEST_PSNR:  # not a number, too
            return f"16-bit arithmetic is wrong on this machine: {self.psnr:.0f} dB against float32"
        return ""

    @property
    def pays(self) -> bool:
        """Whether bfloat16 may be used and is clearly faster."""
        return not self.problem and self.bfloat16_s <= WORTHWHILE * self.float32_s


def opened_half(opened: Open, precision: str) -> Opened:
    """Open a network in 16 bits.

    Raises:
        EngineError: it does not run, or a trial found it wrong.
    """
    quick, entry = opened(precision)
    trial = _remembered(entry) or _tried(opened("float32")[0], quick, entry)
    if trial.problem:
        raise EngineError(trial.problem)
    return quick, entry


def opened_fastest(opened: Open) -> Opened:
    """Open a network in float32, or in bfloat16 where that is right and pays.

    Only large networks are tried: a small one renders a strip in a tenth of a second either way.
    """
    exact, entry = opened("float32")
    if not exact.large or not has_bfloat16():
        return exact, entry
    trial = _remembered(entry)
    if trial is not None and not trial.pays:
        return exact, entry
    try:
        quick = opened("bfloat16")
        if trial is None:
            trial = _tried(exact, quick[0], entry)
        if trial.problem:
            raise EngineError(trial.problem)
        if trial.pays:
            quick[0].check()
            return quick
    except (EngineError, OutputError, OSError) as error:
        print(f"note: bfloat16 cannot be used here ({error}); using float32", file=sys.stderr)
    return exact, entry


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 (AVX512-BF16 or AMX), as Linux lists them."""
    flags = _cpuinfo("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _tried(exact: EngineGenerator, quick: EngineGenerator, entry: Path) -> Trial:
    """Try and remember; leaves both networks without models in memory."""
    example = exact.example()
    want, float32_s = exact.trial(example)
    exact.release()
    try:
        found, bfloat16_s = quick.trial(example)
        trial = Trial(_psnr(found, want), float32_s, bfloat16_s)
    except EngineError as error:
        trial = Trial(failed=str(error))
    quick.release()
    cache.write_note("trials", _key(entry), asdict(trial))
    return trial


def _remembered(entry: Path) -> Trial | None:
    try:
        return Trial(**cache.read_note("trials", _key(entry)))
    except TypeError:  # none, or one of another version
        return None


def _key(entry: Path) -> list:
    """What a trial holds for: the weights and version, this CPU, and how many threads it has."""
    processor = _cpuinfo("model name") or platform.processor()
    return [entry.name.replace(".bfloat16", ""), processor, _cpuinfo("flags"), cpu_threads()]


def _cpuinfo(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _psnr(found: np.ndarray, want: np.ndarray) -> float:
    """Peak signal to noise ratio in dB, of images in [-1, 1]; inf where they are equal."""
    error = float(np.square(found - want, dtype=np.float64).mean())
    return float(10 * np.log10(4 / error)) if error else float("inf")
