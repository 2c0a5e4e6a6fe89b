"""From folders and archives of pictures to an archive to train on: `prepare_dataset`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from paddle_sam.core.files import check_outside, remove_leftovers, write_error
from paddle_sam.core.folders import one_writer
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import ArchiveImage, read_source, write_archive, write_folder
from paddle_sam.imagesets.prepare.augmentation import add_copies
from paddle_sam.imagesets.prepare.defects import (
    Candidate,
    find_duplicates,
    look_the_same,
    to_grey,
)
from paddle_sam.imagesets.prepare.examine import Found, examine, run_tasks
from paddle_sam.imagesets.prepare.inputs import (
    Classes,
    Task,
    folder_classes,
    input_classes,
    input_paths,
    list_tasks,
    plain_inputs,
    select_tasks,
)
from paddle_sam.imagesets.prepare.journal import MADE, Journal
from paddle_sam.imagesets.prepare.options import PrepareOptions
from paddle_sam.imagesets.prepare.report import Item, counts, write_report

_PER_FOLDER = 1000
# What changes where or how the work is done, but not what comes out.
_NOT_OF_THE_RESULT = ("data_path", "output", "num_threads", "sheet_images")


@dataclass(frozen=True)
class Preparation:
    """Results of a preparation: see `report.counts`; the archive is None if nothing was kept."""

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
        others = [f"{number} {reason}" for reason, number in self.counts["left_out"].items()]
        left_out = f"; left out: {', '.join(others)}" if others else ""
        return f"{kept}{copies}{dropped}{left_out} (why: {self.report})"


def prepare(config: PrepareOptions) -> int:
    """Do what `prepare_dataset` does, say what came of it, and return the exit status."""
    done = prepare_dataset(config)
    print(f"{done.archive or 'nothing written'}: {done}")
    return 2 if done.archive is None else int(done.unreadable > 0)


def prepare_dataset(config: PrepareOptions) -> Preparation:
    """Make `config.output`, and beside it `NAME_report` with what was kept and dropped.

    Work in progress is kept in `NAME_work` beside it: after a kill the same call resumes, and
    the archive has the bytes of an unbroken run, whatever the number of processes.

    Raises:
        PaddleSamError: the options or the inputs as a whole cannot be used.
    """
    output = Path(config.output)
    if output.exists():
        raise ConfigError(f"--output: {output} exists; name another or move it")
    inputs = input_paths(config.data_path)
    for path in inputs:
        check_outside("--output", output, path)
    settings = {
        name: value for name, value in asdict(config).items() if name not in _NOT_OF_THE_RESULT
    }
    report = output.with_name(f"{output.stem}_report")
    work = output.with_name(f"{output.stem}_work")
    with one_writer(work, "a preparation"):
        remove_leftovers(work)
        with Journal(work, settings) as journal:
            inputs = plain_inputs(inputs, journal.unpacked)
            tasks, left_out = list_tasks(inputs, journal.unpacked)
            tasks, others = select_tasks(tasks, config)
            left_out |= others
            classes = input_classes(inputs) if config.labels == "inputs" else None
            items = _examine_all(tasks, journal, config)
            items = _without_duplicates(items, config.duplicate_bits)
            kept = [item for item in items if item.kept]
            for index, item in enumerate(kept):
                item.target = f"{index // _PER_FOLDER:05d}/img{index:08d}.{config.format}"
            if config.labels == "folders":
                classes = folder_classes([item.task for item in kept])
            add_copies(kept, journal, config)
            write_report(report, items, left_out, config.sheet_images)
            if kept:
                _write(output, work, kept, classes, settings)
    return Preparation(output if kept else None, report, counts(items, left_out))


def _examine_all(tasks: Sequence[Task], journal: Journal, config: PrepareOptions) -> list[Item]:
    """Examine what is not in the journal yet; return all findings, in the tasks' order."""
    unfinished = [task for task in tasks if not journal.has(task.name, task.stamp)]
    died = [(Found("unreadable", "the process that read it died (out of memory?)"), b"")]
    work = functools.partial(examine, config)
    run = run_tasks(work, unfinished, config.num_threads, died, "examining")
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
    """Mark the duplicates among the images that have no other defect."""
    good = [index for index, item in enumerate(items) if item.kept]
    look = functools.cache(lambda index: to_grey(read_source(items[good[index]].picture)))
    candidates = [
        # The noise that dithers a palette's colours is not sharpness.
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


def _write(
    output: Path, work: Path, kept: Sequence[Item], classes: Classes | None, settings: dict
) -> None:
    """Write the data set: every image followed by its copies, and the source of each.

    It is made in the folder `work`, where the next run finds what a kill leaves behind.
    """
    # The name in the archive, the image, how a copy was altered, and where its content is.
    files: list[tuple[str, Item, str, ArchiveImage]] = []
    for item in kept:
        files.append((item.target, item, "", item.picture))
        stem, suffix = item.target.rsplit(".", 1)
        for number, copy in enumerate(item.copies, 1):
            files.append((f"{stem}_{number}.{suffix}", item, copy.done, copy.picture))
    description = {
        "labels": classes and [[name, classes.of[item.task]] for name, item, _, _ in files],
        "classes": classes and classes.names,
        "settings": settings,
        "images": [_provenance(name, item, done) for name, item, done, _ in files],
    }
    packing = tqdm(files, "packing", unit="img")
    write = write_archive if output.suffix == ".zip" else write_folder
    write(work / MADE, ((name, picture.read_bytes()) for name, *_, picture in packing), description)
    try:
        (work / MADE).replace(output)
    except OSError as error:
        raise write_error(output, error) from error


def _provenance(name: str, item: Item, done: str) -> dict:
    found = item.found
    entry = {"name": name, "source": item.name, "corners": found.corners, "side": found.side}
    if found.notes:
        entry["notes"] = found.notes
    if done:
        entry["altered"] = done
    return entry
