"""Devices, threads, memory and seeds: the one place that knows about them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from paddle_sam.errors import ConfigError, EngineError

# Every command was tried with these (docs/versions.md); what is said of one is said here alone.
_OLDEST_PADDLE, _OLDEST_ENGINE, _CRASHING_ENGINE = (2, 6, 2), (3, 0), (3, 3)
_PINNED = "3.2.2"


def paddle_version() -> tuple[int, ...]:
    """Return the numbers of Paddle's version; a build of its newest sources calls itself 0.0.0."""
    import paddle

    numbers = tuple(int(word) for word in re.findall(r"\d+", paddle.__version__)[:3])
    return numbers if any(numbers) else (99,)


def check_paddle() -> None:
    """Raise `ConfigError` if this Paddle is older than any that was tried."""
    import paddle

    if paddle_version() < _OLDEST_PADDLE:
        oldest = ".".join(map(str, _OLDEST_PADDLE))
        raise ConfigError(
            f"PaddlePaddle {paddle.__version__} is installed; {oldest} is the oldest that this"
            f" package runs with. Install {_PINNED}; README.md has the lines."
        )


def check_engine(device: str = "") -> None:
    """Raise `EngineError` if this Paddle cannot make exported models, or run them on a device."""
    import paddle

    version = paddle_version()
    if version < _OLDEST_ENGINE:
        reason = "writes them in another format; 3.0 is the oldest that can"
    elif device == "cpu" and version[:2] == _CRASHING_ENGINE:
        reason = "crashes in oneDNN there (PaddlePaddle/Paddle#77340)"
    else:
        return
    raise EngineError(
        f"exported models cannot run with PaddlePaddle {paddle.__version__}, which {reason}. On a"
        f" CPU install paddlepaddle=={_PINNED}"
    )


def find_device(name: str = "auto") -> str:
    """Return Paddle's name of a device: `auto` (a GPU if there is one), `cpu`, `gpu` or `gpu:N`.

    `cuda` is `gpu`. Of several processes, started by `paddle.distributed.launch`, each finds the
    GPU it was given.

    Raises:
        ConfigError: the name is unknown, or this Paddle or machine has no such device.
    """
    import paddle

    check_paddle()
    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    name = name.replace("cuda", "gpu")  # as users of PyTorch say
    if name == "auto":
        name = "gpu:0" if gpus else "cpu"
    kind, _, index = name.partition(":")
    numbered = kind == "gpu" and index.isdecimal() and len(index) < 5
    if name not in ("cpu", "gpu") and not numbered:
        raise ConfigError(f"--device: expected auto, cpu, gpu or gpu:N, found {name!r}")
    if kind == "gpu":
        if int(os.environ.get(_PROCESSES, "1")) > 1:
            index = os.environ.get(_GIVEN_GPUS, "").partition(",")[0]
        name = f"gpu:{index or 0}"
    if kind == "gpu" and int(index or 0) >= gpus:
        reason = (
            f"this machine shows {gpus} of them"
            if paddle.is_compiled_with_cuda()
            else "this Paddle is the CPU build; install paddlepaddle-gpu"
        )
        raise ConfigError(f"--device: {name} is not there: {reason}. Use --device cpu.")
    return name


def resolve_device(name: str = "auto", allow_tf32: bool = False, autotune: bool = False) -> str:
    """Have this process run networks on a device (see `find_device`) and return its name.

    For commands: it sets Paddle's current device, and removes Paddle's answer to SIGTERM, a page
    about its insides. A GPU computes float32 as float32, unless `allow_tf32`: cuDNN otherwise takes
    ten bits of mantissa for it. It uses the convolutions that repeat their bits, unless `autotune`:
    then those that it finds to be fastest.
    """
    import paddle

    name = find_device(name)
    paddle.device.set_device(name)
    paddle.disable_signal_handler()
    _tune(name, allow_tf32, autotune)
    return name


@contextlib.contextmanager
def on_device(name: str = "auto") -> Iterator[str]:
    """Within this context Paddle works on a device (see `find_device`); yield its name.

    For functions that Python programs call, whose own device stays what it was.
    """
    import paddle

    name, before = find_device(name), paddle.device.get_device()
    _tune(name)
    try:
        paddle.device.set_device(name)
        yield name
    finally:
        paddle.device.set_device(before)


def _tune(name: str, allow_tf32: bool = False, autotune: bool = False) -> None:
    if name == "cpu":
        keep_freed_memory()
        use_all_cpus()
        return
    import paddle
    from paddle.base import core

    for switch in ("set_cudnn_switch", "set_cublas_switch"):
        if hasattr(core, switch):  # not in every Paddle, and not in its CPU build
            getattr(core, switch)(allow_tf32)
    flags = {"FLAGS_cudnn_deterministic": not autotune, "FLAGS_cudnn_exhaustive_search": autotune}
    for flag, value in flags.items():
        if flag not in os.environ:
            with contextlib.suppress(ValueError):  # as for the switches
                paddle.set_flags({flag: value})


