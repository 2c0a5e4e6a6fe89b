"""What a preparation has done so far, kept so that a killed one can resume.

The folder holds `settings.json`, `images.bin` (contents of image files, one after the other) and
`journal.jsonl` (a line for each finished task, written after its images). A line that was cut
off by a kill, and images that belong to no line, are dropped and made again.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from paddle_sam.core.folders import LOCK, claim_folder
from paddle_sam.errors import ConfigError, OutputError
from paddle_sam.imagesets.archive import ArchiveImage

SETTINGS = "settings.json"
MADE = "made"  # the data set, before it is moved to its place
_FILES = ("journal.jsonl", "images.bin", SETTINGS, LOCK)


class Journal:
    """Results of tasks by their keys, with images; removed when it is left without an error.

    Args:
        folder: made if it is not there.
        settings: what the results depend on.
    """

    def __init__(self, folder: Path, settings: Mapping):
        self.folder = folder
        self.unpacked = folder / "unpacked"  # for archives that cannot be read at random
        self.records: dict[str, dict] = {}
        others = {path.name for path in folder.iterdir()} - {LOCK} if folder.is_dir() else set()
        if others and not (folder / SETTINGS).is_file():
            raise ConfigError(
                f"{folder}: this folder is needed for the work, but holds something else."
                " Move it, or choose another --output."
            )
        claim_folder(folder, settings, "--output", "a preparation", SETTINGS)
        try:
            self._lines = (folder / "journal.jsonl").open("a+b")
            self._images = (folder / "images.bin").open("a+b")
            self._read()
        except OSError as error:
            raise _refused(folder, error) from error

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        self._lines.close()
        self._images.close()
        if error is not None and self.records:
            return  # to be resumed
        shutil.rmtree(self.unpacked, ignore_errors=True)
        shutil.rmtree(self.folder / MADE, ignore_errors=True)
        with contextlib.suppress(OSError):  # something else is in it, or (Windows) the lock is held
            for name in _FILES:
                (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()

    def has(self, key: str, stamp: str) -> bool:
        """Return whether the task is done, and its record has this `stamp`."""
        return self.records.get(key, {}).get("stamp") == stamp

    def add(self, key: str, record: Mapping, images: Sequence[bytes] = ()) -> None:
        """Record that a task is done, with its result (plain values) and its images."""
        try:
            places = []
            for content in images:
                places.append([self._end, len(content), zlib.crc32(content)])
                self._images.write(content)
                self._end += len(content)
            self._images.flush()
            record = {**record, "key": key, "images": places}
            self._lines.write(json.dumps(record).encode("ascii") + b"\n")
            self._lines.flush()
        except OSError as error:
            raise _refused(self.folder, error) from error
        self.records[key] = record

    def image(self, key: str, index: int) -> ArchiveImage:
        """Return an image that was added, readable here and in any other process."""
        offset, length, crc = self.records[key]["images"][index]
        name = f"{key} {index}"
        return ArchiveImage(self.folder / "images.bin", name, offset, length, length, crc=crc)

    def _read(self) -> None:
        """Read the whole lines whose images are whole, and cut off what follows them."""
        self._lines.seek(0)
        self._end = read = 0
        for line in self._lines:
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                break
            if record is None or not all(self._is_whole(*place) for place in record["images"]):
                break
            self.records[record["key"]] = record
            read += len(line)
            self._end = max([self._end, *(offset + n for offset, n, _ in record["images"])])
        self._lines.truncate(read)
        self._images.truncate(self._end)

    def _is_whole(self, offset: int, length: int, crc: int) -> bool:
        self._images.seek(offset)
        return zlib.crc32(self._images.read(length)) == crc


def _refused(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder}: could not be written ({error.strerror or error}). When that is mended, the"
        " same command resumes."
    )
