"""Aligning every photograph of a folder tree, in several processes."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from paddle_sam.core.command import exit_status
from paddle_sam.core.device import cpu_threads
from paddle_sam.core.files import append_text
from paddle_sam.core.folders import claim_folder, lies_in, list_images, one_writer
from paddle_sam.core.images import read_image, result_names, save_image
from paddle_sam.core.processes import in_processes
from paddle_sam.errors import ConfigError, FileNameError, ImageError, PaddleSamError
from paddle_sam.faces.alignment import CropSettings, align_faces
from paddle_sam.faces.landmarks import FaceLandmarker
from paddle_sam.faces.options import AlignFolderOptions

REPORT = "align_failures.jsonl"


@dataclass(frozen=True)
class FolderSummary:
    """How many photographs were aligned, were there already, failed; and where it says why."""

    aligned: int
    skipped: int
    failed: int
    report: Path | None

    def __str__(self):
        counts = f"{self.aligned} aligned, {self.skipped} already there, {self.failed} failed"
        return f"{counts} (why: {self.report})" if self.failed else counts


@dataclass(frozen=True)
class _Task:
    source: Path
    target: Path  # of the crop; of several faces, the pattern their names follow


def align_all(options: AlignFolderOptions) -> int:
    """Align a folder by dlib's landmarks, say what came of it, and return the exit status."""
    root = Path(options.root_path).resolve()
    output = Path(options.output_path or root.with_name(f"{root.name}_aligned"))
    summary = align_folder(
        root,
        output,
        FaceLandmarker,
        CropSettings(options.size, options.scale, options.offset, options.oversample),
        choice=options.face,
        suffix=f".{options.format}",
        workers=options.num_threads or cpu_threads(),
    )
    print(f"{output}: {summary}")
    return exit_status(summary.aligned + summary.skipped, summary.failed)


def align_folder(
    root: Path,
    output: Path,
    make_landmarker: Callable,
    settings: CropSettings,
    *,
    choice: str = "best",
    suffix: str = ".png",
    workers: int = 1,
) -> FolderSummary:
    """Align all images under `root` into the same folders under `output`.

    `holiday/a.jpg` becomes `holiday/a.png`, or `holiday/a_0.png`, `a_1.png`, ... with
    `choice="all"`; inputs that differ in their suffix only keep it (`a.jpg.png`, `a.webp.png`).
    Existing crops are not made again. An image that fails is reported, with the reason, and does
    not stop the others.

    Args:
        make_landmarker: makes the face finder in each process, such as `FaceLandmarker`; it has
            to be importable by name.
        settings: the crop; a folder holds crops of one kind only.
        choice: which faces, see `align_faces`.
        workers: number of processes.

    Raises:
        ConfigError, ImageError: there is nothing to align, or the folders do not fit.
        CheckpointError, OutputError: no image could be aligned or written for the same reason.
    """
    tasks = _plan(root, output, suffix)
    claim_folder(output, asdict(settings) | {"face": choice}, "--output_path", "crops")
    # `Path.exists` raises where a name is too long.
    open_tasks = [t for t in tasks if not os.path.exists(_marker(t, choice))]  # noqa: PTH110
    report = output / REPORT
    failed = 0
    with (
        one_writer(output, "crops"),
        contextlib.closing(
            in_processes(
                functools.partial(_align_one, make_landmarker, settings, choice),
                open_tasks,
                workers,
                died="the process that aligned it died (out of memory?)",
            )
        ) as run,
        tqdm(total=len(open_tasks), unit="img", desc="aligning", disable=not open_tasks) as bar,
    ):
        report.unlink(missing_ok=True)
        for task, problem in run:
            if problem is not None:
                failed += 1
                record = {"file": str(task.source.relative_to(root)), "error": problem}
                append_text(report, json.dumps(record, ensure_ascii=False) + "\n")
                bar.set_postfix(failed=failed)
            bar.update()
    aligned, skipped = len(open_tasks) - failed, len(tasks) - len(open_tasks)
    return FolderSummary(aligned, skipped, failed, report if failed else None)


def _plan(root: Path, output: Path, suffix: str) -> list[_Task]:
    """Pair every image with the file it becomes; no two become the same."""
    if not root.is_dir():
        raise ConfigError(f"--root_path: expected a folder of photographs, found {root}")
    if output.resolve() == root.resolve():
        raise ConfigError(f"--output_path: expected a folder other than the photographs', {root}")
    sources = [path for path in list_images(root) if not lies_in(path, output)]
    names = result_names([source.relative_to(root) for source in sources])
    return [
        _Task(source, output / name.with_name(f"{name.name}{suffix}"))
        for source, name in zip(sources, names, strict=True)
    ]


def _marker(task: _Task, choice: str) -> Path:
    """The file whose presence says that a photograph is done."""
    return _face_path(task.target, 0) if choice == "all" else task.target


def _face_path(target: Path, index: int) -> Path:
    return target.with_name(f"{target.stem}_{index}{target.suffix}")


_landmarker = functools.cache(lambda make: make())  # one in each process


def _align_one(make: Callable, settings: CropSettings, choice: str, task: _Task) -> str | None:
    """Align one photograph; return the reason if it cannot be, raise if none could be."""
    find = functools.partial(_landmarker(make).find, every=choice != "best")
    try:
        image = read_image(task.source)
        faces = align_faces(image, find, settings, choice=choice, source=str(task.source))
        if choice != "all":
            save_image(task.target, faces[0].image)
            return None
        for index in reversed(range(len(faces))):  # the first one last: it marks the task as done
            save_image(_face_path(task.target, index), faces[index].image)
    except (ImageError, FileNameError) as error:
        return str(error)
    except PaddleSamError:  # missing weights, full disk: the same for every image
        raise
    except Exception as error:  # whatever else an image provokes concerns that image alone
        return f"{task.source}: {type(error).__name__}: {error}"
    return None
