"""What every benchmark shares: repeated timing, and a record of the machine beside the numbers."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def measure(work: Callable[[], object], repeats: int, warmups: int = 1) -> dict:
    """Seconds of `work` after warm-ups: median, fastest, slowest, every run, and the mean of the
    processor's time (all cores), which other work on the machine disturbs less.

    `work` has to end with a result on the host (NumPy), which waits for the device.
    """
    for _ in range(warmups):
        work()
    runs = []
    processor = time.process_time()
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        runs.append(time.perf_counter() - start)
    return {
        "median_s": statistics.median(runs),
        "fastest_s": min(runs),
        "slowest_s": max(runs),
        "runs_s": runs,
        "processor_s": (time.process_time() - processor) / repeats,
    }


def in_own_process(module: str, arguments: list[str]) -> dict:
    """What `python -m module arguments` prints as its last line, a JSON object.

    Raises:
        subprocess.CalledProcessError: it failed; its messages are on standard error.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory_gb() -> float:
    """Most memory that this process has had in use."""
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def machine() -> dict:
    """The processor, memory, versions and commit that numbers were measured with."""
    import paddle

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=RESULTS.parent,
    )
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "paddle": paddle.__version__,
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


def write(name: str, record: dict) -> Path:
    """Write a benchmark's record to `benchmarks/results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
