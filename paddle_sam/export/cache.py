"""A weight file to its exported network: made once, kept on disk within bounds, ready to run.

An entry is a folder `CHECKPOINT-SETTINGS` under `cache_dir()`: twelve digits of the weight file's
SHA-256, and eight of the hash of what else the models depend on (Paddle's version,
`EXPORT_VERSION`). It is built aside and renamed into place, so it is whole or absent, and its
checksums are verified whenever it is opened. One process builds while others of the same entry
wait for it (see `core.folders`).

Entries are removed when a successor made under other settings is there, and the longest unused
ones when all together exceed `limit_bytes()`; never one that a process holds (`hold`).
Checkpoints of a run folder change too often to be worth an entry: theirs lives as long as the
process that opened it.

Whether bfloat16 is right and faster is measured once for a network on a machine, and remembered:
Paddle's kernels for it differ between CPUs, and not all are right. So a network is tried on a face
of its own making, both precisions side by side, before anybody sees a picture of it.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import IO, TypeVar

from paddle_sam.core.device import check_engine, cpu_threads, resolve_device
from paddle_sam.core.files import sha256, write_json
from paddle_sam.core.folders import one_writer
from paddle_sam.errors import CheckpointError, ConfigError, EngineError, OutputError
from paddle_sam.export.engine import (
    LARGE,
    EngineGenerator,
    Trial,
    compared,
    cpu_facts,
    has_bfloat16,
)
from paddle_sam.options import ENGINES

try:
    import fcntl
except ImportError:  # Windows itself refuses to remove what is open
    fcntl = None

EXPORT_VERSION = 5  # raise it whenever an exported model would come out differently
CONTENTS = "contents.json"
LIMIT_GB = 10.0  # the published network takes 2.1, twice that with its bfloat16 form
MOST_NOTES = 256  # remembered hashes and trials, some hundred bytes each
# Engines of 16 bits: what they compute in, and where.
_HALF = {"onednn-bf16": ("bfloat16", "cpu"), "gpu-fp16": ("float16", "gpu")}

Engine = TypeVar("Engine", bound=EngineGenerator)
Export = Callable[[Path, Path, str], None]
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
        engine: one of `options.ENGINES`; see `ageing.pipeline.ageing_network`.
        network: what runs the models.
        export: called with the weight file, a folder to write its models to, and the precision
            that they will be run in, `float32` or `bfloat16`.
        kind: keeps apart what different exports make of one file; see `exported`.

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
        entry = exported(path, lambda to: _export(path, export, to, precision), kind + suffix)
        held = hold(entry)  # a large network loads its models again and again
        loaded = network(entry, device, precision)
        loaded.held = held
        return loaded, entry

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


def _export(path: Path, export: Export, folder: Path, precision: str) -> None:
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
        print(f"made in {time.monotonic() - start:.0f} s: {cache_dir()}", file=sys.stderr)


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


def _tried(exact: EngineGenerator, quick: EngineGenerator, entry: Path) -> Trial:
    """Try and remember."""
    trial = compared(exact, quick)
    write_note("trials", _key(entry), asdict(trial))
    return trial


def _remembered(entry: Path) -> Trial | None:
    try:
        return Trial(**read_note("trials", _key(entry)))
    except TypeError:  # none, or one of another version
        return None


def _key(entry: Path) -> list:
    """What a trial holds for: the weights and version, this CPU, and how many threads it has."""
    processor = cpu_facts("model name") or platform.processor()
    return [entry.name.replace(".bfloat16", ""), processor, cpu_facts("flags"), cpu_threads()]


def cache_dir() -> Path:
    """`PADDLE_SAM_CACHE` if set, else `paddle_sam` in the user's cache folder.

    Raises:
        OSError: this user has no home folder, as in some containers.
    """
    try:
        if chosen := os.environ.get("PADDLE_SAM_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paddle_sam"
    except RuntimeError as error:
        raise OSError(errno.ENOENT, f"{error} Name a folder in PADDLE_SAM_CACHE.") from error


def limit_bytes() -> float:
    """What all entries may take together: `PADDLE_SAM_CACHE_GB` if set, else `LIMIT_GB`.

    Raises:
        ConfigError: the variable holds no number of 0 or more.
    """
    stated = os.environ.get("PADDLE_SAM_CACHE_GB") or LIMIT_GB
    with contextlib.suppress(ValueError):
        if (limit := float(stated)) >= 0:
            return limit * 1e9
    raise ConfigError(f"PADDLE_SAM_CACHE_GB: expected gigabytes, such as 10, found {stated!r}")


def exported(checkpoint: Path, build: Callable[[Path], None], kind: str = "") -> Path:
    """Return the folder with the exported models of `checkpoint`, by `build(folder)` if need be.

    `kind` keeps apart what different builders make of one file; it is part of the entry's name.

    Raises:
        ConfigError: see `limit_bytes`.
        OSError: the cache cannot be written.
    """
    limit = limit_bytes()
    if _of_a_run(checkpoint):
        return _for_this_process(build)
    digest = content_hash(checkpoint)[:12] + kind
    entry = cache_dir() / f"{digest}-{_settings_hash()}"
    if not is_whole(entry):
        with one_writer(_locks(entry), "an entry of the cache", wait=True):
            for left in entry.parent.glob(f".{entry.name}.*"):  # of builders that did not finish
                shutil.rmtree(left, ignore_errors=True)
            if not is_whole(entry):
                _build(entry, build)
                for stale in cache_dir().glob(f"{digest}-*"):
                    if stale != entry and stale.is_dir():
                        _remove(stale)
    _used(entry).touch()
    _trim(limit, keep=entry)
    return entry


def is_whole(entry: Path) -> bool:
    """Whether every file of an entry holds what was written, by its CRC-32."""
    try:
        contents = json.loads((entry / CONTENTS).read_text(encoding="utf-8"))
        return contents == _checksums(entry)
    except (OSError, ValueError):
        return False


def hold(entry: Path) -> IO | None:
    """Keep an entry from being removed, by any process, until the returned stream is closed."""
    if fcntl is None:
        return None
    try:
        stream = _used(entry).open("a")
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return stream
    except OSError:  # a read-only folder, or a file system without locks
        return None


def content_hash(path: Path) -> str:
    """SHA-256 of a file, remembered for as long as its size and times stay the same.

    Two gigabytes take seconds to hash, which would be most of a warm start.
    """
    status = path.stat()
    stamp = [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino]
    known = read_note("hashes", stamp)
    if isinstance(known, str) and len(known) == 64:
        return known
    digest = sha256(path)
    write_note("hashes", stamp, digest)
    return digest


def read_note(folder: str, key: list) -> object:
    """What `write_note` last wrote under a key, or None."""
    try:
        return json.loads(_note(folder, key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_note(folder: str, key: list, value: object) -> None:
    """Remember a JSON value under a key (a list of JSON values) in a folder of the cache."""
    write_json(_note(folder, key), value)
    notes = sorted(_note(folder, key).parent.iterdir(), key=_time_of, reverse=True)
    for old in notes[MOST_NOTES:]:
        old.unlink(missing_ok=True)


def _note(folder: str, key: list) -> Path:
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    return cache_dir() / folder / name


def _settings_hash() -> str:
    import paddle

    settings = [paddle.__version__, paddle.version.commit, EXPORT_VERSION]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]


def _of_a_run(checkpoint: Path) -> bool:
    """Whether a weight file is one of a training's many, RUN/checkpoints/*.pdparams."""
    folder = checkpoint.resolve().parent
    return folder.name == "checkpoints" and (folder.parent / "stats.jsonl").exists()


