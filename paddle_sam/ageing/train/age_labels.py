"""Ages of face images: UTKFace file names, a CSV table, or JSON, FFHQ-Aging's among them."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import ImageSource

MAX_AGE = 100


def read_ages(labels: str, paths: Sequence[ImageSource]) -> dict[ImageSource, float]:
    """Ages in years, clipped to 0-100, of those `paths` that have one.

    Args:
        labels: `utkface` (names that begin `AGE_`); a `.csv` file with a header and the columns
            `image` (or `file`, `path`, `filename`, `image_number`) and `age` or `age_group` (a
            number, or a range such as `20-29`); or a `.json` file, an object of numbers, or of
            objects with `age` or `age_group`, by image.
        paths: image files; a row's image is matched by its whole name, or by its stem.

    Raises:
        ConfigError: the labels cannot be read, or none of the images has one.
    """
    if labels == "utkface":
        find = _utkface_age
    else:
        table = _read_table(Path(labels))
        find = _finder({name: _age(value, labels) for name, value in table.items()})
    ages = {path: find(path) for path in paths}
    found = {path: min(max(age, 0.0), MAX_AGE) for path, age in ages.items() if age is not None}
    if not found:
        raise ConfigError(
            f"--labels: {labels} gives no age for any of {len(paths)} images, such as"
            f" {paths[0].name}"
        )
    return found


def _utkface_age(path: ImageSource) -> float | None:
    match = re.match(r"(\d{1,3})_", path.name)
    return float(match[1]) if match else None


def _finder(table: Mapping[str, float]) -> Callable[[ImageSource], float | None]:
    # FFHQ-Aging counts images 0, 1, ... whose files are named 00000.png, 00001.png, ...
    by_stem = {_number(Path(name).stem): age for name, age in table.items()}
    return lambda path: table.get(path.name, by_stem.get(_number(path.stem)))


def _number(stem: str) -> str:
    return str(int(stem)) if stem.isdecimal() else stem


def _read_table(path: Path) -> dict[str, object]:
    """Rows of a CSV or JSON file: image name to whatever stands for its age."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            rows = json.loads(text).items()
            return {
                name: _cell(v, "age", "age_group") if isinstance(v, dict) else v for name, v in rows
            }
        table = csv.DictReader(text.splitlines())
        images = ("image", "file", "path", "filename", "image_number")
        return {Path(_cell(row, *images)).name: _cell(row, "age", "age_group") for row in table}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"--labels: {path} cannot be read as ages ({error})") from error


def _cell(row: Mapping, *names: str):
    for name in names:
        if row.get(name) not in (None, ""):
            return row[name]
    raise KeyError(f"no column {' or '.join(names)}")


def _age(value: object, labels: str) -> float:
    """A number, or the middle of a range such as 20-29; of 70+ and 70-120 the lower end."""
    text = str(value)
    if match := re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", text):
        first, last = int(match[1]), int(match[2])
        return float(first) if last > MAX_AGE else (first + last) / 2
    try:
        age = float(text.rstrip("+ "))
    except ValueError:
        age = math.nan
    if not math.isfinite(age):
        raise ConfigError(f"--labels: {labels}: {value!r} is not an age")
    return age
