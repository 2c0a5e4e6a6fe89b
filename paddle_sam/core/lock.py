"""One writer a folder: a lock that names its holder and goes when that process ends."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from paddle_sam.core.files import make_folder, write_error
from paddle_sam.errors import ConfigError, Note

LOCK = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  # by another process


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
