"""Report of a preparation: a table, counts, and contact sheets of what was kept and dropped."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_sam.core.files import atomic_path
from paddle_sam.core.folders import printable
from paddle_sam.core.images import contact_sheet, save_image
from paddle_sam.core.processes import spread
from paddle_sam.imagesets.archive import ArchiveImage, read_source
from paddle_sam.imagesets.prepare.examine import REASONS, THUMBNAIL, Found

# fmt: off
COLUMNS = (
    "source", "outcome", "reason", "detail", "kept_instead", "image", "width", "height", "side",
    "notes", "copies",
)
# fmt: on
_NOTHING = np.full((THUMBNAIL, THUMBNAIL, 3), 224, np.uint8)


@dataclass(frozen=True)
class Copy:
    """An altered copy: what was done to it, and where it is."""

    done: str
    picture: ArchiveImage


@dataclass
class Item:
    """An examined image: its name, what was found, and where the square or a small picture is.

    task: the file it is from, of which several faces share the name's beginning.
    instead: of a duplicate, the one that is kept. target: its name in the archive, if kept.
    """

    name: str
    task: str
    found: Found
    picture: ArchiveImage
    instead: Item | None = None
    target: str = ""
    copies: Sequence[Copy] = ()

    @property
    def kept(self) -> bool:
        return not self.found.reason


def write_report(
    folder: Path, items: Sequence[Item], left_out: Mapping[str, Sequence[str]], sheet_images: int
) -> None:
    """Write `report.csv`, `summary.json`, `kept.jpg` and a `dropped_REASON.jpg` for each reason."""
    _write_table(folder / "report.csv", items, left_out)
    with atomic_path(folder / "summary.json") as path:
        path.write_text(json.dumps(counts(items, left_out), indent=2) + "\n", encoding="utf-8")
    for reason in ("", *REASONS):
        name = f"dropped_{reason}.jpg" if reason else "kept.jpg"
        (folder / name).unlink(missing_ok=True)
        if chosen := [item for item in items if item.found.reason == reason]:
            pairs = reason in ("duplicate", "near_duplicate")
            shown = [chosen[place] for place in spread(sheet_images, len(chosen))]
            tiles = [tile for item in shown for tile in _tiles(item, pairs)]
            save_image(folder / name, contact_sheet(tiles))


def counts(items: Sequence[Item], left_out: Mapping[str, Sequence[str]]) -> dict:
    """Count the images kept, dropped for each reason, and converted, and files left out."""
    dropped = Counter(item.found.reason for item in items)
    notes = Counter(note for item in items if item.kept for note in item.found.notes)
    return {
        "examined": len(items),
        "kept": dropped.pop("", 0),
        "copies": sum(len(item.copies) for item in items),
        "dropped": {reason: dropped[reason] for reason in REASONS if dropped[reason]},
        "left_out": {reason: len(names) for reason, names in sorted(left_out.items())},
        "converted": dict(sorted(notes.items())),
    }


def _tiles(item: Item, pair: bool) -> list[tuple[np.ndarray, str]]:
    picture = read_source(item.picture) if item.picture.size else _NOTHING
    tiles = [(picture, _caption(item))]
    if pair:
        tiles.append((read_source(item.instead.picture), f"kept {_caption(item.instead)}"))
    return tiles


def _caption(item: Item) -> str:
    return printable(Path(item.name).name)


def _write_table(path: Path, items: Sequence[Item], left_out: Mapping[str, Sequence[str]]) -> None:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for item in items:
            found = item.found
            table.writerow(
                [
                    item.name,
                    "kept" if item.kept else "dropped",
                    found.reason,
                    found.detail,
                    item.instead.name if item.instead else "",
                    item.target,
                    found.width or "",
                    found.height or "",
                    found.side or "",
                    "; ".join(found.notes),
                    "; ".join(copy.done for copy in item.copies),
                ]
            )
        for reason, names in sorted(left_out.items()):
            table.writerows([name, "left out", "not_examined", reason] for name in sorted(names))
