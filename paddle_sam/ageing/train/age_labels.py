"""Ages of face images: UTKFace file names, a table, or JSON, FFHQ-Aging's among them."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from paddle_sam.core.files import read_json, read_table
from paddle_sam.errors import ConfigError, Note, quoted
from paddle_sam.imagesets.archive import ImageSource, relative_name

MAX_AGE = 100  # of the classes
OLDEST = 120  # whatever is beyond stands for "unknown", as -1 does
_IMAGES = ("image", "file", "path", "filename", "image_number")
_AGES = ("age", "age_group")


def read_ages(
    labels: str, images: Sequence[ImageSource], root: str | Path
) -> dict[ImageSource, float]:
    """Return the ages in years, at most 100, of those images that have one.

    Cells that are empty, not an age, or outside 0 to 120 give no age; a `Note` counts them.

    Args:
        labels: `utkface` (names that begin `AGE_`); a `.csv` file with a line of headings and the
            columns `image` (or `file`, `path`, `filename`, `image_number`) and `age` or
            `age_group` (a number, or a range such as `20-29`); or a `.json` file, an object of
            numbers, or of objects with `age` or `age_group`, by image.
        images: the images. A row's is found by its path, see `match_rows`.
        root: the folder or archive that they lie in.

    Raises:
        ConfigError: the labels cannot be read, do not say which of several images they mean, or
            give no age to any.
    """
    if labels == "utkface":
        values: Mapping[ImageSource, Any] = {
            image: found[1] for image in images if (found := re.match(r"(\d+)_", image.name))
        }
    else:
        names = [relative_name(image, Path(root)) for image in images]
        rows = match_rows(read_rows(labels), names, labels)
        values = {images[place]: row.value for place, row in rows.items()}
    ages = {image: _age(value) for image, value in values.items()}
    found = {image: min(age, MAX_AGE) for image, age in ages.items() if age is not None}
    if odd := [values[image] for image, age in ages.items() if age is None]:
        warnings.warn(
            f"--labels: {labels}: {len(odd)} of {len(ages)} values are not ages from 0 to"
            f" {OLDEST}, such as {quoted(odd[0])}; their images count as without an age",
            Note,
            stacklevel=2,
        )
    if not found:
        raise ConfigError(
            f"--labels: {labels} gives no age for any of {len(images)} images, such as"
            f" {images[0].name}"
        )
    return found


@dataclass(frozen=True)
class Row:
    """A row of labels: the image's path as it is written there, and what stands for its age."""

    name: str
    value: Any

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.name.replace("\\", "/")).parts


def read_rows(labels: str) -> list[Row]:
    """Read a table or JSON file."""
    if labels.lower().endswith(".json"):
        content = read_json(labels, "--labels")
        if not isinstance(content, dict):
            raise ConfigError(f"--labels: {labels}: expected a JSON object of ages by image")
        return [
            Row(name, _first(value, _AGES) if isinstance(value, dict) else value)
            for name, value in content.items()
        ]
    table = read_table(labels, (), "--labels")
    for names in (_IMAGES, _AGES):
        if table and not set(names) & set(table[0]):
            found = ", ".join(list(table[0])[:8])
            raise ConfigError(
                f"--labels: {labels} has no column {' or '.join(names)}; found {found}"
            )
    return [Row(name, _first(row, _AGES)) for row in table if (name := _first(row, _IMAGES))]


def match_rows(rows: Sequence[Row], names: Sequence[str], labels: str) -> dict[int, Row]:
    """Return the row of each image, by its place among `names`, for those that have one.

    A row belongs to the image whose path ends in the row's, or the other way round. A row of
    another folder belongs to an image if no other row and no other image has that file name.
    Names are compared as they are; what is left, without their suffix; and then as numbers, as
    FFHQ-Aging counts images 0, 1, ... whose files are 00000.png, 00001.png, ...

    Args:
        rows: paths and values.
        names: paths of the images within their folder or archive.
        labels: the file, for messages.

    Raises:
        ConfigError: two rows with different values fit an image, or a row without a folder fits
            several images.
    """
    found: dict[int, Row] = {}
    for form in (str, _stem, _number):
        used = {id(row) for row in found.values()}
        open_rows = [row for row in rows if id(row) not in used]
        open_images = [place for place in range(len(names)) if place not in found]
        found |= _match(open_rows, open_images, names, form, labels)
    return found


def _match(
    rows: Sequence[Row],
    places: Sequence[int],
    names: Sequence[str],
    form: Callable[[str], str],
    labels: str,
) -> dict[int, Row]:
    """Match rows and images whose file names are equal in one form, see `match_rows`."""

    def key(parts: Sequence[str]) -> tuple[str, ...]:
        return (*parts[:-1], form(parts[-1]))

    by_file, images = defaultdict(list), defaultdict(list)
    for row in rows:
        if row.parts:
            by_file[key(row.parts)[-1]].append(row)
    for place in places:
        images[key(PurePosixPath(names[place]).parts)[-1]].append(place)
    found = {}
    for file, same_file in images.items():
        for place in same_file:
            parts = key(PurePosixPath(names[place]).parts)
            fitting = [row for row in by_file[file] if _is_tail(key(row.parts), parts)]
            if not fitting and len(by_file[file]) == len(same_file) == 1:
                fitting = by_file[file]
            longest = max((len(row.parts) for row in fitting), default=0)
            best = [row for row in fitting if len(row.parts) == longest]
            if not best:
                continue
            if longest == 1 and len(same_file) > 1:
                first, second = (names[other] for other in same_file[:2])
                raise ConfigError(
                    f"--labels: {labels}: {best[0].name!r} may be {first} or {second}; name the"
                    " folder too"
                )
            if len({str(row.value) for row in best}) > 1:
                rows_of = " and ".join(f"{row.name!r} ({row.value})" for row in best[:2])
                raise ConfigError(f"--labels: {labels}: {rows_of} both fit {names[place]}")
            found[place] = best[0]
    return found


def _is_tail(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shorter = min(len(one), len(other))
    return one[-shorter:] == other[-shorter:]


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _number(name: str) -> str:
    stem = _stem(name)
    return (stem.lstrip("0") or "0") if stem.isascii() and stem.isdecimal() else stem


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the first value that is not empty; None if all are."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _age(value: Any) -> float | None:
    """Return a number, or the middle of a range such as 20-29; of 70+ and 70-120 the lower end."""
    text = str(value).strip()[:40]
    if match := re.fullmatch(r"(\d{1,3})\s*-\s*(\d{1,3})", text):
        first, last = int(match[1]), int(match[2])
        age = float(first) if last > MAX_AGE else (first + last) / 2
    else:
        try:
            age = float(text.rstrip("+ "))
        except ValueError:
            return None
    return age if 0 <= age <= OLDEST else None
