"""Results kept in a folder: by one writer at a time, and so that a run that stopped can resume."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from paddle_sam.core.files import atomic_path, make_folder, write_error, write_json
from paddle_sam.errors import ConfigError, Note

FORMAT = 1
PART_SIZE = 64  # rows worth a file: as many are lost at most when a run is killed
CLAIM = "made_from.json"
LOCK = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  # by another process


class Store:
    """Rows of numbers by key, such as features by the digest of an image.

    Attributes:
        rows: what is known, float arrays [D] by key.

    Args:
        folder: keeps the rows of any number of settings; None keeps them in memory only.
        settings: what the rows depend on besides their keys, as plain values.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]):
        self.rows: dict[str, np.ndarray] = {}
        self._folder = None
        self._settings = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
        if folder is not None:
            name = hashlib.sha256(self._settings.encode()).hexdigest()[:16]
            self._folder = Path(folder) / name
            self._read_parts()

    def keep(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add rows, and write them to the folder.

        Raises:
            OutputError: the system refused to write.
        """
        self.rows |= rows
        if self._folder is None or not rows:
            return
        note = self._folder / "settings.json"
        if not note.exists():
            with atomic_path(note) as temporary:
                temporary.write_text(self._settings, encoding="utf-8")
        name = hashlib.sha256("".join(rows).encode()).hexdigest()[:16]
        with (
            atomic_path(self._folder / f"part_{name}.npz") as temporary,
            temporary.open("wb") as stream,
        ):
            np.savez(stream, digests=np.array(list(rows)), features=np.stack(list(rows.values())))

    def _read_parts(self) -> None:
        for path in sorted(self._folder.glob("part_*.npz")):
            try:
                with np.load(path, allow_pickle=False) as part:
                    rows = zip(part["digests"].tolist(), part["features"], strict=True)
                    self.rows.update(rows)
            except Exception as error:  # zip, header and array readers raise their own kinds
                tqdm.write(
                    f"{path}: damaged ({error}); what it held is computed again", file=sys.stderr
                )


def claim_folder(
    folder: Path, facts: Mapping[str, Any], option: str, what: str, name: str = CLAIM
) -> None:
    """Note in a folder of results what they are made from, so that the work can be resumed.

    Args:
        folder: where the results go; the file `name` in it keeps the note.
        facts: what the results depend on, as plain values by name. Of a fact that an older
            version did not know, the note is taken to say 0, False or nothing.
        option: the option that named the folder, and
        what: what the results are, for the message.

    Raises:
        ConfigError: the folder holds results of something else.
    """
    note = Path(folder) / name
    if not note.exists():
        write_json(note, facts)
        return
    try:
        before = dict(json.loads(note.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{note}: cannot be read ({error}); delete the folder") from error
    changed = [
        f"{fact} was {_shortened(before.get(fact))}, is {_shortened(facts.get(fact))}"
        for fact in sorted({*facts, *before})
        if facts.get(fact) != before.get(fact) and (fact in before or facts[fact])
    ]
    if changed:
        raise ConfigError(
            f"{option}: {folder} holds {what} made in another way ({'; '.join(changed)}). Give the"
            " same options to resume, name another folder, or delete this one."
        )


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}..."


class FolderInUseError(ConfigError):
    """Another process writes to a folder that takes one writer."""


@contextlib.contextmanager
def one_writer(folder: str | os.PathLike, what: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock of `folder`, which is made, so that no other process writes to it.

    The system releases the lock when this process ends, however it does. The file `.lock` stays,
    empty. Where the file system has no locks, as some network shares, that is said in a `Note`,
    and a holder on this machine is still noticed by its process number.

    Args:
        what: what is written there, such as "a training run", for messages.
        wait: wait for another holder to finish instead of raising.

    Raises:
        FolderInUseError: another process holds it; the message names that process.
        OutputError: the folder cannot be made or written.
    """
    path = Path(folder) / LOCK
    try:
        make_folder(folder)
        stream = path.open("a+b")
    except OSError as error:
        raise write_error(path, error) from error
    with stream:
        try:
            _lock(stream, wait)
        except OSError as error:
            if error.errno in _HELD:
                raise FolderInUseError(_in_use(folder, what, _holder(stream))) from None
            _without_locks(folder, what, _holder(stream), error)
        try:
            _write(stream, {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()})
            yield
        finally:
            with contextlib.suppress(OSError):
                _write(stream, None)


def _lock(stream: BinaryIO, wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        stream.seek(1 << 30)  # a lock keeps others from reading, so it lies behind the content
        msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _without_locks(folder: str | os.PathLike, what: str, holder: dict, error: OSError) -> None:
    """What can be done where the file system has no locks."""
    if holder.get("host") == socket.gethostname() and _alive(holder["pid"]):
        raise FolderInUseError(_in_use(folder, what, holder)) from None
    warnings.warn(
        f"{folder}: this file system has no locks ({error.strerror or error}); make sure yourself"
        f" that no other computer writes {what} to this folder at the same time",
        Note,
        stacklevel=3,
    )


def _alive(pid: int) -> bool:
    import psutil

    return pid != os.getpid() and psutil.pid_exists(pid)


def _holder(stream: BinaryIO) -> dict:
    """Who wrote the lock file; nothing if that cannot be told."""
    try:
        stream.seek(0)
        found = json.loads(stream.read(4096))
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(found["since"])))
        return {"host": str(found["host"]), "pid": int(found["pid"]), "since": since}
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return {}


def _write(stream: BinaryIO, holder: dict | None) -> None:
    stream.seek(0)
    stream.truncate()
    if holder is not None:
        stream.write(json.dumps(holder).encode())
    stream.flush()


def _in_use(folder: str | os.PathLike, what: str, holder: dict) -> str:
    who = "another process"
    if holder:
        who = "process {pid} on {host} (since {since})".format(**holder)
    return f"{folder}: {who} is writing {what} here. Wait for it, stop it, or name another folder."
