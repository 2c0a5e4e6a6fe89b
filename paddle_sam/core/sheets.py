"""Strips and sheets: results laid out for a person to look at. NumPy and PIL only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from paddle_sam.core.images import LONGEST_SIDES, resize, save_image
from paddle_sam.core.processes import batches

INK = (32, 32, 32)
PAPER = (255, 255, 255)
SMALLEST_TILE = 128
LARGE_TILE = 256  # where small models' images are to be seen in detail, and in videos
_CONTACTS_PER_ROW = 10
_CAPTION_LETTERS = 16


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


# Of the panels that a training run keeps.
_CAPTION_HEIGHT = 44
_FONT_SIZE = 15


def captioned_grid(rows: Sequence[Sequence[tuple[np.ndarray, str]]]) -> np.ndarray:
    """Lay out rows of (uint8 RGB image [H, W, 3], caption of up to two lines) as one image."""
    width = max(len(row) for row in rows) * LARGE_TILE
    sheet = Image.new("RGB", (width, len(rows) * (LARGE_TILE + _CAPTION_HEIGHT)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    for y, row in enumerate(rows):
        for x, (image, caption) in enumerate(row):
            corner = (x * LARGE_TILE, y * (LARGE_TILE + _CAPTION_HEIGHT))
            tile = Image.fromarray(image).resize((LARGE_TILE, LARGE_TILE), Image.Resampling.BICUBIC)
            sheet.paste(tile, corner)
            place = (corner[0] + LARGE_TILE // 2, corner[1] + LARGE_TILE + 2)
            draw.multiline_text(place, caption, "black", font, anchor="ma", align="center")
    return np.asarray(sheet)
