"""The images of folders and archives, as tasks that any process can read. Nothing is extracted.

A member of an archive is only read, never written under its own name, so no name can lead
outside; and no more of it is read than it declares, which has a limit.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from paddle_sam.core.files import atomic_path
from paddle_sam.core.folders import Listing, list_folder
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import (
    DESCRIPTION,
    ArchiveImage,
    ImageSource,
    is_archive,
    list_members,
    open_image_set,
    read_description,
    relative_name,
    source_bytes,
    stamp,
    zip_members,
)
from paddle_sam.imagesets.prepare.tfrecords import as_archive, find_records

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
_COMPRESSED = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))


@dataclass(frozen=True)
class Task:
    """An image to examine: its unique name, `INPUT/path/in/it`, and where it is.

    stamp: changes when the file does.
    """

    name: str
    source: ImageSource
    stamp: str

    def read_bytes(self) -> bytes:
        """The file's content.

        Raises:
            ImageError: it cannot be read.
        """
        return source_bytes(self.source)


def input_paths(data_path: str) -> list[Path]:
    """Return the folders, archives or images that `--data_path` names, separated by commas.

    Raises:
        ConfigError: it names nothing.
    """
    if Path(data_path).exists():
        return [Path(data_path)]
    parts = [part.strip() for part in data_path.split(",") if part.strip()]
    if not parts:
        raise ConfigError(f"--data_path: expected folders or archives, found {data_path!r}")
    return [Path(part).expanduser() for part in parts]


def plain_inputs(paths: Sequence[Path], unpacked: Path) -> list[Path]:
    """Return the inputs with archives in the place of TensorFlow's record files.

    Raises:
        ImageError, ConfigError: such a file is damaged, or its labels are no classes.
    """
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

    Raises:
        ImageError, ConfigError: an input is missing, holds no images, or is damaged as a whole.
    """
    tasks: list[Task] = []
    left_out: dict[str, list[str]] = {}
    for start, path in zip(_names(paths), paths, strict=True):
        path, listing = _list_input(path, unpacked)
        names = ((f"{start}/{relative_name(image, path)}", image) for image in listing.images)
        tasks += [Task(name, image, stamp(image)) for name, image in names]
        for reason, others in listing.left_out.items():
            left_out.setdefault(reason, []).extend(f"{start}/{name}" for name in others)
    _check_unique(tasks)
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
    return Classes({task: names.index(folder) for task, folder in folders.items()}, names)


def input_classes(paths: Sequence[Path]) -> Classes:
    """Return the classes that the inputs state in their `dataset.json`, numbered as there.

    Raises:
        ConfigError: an input states none, or two of them call their classes differently.
    """
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
    status = path.stat()
    identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    unpacked = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.tar"
    if unpacked.is_file():
        return unpacked
    limit = max(status.st_size * _LARGEST_GROWTH, _LARGEST_START)
    with atomic_path(unpacked) as temporary, temporary.open("wb") as target:
        try:
            with opener(path, "rb") as source:
                while piece := source.read(_PIECE):
                    target.write(piece)
                    if target.tell() > limit:
                        raise ImageError(
                            f"{path}: unpacks to more than {limit:,} bytes, which pictures do not."
                            " Unpack it yourself and name the folder."
                        )
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, ValueError) as error:
            raise ImageError(f"{path}: found a damaged or truncated archive ({error}).") from error
    if not _is_tar(unpacked):
        unpacked.unlink()
        raise ImageError(f"{path}: found a compressed file that is no tar. Unpack it.")
    return unpacked


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each input: the last part of its path, numbered where two share it."""
    names: list[str] = []
    for path in paths:
        last = path.resolve().name.split(".tar")[0].removesuffix(".zip")
        number = 2
        name = last
        while name in names:
            name, number = f"{last}-{number}", number + 1
        names.append(name)
    return names


def _check_unique(tasks: list[Task]) -> None:
    seen = set()
    for task in tasks:
        if task.name in seen:
            raise ConfigError(f"the archive holds {task.name} twice; repair it")
        seen.add(task.name)
