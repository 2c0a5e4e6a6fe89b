"""From folders and archives of any pictures to an archive to train on: `prepare_dataset`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from paddle_sam.core.device import cpu_threads
from paddle_sam.core.files import check_outside
from paddle_sam.core.processes import in_processes
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import ArchiveImage, read_source, write_archive
from paddle_sam.imagesets.prepare.augmentation import augment
from paddle_sam.imagesets.prepare.duplicates import (
    Candidate,
    find_duplicates,
    look_the_same,
    reduced,
)
from paddle_sam.imagesets.prepare.examine import Found, encode, examine, start_worker
from paddle_sam.imagesets.prepare.inputs import (
    Classes,
    Task,
    folder_classes,
    input_classes,
    input_paths,
    list_tasks,
)
from paddle_sam.imagesets.prepare.journal import Journal
from paddle_sam.imagesets.prepare.options import AUGMENTATIONS, PrepareOptions
from paddle_sam.imagesets.prepare.report import Copy, Item, counts, write_report
from paddle_sam.options import parse_names

_PER_FOLDER = 1000
# What changes where or how the work is done, but not what comes out.
_NOT_OF_THE_RESULT = ("data_path", "output", "num_threads", "sheet_images")


@dataclass(frozen=True)
class Summary:
    """What a preparation came to: see `report.counts`; the archive is None if nothing was kept."""

    archive: Path | None
    report: Path
    counts: dict

    @property
    def unreadable(self) -> int:
        return self.counts["dropped"].get("unreadable", 0)

    def __str__(self):
        parts = [f"{number} {reason}" for reason, number in self.counts["dropped"].items()]
        kept = f"{self.counts['kept']} of {self.counts['examined']} images kept"
        copies = f" and {self.counts['copies']} altered copies" if self.counts["copies"] else ""
        dropped = f"; dropped: {', '.join(parts)}" if parts else ""
        return f"{kept}{copies}{dropped} (why: {self.report})"


def prepare_dataset(config: PrepareOptions) -> Summary:
    """Make `config.output`, and beside it `NAME_report` with what was kept and dropped.

    Work in progress is kept in `NAME_work` beside it: the same call goes on after a kill, and ends
    with the bytes of a run that was never stopped, whatever the number of processes.

    Raises:
        PaddleSamError: the options or the inputs as a whole cannot be used.
    """
    output = Path(config.output)
    if output.exists():
        raise ConfigError(f"--output: {output} is there already; name another or move it")
    inputs = input_paths(config.data_path)
    for path in inputs:
        check_outside("--output", output, path)
    settings = {
        name: value for name, value in asdict(config).items() if name not in _NOT_OF_THE_RESULT
    }
    report = output.with_name(f"{output.stem}_report")
    with Journal(output.with_name(f"{output.stem}_work"), settings) as journal:
        tasks = list_tasks(inputs, journal.unpacked)
        classes = input_classes(inputs) if config.labels == "inputs" else None
        items = _examine_all(tasks, journal, config)
        items = _without_duplicates(items, config.duplicate_bits)
        kept = [item for item in items if item.kept]
        for index, item in enumerate(kept):
            item.target = f"{index // _PER_FOLDER:05d}/img{index:08d}.{config.format}"
        if config.labels == "folders":
            classes = folder_classes([item.task for item in kept])
        _add_copies(kept, journal, config)
        write_report(report, items, config.sheet_images)
        if kept:
            _write(output, kept, classes, settings)
        journal.finish()
    return Summary(output if kept else None, report, counts(items))


def _examine_all(tasks: Sequence[Task], journal: Journal, config: PrepareOptions) -> list[Item]:
    """Examine what is not in the journal yet; give what was found in all, in the tasks' order."""
    unfinished = [task for task in tasks if not journal.has(task.name, task.stamp)]
    died = [(Found("unreadable", "the process that read it died (out of memory?)"), b"")]
    run = _run(examine, unfinished, config, died, "examining")
    with contextlib.closing(run):
        for task, results in run:
            record = {"stamp": task.stamp, "found": [asdict(found) for found, _ in results]}
            journal.add(task.name, record, [content for _, content in results])
    items = []
    for task in tasks:
        found = journal.records[task.name]["found"]
        for index, values in enumerate(found):
            name = task.name if len(found) == 1 else f"{task.name}#{index}"
            items.append(Item(name, task.name, Found(**values), journal.image(task.name, index)))
    return items


