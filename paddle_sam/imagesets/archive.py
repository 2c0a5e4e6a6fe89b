"""A data set in one file: a zip of images, stored uncompressed, with a `dataset.json`.

Images are read in any order, directly from their place in the file, by any number of threads and
processes at once: an `ArchiveImage` is a few numbers and keeps nothing open. StyleGAN2-ADA's tools
read and write the same layout. `dataset.json` holds

- `labels`: pairs of an image's name and its class, a whole number; or null;
- anything else the writer knew about the images (`scripts/prepare_dataset.py`: their sources).

A folder, with or without such a file in it, opens the same way.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from paddle_sam.core.decoding import IMAGE_BYTES
from paddle_sam.core.files import (
    TEXT_BYTES,
    atomic_path,
    decode_text,
    open_file,
    read_bytes,
    write_json,
)
from paddle_sam.core.folders import (
    HIDDEN,
    IMAGE_SUFFIXES,
    SYSTEM,
    Listing,
    is_system_folder,
    list_images,
    natural_key,
)
from paddle_sam.core.images import decode_image, read_image
from paddle_sam.errors import ConfigError, ImageError

DESCRIPTION = "dataset.json"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # every member's time, so that equal content is equal bytes
_LOCAL_HEADER = struct.Struct("<26xHH")  # ends with the lengths of the name and of the extras


@dataclass(frozen=True)
class ArchiveImage:
    """An image file within an archive: light as a path, to be kept, sent and read anywhere.

    archive, path: the archive, and the name within it.
    offset, stored: where its bytes begin in the archive, and their number.
    size: their number when inflated; `stored` if they are not compressed.
    crc: CRC-32 of the content, None if the archive does not state it.
    """

    archive: Path
    path: str
    offset: int
    stored: int
    size: int
    deflated: bool = False
    crc: int | None = None

    def __str__(self):
        return f"{self.archive}/{self.path}"

    @property
    def name(self) -> str:
        """Return the last part of its path."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """Return the last part of its path without the suffix."""
        return PurePosixPath(self.path).stem

    def read_bytes(self, most: int = IMAGE_BYTES) -> bytes:
        """Return the file's content, checked against its CRC.

        Raises:
            ImageError: it declares more than `most` bytes; the archive is gone, or damaged at
                this place.
        """
        if max(self.size, self.stored) > most:
            raise ImageError(f"{self}: declares {self.size:,} bytes, expected at most {most:,}")
        try:
            with open_file(self.archive) as stream:
                stream.seek(self.offset)
                data = stream.read(self.stored)
            if self.deflated:
                # Never more than was declared, whatever the data inflate to.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
        except OSError as error:
            raise ImageError(f"{self}: could not be read ({error.strerror or error}).") from error
        except zlib.error as error:
            raise ImageError(f"{self}: found damaged data ({error}). {_AGAIN}") from error
        if len(data) != self.size or (self.crc is not None and zlib.crc32(data) != self.crc):
            raise ImageError(
                f"{self}: found content that its checksum in the archive does not fit. {_AGAIN}"
            )
        return data


_AGAIN = "Copy or make the archive again."
ImageSource = Path | ArchiveImage


@dataclass(frozen=True)
class ImageSet:
    """The images of a folder or an archive, in the order in which people count.

    images: to be read with `read_source`, here or in another process.
    names: their paths within the folder or archive, with `/`.
    labels: the class of each, or None.
    """

    images: tuple[ImageSource, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...] | None

    def __len__(self) -> int:
        return len(self.images)


def open_image_set(path: str | Path) -> ImageSet:
    """List a folder (at any depth) or an archive of images, with labels if it has any.

    Raises:
        ImageError: there is no such folder or archive, or no image in it.
        ConfigError: its `dataset.json` is damaged, or leaves out an image.
    """
    path = Path(path)
    images = list_sources(path)
    names = tuple(relative_name(image, path) for image in images)
    return ImageSet(tuple(images), names, _labels(read_description(path), names, path))


def list_sources(path: str | Path) -> list[ImageSource]:
    """List the images of a folder, an archive, or the one image file that `path` is.

    Raises:
        ImageError: `path` does not exist, or holds no image.
    """
    path = Path(path)
    if not is_archive(path):
        return list_images(path)
    return list_members(path, zip_members(path)).note(path).images


def list_members(path: Path, members: Sequence[ArchiveImage]) -> Listing:
    """List the members of an archive that are images, as people count, and the others.

    Raises:
        ImageError: none of them is an image.
    """
    listing = Listing()
    for member in members:
        if reason := _reason_against(member.path):
            listing.left_out[reason].append(member.path)
        else:
            listing.images.append(member)
    listing.images.sort(key=lambda image: natural_key(PurePosixPath(image.path)))
    return listing.expect_images(path, "archive")


def read_source(source: ImageSource) -> np.ndarray:
    """Read an image of a folder or an archive: uint8 sRGB [H, W, 3], see `read_image`.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(source, ArchiveImage):
        return decode_image(source.read_bytes(), str(source))
    return read_image(source)


