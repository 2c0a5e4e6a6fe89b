"""The most that is taken of what a file, an option or a request can ask for, each with its reason.

What is larger is refused before work begins, by a message that names the limit. Where a user may
need more, an environment variable raises it.
"""

from __future__ import annotations

import os
from typing import Any


def _environment(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() and 0 < len(text) < 10 else default


# Photographs. Phones take 108 million pixels; reading such a JPEG takes 1.1 GB of memory, reading a
# PNG of 119 million with transparency 1.8 GB.
MEGAPIXELS_VARIABLE = "PADDLE_SAM_MAX_MEGAPIXELS"
PIXELS = 10**6 * _environment(MEGAPIXELS_VARIABLE, 120)
# A JPEG can be read reduced by 2, 4 or 8, but its whole code has to be read for that: 200 million
# pixels take some seconds.
REDUCED_PIXELS = 4 * PIXELS
IMAGE_BYTES = 1 << 30  # an uncompressed 16-bit TIFF of PIXELS is 0.7 GB
PAGES = 1000  # of one TIFF file, each an image; the rest is not read
METADATA_BYTES = 1 << 20  # one PNG chunk, unpacked; Pillow refuses the whole image beyond that

# Weight files and checkpoints, of which the largest known have 10,000 entries on 6 levels. A tensor
# may be stored once and named several times.
PICKLE_ENTRIES = 1_000_000
PICKLE_DEPTH = 64
PICKLE_EXPANSION = 8
# Any number in a network's description. The largest known is 25,088, the features of a face.
ARCH_SIZE = 1 << 16

ARRAY_BYTES = 4 << 30  # of a NumPy archive, unpacked; the largest in use, VGG16, has 0.06 GB

NAME_BYTES = 255  # of a file, on nearly every file system

# Text files: descriptions of data sets, tables of labels, lists of images. The labels of 4 million
# images fit; parsed, they take about ten times as much memory.
TEXT_VARIABLE = "PADDLE_SAM_MAX_TEXT_MB"
TEXT_BYTES = (1 << 20) * _environment(TEXT_VARIABLE, 256)

AGES = 1001  # of a request or command: 0 to 100 in steps of a tenth
FRAME_RATE = 240  # frames per second, of the fastest displays
# Options by name, in every command: a slip of the keyboard is not to fill the memory or the disk.
OPTIONS = {
    # Images at a time. More gains nothing on any device.
    **dict.fromkeys(("batch_size", "test_batch_size", "val_batch_size", "decoder_batch"), 4096),
    **dict.fromkeys(("workers", "test_workers", "num_workers", "num_threads"), 1024),
    # Pixels: of an image in a sheet, of which 16 are as wide as a JPEG can be; of a network's.
    **dict.fromkeys(("tile_size", "frame_size"), 4096),
    **dict.fromkeys(("size", "resolution", "output_size", "img_size", "input_size"), 8192),
    "sheet_images": 10_000,
    "fps": FRAME_RATE,
    "duration": 3600,
    "video_steps": 3600,
}
DIGITS = 30  # of a number on the command line
QUOTED = 80  # characters of a value that a message repeats


def quoted(value: Any) -> str:
    """Return `repr(value)` for a message, cut where it is long.

    >>> quoted("9" * 5000)
    "'999999999999999999999... (5002 characters)"
    """
    text = repr(value)
    return text if len(text) <= QUOTED else f"{text[:22]}... ({len(text)} characters)"