def _without_duplicates(items: Sequence[Item], bits: int) -> list[Item]:
    """Mark the duplicates among the images that are good otherwise."""
    good = [index for index, item in enumerate(items) if item.kept]
    look = functools.cache(lambda index: reduced(read_source(items[good[index]].picture)))
    candidates = [
        # What a palette is dithered with is not sharpness.
        Candidate(f.pixels, int(f.bits, 16), f.side, 0 if "palette" in f.notes else f.sharpness)
        for f in (items[index].found for index in good)
    ]
    result = list(items)
    dropped = find_duplicates(candidates, bits, lambda a, b: look_the_same(look(a), look(b)))
    for index, duplicate in sorted(dropped.items()):
        instead = items[good[duplicate.of]]
        found = dataclasses.replace(
            items[good[index]].found,
            reason=duplicate.reason,
            detail=f"of {instead.name}, which has {instead.found.side:g} pixels",
        )
        result[good[index]] = dataclasses.replace(items[good[index]], found=found, instead=instead)
    return result


@dataclass(frozen=True)
class _Copy:
    """An altered copy to make: of which image, and how."""

    key: str
    source: ArchiveImage
    stamp: str
    names: tuple[str, ...]
    seed: int
    format: str


def _make_copy(task: _Copy) -> tuple[bytes, list[str]]:
    image, done = augment(read_source(task.source), task.names, task.key, task.seed)
    return encode(image, task.format), done


def _add_copies(kept: Sequence[Item], journal: Journal, config: PrepareOptions) -> None:
    """Make altered copies of what is kept, as far as the journal has none of them yet."""
    names = tuple(parse_names(config.augmentations, AUGMENTATIONS, "--augmentations"))
    copies = {
        f"copy {number} of {item.name}": item
        for item in kept
        for number in range(1, config.augment + 1)
    }
    tasks = [
        _Copy(key, item.picture, item.found.pixels, names, config.seed, config.format)
        for key, item in copies.items()
        if not journal.has(key, item.found.pixels)
    ]
    with contextlib.closing(_run(_make_copy, tasks, config, None, "altering")) as run:
        for task, result in run:
            if result is None:
                raise ImageError(f"{task.key}: the process that made it died (out of memory?)")
            content, done = result
            journal.add(task.key, {"stamp": task.stamp, "done": done}, [content])
    for key, item in copies.items():
        done = ", ".join(journal.records[key]["done"])
        item.copies = [*item.copies, Copy(done, journal.image(key, 0))]


def _run(function: Callable, tasks: Sequence, config: PrepareOptions, died, title: str) -> Iterator:
    """The results of all tasks, as they come, under a progress bar."""
    workers = config.num_threads or cpu_threads()
    run = in_processes(function, tasks, workers, start=start_worker, arguments=(config,), died=died)
    with contextlib.closing(run):
        yield from tqdm(run, title, len(tasks), unit="img", disable=not tasks)


def _write(output: Path, kept: Sequence[Item], classes: Classes | None, settings: dict) -> None:
    """Write the archive: every image followed by its copies, and where each comes from."""

    def files() -> Iterator[tuple[str, Item, str, ArchiveImage]]:
        """Name in the archive, image, what was done to it if it is a copy, where it lies."""
        for item in kept:
            yield item.target, item, "", item.picture
            stem, suffix = item.target.rsplit(".", 1)
            for number, copy in enumerate(item.copies, 1):
                yield f"{stem}_{number}.{suffix}", item, copy.done, copy.picture

    description = {
        "labels": classes and [[name, classes.of[item.task]] for name, item, _, _ in files()],
        "classes": classes and classes.names,
        "settings": settings,
        "images": [_provenance(name, item, done) for name, item, done, _ in files()],
    }
    number = sum(1 + len(item.copies) for item in kept)
    with tqdm(total=number, desc="packing", unit="img") as bar:

        def contents() -> Iterator[tuple[str, bytes]]:
            for name, _, _, picture in files():
                yield name, picture.read_bytes()
                bar.update()

        write_archive(output, contents(), description)


def _provenance(name: str, item: Item, done: str) -> dict:
    found = item.found
    entry = {"name": name, "source": item.name, "corners": found.corners, "side": found.side}
    if found.notes:
        entry["notes"] = found.notes
    if done:
        entry["altered"] = done
    return entry
