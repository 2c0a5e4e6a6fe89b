"""Checkpoints of a run: whole or absent, newest by step, old ones pruned.

A checkpoint is a weight file that inference loads, with one more entry, `training`, that holds
what resuming needs. `iteration_N.pdparams` has both; `best_model.pdparams` has the networks only.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddle_sam.core.weight_file import read_file, save_file
from paddle_sam.errors import CheckpointError, ConfigError

TRAINING = "training"
_NUMBERED = re.compile(r"iteration_(\d+)\.pdparams")


class RunCheckpoints:
    """The checkpoints below one run's folder.

    Args:
        folder: where they are.
        keep: how many numbered ones to keep; 0 for all.
    """

    def __init__(self, folder: Path, keep: int = 0):
        self.folder = Path(folder)
        self.keep = keep

    def save(self, step: int, content: Mapping[str, Any]) -> Path:
        """Write the checkpoint of `step`; older ones go only once it is complete."""
        path = self.folder / f"iteration_{step}.pdparams"
        save_file(path, content)
        if self.keep:
            for old in sorted(self._numbered())[: -self.keep]:
                self._numbered()[old].unlink()
        return path

    def save_best(self, content: Mapping[str, Any]) -> Path:
        """Write the best model so far, without what only resuming needs."""
        path = self.folder / "best_model.pdparams"
        save_file(path, {key: value for key, value in content.items() if key != TRAINING})
        return path

    def latest(self) -> Path | None:
        """The checkpoint with the highest step; unfinished files do not count."""
        numbered = self._numbered()
        return numbered[max(numbered)] if numbered else None

    def read_latest(self) -> dict | None:
        """Contents of the latest checkpoint, or None where there is none yet.

        Raises:
            CheckpointError: it is damaged. It is not passed over: that would be a silent step back.
        """
        path = self.latest()
        try:
            return None if path is None else read_file(path)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}. Moved away, it leaves the run to go on from the checkpoint before it."
            ) from error

    def read(self, step: int) -> dict:
        """Contents of the checkpoint of `step`.

        Raises:
            ConfigError: there is none.
        """
        path = self._numbered().get(step)
        if path is None:
            raise ConfigError(
                f"{self.folder}/iteration_{step}.pdparams does not exist; the latest checkpoint is"
                f" {self.latest() or 'none'}"
            )
        return read_file(path)

    def set_aside(self, step: int) -> Path | None:
        """Move checkpoints later than `step` out of the way of a run that goes on from there.

        Otherwise the run would be resumed from them when it is interrupted, and its own, older
        ones would be the first to be deleted.

        Returns:
            the folder they are in now, with a copy of the best model; None if there were none.
        """
        later = [path for number, path in self._numbered().items() if number > step]
        if not later:
            return None
        used = (f"after_{step}" if n == 1 else f"after_{step}_{n}" for n in itertools.count(1))
        folder = next(path for path in map(self.folder.joinpath, used) if not path.exists())
        folder.mkdir()
        for path in later:
            path.rename(folder / path.name)
        if (best := self.folder / "best_model.pdparams").is_file():
            shutil.copyfile(best, folder / best.name)
        return folder

    def _numbered(self) -> dict[int, Path]:
        if not self.folder.is_dir():
            return {}
        found = {path: _NUMBERED.fullmatch(path.name) for path in self.folder.iterdir()}
        return {int(match[1]): path for path, match in found.items() if match}
