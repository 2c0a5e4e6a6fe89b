"""A run's folder: what the run is made from, its checkpoints, and its records to look at.

`opt.json` has the options, `inputs.json` what the run was made from, by content: folders may move,
what is in them may not change. Data and weight files that a run needs are compared with it when the
run is resumed, whatever they are called by then.

`checkpoints/` has `iteration_N.pdparams`, weight files that inference loads with one more section
for resuming, and `best_model.pdparams`. `stats.jsonl` has one record per line and `images/` the
panels; both are the record of the run. VisualDL's own log in `visualdl/` holds the same. A resumed
run adds to it; if it is missing it is made again from the record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paddle_sam.core.files import (
    append_text,
    atomic_path,
    make_folder,
    remove_leftovers,
    sha256,
    write_json,
)
from paddle_sam.core.images import read_image, save_image
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import CheckpointError, ConfigError, OutputError, quoted
from paddle_sam.options import check_resumable, parse_names, read_json

CHANGED = "changed"  # records of this split hold words
_INPUTS = "inputs.json"
_NUMBERED = re.compile(r"iteration_(\d+)\.pdparams")
_VISUALDL_FILE = "vdlrecords.run.log"
Identity = Mapping[str, Any]


def numbered(options: Any) -> Any:
    """Return the options with the folder that `--new_run` describes as their `exp_dir`.

    Raises:
        ConfigError: the description cannot be part of a name.
    """
    if not options.new_run:
        return options
    if not re.fullmatch(r"[\w .,=+-]{1,80}", options.new_run):
        raise ConfigError(
            f"--new_run: expected up to 80 letters, digits and .,=+-_, found"
            f" {quoted(options.new_run)}"
        )
    root = Path(options.exp_dir)
    used = [re.match(r"\d{5}-", path.name) for path in root.iterdir()] if root.is_dir() else []
    number = max((int(match[0][:5]) for match in used if match), default=-1) + 1
    folder = root / f"{number:05d}-{options.new_run.strip().replace(' ', '-')}"
    return dataclasses.replace(options, exp_dir=str(folder), new_run="")


def prepare_folder(folder: Path, options: Any, inputs: Mapping[str, Identity]) -> None:
    """Make a run's folder with its options and inputs, without what a kill left half written.

    Raises:
        ConfigError: the folder cannot be made.
    """
    try:
        write_json(folder / "opt.json", dataclasses.asdict(options))
        write_json(folder / _INPUTS, dict(inputs))
    except OutputError as error:
        raise ConfigError(f"--exp_dir: {error}") from error
    remove_leftovers(folder)


def identify_file(path: Path) -> Identity:
    """Describe a file by its content; nothing if there is none, which is said where it is read."""
    if not path.is_file():
        return {}
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def check_same(folder: Path, options: Any, inputs: Mapping[str, Identity]) -> dict[str, str]:
    """Check that options and inputs are those of the run in `folder`.

    Returns:
        the changes that `--allow_changed` names, in words by option.

    Raises:
        ConfigError: others have changed, or the notes of them are damaged.
    """
    allowed = []
    if options.allow_changed:
        known = {field.name for field in dataclasses.fields(options)} | set(inputs)
        allowed = parse_names(options.allow_changed, sorted(known), "--allow_changed")
    changed = _changed_inputs(folder / _INPUTS, inputs)
    for name, words in changed.items():
        if name not in allowed:
            raise ConfigError(
                f"--{name}: not what the run in {folder} was started with ({words}). Give that, or"
                f" --allow_changed {name} to continue with the other on purpose."
            )
    if (kept := folder / "opt.json").exists():
        changed |= check_resumable(read_json(type(options), kept), options, folder, allowed)
    return changed


def _changed_inputs(note: Path, inputs: Mapping[str, Identity]) -> dict[str, str]:
    """Say in words, by option, which inputs are not those that a run's note tells of."""
    try:
        before = dict(json.loads(note.read_text(encoding="utf-8")))
        return {
            name: f"{_words(before[name])} -> {_words(identity)}"
            for name, identity in inputs.items()
            if identity and before.get(name, identity) != identity
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{note}: cannot be read ({error}). Delete it to resume the run without comparing its"
            " data with what it was started with."
        ) from error


def _words(identity: Identity) -> str:
    what = "images" if "images" in identity else "bytes"
    return f"{identity.get(what)} {what}, {str(identity.get('sha256'))[:8]}"


@contextlib.contextmanager
def advising() -> Iterator[None]:
    """Add to a `CheckpointError` within this context what to do about it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. Move it away to resume the run from the checkpoint before it."
        ) from error


@dataclasses.dataclass(frozen=True)
class RunCheckpoints:
    """The checkpoints below one run's folder.

    Attributes:
        folder: where they are.
        keep: how many numbered ones to keep; 0 for all.
    """

    folder: Path
    keep: int = 0

    def save(self, step: int, file: WeightFile) -> Path:
        """Write the checkpoint of `step`; older ones go only once it is complete."""
        path = self.folder / f"iteration_{step}.pdparams"
        file.write(path)
        if self.keep:
            for old in sorted(self._numbered())[: -self.keep]:
                self._numbered()[old].unlink()
        return path

    def latest(self) -> Path | None:
        """Return the checkpoint with the highest step; unfinished files do not count."""
        numbered = self._numbered()
        return numbered[max(numbered)] if numbered else None

    def read(self, step: int | None = None) -> WeightFile | None:
        """Return the checkpoint of `step`, or the latest if there is one.

        Raises:
            ConfigError: there is none of `step`.
            CheckpointError: it is damaged. It is not passed over: that would be a silent step back.
        """
        path = self.latest() if step is None else self._numbered().get(step)
        if path is None and step is None:
            return None
        if path is None:
            raise ConfigError(
                f"{self.folder}/iteration_{step}.pdparams does not exist; the latest checkpoint is"
                f" {self.latest() or 'none'}"
            )
        with advising():
            file = WeightFile.read(path)
            if file.training is None:
                raise CheckpointError(f"{path}: expected a checkpoint, found networks alone")
            if (found := file.training.get("step")) != int(_NUMBERED.fullmatch(path.name)[1]):
                raise CheckpointError(f"{path}: holds step {quoted(found)}, not that in its name")
        return file

    def set_aside(self, step: int) -> Path | None:
        """Move checkpoints later than `step` out of the way of a run that resumes from there.

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
        records = [r for r in read_records(self.folder, say) if r["step"] <= step]
        self._last_step = {record["split"]: record["step"] for record in records}
        with atomic_path(self._stats) as temporary:
            text = "".join(json.dumps(r) + "\n" for r in records)
            temporary.write_text(text, encoding="utf-8")
        for _, number, path in self._panels():
            if number > step:
                path.unlink()
        log = self.folder / "visualdl" / _VISUALDL_FILE
        lost = not log.exists()
        self._visualdl = _visualdl_writer(log, step, say)
        if lost:
            for record in records:
                self._show(record)
            for name, number, path in self._panels():
                self._show_image(name, number, read_image(path))

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

    def _panels(self) -> Iterator[tuple[str, int, Path]]:
        """Yield name, step and file of every panel so far."""
        images = self.folder / "images"
        for path in sorted(images.rglob("*.jpg")):
            if path.stem.isdecimal():  # not what a kill left half written
                yield path.parent.relative_to(images).as_posix(), int(path.stem), path

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
