"""The photographs of a run: read and aligned ahead, N inputs give N results or N reasons."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from paddle_sam.ageing.options import PhotoOptions
from paddle_sam.core.command import exit_status
from paddle_sam.core.images import IMAGE_SUFFIXES, WRITABLE_SUFFIXES, list_images, read_image
from paddle_sam.errors import CheckpointError, ImageError
from paddle_sam.faces.alignment import AlignedFace
from paddle_sam.faces.cutter import FaceCutter, Image
from paddle_sam.faces.paste import cut_plane

Result = TypeVar("Result")
Inputs = list[tuple[Path, Image]]

PORTRAIT = "astronaut.png"


@dataclass(frozen=True, eq=False)
class Photo:
    """An input and the faces found in it.

    name: relative path for its results. pixels: uint8 [H, W, 3]. path: its file, if it is one.
    codes: float32 [F, L, D], what the faces are known to be inverted to, or None. taken: the names
    of all inputs of the run, which the results of further faces must not have.
    """

    name: Path
    pixels: np.ndarray
    faces: list[AlignedFace]
    path: Path | None = None
    codes: np.ndarray | None = None
    taken: frozenset[Path] = frozenset()

    @property
    def crops(self) -> np.ndarray:
        """The faces' crops, uint8 [F, S, S, 3]."""
        return np.stack([face.image for face in self.faces])

    def face_names(self) -> list[Path]:
        """A name for each face's results: the second gets `_face2`, and so on."""
        stem, suffix = self.name.stem, self.name.suffix
        names = [self.name]
        for number in range(2, len(self.faces) + 1):
            name = self.name.with_name(f"{stem}_face{number}{suffix}")
            while name in self.taken:  # a photograph is called like that
                name = name.with_name(f"{name.stem}_{suffix}")
            names.append(name)
        return names


class OtherFormat:
    """Names results whose format is not the photograph's: `a.jpg` and `a.png` stay apart.

    >>> name = OtherFormat()
    >>> [str(name(Path(photo), ".mp4")) for photo in ("a.jpg", "a.png", "b.png")]
    ['a.mp4', 'a.png.mp4', 'b.mp4']
    """

    def __init__(self):
        self._taken: set[Path] = set()

    def __call__(self, name: Path, suffix: str) -> Path:
        """The name of the result of this suffix for the photograph or face `name`."""
        path = name.with_suffix(suffix)
        if path in self._taken:
            path = name.with_name(f"{name.name}{suffix}")
        while path in self._taken:
            path = path.with_name(f"{path.stem}_{suffix}")
        self._taken.add(path)
        return path


@dataclass
class Summary:
    """What a run over photographs did."""

    faces: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def status(self) -> int:
        """Exit status: 0 all done, 1 some inputs failed, 2 nothing was written."""
        return exit_status(self.faces, len(self.failures))


def read_photos(
    config: PhotoOptions,
    inputs: Inputs,
    cut_faces: FaceCutter,
    summary: Summary,
    prepare: Callable[[Photo], Result] = lambda photo: photo,
) -> Iterator[Result]:
    """Give the inputs that can be used, in order; `summary` counts them, and why others failed.

    `inputs` are those of `find_inputs`, which is called before weights are read, so that a mistyped
    path is noticed at once. What is given is what `prepare` makes of them; an `ImageError` of it
    is the input's failure.

    Reading and aligning happen in threads, a few inputs ahead of the caller; `with_progress` shows
    how far its results are.
    """
    for name, future in _read_ahead(inputs, cut_faces, config, prepare):
        try:
            photo, prepared = future.result()
        except (ImageError, MemoryError, RuntimeError) as error:  # the last is dlib's
            reason = str(error) if isinstance(error, ImageError) else f"{name}: {error!r}"
            summary.failures[str(name)] = reason
            tqdm.write(f"skipped: {reason}", file=sys.stderr)
        else:
            summary.faces += len(photo.faces)
            yield prepared


def with_progress(
    results: Iterable[Result], summary: Summary, inputs: int, folder: Path
) -> Iterator[Result]:
    """Pass on the results of the inputs that could be used, each when it is asked for.

    A progress bar counts the inputs that are done or failed. After the last the summary is
    printed, of a folder with the reasons once more.
    """
    with tqdm(total=inputs, unit="photo", disable=inputs == 1) as progress:
        for done, result in enumerate(results, start=1):
            yield result
            progress.update(done + len(summary.failures) - progress.n)
        progress.update(inputs - progress.n)
    report(summary, inputs, folder)


