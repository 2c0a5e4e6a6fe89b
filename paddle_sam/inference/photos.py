"""The photographs of a run: read and aligned ahead, N inputs give N results or N reasons."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.common.checks import ImageError
from paddle_sam.common.images import WRITABLE_SUFFIXES, list_images, read_image
from paddle_sam.configs.inference import PhotoConfig
from paddle_sam.data.alignment import AlignedFace
from paddle_sam.inference.faces import FaceCutter, Image

PORTRAIT = "astronaut.png"


@dataclass(frozen=True, eq=False)
class Photo:
    """An input and the faces found in it.

    name: relative path for its results. pixels: uint8 [H, W, 3].
    """

    name: Path
    pixels: np.ndarray
    faces: list[AlignedFace]

    @property
    def crops(self) -> np.ndarray:
        """The faces' crops, uint8 [F, S, S, 3]."""
        return np.stack([face.image for face in self.faces])

    def face_names(self) -> list[Path]:
        """A name for each face's results: the second gets `_face2`, and so on."""
        others = range(2, len(self.faces) + 1)
        stem, suffix = self.name.stem, self.name.suffix
        return [self.name, *[self.name.with_name(f"{stem}_face{n}{suffix}") for n in others]]


@dataclass
class Summary:
    """What a run over photographs did."""

    faces: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def status(self) -> int:
        """Exit status: 0 all done, 1 some inputs failed, 2 nothing was written."""
        if not self.faces:
            return 2
        return 1 if self.failures else 0


def read_photos(config: PhotoConfig, cut_faces: FaceCutter, summary: Summary) -> Iterator[Photo]:
    """Give the inputs that can be used, in order; `summary` counts them, and why others failed.

    Reading and aligning happen in threads, a few inputs ahead of the caller. At the end the
    summary is printed, after a folder with the reasons once more.
    """
    inputs = find_inputs(config)
    with tqdm(total=len(inputs), unit="photo", disable=len(inputs) == 1) as progress:
        for name, future in _read_ahead(inputs, cut_faces, config):
            try:
                photo = future.result()
            except (ImageError, MemoryError, RuntimeError) as error:  # the last is dlib's
                reason = str(error) if isinstance(error, ImageError) else f"{name}: {error!r}"
                summary.failures[str(name)] = reason
                tqdm.write(f"skipped: {reason}", file=sys.stderr)
            else:
                summary.faces += len(photo.faces)
                yield photo
            progress.update()
    report(summary, len(inputs), results_folder(config))


def _read_ahead(
    inputs: list[tuple[Path, Image]], cut_faces: FaceCutter, config: PhotoConfig
) -> Iterator[tuple[Path, Future]]:
    def read(name: Path, image: Image) -> Photo:
        pixels = image if isinstance(image, np.ndarray) else read_image(image)
        source = "" if isinstance(image, np.ndarray) else str(image)
        return Photo(name, pixels, cut_faces(pixels, config.face, not config.no_align, source))

    with ThreadPoolExecutor(max(config.test_workers, 1)) as pool:
        waiting = []
        for name, image in inputs:
            waiting.append((name, pool.submit(read, name, image)))
            if len(waiting) > 2 * config.test_workers:
                yield waiting.pop(0)
        yield from waiting


def find_inputs(config: PhotoConfig) -> list[tuple[Path, Image]]:
    """Relative path for each input's result, and the input."""
    if not config.data_path:
        return [(Path(PORTRAIT), portrait())]
    paths = list_images(config.data_path)
    root = Path(config.data_path)
    if root.is_dir():
        paths = _without_results(paths, root, results_folder(config).resolve())
        if not paths:
            raise ImageError(f"{root}: found nothing but results of earlier runs in this folder")
    else:
        root = root.parent
    paths = paths[: config.n_images or None]
    return list(zip(_result_names([path.relative_to(root) for path in paths]), paths, strict=True))


def _without_results(paths: list[Path], root: Path, results: Path) -> list[Path]:
    """The photographs below `root` that no earlier run wrote into `results`, if that is there."""
    if root.resolve() in results.parents:
        return [path for path in paths if results not in path.resolve().parents]
    if root.resolve() != results:
        return paths
    written = re.compile(r"inference_\w+/|contact_sheet_\d+\.jpg$")
    return [path for path in paths if not written.match(path.relative_to(root).as_posix())]


def portrait() -> np.ndarray:
    """NASA's public-domain portrait of Eileen Collins, which scikit-image ships."""
    from skimage import data

    return data.astronaut()


def _result_names(paths: list[Path]) -> list[Path]:
    """The paths, each once; with `.png` added where a format cannot be written.

    >>> [str(path) for path in _result_names([Path("a.gif"), Path("a.gif.png")])]
    ['a.gif_2.png', 'a.gif.png']
    """
    taken = {path for path in paths if path.suffix.lower() in WRITABLE_SUFFIXES}
    names = []
    for path in paths:
        if path not in taken:
            stem, number = path.name, 1
            path = path.with_name(f"{stem}.png")
            while path in taken:
                number += 1
                path = path.with_name(f"{stem}_{number}.png")
            taken.add(path)
        names.append(path)
    return names


def results_folder(config: PhotoConfig) -> Path:
    """`--exp_dir`, or where results go without it."""
    return Path(config.exp_dir or ("results" if config.data_path else "examples"))


def report(summary: Summary, inputs: int, root: Path) -> None:
    """Print how many inputs gave results and, after a folder, once more why others did not."""
    print(
        f"{inputs - len(summary.failures)} of {inputs} photographs, {summary.faces} faces: {root}"
    )
    if inputs > 1:
        for reason in summary.failures.values():
            print(f"failed: {reason}", file=sys.stderr)
