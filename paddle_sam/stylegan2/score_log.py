"""Scores of a ranking under way, kept so that one that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddle_sam.core.files import atomic_path
from paddle_sam.errors import OutputError

# What became of images, by their places in the set: a score, or why there is none.
Outcomes = dict[int, float | str]


class ScoreLog:
    """Outcomes of batch after batch in a file, a line for each after one of what they depend on.

    A line that a kill has cut off does not count, and a file of another ranking is begun anew.

    Attributes:
        batches: what the file held when it was opened.

    Args:
        path: the file.
        facts: what the scores depend on, as plain values by name.

    Raises:
        OutputError: the system refused to write.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]):
        self._path = path
        head = json.dumps(facts) + "\n"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        if lines[:1] != [head]:
            lines = [head]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
        self.batches: list[Outcomes] = [
            {int(place): outcome for place, outcome in json.loads(line).items()}
            for line in lines[1:]
        ]

    def add(self, batch: Outcomes) -> None:
        """Note the outcomes of the next images.

        Raises:
            OutputError: the system refused to write.
        """
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(batch) + "\n")
        except OSError as error:
            raise OutputError(
                f"{self._path}: could not be written ({error.strerror or error}). Free some space"
                " and give the same command again; it goes on where it was."
            ) from error

    def remove(self) -> None:
        """Delete the file: what it was kept for is done."""
        self._path.unlink(missing_ok=True)
