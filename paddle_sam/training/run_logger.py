"""What a run leaves to look at: text records, pictures, and the same for VisualDL.

`stats.jsonl` has one record per line and `images/` the panels; both are the record of the run.
VisualDL's own log in `visualdl/` is made from them and can be made again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from paddle_sam.core.files import append_text, atomic_path
from paddle_sam.core.images import read_image, save_image

_VISUALDL_FILE = "vdlrecords.run.log"


def read_records(folder: Path) -> list[dict]:
    """The records of the run in `folder`, without a last one that is still being written."""
    path = Path(folder) / "stats.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


class RunLogger:
    """Writes the records of one run.

    Args:
        folder: the run's folder.
        step: steps done when this process starts; later records, which a killed process left,
            are dropped, because those steps are done again.
        say: prints a line.

    Raises:
        OutputError: of every method: the disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int = 0, say: Callable[[str], None] = print):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.say = say
        self._stats = self.folder / "stats.jsonl"
        self._last_step: dict[str, int] = {}
        self._keep_until(step)
        self._visualdl = _visualdl_writer(self.folder, say)
        self._replay()

    def scalars(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Record values by name of `split` (`train`, `test`, ...) at `step`."""
        assert step > self._last_step.get(split, -1), f"{split} was logged at step {step} before"
        self._last_step[split] = step
        record = {"split": split, "step": step, "time": round(time.time(), 3), **values}
        append_text(self._stats, json.dumps(record) + "\n")
        self._show(record)

    def panel(self, name: str, step: int, image: np.ndarray) -> None:
        """Record a picture, uint8 RGB [H, W, 3], under `images/NAME/STEP.jpg`."""
        save_image(self.folder / "images" / name / f"{step:07d}.jpg", image)
        self._show_image(name, step, image)

    def best(self, step: int, loss: float, values: Mapping[str, float]) -> None:
        """Note a new best model in `timestamp.txt`."""
        self._note(f"**Best**: Step - {step}, Loss - {loss:.3f}\n{_rounded(values)}")

    def saved(self, step: int, values: Mapping[str, float]) -> None:
        """Note a checkpoint in `timestamp.txt`."""
        self._note(f"Step - {step},\n{_rounded(values)}")

    def close(self) -> None:
        """Flush what VisualDL has not written yet."""
        if self._visualdl is not None:
            with contextlib.suppress(OSError):  # its log is made again at the next start
                self._visualdl.close()

    def _note(self, text: str) -> None:
        append_text(self.folder / "timestamp.txt", text + "\n")

    def _keep_until(self, step: int) -> None:
        records = [r for r in read_records(self.folder) if r["step"] <= step]
        with atomic_path(self._stats) as temporary:
            text = "".join(json.dumps(r) + "\n" for r in records)
            temporary.write_text(text, encoding="utf-8")
        for _, number, path in self._panels():
            if number > step:
                path.unlink()

    def _panels(self) -> Iterator[tuple[str, int, Path]]:
        """Name, step and file of every panel so far."""
        images = self.folder / "images"
        for path in sorted(images.rglob("*.jpg")):
            if path.stem.isdecimal():  # not what a kill left half written
                yield path.parent.relative_to(images).as_posix(), int(path.stem), path

    def _replay(self) -> None:
        for record in read_records(self.folder):
            self._last_step[record["split"]] = record["step"]
            self._show(record)
        for name, step, path in self._panels():
            self._show_image(name, step, read_image(path))

    def _show(self, record: Mapping) -> None:
        if self._visualdl is None:
            return
        for name, value in record.items():
            if name not in ("split", "step", "time"):
                self._visualdl.add_scalar(
                    f"{record['split']}/{name}", value, record["step"], round(record["time"] * 1000)
                )

    def _show_image(self, name: str, step: int, image: np.ndarray) -> None:
        if self._visualdl is not None:
            self._visualdl.add_image(name, image, step)


def _visualdl_writer(folder: Path, say: Callable[[str], None]):
    try:
        from visualdl import LogWriter
    except ImportError:
        say("VisualDL is not installed (pip install visualdl); curves are in stats.jsonl only")
        return None
    log = folder / "visualdl" / _VISUALDL_FILE
    log.unlink(missing_ok=True)
    return LogWriter(logdir=str(log.parent), file_name=_VISUALDL_FILE, display_name=folder.name)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in values.items()}
