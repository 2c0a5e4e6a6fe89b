"""TensorFlow's record files as archives: what StyleGAN's and StyleGAN2's data sets are kept in.

A record is a `tf.train.Example`. Those of `dataset_tool.py` have the features `shape`, [C, H, W],
and `data`, the uint8 pixels; others have one that is a whole JPEG or PNG file. Nothing of
TensorFlow is needed: a file is a sequence of

    length (uint64), its checksum (uint32), the content, the content's checksum (uint32)

and a message of Protocol Buffers a sequence of numbered fields (both little-endian). The checksums
of lengths are checked, those of contents not, which would take longer than all the rest.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from paddle_sam.core.decoding import IMAGE_BYTES
from paddle_sam.core.files import open_file
from paddle_sam.core.folders import natural_key
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import stamp, write_archive

_HEADER = struct.Struct("<QI")
_RESOLUTION = re.compile(r"-r\d+$")  # `faces-r08.tfrecords` has the images at 2^8 pixels
_ENCODED = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"))
_CASTAGNOLI = 0x82F63B78
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types


def find_records(path: Path) -> list[Path]:
    """Return the record files that a path means: itself, or those of a folder.

    Of a folder with every resolution of a data set it is the largest; of any other, all. Empty if
    it is no such file or folder.
    """
    if path.is_file():
        return [path] if _is_records(path) else []
    files = sorted(path.glob("*.tfrecords"), key=natural_key) if path.is_dir() else []
    by_size = [file for file in files if _RESOLUTION.search(file.stem)]
    return by_size[-1:] or files


def as_archive(path: Path, folder: Path) -> Path:
    """Write the images of a record file to a zip in `folder`, unless an earlier run did.

    Classes are those of the `PREFIX-rxx.labels` beside it, if there is one.
    """
    archive = folder / identity(path) / f"{path.stem}.zip"
    if archive.is_file():
        return archive
    classes = _classes(path)
    labels: list[tuple[str, int]] = []

    def images() -> Iterator[tuple[str, bytes]]:
        for number, record in enumerate(_records(path)):
            try:
                content, ending = _image(record)
            except (ValueError, IndexError, struct.error) as error:
                raise ImageError(f"{path}: record {number} holds no image ({error})") from error
            name = f"img{number:08}.{ending}"
            if classes and number < len(classes):
                labels.append((name, classes[number]))
            yield name, content

    # The labels are complete when the images are, after which the archive takes them.
    write_archive(archive, images(), {"labels": labels})
    return archive


def identity(path: Path) -> str:
    """Return a name for what is made of a file; another one when the file changes."""
    return hashlib.sha256(f"{path.resolve()} {stamp(path)}".encode()).hexdigest()[:16]


def _is_records(path: Path) -> bool:
    try:
        with open_file(path) as stream:
            return _length(stream.read(_HEADER.size)) is not None
    except OSError:
        return False


def _length(head: bytes) -> int | None:
    """Return the length that the head of a record states; None if this is no such head."""
    if len(head) < _HEADER.size or _checksum(head[:8]) != _HEADER.unpack(head)[1]:
        return None
    return _HEADER.unpack(head)[0]


def _records(path: Path) -> Iterator[bytes]:
    """Yield the contents of a file's records."""
    try:
        with open_file(path) as stream:
            left = os.fstat(stream.fileno()).st_size
            while left:
                length = _length(stream.read(_HEADER.size))
                left -= _HEADER.size + (length or 0) + 4
                if length is None or left < 0 or length > IMAGE_BYTES:
                    raise ImageError(f"{path}: found a damaged or truncated file. Copy it again.")
                yield stream.read(length)
                stream.seek(4, os.SEEK_CUR)
    except OSError as error:
        raise ImageError(f"{path}: could not be read ({error.strerror or error}).") from error


def _checksum(data: bytes) -> int:
    """Return the masked CRC-32C of a few bytes, as TensorFlow stores it.

    >>> hex(_checksum(bytes(8)))
    '0x7980329'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _image(record: bytes) -> tuple[bytes, str]:
    """Return the image file of an Example, and its ending."""
    features = _features(record)
    if "shape" in features and "data" in features:
        shape = _numbers(features["shape"])
        (data,) = _texts(features["data"])
        if len(shape) != 3 or shape[0] not in (1, 3) or np.prod(shape) != len(data):
            raise ValueError(f"{len(data)} bytes of the shape {shape}")
        channels, height, width = shape
        kind, ending = ("P5", "pgm") if channels == 1 else ("P6", "ppm")
        pixels = np.frombuffer(data, np.uint8).reshape(shape).transpose(1, 2, 0)
        return f"{kind} {width} {height} 255\n".encode() + pixels.tobytes(), ending
    for feature in features.values():
        for text in _texts(feature):
            for beginning, ending in _ENCODED:
                if text.startswith(beginning):
                    return text, ending
    raise ValueError(f"its features are {', '.join(features) or 'none'}")


def _features(record: bytes) -> dict[str, bytes]:
    """Return the features of an Example by name: Example.features.feature, a map."""
    found = {}
    for features in _inner(record, 1):
        for entry in _inner(features, 1):
            (name,), (feature,) = _inner(entry, 1), _inner(entry, 2)
            found[name.decode("utf-8", "replace")] = feature
    return found


def _texts(feature: bytes) -> list[bytes]:
    """Return the values of a feature that is a BytesList."""
    return [text for values in _inner(feature, 1) for text in _inner(values, 1)]


def _numbers(feature: bytes) -> list[int]:
    """Return the values of a feature that is an Int64List, packed or not."""
    numbers = []
    for values in _inner(feature, 3):
        for _, value in _fields(values):
            while isinstance(value, bytes) and value:
                number, at = _varint(value, 0)
                numbers.append(number)
                value = value[at:]
            numbers += [value] if isinstance(value, int) else []
    return numbers


def _inner(message: bytes, number: int) -> list[bytes]:
    """Return what a message holds as field `number`, where that is bytes."""
    return [value for key, value in _fields(message) if key == number and isinstance(value, bytes)]


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield number and value of each field of a message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if key & 7 == _BYTES:
            length, at = _varint(message, at)
        elif key & 7 in (_EIGHT, _FOUR):
            length = 8 if key & 7 == _EIGHT else 4
        else:
            raise ValueError("not a message of Protocol Buffers")
        if at + length > len(message):
            raise ValueError("a field is longer than the record")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, seven bits a byte, and where it ends."""
    number = shift = 0
    while shift < 70:
        byte = data[at]
        number, shift, at = number | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return number, at
    raise ValueError("a number has more than 64 bits")


def _classes(path: Path) -> list[int] | None:
    """Return the class of each record: a file beside it has a row of zeros and a one for each."""
    labels = path.with_name(f"{_RESOLUTION.sub('', path.stem)}-rxx.labels")
    if not labels.is_file():
        return None
    try:
        table = np.load(labels, allow_pickle=False)
        hot = table.ndim == 2 and np.isin(table, (0, 1)).all() and (table.sum(axis=1) == 1).all()
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise ConfigError(f"{labels}: cannot be read as labels ({error})") from error
    if not hot:
        raise ConfigError(
            f"{labels}: expected a table of zeros with a one for the class of each image; move the"
            " file away to do without classes"
        )
    return table.argmax(axis=1).tolist()
