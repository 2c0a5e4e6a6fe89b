"""The images of folders and archives, as tasks that any process can read, and a choice of them.

Chosen are the numbers of a list, or those whose Danbooru metadata fit. Nothing is extracted: a
member of an archive is only read, never written under its own name, so no name can lead
outside; and no more of it is read than it declares, which has a limit.
"""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import lzma
import tarfile
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from paddle_sam.core.files import atomic_path, open_file, read_text
from paddle_sam.core.folders import Listing, list_folder
from paddle_sam.errors import ConfigError, ImageError, Note
from paddle_sam.imagesets.archive import (
    DESCRIPTION,
    ArchiveImage,
    ImageSource,
    is_archive,
    list_members,
    open_image_set,
    read_description,
    relative_name,
    stamp,
    zip_members,
)
from paddle_sam.imagesets.prepare.options import PrepareOptions
from paddle_sam.imagesets.prepare.tfrecords import as_archive, find_records, identity

# A compressed tar is unpacked to a plain one, which can be read at random. Pictures hardly
# compress, so a tar that grows by much more than this is taken for an attack on the disk.
_LARGEST_GROWTH = 100
_LARGEST_START = 1 << 30
_PIECE = 1 << 20
_LARGEST_HEADER = 1 << 20
_LONG_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_LONGEST_LINE = 1 << 22  # bytes of one record; the largest of Danbooru2018 has some 20,000
_COMPRESSED = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))


@dataclass(frozen=True)
class Task:
    """An image to examine: its unique name, `INPUT/path/in/it`, and where it is.

    stamp: changes when the file does.
    """

    name: str
    source: ImageSource
    stamp: str


def input_paths(data_path: str) -> list[Path]:
    """Return the folders, archives or images that `--data_path` names, separated by commas."""
    if Path(data_path).exists():
        return [Path(data_path)]
    parts = [part.strip() for part in data_path.split(",") if part.strip()]
    if not parts:
        raise ConfigError(f"--data_path: expected folders or archives, found {data_path!r}")
    return [Path(part).expanduser() for part in parts]


def plain_inputs(paths: Sequence[Path], unpacked: Path) -> list[Path]:
    """Return the inputs with archives instead of TensorFlow's record files."""
    plain: list[Path] = []
    for path in paths:
        records = find_records(path)
        plain += [as_archive(file, unpacked) for file in records] if records else [path]
    return plain


def list_tasks(paths: Sequence[Path], unpacked: Path) -> tuple[list[Task], dict[str, list[str]]]:
    """List the images of all inputs, in the order given, each input's as people count.

    Args:
        paths: folders, archives or images.
        unpacked: folder for the plain versions of compressed tars.

    Returns:
        the images, and the names of files that are left out, by reason.
    """
    tasks: list[Task] = []
    left_out: dict[str, list[str]] = {}
    for start, path in zip(_names(paths), paths, strict=True):
        path, listing = _list_input(path, unpacked)
        names = ((f"{start}/{relative_name(image, path)}", image) for image in listing.images)
        tasks += [Task(name, image, stamp(image)) for name, image in names]
        for reason, others in listing.left_out.items():
            left_out.setdefault(reason, []).extend(f"{start}/{name}" for name in others)
    for name, times in Counter(task.name for task in tasks).items():
        if times > 1:
            raise ConfigError(f"the archive holds {name} twice; repair it")
    return tasks, left_out


@dataclass(frozen=True)
class Classes:
    """The class of each image, 0, 1, ..., by its task's name; and the names of the classes.

    names: one for each class, or None.
    """

    of: Mapping[str, int]
    names: list[str] | None


def folder_classes(tasks: Sequence[str]) -> Classes:
    """Make each folder of the named tasks a class, called by its path."""
    folders = {task: str(PurePosixPath(task).parent) for task in tasks}
    names = sorted(set(folders.values()))
    numbers = {name: number for number, name in enumerate(names)}
    return Classes({task: numbers[folder] for task, folder in folders.items()}, names)


def input_classes(paths: Sequence[Path]) -> Classes:
    """Return the classes that the inputs state in their `dataset.json`, numbered as there."""
    of: dict[str, int] = {}
    called = {}
    for start, path in zip(_names(paths), paths, strict=True):
        description = read_description(path)
        if not description.get("labels"):
            raise ConfigError(
                f"--labels inputs: {path} states no labels; expected a folder or zip with a"
                f" {DESCRIPTION} that does"
            )
        images = open_image_set(path)
        of |= {f"{start}/{n}": c for n, c in zip(images.names, images.labels, strict=True)}
        called[path] = description.get("classes")
    first, *others = paths
    for other in others:
        if called[other] != called[first]:
            raise ConfigError(
                f"--labels inputs: {first} and {other} name their classes differently"
                f" ({called[first]}, {called[other]}); prepare them one by one"
            )
    return Classes(of, called[first])


