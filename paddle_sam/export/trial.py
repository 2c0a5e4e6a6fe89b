"""Whether bfloat16 is right and faster on this machine: measured once for a network, remembered.

Paddle's kernels for bfloat16 differ between CPUs, and not all are right. So a network is tried on
a face of its own making, both precisions side by side, before anybody sees a picture of it.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from paddle_sam.core.device import cpu_threads
from paddle_sam.errors import EngineError, OutputError
from paddle_sam.export import cache
from paddle_sam.export.engine import EngineGenerator

LOWEST_PSNR = 35.0  # dB of images in [-1, 1]; right networks reach 45 and more, wrong ones 20
WORTHWHILE = 0.85  # of float32's time; less gain is not worth the precision

Opened = tuple[EngineGenerator, Path]
Open = Callable[[str], Opened]  # by precision


@dataclass(frozen=True)
class Trial:
    """What was measured: PSNR of bfloat16 against float32 (dB), and seconds of an image in each.

    `failed` is why bfloat16 did not run at all, else empty.
    """

    psnr: float = 0.0
    float32_s: float = 0.0
    bfloat16_s: float = 0.0
    failed: str = ""

    @property
    def problem(self) -> str:
        """Why bfloat16 must not be used; empty where it may."""
        if self.failed:
            return self.failed
        if not self.psnr >= LOWEST_PSNR:  # not a number, too
            return f"bfloat16 is wrong on this machine: {self.psnr:.0f} dB against float32"
        return ""

    @property
    def pays(self) -> bool:
        """Whether bfloat16 may be used and is clearly faster."""
        return not self.problem and self.bfloat16_s <= WORTHWHILE * self.float32_s


def opened_bfloat16(opened: Open) -> Opened:
    """Open a network in bfloat16.

    Raises:
        EngineError: it does not run, or a trial found it wrong.
    """
    quick, entry = opened("bfloat16")
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
