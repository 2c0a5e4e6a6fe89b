"""Results kept in a folder, so that a run that was interrupted resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from paddle_sam.core.files import atomic_path, write_json
from paddle_sam.errors import ConfigError

FORMAT = 1
PART_SIZE = 64  # rows worth a file: as many are lost at most when a run is killed
CLAIM = "made_from.json"


class Store:
    """Rows of numbers by key, such as features by the digest of an image.

    Attributes:
        rows: what is known, float arrays [D] by key.

    Args:
        folder: keeps the rows of any number of settings; None keeps them in memory only.
        settings: what the rows depend on besides their keys, as plain values.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]):
        self.rows: dict[str, np.ndarray] = {}
        self._folder = None
        self._settings = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
        if folder is not None:
            name = hashlib.sha256(self._settings.encode()).hexdigest()[:16]
            self._folder = Path(folder) / name
            self._read_parts()

    def keep(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add rows, and write them to the folder.

        Raises:
            OutputError: the system refused to write.
        """
        self.rows |= rows
        if self._folder is None or not rows:
            return
        note = self._folder / "settings.json"
        if not note.exists():
            with atomic_path(note) as temporary:
                temporary.write_text(self._settings, encoding="utf-8")
        name = hashlib.sha256("".join(rows).encode()).hexdigest()[:16]
        with (
            atomic_path(self._folder / f"part_{name}.npz") as temporary,
            temporary.open("wb") as stream,
        ):
            np.savez(stream, digests=np.array(list(rows)), features=np.stack(list(rows.values())))

    def _read_parts(self) -> None:
        for path in sorted(self._folder.glob("part_*.npz")):
            try:
                with np.load(path, allow_pickle=False) as part:
                    rows = zip(part["digests"].tolist(), part["features"], strict=True)
                    self.rows.update(rows)
            except Exception as error:  # zip, header and array readers raise their own kinds
                tqdm.write(
                    f"{path}: damaged ({error}); what it held is computed again", file=sys.stderr
                )


def claim_folder(
    folder: Path, facts: Mapping[str, Any], option: str, what: str, name: str = CLAIM
) -> None:
    """Note in a folder of results what they are made from, so that the work can be resumed.

    Args:
        folder: where the results go; the file `name` in it keeps the note.
        facts: what the results depend on, as plain values by name. Of a fact that an older
            version did not know, the note is taken to say 0, False or nothing.
        option: the option that named the folder, and
        what: what the results are, for the message.

    Raises:
        ConfigError: the folder holds results of something else.
    """
    note = Path(folder) / name
    if not note.exists():
        write_json(note, facts)
        return
    try:
        before = dict(json.loads(note.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{note}: cannot be read ({error}); delete the folder") from error
    changed = [
        f"{fact} was {_shortened(before.get(fact))}, is {_shortened(facts.get(fact))}"
        for fact in sorted({*facts, *before})
        if facts.get(fact) != before.get(fact) and (fact in before or facts[fact])
    ]
    if changed:
        raise ConfigError(
            f"{option}: {folder} holds {what} made in another way ({'; '.join(changed)}). Give the"
            " same options to resume, name another folder, or delete this one."
        )


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}..."
