"""Files: written so that there is the old version or the new one, and read within limits.

Text that people write or export is read in one way, with the habits of Windows and spreadsheets: a
byte order mark, UTF-16, `;` or tabs between columns, capitals in headings, spaces and quotes around
cells, backslashes in paths.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from paddle_sam.errors import CheckpointError, ConfigError, FileNameError, OutputError


def number_from(variable: str, default: int) -> int:
    """Return the whole number in an environment variable, or the default without a usable one."""
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() and 0 < len(text) < 10 else default


ARRAY_BYTES = 4 << 30  # of a NumPy archive, unpacked; the largest in use, VGG16, has 0.06 GB
NAME_BYTES = 255  # of a file, on nearly every file system
# Text files: descriptions of data sets, tables of labels, lists of images. The labels of 4 million
# images fit; parsed, they take about ten times as much memory.
TEXT_VARIABLE = "PADDLE_SAM_MAX_TEXT_MB"
TEXT_BYTES = (1 << 20) * number_from(TEXT_VARIABLE, 256)


# What `atomic_path` and `atomic_folder` call what they write, after eight random letters.
_TEMPORARY = re.compile(r"\.(.+\.)?\w{8}\.tmp(\.\w+)?")
_LONGEST_SUFFIX = 8
_ROOM = 1 << 16  # bytes that a disk has left where all was written; where it was not, it is full
_ABANDONED_SECONDS = 3600  # no file of this package is written to more slowly
# What to do about the refusals of a system that say what they are.
_ADVICE = {
    errno.ENOSPC: "Free some space or choose another folder",
    errno.EDQUOT: "Your share of the disk is used up; free some space or choose another folder",
    errno.EACCES: "Choose a folder that you may write to",
    errno.EPERM: "Choose a folder that you may write to",
    errno.EROFS: "Choose a folder that you may write to",
    errno.ENOTDIR: "A part of this path is a file; choose another folder",
    errno.EEXIST: "A file is where a folder is needed; choose another folder",
    errno.EISDIR: "A folder has this name; remove it or choose another folder",
    errno.ENAMETOOLONG: "Shorten the name",
    errno.EILSEQ: "Rename the file; its name cannot be written here",
}
_OF_THE_NAME = (errno.ENAMETOOLONG, errno.EILSEQ)
_DELIMITERS = ",;\t"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed and renamed onto `path`.

    The parent folder is made. On any failure the temporary file goes and `path` is as it was.

    Raises:
        OutputError: the system refused to write (full disk, permission, a folder in the way); a
            `FileNameError` if only this name is the reason.
    """
    path = Path(path)
    temporary = None
    try:
        _sweep(make_folder(path.parent).resolve())
        # The suffix stays last, for writers that choose the format by it.
        suffix = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ""
        aside = path.parent / f".{secrets.token_hex(4)}.tmp{suffix}"
        aside.touch(exist_ok=False)
        temporary = aside
        yield temporary
        with temporary.open("rb+") as stream:
            flush(stream)
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def flush(stream: BinaryIO) -> None:
    """Have a file's content on the disk, where the file system can be asked for that."""
    stream.flush()
    try:
        os.fsync(stream.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def make_folder(folder: str | os.PathLike) -> Path:
    """Make a folder, with those above it, unless it is there, and return it.

    Raises:
        OutputError: the system refused.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    return Path(folder)


@contextlib.contextmanager
def atomic_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder beside `folder`, whose files move into `folder` when all are written.

    For writers of several files that belong together: whatever fails, `folder` is as it was.

    Raises:
        OutputError: the system refused to write.
    """
    folder = make_folder(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder) as aside:
            yield Path(aside)
            room = Path(aside, "room")
            room.write_bytes(bytes(_ROOM))  # Paddle does not say that the disk is full
            for path in sorted(Path(aside).iterdir()):
                with path.open("rb+") as stream:
                    flush(stream)
            room.unlink()
            for path in sorted(Path(aside).iterdir()):
                path.replace(folder / path.name)
    except OSError as error:
        raise write_error(folder, error) from error


def check_name(path: Path) -> None:
    """Raise `FileNameError` if the file at `path` would have a longer name than is possible."""
    if (size := len(os.fsencode(path.name))) > NAME_BYTES:
        raise FileNameError(
            f"{path.name[:40]}...: the name of this result would have {size} bytes, at most"
            f" {NAME_BYTES} are possible. Shorten the name of the photograph."
        )


def write_error(path: str | os.PathLike, error: OSError) -> OutputError:
    """Return the error to raise where the system refused to write `path`: why, and what to do."""
    kind = FileNameError if error.errno in _OF_THE_NAME else OutputError
    advice = _ADVICE.get(error.errno, "What was there before is untouched")
    return kind(f"{path}: could not be written ({error.strerror or error}). {advice}.")


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete, at any depth, the temporary files and folders of this module that a kill left.

    Only where nobody else writes there; see `paddle_sam.core.folders`.
    """
    for path in Path(folder).rglob(".*.tmp*"):
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@functools.cache  # once a process
def _sweep(folder: Path) -> None:
    """Delete the temporary files that a killed process left in a folder, not those in use."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            old = time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_SECONDS
            if _TEMPORARY.fullmatch(entry.name) and old and not entry.is_dir():
                Path(entry.path).unlink(missing_ok=True)


def open_file(path: str | os.PathLike) -> BinaryIO:
    """Open a regular file to read its bytes; pipes and devices, which may never end, are refused.

    Raises:
        OSError: it is missing, another kind of thing, or cannot be read.
    """
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = next((words for fits, words in _KINDS if fits(mode)), "not a file")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
    """Read a regular file of at most `most` bytes.

    Raises:
        OSError: see `open_file`, or it is larger.
    """
    with open_file(path) as stream:
        if (size := os.fstat(stream.fileno()).st_size) > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than {most:,}", str(path))
        return stream.read(most)


def append_text(path: str | os.PathLike, text: str) -> None:
    """Add `text` to the end of a UTF-8 file, which is made if there is none.

    Raises:
        OutputError: the system refused to write; part of `text` may be there.
    """
    try:
        with Path(path).open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError as error:
        raise write_error(path, error) from error


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON.

    Names of files that are not UTF-8 become JSON's own escapes, and are read back as they were.
    """
    with atomic_path(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def read_arrays(path: str | os.PathLike, advice: str) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` archive by name, or of an `.npy` file by the file's name.

    Nothing in it is executed.

    Raises:
        CheckpointError: it is missing, damaged, too large, or holds other things than arrays, such
            as Python objects, which could run code; the message ends with `advice`.
    """
    path = Path(path)
    try:
        with open_file(path) as stream:
            content = np.load(stream, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {path.stem: content}
            size = sum(member.file_size for member in content.zip.infolist())
            if size > ARRAY_BYTES:
                raise CheckpointError(
                    f"{path}: holds {size:,} bytes of arrays, more than {ARRAY_BYTES:,}; {advice}"
                )
            arrays = dict(content)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file; {advice}") from None
    except CheckpointError:
        raise
    except OSError as error:
        reason = error.strerror or "it is damaged or not a NumPy archive"
        raise CheckpointError(f"{path}: cannot be read ({reason}); {advice}") from error
    except Exception as error:  # zip, header and array readers raise their own kinds
        raise CheckpointError(
            f"{path}: not a NumPy archive, or one that is damaged or holds more than arrays;"
            f" {advice}"
        ) from error
    if wrong := [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]:
        raise CheckpointError(f"{path}: its member {wrong[0]!r} is not an array; {advice}")
    return arrays


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
    """Return the hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open_file(path) as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def read_text(path: str | os.PathLike, name: str) -> str:
    """Return the text of a file in UTF-8, or UTF-16 where a mark at its start says so.

    Bytes that are neither are kept as Python keeps those of file names.

    Args:
        name: the option or thing that the file is, to begin messages with.

    Raises:
        ConfigError: it is missing, not a regular file, or larger than `TEXT_BYTES`.
    """
    try:
        data = read_bytes(path, TEXT_BYTES)
    except OSError as error:
        more = f"; {TEXT_VARIABLE} allows more" if error.errno == errno.EFBIG else ""
        reason = f"{error.strerror or error}{more}"
        raise ConfigError(f"{name}: {path} cannot be read ({reason})") from error
    return decode_text(data)


def decode_text(data: bytes) -> str:
    """Return text as `read_text` does, from its bytes."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16", "replace") if wide else data.decode("utf-8", "surrogateescape")
    return text.removeprefix("\ufeff")


def read_paths(path: str | os.PathLike, name: str) -> list[Path]:
    r"""Return the paths that a file lists, one a line; empty lines are left out.

    `~` is the home folder, relative paths are taken as they are. A backslash separates folders
    where no such file exists.

    Raises:
        ConfigError: see `read_text`.
    """
    lines = (line.strip().strip("\"'") for line in read_text(path, name).splitlines())
    return [as_path(line) for line in lines if line]


def as_path(text: str) -> Path:
    r"""Return a path that may be written with Windows' separators.

    >>> as_path(r"faces\young\1.png").as_posix()
    'faces/young/1.png'
    """
    path = Path(os.path.expanduser(text))  # noqa: PTH111 - raises nothing without a home
    return path if "\\" not in text or path.exists() else Path(text.replace("\\", "/"))


def read_table(path: str | os.PathLike, columns: Sequence[str], name: str) -> list[dict[str, str]]:
    """Return the rows of a table with a line of headings, cells by the headings in lower case.

    Missing cells are empty; rows without any are left out.

    Args:
        columns: headings that have to be there, in lower case.
        name: begins messages.

    Raises:
        ConfigError: see `read_text`; or a column is missing, or a cell is absurdly long.
    """
    lines = read_text(path, name).splitlines()
    head = lines[0] if lines else ""
    delimiter = max(_DELIMITERS, key=head.count)
    try:
        table = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        headings = [cell.strip().lower() for cell in next(table, [])]
        rows = [[cell.strip() for cell in row] for row in table]
    except csv.Error as error:
        raise ConfigError(f"{name}: {path} cannot be read as a table ({error})") from error
    if missing := [column for column in columns if column not in headings]:
        found = ", ".join(headings[:8]) or "nothing"
        raise ConfigError(
            f"{name}: {path} has no column {missing[0]!r}; expected {', '.join(columns)}, found"
            f" {found}"
        )
    filled = (row + [""] * (len(headings) - len(row)) for row in rows if any(row))
    return [dict(zip(headings, row, strict=False)) for row in filled]


def read_json(path: str | os.PathLike, name: str) -> Any:
    """Return the content of a JSON file.

    Raises:
        ConfigError: see `read_text`; or it is not JSON, or nested absurdly deep.
    """
    text = read_text(path, name)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: {path} cannot be read as JSON ({error})") from error
