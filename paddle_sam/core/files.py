"""Files that are either the old version or the new one, never half of one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paddle_sam.errors import CheckpointError, ConfigError, OutputError

# What `atomic_path` calls its files: the eight letters are mkstemp's.
_TEMPORARY = re.compile(r"\..+\.\w{8}\.tmp(\.\w+)?")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed and renamed onto `path`.

    The parent folder is made. On any failure the temporary file goes and `path` is as it was.

    Raises:
        OutputError: the system refused to write (full disk, permission, a folder in the way).
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays last, for writers that choose the format by it.
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: could not be written ({error.strerror or error}). Free some space or choose"
            " another folder; what was there before is untouched."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete, at any depth, the temporary files of `atomic_path` that a kill left in `folder`."""
    for path in Path(folder).rglob(".*.tmp*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def append_text(path: str | os.PathLike, text: str) -> None:
    """Add `text` to the end of a UTF-8 file, which is made if there is none.

    Raises:
        OutputError: the system refused to write; part of `text` may be there.
    """
    try:
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise OutputError(
            f"{path}: could not be written ({error.strerror or error}). Free some space."
        ) from error


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON."""
    with atomic_path(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_arrays(path: str | os.PathLike, advice: str) -> dict[str, np.ndarray]:
    """The arrays of an archive by name; nothing in it is executed.

    Raises:
        CheckpointError: it is missing, damaged, or holds Python objects, which could run code; the
            message ends with `advice`.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; {advice}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # zip, header and array readers raise their own kinds
        raise CheckpointError(
            f"{path}: no NumPy archive, or one that is damaged or holds more than arrays ({error});"
            f" {advice}"
        ) from error


def write_arrays(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], compress: bool = False
) -> None:
    """Write arrays by name.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        (np.savez_compressed if compress else np.savez)(stream, **arrays)


def check_outside(option: str, place: Path, source: Path) -> None:
    """Raise `ConfigError` where `option` names a `place` in the folder that it is made from.

    What is written there would be taken for a part of it the next time.
    """
    if source.is_dir() and place.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"{option}: {place} lies in the input {source}; name a place outside")


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
