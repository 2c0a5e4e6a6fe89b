"""What is known about the faces of a folder: age, person, gender and group, by name or table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from paddle_sam.core.files import read_table
from paddle_sam.errors import ConfigError

_UTKFACE = re.compile(r"(\d{1,3})_([01])_([0-4])_\d+")  # age, gender, group
_UTKFACE_GROUPS = ("White", "Black", "Asian", "Indian", "other")
_FG_NET = re.compile(r"(\d{3})A(\d{1,2})")  # person, age
_FOLDERS = re.compile(r"(\d{1,3})_\d+$")  # age, in a folder per person
_COLUMNS = ("image", "file", "path", "filename")


@dataclasses.dataclass(frozen=True)
class FaceLabel:
    """A face's age in years (None where unknown), person, gender and group (empty: unknown)."""

    age: float | None = None
    person: str = ""
    gender: str = ""
    group: str = ""


def read_labels(labels: str, folder: Path) -> Callable[[Path], FaceLabel]:
    """Return what gives the label of an image's path.

    Args:
        labels: `names`, which understands UTKFace's names (`AGE_GENDER_GROUP_DATE`), FG-NET's
            (`001A02`) and a folder per person with images `AGE_NUMBER`; or a `.csv` file with a
            header, a column `image` (or `file`, `path`, `filename`) and any of `age`, `person`,
            `gender` (`female` or `male`) and `group`. Rows go by whole path or by name.
        folder: that of the images; people are told apart by the folders below it.

    Raises:
        ConfigError: the table cannot be read.
    """
    if labels == "names":
        return lambda path: _label_of_name(path, folder)
    table = _read_table(Path(labels))

    def find(path: Path) -> FaceLabel:
        relative = path.relative_to(folder) if path.is_relative_to(folder) else path
        return table.get(relative.as_posix(), table.get(path.name, FaceLabel()))

    return find


def _label_of_name(path: Path, folder: Path) -> FaceLabel:
    if match := _UTKFACE.match(path.name):
        age, gender, group = map(int, match.groups())
        return FaceLabel(age, "", ("male", "female")[gender], _UTKFACE_GROUPS[group])
    if match := _FG_NET.match(path.name):
        return FaceLabel(float(match[2]), match[1])
    if path.parent != folder and (match := _FOLDERS.match(path.stem)):
        return FaceLabel(float(match[1]), path.parent.name)
    return FaceLabel()


def _read_table(path: Path) -> dict[str, FaceLabel]:
    rows = read_table(path, (), "--labels")
    try:
        table = {}
        for row in rows:
            name = next(row[column] for column in _COLUMNS if row.get(column))
            gender = (row.get("gender") or "").strip().lower()
            if gender not in ("", "female", "male"):
                raise ValueError(f"gender {gender!r} is neither female nor male")
            age = float(row["age"]) if row.get("age") else None
            table[name] = FaceLabel(age, row.get("person") or "", gender, row.get("group") or "")
    except StopIteration:
        raise ConfigError(f"--labels: {path} has no column {' or '.join(_COLUMNS)}") from None
    except ValueError as error:
        raise ConfigError(f"--labels: {path} cannot be read as labels ({error})") from error
    return table
