"""What a run leaves to look at: text records, pictures, and the same for VisualDL.

`stats.jsonl` has one record per line and `images/` the panels; both are the record of the run.
VisualDL's own log in `visualdl/` holds the same. A resumed run adds to it; if it is missing it is
made again from the record.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from paddle_sam.core.files import append_text, atomic_path, make_folder
from paddle_sam.core.images import read_image, save_image
from paddle_sam.errors import ConfigError

_VISUALDL_FILE = "vdlrecords.run.log"
CHANGED = "changed"  # records of this split hold words


def read_records(folder: Path, say: Callable[[str], None] = print) -> list[dict]:
    """Return the records of the run in `folder`, but not a last one that is half written.

    A damaged line is left out, and `say` is told.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = Path(folder) / "stats.jsonl"
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    records, damaged = [], []
    for number, line in enumerate(lines, 1):
        record = _record(line)
        if record is not None:
            records.append(record)
        elif number < len(lines) or line.endswith(b"\n"):
            damaged.append(number)
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        say(f"{path}: line {damaged[0]}{more} is damaged and left out")
    return records


def _record(line: bytes) -> dict | None:
    """Parse one record; None if it is damaged or not complete."""
    try:
        record = json.loads(line.decode("utf-8"))
        split, numbers = record.pop("split"), isinstance(record["step"], int)
        if split != CHANGED:
            numbers = all(isinstance(value, int | float) for value in record.values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    complete = line.endswith(b"\n") and isinstance(split, str) and numbers and "time" in record
    return {"split": split, **record} if complete else None


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
        self.folder = make_folder(folder)
        self.say = say
        self._stats = self.folder / "stats.jsonl"
        self._keep_until(step)
        log = self.folder / "visualdl" / _VISUALDL_FILE
        anew = not log.exists()
        self._visualdl = _visualdl_writer(log, step, say)
        if anew:
            self._replay()

    def scalars(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Record values by name of `split` (`train`, `test`, ...) at `step`."""
        repeats = split != CHANGED and step <= self._last_step.get(split, -1)
        assert not repeats, f"{split} was logged at step {step} before"
        self._last_step[split] = step
        record = {"split": split, "step": step, "time": round(time.time(), 3), **values}
        append_text(self._stats, json.dumps(record) + "\n")
        self._show(record)

    def changed(self, step: int, changes: Mapping[str, str]) -> None:
        """Record what is not as it was when the run began, in words by option."""
        self.scalars(CHANGED, step, changes)
        for name, words in changes.items():
            self._note(f"**Changed** from step {step} on: --{name} {words}")
            self.say(f"changed from step {step} on: --{name} {words}")

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
            with contextlib.suppress(OSError):  # the record itself is complete
                self._visualdl.close()

    def _note(self, text: str) -> None:
        append_text(self.folder / "timestamp.txt", text + "\n")

    def _keep_until(self, step: int) -> None:
        records = [r for r in read_records(self.folder, self.say) if r["step"] <= step]
        self._last_step = {record["split"]: record["step"] for record in records}
        with atomic_path(self._stats) as temporary:
            text = "".join(json.dumps(r) + "\n" for r in records)
            temporary.write_text(text, encoding="utf-8")
        for _, number, path in self._panels():
            if number > step:
                path.unlink()

    def _panels(self) -> Iterator[tuple[str, int, Path]]:
        """Yield name, step and file of every panel so far."""
        images = self.folder / "images"
        for path in sorted(images.rglob("*.jpg")):
            if path.stem.isdecimal():  # not what a kill left half written
                yield path.parent.relative_to(images).as_posix(), int(path.stem), path

    def _replay(self) -> None:
        for record in read_records(self.folder, self.say):
            self._show(record)
        for name, step, path in self._panels():
            self._show_image(name, step, read_image(path))

    def _show(self, record: Mapping) -> None:
        if self._visualdl is None or record["split"] == CHANGED:
            return
        for name, value in record.items():
            if name not in ("split", "step", "time"):
                self._visualdl.add_scalar(
                    f"{record['split']}/{name}", value, record["step"], round(record["time"] * 1000)
                )

    def _show_image(self, name: str, step: int, image: np.ndarray) -> None:
        if self._visualdl is not None:
            self._visualdl.add_image(name, image, step)


def _visualdl_writer(log: Path, step: int, say: Callable[[str], None]):
    """Open VisualDL's log of the run to add to it. (Of several in a folder it shows one only.)"""
    try:
        from visualdl import LogWriter
    except ImportError:
        say("VisualDL is not installed (pip install visualdl); curves are in stats.jsonl only")
        return None
    if log.parent.exists() and not log.parent.is_dir():
        say(f"{log.parent}: is not a folder, so that VisualDL will show nothing of this run")
        return None
    _cut_visualdl(log, step)
    with contextlib.redirect_stdout(None):  # it says that the log exists
        run = log.parent.parent.name
        return LogWriter(logdir=str(log.parent), file_name=log.name, display_name=run)


def _cut_visualdl(log: Path, step: int) -> None:
    """Drop from VisualDL's log what is later than `step`, and a record that a kill cut off.

    The log is a sequence of records, each after its length as 8 bytes.
    """
    from google.protobuf.message import DecodeError
    from visualdl.proto import record_pb2

    if not log.exists():
        return
    with atomic_path(log) as temporary, log.open("rb") as old, temporary.open("wb") as new:
        whole = os.fstat(old.fileno()).st_size
        while len(head := old.read(8)) == 8:
            (length,) = struct.unpack("<Q", head)
            if length > whole - old.tell():
                break
            body = old.read(length)
            with contextlib.suppress(DecodeError, IndexError):
                if record_pb2.Record.FromString(body).values[0].id <= step:
                    new.write(head + body)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in values.items()}
