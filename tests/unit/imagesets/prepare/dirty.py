"""A dirty data set: good pictures, and among them planted defects of every kind.

python -m tests.unit.imagesets.prepare.dirty FOLDER makes FOLDER and FOLDER.zip.
"""

import argparse
import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageFilter

from tests.unit.core.icc_profiles import P3_TO_XYZ, rgb_profile

SIDE = 96
_STEP = 128


def pictures(number: int) -> list[np.ndarray]:
    """So many different colour pictures uint8 [96, 96, 3], cut out of scikit-image's."""
    found = []
    for name in ("astronaut", "chelsea", "coffee", "immunohistochemistry", "stereo_motorcycle"):
        image = getattr(skimage.data, name)()
        image = image[0] if isinstance(image, tuple) else image
        for top in range(0, image.shape[0] - SIDE, _STEP):
            for left in range(0, image.shape[1] - SIDE, _STEP):
                cut = np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE])
                detail = np.ptp(cut, axis=2).std(), cut.mean(axis=2).std()
                if min(detail) > 12:
                    found.append(cut)
    assert len(found) >= number, len(found)
    return found[:number]


def encoded(image, kind: str, **options) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def deep_png(image: np.ndarray) -> bytes:
    """The image as a PNG of 16 bits a channel, which Pillow does not write."""
    height, width, _ = image.shape
    rows = (image.astype(">u2") * 257).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def flipped(data: bytes, at: int, bit: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def noise(mean, spread: float, size=(SIDE, SIDE)) -> np.ndarray:
    random = np.random.default_rng(0).normal(0, spread, (*size, 1))
    return np.rint(np.asarray(mean) + random).clip(0, 255).astype(np.uint8)


def unreadable(image: np.ndarray) -> dict[str, bytes]:
    jpeg, png = encoded(image, "JPEG", quality=90), encoded(image, "PNG")
    progressive = encoded(image, "JPEG", progressive=True)
    gif, webp = encoded(image, "GIF"), encoded(image, "WEBP")
    bmp, tiff = encoded(image, "BMP"), encoded(image, "TIFF")
    end = len(png) - 12
    return {
        "empty.jpg": b"",
        "text.jpg": b"This is no picture.",
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "document.png": b"%PDF-1.7 ...",
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\n",
        "phone.heic": b"\0\0\0\x18ftypheic" + bytes(20),
        "zeros.png": bytes(1000),
        "cut_early.jpg": jpeg[:200],
        "cut_half.jpg": jpeg[: len(jpeg) // 2],
        "cut_late.jpg": jpeg[:-12],
        "cut_progressive.jpg": progressive[: len(progressive) * 2 // 3],
        "no_data.jpg": jpeg[: len(jpeg) // 3] + b"\xff\xd9",
        "cut.png": png[: len(png) // 2],
        "no_end.png": png[:end],
        "crc_of_pixels.png": flipped(png, end - 3),
        "crc_of_text.png": png[:33] + flipped(chunk(b"tEXt", b"a\0b"), 9) + png[33:],
        "bit.png": flipped(png, len(png) // 2),
        "cut.gif": gif[: len(gif) // 2],
        "cut.webp": webp[: len(webp) // 2],
        "cut.bmp": bmp[: len(bmp) // 2],
        "cut.tiff": tiff[: len(tiff) // 2],
    }


def useless(images: list[np.ndarray]) -> dict[str, dict[str, bytes]]:
    one, two, three, four = images
    dot = np.full((SIDE, SIDE, 3), 255, np.uint8)
    dot[40:50, 40:50] = 0
    ramp = np.broadcast_to(np.linspace(100, 120, SIDE)[None, :, None], (SIDE, SIDE, 3))
    sepia = one @ np.array([[0.27, 0.24, 0.19], [0.53, 0.47, 0.37], [0.13, 0.11, 0.09]])
    wide = np.tile(two, (1, 4, 1))
    clear = np.dstack([three, np.zeros((SIDE, SIDE), np.uint8)])
    return {
        "odd_shape": {
            "panorama.jpg": encoded(wide, "JPEG"),
            "tower.png": encoded(wide.transpose(1, 0, 2), "PNG"),
            "line.png": encoded(wide[:1], "PNG"),
        },
        "too_small": {
            "pixel.png": encoded(one[:1, :1], "PNG"),
            "icon.png": encoded(two[:16, :16], "PNG"),
            "flat.jpg": encoded(three[:40], "JPEG"),
            "nearly.jpg": encoded(four[:63, :63], "JPEG"),
        },
        "blank": {
            "white.png": encoded(np.full((SIDE, SIDE, 3), 255, np.uint8), "PNG"),
            "black.jpg": encoded(np.zeros((SIDE, SIDE, 3), np.uint8), "JPEG"),
            "blue.png": encoded(np.full((SIDE, SIDE, 3), (20, 40, 200), np.uint8), "PNG"),
            "invisible.png": encoded(clear, "PNG"),
        },
        "near_monochrome": {
            "dot.png": encoded(dot, "PNG"),
            "fog.jpg": encoded(noise((200, 190, 180), 3), "JPEG"),
            "night.png": encoded(noise((4, 4, 9), 2), "PNG"),
            "ramp.png": encoded(ramp.astype(np.uint8), "PNG"),
        },
        "grey": {
            "grey.png": encoded(Image.fromarray(one).convert("L"), "PNG"),
            "grey_rgb.jpg": encoded(Image.fromarray(two).convert("L").convert("RGB"), "JPEG"),
            "sepia.jpg": encoded(np.rint(sepia).clip(0, 255).astype(np.uint8), "JPEG", quality=95),
            "grey_16.png": encoded(
                Image.fromarray((three.mean(axis=2) * 257).astype(np.uint16)), "PNG"
            ),
            "dithered.png": encoded(Image.fromarray(four).convert("1"), "PNG"),
        },
    }


def near(images: list[np.ndarray]) -> dict[str, bytes]:
    """The i-th of the images, altered."""

    def resized(image, side):
        return Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)

    def cropped(image, border):
        return np.ascontiguousarray(image[border:-border, border:-border])

    alterations = {
        "quality_90.jpg": lambda image: encoded(image, "JPEG", quality=90),
        "quality_50.jpg": lambda image: encoded(image, "JPEG", quality=50),
        "quality_20.jpg": lambda image: encoded(image, "JPEG", quality=20),
        "lossy.webp": lambda image: encoded(image, "WEBP", quality=60),
        "smaller.png": lambda image: encoded(resized(image, 72), "PNG"),
        "smaller.jpg": lambda image: encoded(resized(image, 66), "JPEG"),
        "cropped_2.png": lambda image: encoded(cropped(image, 2), "PNG"),
        "cropped_4.jpg": lambda image: encoded(cropped(image, 4), "JPEG", quality=90),
        "brighter.png": lambda image: encoded((image * 0.9 + 20).astype(np.uint8), "PNG"),
        "blurred.png": lambda image: encoded(
            Image.fromarray(image).filter(ImageFilter.GaussianBlur(1)), "PNG"
        ),
        "256_colours.gif": lambda image: encoded(image, "GIF"),
    }
    return {
        name: alter(image) for (name, alter), image in zip(alterations.items(), images, strict=True)
    }


def unusual(images: list[np.ndarray], profile: bytes) -> dict[str, tuple[str, bytes]]:
    """Files that are kept, converted: the note that names each, and the content."""
    pictures = [Image.fromarray(image) for image in images]
    turned = pictures[0].transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    ring = Image.new("L", (SIDE, SIDE), 255)
    ring.paste(0, (0, 0, 12, 12))
    veiled = pictures[1].copy()
    veiled.putalpha(ring)
    frames = [pictures[2], Image.fromarray(255 - images[2])]
    return {
        "turned.jpg": ("turned by EXIF", encoded(turned, "JPEG", exif=exif, quality=95)),
        "veiled.png": ("transparency", encoded(veiled, "PNG")),
        "moving.gif": (
            "animation of 2 images",
            encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        ),
        "print.jpg": ("CMYK", encoded(pictures[3].convert("CMYK"), "JPEG", quality=95)),
        "deep.png": ("16 bit", deep_png(images[4])),
        "palette.png": ("palette", encoded(pictures[5].quantize(200), "PNG", transparency=3)),
        "camera.jpg": ("colour profile", encoded(pictures[6], "JPEG", icc_profile=profile)),
    }


def plant(root: Path, profile: bytes) -> dict[str, tuple[str, str]]:
    """Fill the folder `root`, and the archive `root.zip` beside it.

    Returns for each planted defect, by its name in the report, `("reason", R)` of what has to be
    dropped for R, `("note", N)` of what has to be kept with the note N; and `("good", "")` of the
    good pictures.
    """
    images = pictures(33)
    expected: dict[str, tuple[str, str]] = {}

    def put(name: str, content: bytes, kind: str, value: str = "") -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        expected[f"{root.name}/{name}"] = kind, value

    good = images[:18]
    for index, image in enumerate(good):
        put(f"good/{index:02d}.png", encoded(image, "PNG"), "good")
    for name, content in unreadable(images[18]).items():
        put(f"unreadable/{name}", content, "reason", "unreadable")
    for reason, files in useless(images[19:23]).items():
        for name, content in files.items():
            put(f"{reason}/{name}", content, "reason", reason)
    for name, content in near(good[:11]).items():
        put(f"near/{name}", content, "reason", "near_duplicate")
    for name, (note, content) in unusual(images[23:30], profile).items():
        put(f"unusual/{name}", content, "note", note)
    put("same/copy.png", (root / "good/11.png").read_bytes(), "reason", "duplicate")
    put("same/bitmap.bmp", encoded(good[12], "BMP"), "reason", "duplicate")
    put("same/lossless.webp", encoded(good[13], "WEBP", lossless=True), "reason", "duplicate")
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        archive.write(root / "good/14.png", "packed/again.png")
        archive.writestr("packed/new.png", encoded(images[30], "PNG"))
        archive.writestr("../../outside.png", encoded(images[31], "PNG"))
    expected[f"{root.name}-2/packed/again.png"] = "reason", "duplicate"
    expected[f"{root.name}-2/packed/new.png"] = "good", ""
    expected[f"{root.name}-2/../../outside.png"] = "good", ""
    return expected


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    expected = plant(folder, rgb_profile(P3_TO_XYZ, 2.2))
    defects = sum(kind != "good" for kind, _ in expected.values())
    print(f"{folder}, {folder}.zip: {len(expected)} files, {defects} of them defective")


if __name__ == "__main__":
    main()