def _list_input(path: Path, unpacked: Path) -> tuple[Path, Listing]:
    """List one input; also return where its images lie: for a compressed tar, a plain one."""
    if not path.is_file():
        return path, list_folder(path)
    if is_archive(path):
        return path, list_members(path, zip_members(path))
    try:
        if opener := _compression(path):
            path = _plain_tar(path, opener, unpacked)
        if _is_tar(path):
            return path, list_members(path, list(_tar_members(path)))
    except _HeaderTooLargeError as error:
        raise ImageError(f"{path}: not a genuine tar archive ({error})") from error
    return path, Listing([path])


def _is_tar(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:", tarinfo=_BoundedHeader):
            return True
    except tarfile.TarError:
        return False


class _HeaderTooLargeError(Exception):
    """A header of a tar asks for more memory than a name takes."""


class _BoundedHeader(tarfile.TarInfo):
    """A header of a tar, of which names and the like are read only up to a limit."""

    @classmethod
    def frombuf(cls, *arguments, **named):
        found = super().frombuf(*arguments, **named)
        if found.type in _LONG_HEADERS and found.size > _LARGEST_HEADER:
            raise _HeaderTooLargeError(f"a header declares {found.size:,} bytes")
        return found


def _tar_members(path: Path) -> Iterator[ArchiveImage]:
    try:
        with tarfile.open(path, "r:", tarinfo=_BoundedHeader) as archive:
            for member in archive:
                if member.isreg() and not member.issparse():
                    yield ArchiveImage(
                        path, member.name, member.offset_data, member.size, member.size
                    )
    except (OSError, tarfile.TarError) as error:
        raise ImageError(f"{path}: found no whole tar archive ({error}).") from error


def _compression(path: Path):
    with path.open("rb") as stream:
        start = stream.read(8)
    return next((opener for magic, opener in _COMPRESSED if start.startswith(magic)), None)


def _plain_tar(path: Path, opener, folder: Path) -> Path:
    """Decompress a tar, unless an earlier run did."""
    unpacked = folder / f"{identity(path)}.tar"
    if unpacked.is_file():
        return unpacked
    limit = max(path.stat().st_size * _LARGEST_GROWTH, _LARGEST_START)
    with atomic_path(unpacked) as temporary, temporary.open("wb") as target:
        for piece in _decompressed(path, opener):
            target.write(piece)
            if target.tell() > limit:
                raise ImageError(
                    f"{path}: unpacks to more than {limit:,} bytes, which pictures do not."
                    " Unpack it yourself and name the folder."
                )
    if not _is_tar(unpacked):
        unpacked.unlink()
        raise ImageError(f"{path}: found a compressed file that is not a tar. Unpack it.")
    return unpacked


def _decompressed(path: Path, opener) -> Iterator[bytes]:
    try:
        with opener(path, "rb") as source:
            while piece := source.read(_PIECE):
                yield piece
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
        raise ImageError(f"{path}: found a damaged or truncated archive ({error}).") from error


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each input: the last part of its path, numbered where two share it."""
    names: list[str] = []
    for path in paths:
        last = path.resolve().name.split(".tar")[0].removesuffix(".zip")
        numbered = (f"{last}-{number}" for number in itertools.count(2))
        names.append(next(name for name in itertools.chain([last], numbered) if name not in names))
    return names


def select_tasks(
    tasks: Sequence[Task], options: PrepareOptions
) -> tuple[list[Task], dict[str, list[str]]]:
    """Return the tasks that `--ids` and `--metadata` choose, and the names of others by reason.

    An image's number is its file's name without the suffix, in whatever folder it lies.
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
    """Read numbers, or paths of files named by them, one a line."""
    found = set()
    for place, line in enumerate(read_text(path, "--ids").splitlines(), 1):
        if text := line.strip():
            number = number_of(text.replace("\\", "/"))
            if number is None:
                raise ConfigError(f"--ids: {path}, line {place}: {text[:40]!r} is not a number")
            found.add(number)
    return found


def matching_ids(options: PrepareOptions, present: set[int]) -> set[int]:
    """Return the numbers, of those present, whose records fit `--tags`, `--ratings`, `--score`."""
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
