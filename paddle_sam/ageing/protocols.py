"""Protocols of a benchmark: which face is aged to which ages, and what it is compared with.

They follow from what is known about the faces of a folder, by their names or from a table: age,
person, gender and group.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from paddle_sam.ageing.photos import Photo
from paddle_sam.core.files import read_table
from paddle_sam.errors import ConfigError
from paddle_sam.metrics.judges import Reading

STRIP = (20, 40, 60, 80)
STRIP_STEP = 20  # years younger and older than the person
YOUNG = 40  # years; below them a face is aged to 60 by the protocol `young60`
# Middles of FFHQ-Aging's ten classes: 0-2, 3-6, 7-9, 10-14, 15-19, 20-29, ..., 50-69, 70 on.
LIFESPAN = (1, 5, 8, 12, 17, 25, 35, 45, 60, 80)
REFERENCE_GAPS = (12, 45)  # years between two photographs of a person
OLDEST = 130  # years that a label may say
NEAR = 3  # years around a target, of the photographs that are compared with its result

NEEDS = {
    "strip": "any face",
    "cycle": "any face",
    "lifespan": "any face",
    "young60": f"faces below {YOUNG} years",
    "reference": f"two photographs of a person, {REFERENCE_GAPS[0]} to {REFERENCE_GAPS[1]} years"
    " apart, with labels of person and age (see --labels)",
}
_UTKFACE = re.compile(r"(\d{1,3})_([01])_([0-4])_\d+")  # age, gender, group
_UTKFACE_GROUPS = ("White", "Black", "Asian", "Indian", "other")
_FG_NET = re.compile(r"(\d{3})A(\d{1,2})")  # person, age
_FOLDERS = re.compile(r"(\d{1,3})_\d+$")  # age, in a folder per person
_COLUMNS = ("image", "file", "path", "filename")


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A face to be aged: a photograph of its own, its label, and what was read in it.

    picture: uint8 [256, 256, 3]. reading: of it. own_age: years.
    """

    photo: Photo
    name: str
    label: FaceLabel
    picture: np.ndarray
    reading: Reading
    own_age: float

    @property
    def person(self) -> str:
        """The person; without a label every photograph shows another."""
        return self.label.person or self.name

    @property
    def gender(self) -> str:
        """The label's gender, or that which is read."""
        return self.label.gender or ("male" if self.reading.male > 0.5 else "female")


def plan(protocol: str, subjects: Sequence[Subject]) -> list[tuple[Subject, list[float]]]:
    """Return which subject is aged to which ages."""
    tasks = []
    for subject in subjects:
        own = subject.own_age
        if protocol in ("strip", "cycle"):
            targets = [own - STRIP_STEP, own + STRIP_STEP, *STRIP]
        elif protocol == "lifespan":
            targets = list(LIFESPAN)
        elif protocol == "young60":
            targets = [60] if own < YOUNG else []
        else:
            targets = sorted({later.own_age for later in later_photographs(subject, subjects)})
        if targets := [float(age) for age in targets if 0 <= age <= 100]:
            tasks.append((subject, targets))
    return tasks


def later_photographs(subject: Subject, subjects: Sequence[Subject]) -> list[Subject]:
    """Return the later photographs of a person, if this is the first one; see `REFERENCE_GAPS`."""
    if subject.label.age is None or not subject.label.person:
        return []
    same = [s for s in subjects if s.person == subject.person and s.label.age is not None]
    first = min(same, key=lambda s: (s.own_age, s.name))
    low, high = REFERENCE_GAPS
    return [s for s in same if first is subject and low <= s.own_age - subject.own_age <= high]


def reference_reading(
    subject: Subject, target: float, result: Reading | None, subjects: Sequence[Subject]
) -> dict[str, float | None]:
    """Compare a result with true photographs of the person at the age asked for.

    Returns:
        what is read in the `true_age` photograph and in the photograph as it is (`photo_age`), and
        distances to the true photograph: of the `photo` as it is and of the `result`; `best` is
        the result's least distance to any photograph within `NEAR` years of the target.
    """
    same = [s for s in subjects if s.person == subject.person and s.label.age is not None]
    near = [s for s in same if abs(s.own_age - target) <= NEAR and s is not subject]
    true = min(near, key=lambda s: (abs(s.own_age - target), s.name))
    return {
        "true_age": true.reading.age,
        "photo_age": subject.reading.age,
        "photo": true.reading.distance(subject.reading),
        "result": result and true.reading.distance(result),
        "best": result and min(s.reading.distance(result) for s in near),
    }


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
            if age is not None and not 0 <= age <= OLDEST:
                raise ValueError(f"age {row['age']!r} is not from 0 to {OLDEST}")
            table[name] = FaceLabel(age, row.get("person") or "", gender, row.get("group") or "")
    except StopIteration:
        raise ConfigError(f"--labels: {path} has no column {' or '.join(_COLUMNS)}") from None
    except ValueError as error:
        raise ConfigError(f"--labels: {path} cannot be read as labels ({error})") from error
    return table
