"""A folder of a thousand odd files, made by code: the same for the same seed.

python -m tests.hostile.corpus FOLDER makes it, to try a command on.
"""

import argparse
import io
import os
import random
import socket
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

FILES = 1000
SIDE = 24
FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P", "RGB"),
    "TIFF": ("1", "L", "RGB", "RGBA", "CMYK", "F", "I;16", "LAB"),
    "PPM": ("1", "L", "RGB"),
    "TGA": ("L", "RGB"),
}
ENDINGS = (".jpg", ".JPEG", ".png", ".webp", ".bmp", ".gif", ".tif", ".ppm", ".avif", ".heic")
OTHER_ENDINGS = (".mp4", ".cr2", ".txt", ".json", ".svg", ".jpg_large", ".part", "", ".xmp")
SYSTEM_FOLDERS = ("@eaDir/a.jpg", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", ".Trash-0")
NAMES = (
    "photo", "фото", "写真", "صورة", "📷", "two  spaces", " lead", "trail ", "dots...", "-rf",
    "--help", "new\nline", "tab\there", "quote'\"", "back\\slash", "%s%n", "{0}", "$(id)", "a;b",
    "*?[x]", "~", "<b>", "nul", "CON", "\x1b[31m", "\u202egpj", "e\u0301", "\xe9", "#1",
    "a,b", "=1+1",
)  # fmt: skip
FOREIGN = (
    b"", b"\0", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\xff\xff\xff\xffWEBP",
    b"II*\0\x08\0\0\0", b"MM\0*\xff\xff\xff\xff", b"BM", b"P6\n", b"P6\n99999999 99999999\n255\n",
    b"<!DOCTYPE html><html>404</html>", b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"%PDF-1.7\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) print\n",
    b"version https://git-lfs.github.com/spec/v1\n", b"\0\0\0\x18ftypheic", b"\0\0\0\x1cftypavif",
    b"\0\0\0\x0cjP  \r\n\x87\n", b"import os; os.abort()", b"\x80\x04cos\nsystem\n", b"8BPS\0\x01",
)  # fmt: skip


def make_corpus(folder: Path, seed: int = 0, files: int = FILES) -> list[Path]:
    """Make the folder; returns the paths of all that is in it, within it, but for folders."""
    rng = random.Random(seed)
    # Sound ones are few: each is looked at for faces and aged.
    kinds = (_damaged,) * 14 + (_foreign,) * 14 + (_other, _system) * 4 + (_bomb,) * 3 + (_image,)
    made = 0
    while made < files - 10:
        place = folder / rng.choice(("", "a", "b/c", "dir.png", "写真", os.fsdecode(b"\xff\xfe")))
        name, content = rng.choice(kinds)(rng)
        path = place / name
        if len(os.fsencode(path.name)) > 255 or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        made += 1
    _special(folder)
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        yield from (Path(place, name).relative_to(folder) for name in (*names, *links))


def _name(rng: random.Random) -> str:
    stem = rng.choice(NAMES)
    if rng.random() < 0.1:
        stem = os.fsdecode(bytes(rng.choice((0x80, 0xE9, 0xFF, 0x41)) for _ in range(9)))
    if rng.random() < 0.05:
        stem = "長" * rng.choice((60, 81, 83)) + str(rng.randrange(10))
    return f"{stem}{rng.randrange(200)}" if len(os.fsencode(stem)) < 200 else stem


def encode(rng: random.Random, kind: str, mode: str) -> bytes:
    pixels = np.frombuffer(rng.randbytes(SIDE * SIDE * 3), np.uint8).reshape(SIDE, SIDE, 3)
    image = Image.fromarray(pixels)
    if mode in ("I;16", "F"):
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).convert(mode)
    elif mode == "LAB":
        image = Image.merge(mode, image.split())
    else:
        image = image.convert(mode)
    stream = io.BytesIO()
    options = {"save_all": True, "append_images": [image]} if kind in ("GIF", "TIFF") else {}
    image.save(stream, kind, **(options if rng.random() < 0.3 else {}))
    return stream.getvalue()


def _image(rng):
    """A sound image in a sound or a wrong ending; some much longer than wide."""
    kind = rng.choice(list(FORMATS))
    return _name(rng) + rng.choice(ENDINGS), encode(rng, kind, rng.choice(FORMATS[kind]))


def _damaged(rng):
    data = bytearray(_image(rng)[1])
    data = data[: rng.randrange(len(data) // 2)]
    for _ in range(rng.choice((0, 1, 5))):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    return _name(rng) + rng.choice(ENDINGS), bytes(data)


def _foreign(rng):
    start = rng.choice(FOREIGN)
    rest = rng.randbytes(rng.choice((0, 8, 300)))
    return _name(rng) + rng.choice(ENDINGS), start + rest


def _bomb(rng):
    """Little files that declare or unpack to much."""
    side = rng.choice((30_000, 65_500, 2**31 - 1))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    gif = b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\0\0" + bytes(6) + b"\x2c"
    bmp = b"BM" + bytes(8) + struct.pack("<IIiiHH", 54, 40, min(side, 2**30), side, 1, 24)
    jpeg = b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\3\1\x11\0\2\x11\0\3\x11\0\xff\xd9"
    text = zlib.compress(bytes(5_000_000))
    png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.png", bytes(1_000_000))
    contents = (
        png + _chunk(b"IDAT", text) + _chunk(b"IEND", b""),
        png[:8] + _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
        + _chunk(b"zTXt", b"k\0\0" + text) + _chunk(b"IDAT", zlib.compress(bytes(200)))
        + _chunk(b"IEND", b""),
        gif + struct.pack("<HHHHBB", 0, 0, 65_535, 65_535, 0, 2) + b"\x02\x4c\x01\0\x3b",
        bmp + bytes(24),
        jpeg,
        b"P5\n65535 65535\n255\n",
        archive.getvalue(),
    )  # fmt: skip
    return _name(rng) + rng.choice(ENDINGS), rng.choice(contents)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _other(rng):
    """Endings that no image has; some of them on images."""
    content = encode(rng, "JPEG", "RGB") if rng.random() < 0.5 else rng.randbytes(64)
    return _name(rng) + rng.choice(OTHER_ENDINGS), content


def _system(rng):
    if rng.random() < 0.3:
        return rng.choice((".DS_Store", "Thumbs.db", "desktop.ini", f"._{_name(rng)}.jpg")), b"x"
    folder = rng.choice(SYSTEM_FOLDERS)
    return f"{folder}/{_name(rng)}.jpg", encode(rng, "JPEG", "RGB")


def _special(folder: Path) -> None:
    """Pipes, sockets, devices, links to nothing, circles of links, deep folders."""
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "nothing.png").symlink_to("nowhere")
    (folder / "circle").symlink_to(folder)
    (folder / "itself.jpg").symlink_to("itself.jpg")
    here = Path.cwd()
    os.chdir(folder)  # the names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.jpg")
    finally:
        os.chdir(here)
    deep = folder.joinpath(*["d"] * 40)
    deep.mkdir(parents=True)
    stream = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(stream, "PNG")
    for name in ("deep.png", "1.png", "1.jpg"):
        (deep / name).write_bytes(stream.getvalue())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    print(len(make_corpus(parser.parse_args().folder)), "files")