def content_digest(source: ImageSource) -> str:
    """Return the SHA-256 of an image file's content, see `source_bytes`."""
    return hashlib.sha256(source_bytes(source)).hexdigest()


def source_bytes(source: ImageSource) -> bytes:
    """Read the content of an image file.

    Raises:
        ImageError: it cannot be read, or is larger than `decoding.IMAGE_BYTES`.
    """
    if isinstance(source, ArchiveImage):
        return source.read_bytes()
    try:
        return read_bytes(source, IMAGE_BYTES)
    except OSError as error:
        raise ImageError(f"{source}: could not be read ({error.strerror or error}).") from error


def source_size(source: ImageSource) -> int:
    """Return the number of bytes of an image file, 0 if it is gone."""
    if isinstance(source, ArchiveImage):
        return source.size
    try:
        return source.stat().st_size
    except OSError:
        return 0


def stamp(source: ImageSource) -> str:
    """Return a text that changes when an image's file, or its archive, does."""
    if isinstance(source, ArchiveImage):
        return f"{source.size}-{source.offset}-{source.crc}-{source.archive.stat().st_mtime_ns}"
    try:
        status = source.stat()
    except OSError:  # a link to nothing
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def relative_name(image: ImageSource, root: Path) -> str:
    """Return an image's path within the folder or archive `root`, with `/`; a lone file's name."""
    if isinstance(image, ArchiveImage):
        return image.path
    return image.name if image == root else image.relative_to(root).as_posix()


def is_archive(path: Path) -> bool:
    """Return whether `path` is a zip, or a file named like one."""
    return path.is_file() and (path.suffix.lower() == ".zip" or zipfile.is_zipfile(path))


def _reason_against(path: str) -> str:
    """Return why a member of an archive is left out; empty if it is taken for an image."""
    *folders, name = PurePosixPath(path).parts or ("",)
    if any(is_system_folder(part) for part in folders if part != ".."):
        return SYSTEM
    if name.startswith(".") or path == DESCRIPTION:
        return HIDDEN
    ending = PurePosixPath(name).suffix.lower()
    if ending in IMAGE_SUFFIXES:
        return ""
    return f"ending in {ending}" if ending else "without an ending"