# Where Paddle's launcher says how many processes there are, and which GPU is this one's.
_PROCESSES, _GIVEN_GPUS = "PADDLE_TRAINERS_NUM", "FLAGS_selected_gpus"


def cpu_threads() -> int:
    """Return how many threads arithmetic should use: the CPUs this process may run on.

    A container's quota of CPU time counts where the kernel shows it.
    """
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    for quota, period in filter(None, map(_numbers_in, _QUOTAS)):
        if quota > 0:  # -1 is no limit
            count = min(count, max(math.ceil(quota / period), 1))
    return count


# A container's share of CPU time (quota and period), and its memory (limit and use), as Linux
# shows them: version 2 of control groups, and version 1.
_QUOTAS = ("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
_MEMORY = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def _numbers_in(files: Sequence[str]) -> list[int]:
    """The numbers that files hold; none where one is missing, or has the word "max"."""
    try:
        texts = [Path("/sys/fs/cgroup", file).read_text() for file in files]
        return [int(word) for text in texts for word in text.split()]
    except (OSError, ValueError):
        return []


def use_all_cpus() -> None:
    """Have Paddle's layers compute in `cpu_threads` threads, unless OMP_NUM_THREADS says how many.

    Paddle gives them one thread, and writes that into the variable when it is imported: a program
    that imports Paddle before this package, and what `paddle.distributed.launch` starts, keep one.
    """
    if _ASKED_THREADS is None:
        from paddle.base import core

        core.set_num_threads(cpu_threads())


_ASKED_THREADS = os.environ.get("OMP_NUM_THREADS")


def free_memory() -> int:
    """Bytes that can still be allocated where networks run: on the current GPU, or this machine.

    A container's limit counts where the kernel shows it.
    """
    import paddle

    if paddle.device.get_device().startswith("gpu"):
        total = paddle.device.cuda.get_device_properties().total_memory
        return total - paddle.device.cuda.memory_reserved()
    import psutil

    free = psutil.virtual_memory().available
    for limit, used in filter(None, map(_numbers_in, _MEMORY)):
        free = min(free, max(limit - used, 0))
    return free


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next allocation instead of returning it.

    Paddle frees and allocates each feature map again, and the buffer into which a convolution
    unfolds its input. glibc gives blocks of that size back to the system at once, which then has
    to clear each page again on first use: a third of the exported decoder's time at 1024 px, and
    up to two thirds of a convolution's by Paddle's layers (docs/performance.md). Does nothing
    where there is no glibc.
    """
    mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt is not None:
        largest = 2**31 - 1
        mallopt(_M_MMAP_THRESHOLD, largest)
        mallopt(_M_TRIM_THRESHOLD, largest)


def return_freed_memory() -> None:
    """Give what has been freed back to the system once; see `keep_freed_memory`."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def _c_library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def device_of(x: Any) -> str:
    """Return Paddle's name of the device that a tensor is on, such as `gpu:0`."""
    return str(x.place)[len("Place(") : -1]


def constant_beside(x: Any, make: Callable, *arguments: int) -> Any:
    """Return `make(*arguments)` as a tensor of the type and on the device of `x`; made once each.

    For what every step needs and no step changes, so that it does not travel to a GPU each time.
    """
    return _constant(make, arguments, x.dtype, device_of(x))


@functools.lru_cache(maxsize=64)
def _constant(make: Callable, arguments: tuple, dtype: Any, place: str) -> Any:
    import paddle

    return paddle.to_tensor(make(*arguments), dtype, place)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and Paddle generators."""
    import numpy as np
    import paddle

    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    paddle.seed(seed)


def seed_of(*numbers: int) -> int:
    """One seed out of several non-negative numbers, such as a run's seed and a step."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


MOST = 16  # a larger batch is not faster on a CPU; GPUs were not tried

# Feature maps of the decoder's last resolution that one image needs at a time, as multiples of the
# largest: rendering by Paddle's layers, whose convolutions unfold their input ninefold, and
# following gradients through them.
_RENDERING, _WITH_GRADIENTS = 16, 32
_SHARE = 0.5  # of the free memory


def fitting_batch(output_size: int, gradients: bool = False) -> int:
    """Images of `output_size` pixels that fit into memory together, 1 to `MOST`.

    The largest feature map is taken to be that of the published StyleGAN2, which has
    32768 / output_size channels, at most 512.
    """
    channels = min(32768 // output_size, 512)
    largest = 4 * channels * output_size**2
    maps = _WITH_GRADIENTS if gradients else _RENDERING
    return max(1, min(MOST, int(_SHARE * free_memory()) // (maps * largest)))
