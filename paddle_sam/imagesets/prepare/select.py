"""Choose images by number: those of a list, or those whose Danbooru metadata fit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from paddle_sam.core.files import open_file, read_text
from paddle_sam.errors import ConfigError, Note
from paddle_sam.imagesets.prepare.inputs import Task
from paddle_sam.imagesets.prepare.options import PrepareOptions

_LONGEST_LINE = 1 << 22  # bytes of one record; the largest of Danbooru2018 has some 20,000


def select_tasks(
    tasks: Sequence[Task], options: PrepareOptions
) -> tuple[list[Task], dict[str, list[str]]]:
    """Return the tasks that `--ids` and `--metadata` choose, and the names of others by reason.

    An image's number is its file's name without the suffix, in whatever folder it lies.

    Raises:
        ConfigError: a list cannot be read, or no image is chosen.
    """
    numbers = {task.name: number_of(task.name) for task in tasks}
    left_out: dict[str, list[str]] = {}
    chosen: list[Task] = list(tasks)

    def keep(wanted: set[int], reason: str) -> None:
        nonlocal chosen
        others = [task.name for task in chosen if numbers[task.name] not in wanted]
        if others:
            left_out[reason] = others
        chosen = [task for task in chosen if numbers[task.name] in wanted]

    if options.ids:
        keep(read_ids(options.ids), "not in --ids")
    if options.metadata:
        present = {number for number in numbers.values() if number is not None}
        keep(matching_ids(options, present), "not chosen by --metadata")
    if not chosen:
        raise ConfigError(
            f"--{'ids' if options.ids else 'metadata'}: chooses none of {len(tasks)} images, such"
            f" as {tasks[0].name}; their numbers are their names without the suffix"
        )
    return chosen, left_out


def number_of(name: str) -> int | None:
    """Return the number that a file is named by, None if it is not a number.

    >>> number_of("512px/0123/1000123.jpg"), number_of("cover.jpg")
    (1000123, None)
    """
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem) < 19 else None


def read_ids(path: str) -> set[int]:
    """Read numbers, or paths of files named by them, one a line.

    Raises:
        ConfigError: the file cannot be read, or a line holds something else.
    """
    found = set()
    for place, line in enumerate(read_text(path, "--ids").splitlines(), 1):
        if text := line.strip():
            number = number_of(text.replace("\\", "/"))
            if number is None:
                raise ConfigError(f"--ids: {path}, line {place}: {text[:40]!r} is not a number")
            found.add(number)
    return found


def matching_ids(options: PrepareOptions, present: set[int]) -> set[int]:
    """Return the numbers, of those present, whose records fit `--tags`, `--ratings`, `--score`.

    Raises:
        ConfigError: a metadata file cannot be read, or holds no record.
    """
    tags = {tag.strip() for tag in options.tags.split(",") if tag.strip()}
    unwanted = {tag[1:] for tag in tags if tag.startswith("-")}
    wanted = {tag for tag in tags if not tag.startswith("-")}
    ratings = {rating.strip()[:1].lower() for rating in options.ratings.split(",")} - {""}
    found = set()
    for record in read_records(options.metadata):
        number = number_of(str(record.get("id", "")))
        if number not in present:
            continue
        if ratings and str(record.get("rating", ""))[:1].lower() not in ratings:
            continue
        if options.score and _score(record) < int(options.score):
            continue
        if tags:
            has = tags_of(record)
            if not wanted <= has or unwanted & has:
                continue
        found.add(number)
    return found


def read_records(metadata: str) -> Iterator[dict[str, Any]]:
    """Yield the records of JSON lines, of files or folders of them, separated by commas.

    Lines that are not a record are counted in a `Note`.

    Raises:
        ConfigError: a file cannot be read, or none holds a record.
    """
    records = odd = 0
    for path in _metadata_files(metadata):
        try:
            with open_file(path) as stream:
                while line := stream.readline(_LONGEST_LINE):
                    record = _record(line)
                    if record is not None:
                        records += 1
                        yield record
                    elif line.strip():
                        odd += 1
        except OSError as error:
            raise ConfigError(
                f"--metadata: {path} cannot be read ({error.strerror or error})"
            ) from error
    if not records:
        raise ConfigError(f"--metadata: {metadata} holds no JSON line with an id")
    if odd:
        warnings.warn(
            f"--metadata: {odd} of {records + odd} lines are not records", Note, stacklevel=2
        )


def tags_of(record: dict[str, Any]) -> set[str]:
    """Return the tags of a record: a list of names or of objects with one, or a text of names."""
    tags = record.get("tags", record.get("tag_string", ""))
    if isinstance(tags, str):
        return set(tags.split())
    named = (tag.get("name") if isinstance(tag, dict) else tag for tag in tags or ())
    return {name for name in named if isinstance(name, str)}


def _metadata_files(metadata: str) -> list[Path]:
    paths = [Path(part.strip()) for part in metadata.split(",") if part.strip()]
    return [
        file
        for path in paths
        for file in (sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path])
    ]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and "id" in record else None


def _score(record: dict[str, Any]) -> float:
    try:
        return float(record.get("score", 0))
    except (TypeError, ValueError):
        return float("-inf")
