"""Seeds, grids and styles as the options of the StyleGAN2 commands spell them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from paddle_sam.errors import ConfigError, quoted
from paddle_sam.options import parse_codes

LARGEST_SEED = 2**32 - 1
MOST_SEEDS = 10**6
_WHOLE = re.compile(r"\s*(\d{1,9})\s*")


def parse_seeds(text: str, name: str = "--seeds") -> list[int]:
    """Seeds that the option `name` lists, each once, in the order given.

    >>> parse_seeds("0-3,2005,2")
    [0, 1, 2, 3, 2005]

    Raises:
        ConfigError: a part is not a seed or a rising range, or there are more than a million.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,18})(?:\s*-\s*(\d{1,18}))?\s*", part)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise ConfigError(
                f"{name}: expected seeds such as 0,7 or rising ranges such as 0-999, found"
                f" {quoted(part.strip())}"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if last > LARGEST_SEED:
            raise ConfigError(f"{name}: expected seeds up to {LARGEST_SEED}, found {last}")
        if last - first >= MOST_SEEDS or len(seeds) > MOST_SEEDS:
            raise ConfigError(f"{name}: expected at most {MOST_SEEDS} seeds, found more")
        seeds |= dict.fromkeys(range(first, last + 1))
    return list(seeds)


def parse_grid(text: str, name: str = "--grid") -> tuple[int, int]:
    """Columns and rows.

    >>> parse_grid("8x4")
    (8, 4)
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*[x×]\s*(\d{1,9})\s*", text)
    if found is None or not 0 < int(found[1]) <= 100 or not 0 < int(found[2]) <= 100:
        raise ConfigError(
            f"{name}: expected COLUMNSxROWS such as 8x4, each from 1 to 100, found {quoted(text)}"
        )
    return int(found[1]), int(found[2])


def parse_levels(text: str, name: str) -> list[int]:
    """Small whole numbers separated by commas.

    >>> parse_levels("0,1,2,2", "--uncurated_levels")
    [0, 1, 2, 2]
    """
    parts = text.split(",")
    if not all(_WHOLE.fullmatch(part) and int(part) <= 6 for part in parts):
        raise ConfigError(
            f"{name}: expected numbers from 0 to 6 such as 0,1,2,2, found {quoted(text)}"
        )
    return [int(part) for part in parts]


def parse_styles(text: str, ranges: Mapping[str, range], name: str) -> list[int]:
    """Numbers of codes, of a range by its name or as numbers.

    >>> ranges = {"coarse": range(0, 2), "fine": range(2, 6)}
    >>> parse_styles("coarse", ranges, "--mix_styles")
    [0, 1]
    >>> parse_styles("1-3", ranges, "--mix_styles")
    [1, 2, 3]
    >>> parse_styles("4-", ranges, "--mix_styles")
    [4, 5]

    Raises:
        ConfigError: it is neither, or the model has no such code.
    """
    text, codes = text.strip(), max(codes.stop for codes in ranges.values())
    if text in ranges:
        return list(ranges[text])
    if not text[:1].isdigit():
        raise ConfigError(
            f"{name}: expected {', '.join(ranges)} or codes such as 0-3, found {quoted(text)}"
        )
    return parse_codes(f"{text}{codes - 1}" if text.endswith("-") else text, codes, name)


def split_styles(text: str, count: int, name: str, what: str) -> Sequence[str]:
    """The entries of `text`, separated by commas, for each of `count` things called `what`.

    >>> split_styles("coarse", 2, "--mix_styles", "--mix_rows")
    ['coarse', 'coarse']
    """
    entries = [entry.strip() for entry in text.split(",")]
    entries = entries * count if len(entries) == 1 else entries
    if len(entries) != count:
        raise ConfigError(
            f"{name}: expected one entry for each of the {count} {what}, or one for all, found"
            f" {len(entries)}"
        )
    return entries


def parse_label(text: str, classes: int, name: str = "--label") -> np.ndarray:
    """Shares of the classes of a conditional model, float32 [classes], which add up to 1.

    >>> parse_label("1", 3).tolist()
    [0.0, 1.0, 0.0]
    >>> parse_label("0:1,2:3", 3).tolist()
    [0.25, 0.0, 0.75]

    Raises:
        ConfigError: it is neither a class nor a mix, or the model has no such class.
    """
    if not classes:
        raise ConfigError(f"{name}: this model is not conditional; leave the option out")
    label = np.zeros(classes, np.float32)
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?::\s*(\d+(?:\.\d*)?))?\s*", part)
        if found is None or ("," in text and found[2] is None):
            raise ConfigError(
                f"{name}: expected a class such as 2, or a mix such as 0:0.5,3:0.5, found {text!r}"
            )
        if int(found[1]) >= classes:
            raise ConfigError(
                f"{name}: this model has the classes 0 to {classes - 1}, found {found[1]}"
            )
        label[int(found[1])] += float(found[2] or 1)
    if not label.sum():
        raise ConfigError(f"{name}: expected a share above 0, found {text!r}")
    return label / label.sum()
