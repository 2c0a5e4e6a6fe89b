"""Text that people write or export: lists of files, tables and JSON, read in one way.

Windows' and spreadsheets' habits are taken as they come: a byte order mark, UTF-16, `;` or tabs
between columns, capitals in headings, spaces and quotes around cells, backslashes in paths.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paddle_sam.core import limits
from paddle_sam.core.files import read_bytes
from paddle_sam.errors import ConfigError

_DELIMITERS = ",;\t"


def read_text(path: str | os.PathLike, name: str) -> str:
    """Return the text of a file in UTF-8, or UTF-16 where a mark at its start says so.

    Bytes that are neither are kept as Python keeps those of file names.

    Args:
        name: the option or thing that the file is, to begin messages with.

    Raises:
        ConfigError: it is missing, not a regular file, or larger than `limits.TEXT_BYTES`.
    """
    try:
        data = read_bytes(path, limits.TEXT_BYTES)
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be read ({error.strerror or error})") from error
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
