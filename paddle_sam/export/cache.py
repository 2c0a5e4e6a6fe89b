"""Exported models on disk, built once for each weight file and version.

An entry is a folder `CHECKPOINT-SETTINGS` under `cache_dir()`: twelve digits of the weight file's
SHA-256, and eight of the hash of what else the models depend on (their precision, Paddle's
version, `EXPORT_VERSION`). It is built aside and renamed into place, so it is whole or absent.
One process builds while others of the same entry wait for it; where the system has no file locks
each builds its own and the first to finish wins. An entry of the same weights made under other
settings is stale and goes when its successor is there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from paddle_sam.core.files import atomic_path, sha256

EXPORT_VERSION = 3  # raise it whenever an exported model would come out differently
STORED_PRECISION = "float32"  # bfloat16 is made from it when a model is loaded
CONTENTS = "contents.json"


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


def exported(checkpoint: Path, build: Callable[[Path], None], kind: str = "") -> Path:
    """The folder with the exported models of `checkpoint`, built by `build(folder)` if need be.

    `kind` keeps apart what different builders make of one file; it is part of the entry's name.

    Raises:
        OSError: the cache cannot be written.
    """
    digest = content_hash(checkpoint)[:12] + kind
    entry = cache_dir() / f"{digest}-{_settings_hash()}"
    if is_whole(entry):
        return entry
    with _lock(entry):
        if not is_whole(entry):
            _build(entry, build)
            for stale in cache_dir().glob(f"{digest}-*"):
                if stale != entry and stale.is_dir():
                    shutil.rmtree(stale, ignore_errors=True)
    return entry


def is_whole(entry: Path) -> bool:
    """Whether every file of an entry holds what was written, by its CRC-32."""
    try:
        contents = json.loads((entry / CONTENTS).read_text(encoding="utf-8"))
        return contents == _checksums(entry)
    except (OSError, ValueError):
        return False


def content_hash(path: Path) -> str:
    """SHA-256 of a file, remembered for as long as its size and times stay the same.

    Two gigabytes take seconds to hash, which would be most of a warm start.
    """
    status = path.stat()
    stamp = [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino]
    name = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:24]
    note = cache_dir() / "hashes" / name
    with contextlib.suppress(OSError):
        known = note.read_text(encoding="ascii")
        if len(known) == 64:
            return known
    digest = sha256(path)
    with atomic_path(note) as temporary:
        temporary.write_text(digest, encoding="ascii")
    return digest


def _settings_hash() -> str:
    import paddle

    settings = [STORED_PRECISION, paddle.__version__, paddle.version.commit, EXPORT_VERSION]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]


def _build(entry: Path, build: Callable[[Path], None]) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        build(aside)
        contents = json.dumps(_checksums(aside), indent=1)
        (aside / CONTENTS).write_text(contents, encoding="utf-8")
        if entry.exists() and not is_whole(entry):
            shutil.rmtree(entry, ignore_errors=True)
        try:
            aside.rename(entry)
        except OSError:
            if not is_whole(entry):  # else another process was first, and its entry is as good
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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


@contextlib.contextmanager
def _lock(entry: Path) -> Iterator[None]:
    """Hold the entry's lock, where the system has any; also clear up after a crashed builder."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: two builders waste work, but each renames a whole entry
        yield
        return
    with (entry.parent / f".{entry.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        for left in entry.parent.glob(f".{entry.name}.*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        yield
