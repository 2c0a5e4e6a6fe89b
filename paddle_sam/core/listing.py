"""The image files of a folder at any depth, and why other files of it are left out."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from paddle_sam.core.files import open_file
from paddle_sam.errors import ImageError, Note

# What no decoder here reads is listed too: such a photograph should be reported, not passed over.
# fmt: off
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm",
    ".pgm", ".jp2", ".avif", ".heic", ".heif", ".jxl", ".tga",
)
# fmt: on
# Thumbnails, deleted files and the like, kept by network storage, Windows, macOS, Linux, albums.
_SYSTEM_FOLDERS = frozenset(
    ("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin")
    + ("system volume information", "__macosx", "lost+found", "thumbnails")
)
_NOT_WORTH_A_WORD = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "dataset.json", "made_from.json")
)
# How the files begin that a photograph without a usual ending may be; not TIFF, as raw files are.
_BEGINNING = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP"
    rb"|....ftyp(avi[fs]|hei[cxms]|hev[cx]|mif1|msf1)",
    re.DOTALL,
)
HIDDEN, SYSTEM = "hidden", "kept by a system"
_RECORDS = ".tfrecords"
_WITH_RECORDS = (
    "{0}: holds TensorFlow's records; make an archive of them: python scripts/prepare_dataset.py"
    " --data_path {0} --output NAME.zip"
)
_EXAMPLES = 2


@dataclass
class Listing:
    """The images of a folder or archive, sorted as people count, and why others were left out.

    left_out: names by reason. The name of a folder stands for all that is in it.
    """

    images: list[Any] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def summary(self, hidden: bool = False) -> str:
        """Return why files were left out, with numbers and examples; empty if none was.

        Hidden files are not mentioned unless `hidden` asks for it.
        """
        parts = []
        for reason, names in sorted(self.left_out.items()):
            if reason != HIDDEN or hidden:
                more = ", ..." if len(names) > _EXAMPLES else ""
                examples = ", ".join(map(printable, names[:_EXAMPLES]))
                parts.append(f"{len(names)} {printable(reason)} ({examples}{more})")
        return "; ".join(parts)

    def expect_images(self, place: str | os.PathLike, kind: str) -> Listing:
        """Return the listing of a `kind` of place, or raise `ImageError` where it has no image."""
        if not self.images:
            if f"ending in {_RECORDS}" in self.left_out:
                raise ImageError(_WITH_RECORDS.format(place))
            left_out = self.summary(hidden=True)
            raise ImageError(
                f"{place}: found no image in this {kind}; expected files ending in"
                f" {', '.join(IMAGE_SUFFIXES)}{'. Left out: ' if left_out else ''}{left_out}"
            )
        return self

    def note(self, place: str | os.PathLike) -> Listing:
        """Return the listing; warn with a `Note` of what was left out, if anything was."""
        if left_out := self.summary():
            warnings.warn(
                f"{place}: found {len(self.images)} images; left out: {left_out}", Note, 3
            )
        return self


def list_images(path: str | os.PathLike) -> list[Path]:
    """Return the image files at `path`: a file itself, a folder's images at any depth.

    Sorted as people count (`2.jpg` before `10.jpg`). Files that are left out are counted, with
    their reasons, in a `Note`; see `list_folder`.

    Raises:
        ImageError: `path` does not exist, or the folder has no image in it.
    """
    path = Path(path)
    if path.suffix.lower() == _RECORDS and path.is_file():
        raise ImageError(_WITH_RECORDS.format(path))
    return [path] if path.is_file() else list_folder(path).note(path).images


def list_folder(folder: str | os.PathLike) -> Listing:
    """List a folder at any depth: its image files, and what is left out, with the reason.

    A file is taken for an image if its ending says so; any other if it begins like one. Links to
    folders are followed. Each folder is listed once, under its own path rather than a link's, so
    a circle of links ends. Hidden files and folders are left out, and folders that systems keep
    (`is_system_folder`).

    Raises:
        ImageError: there is no such folder, or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        if root.exists():
            raise ImageError(f"{root}: neither a file nor a folder (a pipe or device?)")
        raise ImageError(f"{root}: there is no such file or folder. Check the spelling.")
    listing = Listing()
    known: set[tuple[int, int]] = set()
    waiting = [root]  # links to folders, after all that is reached without them
    while waiting:
        found = [link for start in waiting for link in _walk(start, root, known, listing)]
        waiting = sorted(found, key=natural_key)
    listing.images.sort(key=lambda file: natural_key(file.relative_to(root)))
    return listing.expect_images(root, "folder")


def _walk(start: Path, root: Path, known: set[tuple[int, int]], listing: Listing) -> Iterator[Path]:
    """List a folder and those in it, but not those behind links, which are yielded."""

    def leave_out(path: Path, reason: str) -> None:
        listing.left_out[reason].append(path.relative_to(root).as_posix())

    folders = [start]
    while folders:
        folder = folders.pop()
        try:
            identity = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            leave_out(folder, f"cannot be opened: {error.strerror or error}")
            continue
        if (identity.st_dev, identity.st_ino) in known:
            leave_out(folder, "listed already under another path")
            continue
        known.add((identity.st_dev, identity.st_ino))
        for entry in entries:
            path = folder / entry.name
            try:
                mode = entry.stat().st_mode
            except OSError:  # a link to nothing
                mode = 0
            if not stat.S_ISDIR(mode):
                if reason := _reason_against(path, mode):
                    leave_out(path, reason)
                else:
                    listing.images.append(path)
            elif is_system_folder(entry.name):
                leave_out(path, HIDDEN if entry.name.startswith(".") else SYSTEM)
            elif entry.is_symlink():
                yield path
            else:
                folders.append(path)


def _reason_against(path: Path, mode: int) -> str:
    """Return why a file is left out; empty if it is taken for an image."""
    if path.name.startswith(".") or path.name.lower() in _NOT_WORTH_A_WORD:
        return HIDDEN
    ending = path.suffix.lower()
    if ending in IMAGE_SUFFIXES:
        return ""  # whatever it is, reading it will say so
    if not stat.S_ISREG(mode):
        return "not regular files"
    try:
        with open_file(path) as stream:
            if _BEGINNING.match(stream.read(16)):
                return ""
    except OSError:
        pass
    return f"ending in {ending}" if ending else "without an ending"


def printable(name: str) -> str:
    r"""Return a file's name as one line that no terminal takes for a command.

    >>> printable("a\nb\x1b[31m\udcff")
    'a\\nb\\x1b[31m\\udcff'
    """
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in name)


def lies_in(path: Path, folder: Path) -> bool:
    """Return whether a file lies in a folder, whatever links lead there, circles of them too."""
    return os.path.realpath(folder) in map(str, Path(os.path.realpath(path)).parents)


def is_system_folder(name: str) -> bool:
    """Return whether a folder of this name is hidden, or kept by a system and not a person.

    >>> [is_system_folder(name) for name in ("@eaDir", ".Trash", "holiday")]
    [True, True, False]
    """
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def natural_key(path: PurePath) -> tuple:
    """Return a key that sorts paths as people count: `2.jpg` before `10.jpg`."""
    return [
        # Texts and numbers take turns; numbers of any length compare by their digits.
        [
            (len(piece.lstrip("0")), piece.lstrip("0")) if place % 2 else piece
            for place, piece in enumerate(re.split(r"([0-9]+)", part.lower()))
        ]
        for part in path.parts
    ], str(path)