def _read_ahead(
    inputs: Inputs,
    cut_faces: FaceCutter,
    config: PhotoOptions,
    prepare: Callable[[Photo], Result],
) -> Iterator[tuple[Path, Future]]:
    taken = frozenset(name for name, _ in inputs)

    def read(name: Path, image: Image) -> tuple[Photo, Result]:
        path = None if isinstance(image, np.ndarray) else Path(image)
        pixels = image if path is None else read_image(path)
        source = "" if path is None else str(path)
        faces = cut_faces(pixels, config.face, not config.no_align, source)
        photo = Photo(name, pixels, faces, path, taken=taken)
        return photo, prepare(photo)

    with ThreadPoolExecutor(max(config.test_workers, 1)) as pool:
        waiting = []
        for name, image in inputs:
            waiting.append((name, pool.submit(read, name, image)))
            if len(waiting) > 2 * config.test_workers:
                yield waiting.pop(0)
        yield from waiting


def find_inputs(config: PhotoOptions) -> Inputs:
    """Relative path for each input's result, and the input.

    Raises:
        ImageError: there is no photograph at `--data_path`.
    """
    if not config.data_path:
        return [(Path(PORTRAIT), portrait())]
    paths = list_images(config.data_path)
    paths = [path for path in paths if len(paths) == 1 or not _is_mask(path)]
    root = Path(config.data_path)
    if root.is_dir():
        paths = _without_results(paths, root, results_folder(config).resolve())
        if not paths:
            raise ImageError(f"{root}: found nothing but results of earlier runs in this folder")
    else:
        root = root.parent
    paths = paths[: config.n_images or None]
    return list(zip(_result_names([path.relative_to(root) for path in paths]), paths, strict=True))


def check_present(config: PhotoOptions, *options: str) -> None:
    """Raise `CheckpointError` where one of the options, of those it has, names no file."""
    for name in options:
        path = getattr(config, name, "")
        if path and not Path(path).is_file():
            raise CheckpointError(f"--{name}: {path}: there is no such file")


def _without_results(paths: list[Path], root: Path, results: Path) -> list[Path]:
    """The photographs below `root` that no earlier run wrote into `results`, if that is there."""
    if root.resolve() in results.parents:
        return [path for path in paths if results not in path.resolve().parents]
    if root.resolve() != results:
        return paths
    written = re.compile(
        r"(inference_\w+|animations|style_mixing|reference_guided|projection|directions)/"
        r"|contact_sheet_\d+\.jpg$"
    )
    return [path for path in paths if not written.match(path.relative_to(root).as_posix())]


def mask_of(path: Path) -> Path | None:
    """The mask that belongs to an image, `NAME.mask.EXT` beside `NAME.EXT`, if there is one."""
    for suffix in (path.suffix, *IMAGE_SUFFIXES):
        if (mask := path.with_name(f"{path.stem}.mask{suffix}")).is_file():
            return mask
    return None


def face_mask(photo: Photo, face: AlignedFace) -> np.ndarray:
    """What of a face's crop counts: float32 [S, S] in [0, 1].

    That is what it shows of the photograph, not what alignment continued it by; where a mask lies
    beside the photograph, only what that leaves white.

    Raises:
        ImageError: the mask cannot be used.
    """
    plane = np.ones(photo.pixels.shape[:2], np.float32)
    file = None if photo.path is None else mask_of(photo.path)
    if file is not None:
        pixels = read_image(file)
        if pixels.shape != photo.pixels.shape:
            raise ImageError(
                f"{file}: the mask has {pixels.shape[1]} x {pixels.shape[0]} pixels, its photograph"
                f" {photo.pixels.shape[1]} x {photo.pixels.shape[0]}; they have to be equal"
            )
        plane = pixels[..., 0] / np.float32(255)
    mask = cut_plane(plane, face.quad, len(face.image))
    if not mask.any():
        raise ImageError(f"{file}: the mask leaves nothing of the face; white is what counts")
    return mask


def _is_mask(path: Path) -> bool:
    if not path.stem.endswith(".mask"):
        return False
    name = path.stem.removesuffix(".mask")
    suffixes = (path.suffix, *IMAGE_SUFFIXES)
    return any(path.with_name(name + suffix).is_file() for suffix in suffixes)


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


def results_folder(config: PhotoOptions) -> Path:
    """`--exp_dir`, or where results go without it."""
    own = config.data_path or getattr(config, "latent", "")
    return Path(config.exp_dir or ("results" if own else "examples"))


def report(summary: Summary, inputs: int, root: Path) -> None:
    """Print how many inputs gave results and, after a folder, once more why others did not."""
    done = inputs - len(summary.failures)
    print(f"{done} of {inputs} photographs, faces: {summary.faces}, results: {root}")
    if inputs > 1:
        for reason in summary.failures.values():
            print(f"failed: {reason}", file=sys.stderr)
