"""Pictures for the log: rows of images with a caption under each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_TILE = 256
_CAPTION = 44
_FONT_SIZE = 15


def captioned_grid(rows: Sequence[Sequence[tuple[np.ndarray, str]]]) -> np.ndarray:
    """Lay out rows of (uint8 RGB image [H, W, 3], caption of up to two lines) as one image."""
    width = max(len(row) for row in rows) * _TILE
    sheet = Image.new("RGB", (width, len(rows) * (_TILE + _CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    for y, row in enumerate(rows):
        for x, (image, caption) in enumerate(row):
            corner = (x * _TILE, y * (_TILE + _CAPTION))
            tile = Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.BICUBIC)
            sheet.paste(tile, corner)
            place = (corner[0] + _TILE // 2, corner[1] + _TILE + 2)
            draw.multiline_text(place, caption, "black", font, anchor="ma", align="center")
    return np.asarray(sheet)


def grid_columns(resolution: int) -> int:
    """Columns, and rows, of a grid that stays near 2048 pixels: 3 to 8."""
    return int(np.clip(2048 // resolution, 3, 8))


def tiled(images: np.ndarray, columns: int) -> np.ndarray:
    """Images [R * columns, S, S, 3] as one picture [R * S, columns * S, 3]."""
    count, height, width, channels = images.shape
    rows = images.reshape([count // columns, columns, height, width, channels])
    return rows.transpose(0, 2, 1, 3, 4).reshape([-1, columns * width, channels])