def zip_members(path: Path) -> list[ArchiveImage]:
    """List all files of a zip in its order, whatever they are.

    Raises:
        ImageError: it is not a zip, is cut off, or needs a password or a rare compression.
    """
    try:
        with open_file(path) as stream, zipfile.ZipFile(stream) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            members = [_zip_member(path, stream, info) for info in infos]
        _check_apart(path, [info.header_offset for info in infos], members)
        return members
    except (OSError, ValueError, struct.error, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: not a complete zip archive ({reason}). {_AGAIN}") from error


def _check_apart(path: Path, starts: Sequence[int], members: Sequence[ArchiveImage]) -> None:
    """Refuse members that share bytes, by which a small file can hold terabytes of images."""
    spans = sorted(
        (start, member.offset + member.stored, member.path)
        for start, member in zip(starts, members, strict=True)
    )
    for (_, end, name), (start, _, other) in itertools.pairwise(spans):
        if start < end:
            raise ImageError(
                f"{path}: {name} and {other} overlap in this archive, as an attack makes them."
                " Unpack it with a tool that you trust."
            )


def _zip_member(path: Path, stream, info: zipfile.ZipInfo) -> ArchiveImage:
    if info.flag_bits & 1:
        raise ImageError(f"{path}: {info.filename} is encrypted. Unpack it with its password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ImageError(
            f"{path}: {info.filename} is packed by method {info.compress_type}, expected stored or"
            " deflated. Unpack the archive."
        )
    stream.seek(info.header_offset)
    name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    return ArchiveImage(
        path,
        info.filename,
        info.header_offset + _LOCAL_HEADER.size + name + extra,
        info.compress_size,
        info.file_size,
        info.compress_type == zipfile.ZIP_DEFLATED,
        info.CRC,
    )


def read_description(path: str | Path) -> dict:
    """Read `dataset.json` of a folder or archive; empty if there is none.

    Raises:
        ConfigError: it is damaged.
    """
    path = Path(path)
    try:
        if is_archive(path):
            found = [one for one in zip_members(path) if one.path == DESCRIPTION]
            text = found[-1].read_bytes(TEXT_BYTES) if found else b"{}"
        elif (path / DESCRIPTION).exists():
            text = read_bytes(path / DESCRIPTION, TEXT_BYTES)
        else:
            return {}
        content = json.loads(decode_text(text))
    except (OSError, ValueError, RecursionError, ImageError) as error:
        raise ConfigError(f"{path}: its {DESCRIPTION} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: its {DESCRIPTION} is not a JSON object")
    return content


def _labels(description: Mapping, names: Iterable[str], path: Path) -> tuple[int, ...] | None:
    if not description.get("labels"):
        return None
    try:
        by_name = dict(description["labels"])
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: labels of its {DESCRIPTION}: expected pairs of a name and a class"
        ) from error
    labels = tuple(by_name.get(name) for name in names)
    for name, label in zip(names, labels, strict=True):
        if type(label) is not int or label < 0:
            raise ConfigError(
                f"{path}: {DESCRIPTION}: expected a class 0, 1, ... of {name}, found {label!r}"
            )
    return labels


def write_archive(
    path: str | Path, images: Iterable[tuple[str, bytes]], description: Mapping
) -> None:
    """Write an archive; it appears under its name when it is complete.

    The same images and description make the same bytes on any machine at any time.

    Args:
        images: names within the archive, and contents of PNG or JPEG files; taken one at a time.
        description: content of `dataset.json`.

    Raises:
        OutputError: the system refused to write.
        ConfigError: two images have one name.
    """
    names = set()
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, content in images:
            if name in names:
                raise ConfigError(f"{path}: two images are called {name}")
            names.add(name)
            archive.writestr(_entry(name), content)
        text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
        # Bytes of file names that are not text: written as JSON writes them.
        archive.writestr(_entry(DESCRIPTION), text.encode("utf-8", "backslashreplace"))


def write_folder(
    path: str | Path, images: Iterable[tuple[str, bytes]], description: Mapping
) -> None:
    """Write images and their `dataset.json` as files of a folder, which must not exist.

    Raises:
        OutputError: the system refused to write.
    """
    folder = Path(path)
    for name, content in images:
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    write_json(folder / DESCRIPTION, description)


def archive_name(name: str) -> str:
    r"""Return a file's name as an archive can hold it: bytes that are not text as `\udcXX`."""
    return name.encode("utf-8", "backslashreplace").decode()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(archive_name(name), _EARLIEST)
    entry.create_system = 3  # Unix, wherever it is written
    entry.external_attr = 0o644 << 16
    return entry