def _for_this_process(build: Callable[[Path], None]) -> Path:
    cache_dir().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".run.", dir=cache_dir()))
    held = hold(folder)

    def forget() -> None:
        if held is not None:
            held.close()
        _remove(folder)

    atexit.register(forget)
    build(folder)
    return folder


def _build(entry: Path, build: Callable[[Path], None]) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        build(aside)
        contents = json.dumps(_checksums(aside), indent=1)
        (aside / CONTENTS).write_text(contents, encoding="utf-8")
        if not is_whole(entry):
            shutil.rmtree(entry, ignore_errors=True)
        try:
            aside.rename(entry)
        except OSError:
            if not is_whole(entry):  # else another process was first, and its entry is as good
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _trim(limit: float, keep: Path) -> None:
    """Remove the longest unused entries until the rest, `keep` at least, is within `limit`."""
    entries = [path.parent for path in cache_dir().glob(f"*/{CONTENTS}")]
    entries.sort(key=lambda entry: _time_of(_used(entry)), reverse=True)
    total = sum(path.stat().st_size for path in keep.iterdir())
    for entry in entries:
        if entry != keep:
            total += sum(path.stat().st_size for path in entry.iterdir())
            if total > limit:
                _remove(entry)
    for left in cache_dir().glob(".run.*"):  # of killed processes
        if left.is_dir():
            _remove(left)


def _remove(entry: Path) -> None:
    """Remove an entry, unless a process holds it."""
    with contextlib.suppress(OSError):
        with _used(entry).open("a") as stream:
            if fcntl is not None:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry)
        shutil.rmtree(_locks(entry))


def _locks(entry: Path) -> Path:
    """The folder of an entry's locks: that of its builder, and that of its users."""
    return cache_dir() / "locks" / entry.name


def _used(entry: Path) -> Path:
    """What users of an entry lock; its time is that of the last use."""
    _locks(entry).mkdir(parents=True, exist_ok=True)
    return _locks(entry) / "used"


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # just removed by another process
        return 0.0


def _checksums(entry: Path) -> dict[str, int]:
    """CRC-32 of each file: it guards against damage, not against intent, and reads fastest."""
    files = sorted(path for path in entry.iterdir() if path.name != CONTENTS)
    with ThreadPoolExecutor() as pool:
        return dict(zip((path.name for path in files), pool.map(_checksum, files), strict=True))


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
