"""Images read, written, resized, and laid out in strips and sheets for a person to look at.

Every file becomes uint8 sRGB `[H, W, 3]`, or an `ImageError` says why. The two layouts used
everywhere: *images* are uint8 RGB, height x width x 3, as a viewer shows them; *network input* is
float32 `[N, 3, H, W]` in [-1, 1].
"""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from paddle_sam.core.decoding import IMAGE_BYTES, decode_image, flatten, upright
from paddle_sam.core.files import atomic_path, read_bytes
from paddle_sam.core.processes import batches
from paddle_sam.errors import ConfigError, ImageError, check_shape

if TYPE_CHECKING:
    import paddle

LONGEST_SIDES = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}
WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
INK = (32, 32, 32)
PAPER = (255, 255, 255)
SMALLEST_TILE = 128
LARGE_TILE = 256  # where small models' images are to be seen in detail, and in videos
_CONTACTS_PER_ROW = 10
_CAPTION_LETTERS = 16
_PANEL_CAPTION, _PANEL_FONT = 44, 15  # pixels, of the panels that a training run keeps


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as a viewer shows it: uint8 sRGB `[H, W, 3]`.

    EXIF orientation and embedded colour profiles are applied, transparency is laid on white, of
    an animation or a document of several pages the first counts. A JPEG of more than
    `decoding.PIXELS` is read reduced.

    Raises:
        ImageError: there is no such file, or it cannot be read as an image.
    """
    return _decode_file(Path(path))


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """Read a label map, uint8 [H, W]: the palette numbers or grey levels of an image as they are.

    Raises:
        ImageError: there is no such file, or it cannot be read as a label map.
    """
    return _decode_file(Path(path), labels=True)


def _decode_file(path: Path, **how) -> np.ndarray:
    try:
        return decode_image(read_bytes(path, IMAGE_BYTES), str(path), **how)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such file. Check the spelling.") from error
    except OSError as error:
        raise ImageError(f"{path}: could not be read ({error.strerror or error}).") from error


ImageLike = str | os.PathLike | bytes | bytearray | io.IOBase | Image.Image | np.ndarray


def as_image(photo: ImageLike, name: str = "photo") -> np.ndarray:
    """Turn whatever holds a photograph into uint8 RGB `[H, W, 3]`.

    Args:
        photo: the path of a file, its content as bytes or as a stream, a PIL image, or an array
            (also a tensor) `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or, with transparency, `[H, W, 4]`:
            uint8, uint16, or floating point from 0 to 1.
        name: what messages call it, where it is not a path.

    Raises:
        ImageError: the file cannot be read as an image.
        ConfigError: the array is not an image.
    """
    if isinstance(photo, str | os.PathLike):
        return read_image(photo)
    if isinstance(photo, bytes | bytearray | memoryview):
        return decode_image(bytes(photo), name)
    if hasattr(photo, "read"):
        if photo.seekable():
            photo.seek(0)
        return decode_image(photo.read(), name)
    if isinstance(photo, Image.Image):
        return np.array(flatten(upright(photo), photo.format))
    return _array_to_image(np.asarray(photo), name)


def _array_to_image(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise ConfigError(
            f"{name}: expected a path, bytes, PIL image or an array [H, W], [H, W, 3] or [H, W, 4],"
            f" found {list(array.shape) if array.ndim else array.dtype}"
        )
    if array.dtype == np.uint16:
        array = array / 65535
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):
            raise ConfigError(
                f"{name}: expected floating point values from 0 to 1, found {array.min():g} to"
                f" {array.max():g}; convert it to uint8"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ConfigError(f"{name}: expected uint8, uint16 or floating point, found {array.dtype}")
    if array.shape[2] == 4:
        return np.array(flatten(Image.fromarray(array), None))
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def save_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write a uint8 RGB `[H, W, 3]` image; the suffix chooses the format (JPEG quality 95).

    Raises:
        ConfigError: the suffix names no format that can be written.
        OutputError: the system refused to write.
    """
    path = Path(path)
    check_image("image to save", image)
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise ConfigError(
            f"{path}: cannot write images as {path.suffix or 'a file without suffix'!r};"
            f" use one of {', '.join(WRITABLE_SUFFIXES)}"
        )
    longest = LONGEST_SIDES.get(path.suffix.lower(), max(image.shape))
    if max(image.shape) > longest:
        raise ConfigError(
            f"{path}: {image.shape[1]} x {image.shape[0]} pixels are more than this format holds"
            f" ({longest}); use .png"
        )
    lossy = path.suffix.lower() in (".jpg", ".jpeg", ".webp")
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, **({"quality": 95} if lossy else {}))


def result_names(paths: Sequence[Path]) -> list[Path]:
    """What the results of image files are called: their paths without suffix, each once.

    Where several images differ in their suffix only, or a name is what another's second face would
    be called, the suffix is kept. So no two results of one run share a name, whatever suffix they
    get.

    >>> [str(name) for name in result_names([Path("b.jpg"), Path("a.jpg"), Path("a.png")])]
    ['b', 'a.jpg', 'a.png']
    """
    stems = Counter(path.with_suffix("") for path in paths)
    files = set(paths)
    names = []
    for path in paths:
        stem = path.with_suffix("")
        first_face = stem.with_name(re.sub(r"_face\d+$", "", stem.name) or stem.name)
        shared = (
            stems[stem] > 1
            or stem in files
            or (first_face != stem and (first_face in stems or first_face in files))
        )
        names.append(path if shared else stem)
    return names


def to_network(images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Turn one uint8 `[H, W, 3]` image, or several of one size, into float32 `[N, 3, H, W]`.

    The result is contiguous: Paddle copies any other array element by element.

    >>> to_network(np.full((1, 1, 3), 255, np.uint8)).tolist()
    [[[[1.0]], [[1.0]], [[1.0]]]]
    """
    batch = [images] if isinstance(images, np.ndarray) and images.ndim == 3 else list(images)
    if not batch:
        raise ConfigError("to_network: expected at least one image, found none")
    for image in batch:
        check_image("image", image)
        check_shape("images of one batch", image, batch[0].shape)
    planes = np.empty((len(batch), 3, *batch[0].shape[:2]), np.float32)
    for place, image in zip(planes, batch, strict=True):
        place[:] = image.transpose(2, 0, 1)
    planes /= np.float32(127.5)
    planes -= 1
    return planes


def to_uint8(images: np.ndarray | paddle.Tensor) -> np.ndarray:
    """Turn float `[N, 3, H, W]` or `[3, H, W]` in [-1, 1] into uint8 `[N, H, W, 3]` or `[H, W, 3]`.

    Values beyond the range are clamped, the rest rounded to the nearest level. Tensors of a GPU are
    rounded there, so that bytes travel.

    >>> to_uint8(np.array([-1.0, 0.3, 7.0]).reshape(3, 1, 1)).ravel()
    array([  0, 166, 255], dtype=uint8)
    """
    check_shape("network image", images, (None, 3, None, None)[4 - images.ndim :])
    if not isinstance(images, np.ndarray):
        if images.place.is_gpu_place():
            return rounded_there(images)
        images = images.numpy()
    if not np.isfinite(images).all():
        raise _not_numbers()
    levels = images.clip(-1, 1) + 1
    levels *= 127.5
    np.rint(levels, out=levels)
    return np.ascontiguousarray(np.moveaxis(levels, -3, -1), np.uint8)


def rounded_there(images: paddle.Tensor) -> np.ndarray:
    """Do `to_uint8` where a tensor is."""
    finite = images.isfinite().all()
    levels = ((images.astype("float32").clip(-1, 1) + 1) * 127.5).round()
    first = range(images.ndim - 3)
    levels = levels.transpose([*first, *(len(first) + axis for axis in (1, 2, 0))])
    levels = levels.astype("uint8").numpy()
    if not bool(finite):
        raise _not_numbers()
    return levels


def _not_numbers() -> ImageError:
    return ImageError("a network produced values that are not numbers; its weights are damaged")


def crop_square(image: np.ndarray) -> np.ndarray:
    """The centre of an image [H, W, C] as a square of its short side."""
    return crop_to_ratio(image, 1, 1)


def crop_to_ratio(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The largest part of an image [H, W, C] at its centre that is `height` to `width`.

    >>> crop_to_ratio(np.zeros((4, 7, 3), np.uint8), 1, 1).shape
    (4, 4, 3)
    >>> crop_to_ratio(np.zeros((4, 7)), 3, 4).shape, crop_to_ratio(np.zeros((7, 4)), 3, 4).shape
    ((4, 5), (3, 4))
    """
    rows, columns = image.shape[:2]
    sides = min(rows, columns * height // width), min(columns, rows * width // height)
    top, left = ((have - want) // 2 for have, want in zip((rows, columns), sides, strict=True))
    return image[top : top + sides[0], left : left + sides[1]]


def resize(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resize a uint8 `[H, W, 3]` image to a square, or to (height, width); Lanczos, antialiased."""
    check_image("image to resize", image)
    height, width = (size, size) if isinstance(size, int) else size
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def check_image(name: str, image: np.ndarray) -> None:
    """Raise `ConfigError` unless `image` is uint8 `[H, W, 3]`; `name` begins the message."""
    check_shape(name, image, (None, None, 3))
    if image.dtype != np.uint8:
        raise ConfigError(f"{name}: expected uint8 in 0..255, found {image.dtype}")


def grid_columns(resolution: int) -> int:
    """Columns, and rows, of a grid that stays near 2048 pixels: 3 to 8."""
    return int(np.clip(2048 // resolution, 3, 8))


def tiled(images: np.ndarray, columns: int) -> np.ndarray:
    """Images [R * columns, S, S, 3] as one picture [R * S, columns * S, 3]."""
    count, height, width, channels = images.shape
    rows = images.reshape([count // columns, columns, height, width, channels])
    return rows.transpose(0, 2, 1, 3, 4).reshape([-1, columns * width, channels])


def strip(
    tiles: Sequence[np.ndarray],
    size: int | tuple[int, int],
    captions: Sequence[str] | None = None,
) -> np.ndarray:
    """Tiles uint8 [*, *, 3] side by side, with captions below if any.

    `size` is the side of each, or height and width. Returns uint8 [height (+ a line of text),
    width * len(tiles), 3].
    """
    picture = np.concatenate([resize(tile, size) for tile in tiles], axis=1)
    if captions is None:
        return picture
    return np.concatenate([picture, caption_line(captions, np.max(size))], axis=0)


def caption_line(captions: Sequence[str], width: int) -> np.ndarray:
    """Captions centred in cells of `width` pixels: uint8 [width // 6, width * n, 3]."""
    height = max(width // 6, 12)
    line = Image.new("RGB", (width * len(captions), height), PAPER)
    draw = ImageDraw.Draw(line)
    for index, caption in enumerate(captions):
        centre = (index * width + width / 2, height / 2)
        draw.text(centre, caption, fill=INK, font=_font(caption, height, width), anchor="mm")
    return np.asarray(line)


def _font(caption: str, height: int, width: float) -> ImageFont.FreeTypeFont:
    """For a line of `height` pixels, smaller where the caption would be wider than `width`."""
    size = height * 0.7
    length = ImageFont.load_default(size=size).getlength(caption)
    return ImageFont.load_default(size=size * min(1.0, 0.96 * width / max(length, 1)))


def matrix(
    rows: Sequence[Sequence[np.ndarray | None]],
    size: int,
    top: Sequence[str] | None = None,
    left: Sequence[str] | None = None,
    gap: int = 0,
) -> np.ndarray:
    """A labelled figure: rows of square tiles uint8 [*, *, 3]; None leaves paper.

    Args:
        rows: of equal length.
        size: side of a tile.
        top: a caption above each column.
        left: a caption left of each row, one line below the other where it holds line breaks.
        gap: pixels of paper around each tile.

    Returns uint8 [H, W, 3].
    """
    cell = size + 2 * gap
    width = size // 2 if left else 0
    head = max(cell // 6, 12) if top else 0
    sheet = Image.new("RGB", (width + cell * len(rows[0]), head + cell * len(rows)), PAPER)
    if top:
        sheet.paste(Image.fromarray(caption_line(top, cell)), (width, 0))
    for number, row in enumerate(rows):
        y = head + number * cell
        for place, tile in enumerate(row):
            if tile is not None:
                at = (width + place * cell + gap, y + gap)
                sheet.paste(Image.fromarray(resize(tile, size)), at)
        if left:
            sheet.paste(_lines(left[number].split("\n"), width, cell), (0, y))
    return np.asarray(sheet)


def _lines(captions: Sequence[str], width: int, height: int) -> Image.Image:
    """Captions below each other, in the middle of a cell."""
    cell = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(cell)
    spacing = max(height // 6, 12)
    for line, caption in enumerate(captions):
        centre = height / 2 + (line - (len(captions) - 1) / 2) * spacing
        font = _font(caption, spacing, width)
        draw.text((width / 2, centre), caption, fill=INK, font=font, anchor="mm")
    return cell


def stack(strips: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    """Strips below each other, `gap` pixels apart, narrower ones filled up with paper."""
    width = max(one.shape[1] for one in strips)
    height = sum(one.shape[0] + gap for one in strips) - gap
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    top = 0
    for one in strips:
        sheet[top : top + one.shape[0], : one.shape[1]] = one
        top += one.shape[0] + gap
    return sheet


def contact_sheet(tiles: Sequence[tuple[np.ndarray, str]], size: int = SMALLEST_TILE) -> np.ndarray:
    """Pictures uint8 [*, *, 3] with captions, of which the end is shown, in rows of ten."""

    def shortened(text: str) -> str:
        return text if len(text) <= _CAPTION_LETTERS else f"..{text[-_CAPTION_LETTERS + 2 :]}"

    return stack(
        [
            strip([tile for tile, _ in row], size, [shortened(text) for _, text in row])
            for row in batches(tiles, _CONTACTS_PER_ROW)
        ]
    )


def save_sheet(path: Path, picture: np.ndarray) -> None:
    """Write a sheet and say where it is.

    Where the suffix names a format that holds no picture of this size, `.png` is added to the name.
    """
    longest = max(picture.shape)
    if longest > LONGEST_SIDES.get(path.suffix.lower(), longest):
        path = path.with_name(f"{path.name}.png")
    save_image(path, picture)
    tqdm.write(str(path))


def captioned_grid(rows: Sequence[Sequence[tuple[np.ndarray, str]]]) -> np.ndarray:
    """Lay out rows of (uint8 RGB image [H, W, 3], caption of up to two lines) as one image."""
    width = max(len(row) for row in rows) * LARGE_TILE
    sheet = Image.new("RGB", (width, len(rows) * (LARGE_TILE + _PANEL_CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_PANEL_FONT)
    for y, row in enumerate(rows):
        for x, (image, caption) in enumerate(row):
            corner = (x * LARGE_TILE, y * (LARGE_TILE + _PANEL_CAPTION))
            tile = Image.fromarray(image).resize((LARGE_TILE, LARGE_TILE), Image.Resampling.BICUBIC)
            sheet.paste(tile, corner)
            place = (corner[0] + LARGE_TILE // 2, corner[1] + LARGE_TILE + 2)
            draw.multiline_text(place, caption, "black", font, anchor="ma", align="center")
    return np.asarray(sheet)
