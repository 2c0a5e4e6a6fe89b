"""The photographs of a run, read and aligned ahead: N inputs give N results or N reasons.

What of a face counts is said by masks: those that lie beside photographs, and what these show.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from paddle_sam.ageing.dial import input_tile
from paddle_sam.ageing.options import PhotoOptions
from paddle_sam.core.command import exit_status
from paddle_sam.core.files import check_name
from paddle_sam.core.folders import IMAGE_SUFFIXES, lies_in, list_images, printable
from paddle_sam.core.images import SMALLEST_TILE, WRITABLE_SUFFIXES, read_image, result_names, strip
from paddle_sam.core.processes import ahead
from paddle_sam.errors import FaceNotFoundError, ImageError
from paddle_sam.faces.alignment import AlignedFace, FaceCutter
from paddle_sam.faces.paste import Patch, cut_plane, paste

PORTRAIT = "astronaut"
_SMALL_FACES = "faces are smaller than 40 pixels, too small to be recognised again when aged"
RESULTS = (
    r"(inference_\w+|animations|style_mixing|reference_guided|projection|inversion|directions)/"
    r"|(.*/)?[^/]*-(project|tuned)\.png$"
    r"|contact_sheet_\d+\.jpg$"
)


@dataclass(frozen=True, eq=False)
class Input:
    """One thing to age.

    name: relative path of its results, without suffix. source: a photograph's file or pixels.
    suffix: of results that are images.
    """

    name: Path
    source: Path | np.ndarray
    suffix: str = ".png"

    @property
    def path(self) -> Path | None:
        return self.source if isinstance(self.source, Path) else None

    def result(self, suffix: str = "", face: str = "") -> Path:
        """Relative path of a result, by default an image of the first face."""
        return self.name.with_name(f"{self.name.name}{face}{suffix or self.suffix}")


@dataclass(frozen=True, eq=False)
class Photo:
    """An input and the faces found in it.

    pixels: uint8 [H, W, 3]. codes: float32 [F, L, D], what the faces are known to be inverted to,
    or None.
    """

    input: Input
    pixels: np.ndarray
    faces: list[AlignedFace]
    codes: np.ndarray | None = None

    @property
    def path(self) -> Path | None:
        """The photograph's file, if it is one."""
        return self.input.path

    @property
    def crops(self) -> np.ndarray:
        """The faces' crops, uint8 [F, S, S, 3]."""
        return np.stack([face.image for face in self.faces])

    def face_suffixes(self) -> list[str]:
        """What tells the results of its faces apart: ``, `_face2`, `_face3`, ..."""
        return [f"_face{number}" if number > 1 else "" for number, _ in enumerate(self.faces, 1)]

    def face_names(self, suffix: str = "") -> list[Path]:
        """Paths of each face's results: `a.jpg`, the second `a_face2.jpg`, or with `suffix`."""
        return [self.input.result(suffix, face) for face in self.face_suffixes()]

    def alone(self) -> Iterator[tuple[str, Photo]]:
        """Each face as a photograph of its own, with the name of its results."""
        for number, (name, face) in enumerate(zip(self.face_names(), self.faces, strict=True)):
            codes = None if self.codes is None else self.codes[number : number + 1]
            yield name.as_posix(), replace(self, faces=[face], codes=codes)


@dataclass(frozen=True)
class Failure:
    """An input that cannot be used, and why."""

    name: str
    reason: str


@dataclass
class Summary:
    """What a run over photographs did.

    skipped: inputs left out because their results exist.
    """

    faces: int = 0
    skipped: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    finish: Callable[[], None] = lambda: None  # waits for what is written in the background

    def status(self) -> int:
        """Exit status: 0 all done, 1 some inputs failed, 2 nothing was written."""
        return exit_status(self.faces + self.skipped, len(self.failures))


Found = TypeVar("Found")


def read_photos(
    options: PhotoOptions,
    inputs: Iterable[Input],
    cut_faces: FaceCutter,
    prepare: Callable[[Photo], Photo] = lambda photo: photo,
) -> Iterator[Photo | Failure]:
    """Read inputs and find their faces, in threads, a few inputs ahead of the caller.

    Args:
        options: which faces to cut out, and the number of threads.
        inputs: those of `find_inputs`, which is called before weights are read, so that a
            mistyped path is noticed at once.
        cut_faces: finds faces.
        prepare: changes each photograph, in the thread; an `ImageError` of it is a failure.

    Yields:
        of each input, in order, the photograph or why it cannot be used.
    """

    def read(one: Input) -> Photo | Failure:
        try:
            pixels = read_image(one.source) if one.path else one.source
            source = str(one.path or one.name)
            faces = cut_faces(pixels, options.face, not options.no_align, source)
            photo = prepare(Photo(one, pixels, faces))
            for name in photo.face_names(".webp"):  # as long as any suffix of a result
                check_name(name)
            wide = np.ptp(pixels.shape[:2]) > 1
            if options.no_align and wide and not cut_faces.centre:
                squeezed.append(source)
            elif small := sum(face.is_small for face in faces):
                tqdm.write(f"note: {source}: {small} {_SMALL_FACES}", file=sys.stderr)
            return photo
        except FaceNotFoundError as error:
            advice = "If it is an aligned crop already, give --no_align."
            return Failure(str(one.name), f"{error} {advice}")
        except ImageError as error:
            return Failure(str(one.name), str(error))
        except (MemoryError, RuntimeError) as error:  # the latter is dlib's
            return Failure(str(one.name), f"{one.path or one.name}: {error!r}")

    squeezed: list[str] = []
    with ThreadPoolExecutor(max(options.test_workers, 1)) as pool:
        for waiting in ahead(inputs, lambda one: pool.submit(read, one), 2 * options.test_workers):
            yield waiting.result()
    if squeezed:
        print(
            f"note: {len(squeezed)} photographs are not square and were squeezed, such as"
            f" {squeezed[0]}; --no_align is for aligned crops only",
            file=sys.stderr,
        )


def grouped(photos: Iterable[Found | Failure], faces: int) -> Iterator[list[Found | Failure]]:
    """Group what has `faces`, so that each group has `faces` of them, or more by its last.

    A `Failure` stays in its place.
    """
    group, found = [], 0
    for photo in photos:
        group.append(photo)
        found += 0 if isinstance(photo, Failure) else len(photo.faces)
        if found >= faces:
            yield group
            group, found = [], 0
    if group:
        yield group


def without_done(
    options: PhotoOptions, inputs: list[Input], summary: Summary, path_of: Callable[[Input], Path]
) -> list[Input]:
    """Return the inputs that are still to do: with `--skip_existing` those without a result."""
    if not options.skip_existing:
        return inputs
    left = [one for one in inputs if not path_of(one).exists()]
    summary.skipped = len(inputs) - len(left)
    print(f"--skip_existing: {summary.skipped} of {len(inputs)} photographs have results already")
    return left


def counted(
    results: Iterable[Found | Failure], summary: Summary, inputs: int, folder: Path
) -> Iterator[Found]:
    """Pass on what is not a `Failure`, show how far the inputs are, and sum up after the last.

    Args:
        results: of each input something with `faces`, or why it failed.
        summary: counts them.
        inputs: how many there are.
        folder: where the results are, for the summary.
    """
    with tqdm(total=inputs, unit="photo", disable=inputs == 1) as progress:
        for result in results:
            if isinstance(result, Failure):
                summary.failures[result.name] = result.reason
                tqdm.write(f"skipped: {printable(result.reason)}", file=sys.stderr)
            else:
                summary.faces += len(result.faces)
                yield result
            progress.update()
    summary.finish()  # first, so that nothing is called done that cannot be written
    done = inputs - len(summary.failures)
    print(f"{done} of {inputs} photographs, faces: {summary.faces}, results: {folder}")
    if inputs > 1:
        for reason in summary.failures.values():
            print(f"failed: {printable(reason)}", file=sys.stderr)


def find_inputs(options: PhotoOptions) -> list[Input]:
    """Find the photographs of `options.sources`; without any, there is a portrait to try."""
    if not options.sources:
        return [Input(Path(PORTRAIT), portrait())]
    short: dict[Path, Path] = {}  # names of photographs, below the folder that was named
    for root in map(Path, options.sources):
        folder = root if root.is_dir() else root.parent
        short |= {path: path.relative_to(folder) for path in _photographs(root, options)}
    paths, names = list(short), list(short.values())
    if len(set(names)) < len(names):
        whole = [path.absolute() for path in paths]
        shared = os.path.commonpath([path.parent for path in whole])
        names = [path.relative_to(shared) for path in whole]
    names = result_names(names)
    suffixes = [path.suffix for path in paths]
    suffixes = [one if one.lower() in WRITABLE_SUFFIXES else ".png" for one in suffixes]
    return list(map(Input, names, paths, suffixes))[: options.n_images or None]


def _photographs(root: Path, options: PhotoOptions) -> list[Path]:
    """A file itself, or the photographs of a folder: what is not a mask or a result."""
    paths = list_images(root)
    if not root.is_dir():
        return paths
    paths = [path for path in paths if not is_mask(path)]
    paths = _without_results(paths, root, options.results.resolve())
    if not paths:
        raise ImageError(f"{root}: found nothing but results of earlier runs in this folder")
    return paths


def _without_results(paths: list[Path], root: Path, results: Path) -> list[Path]:
    """The photographs below `root` that no earlier run wrote into `results`, if that is there."""
    if root.resolve() in results.parents:
        return [path for path in paths if not lies_in(path, results)]
    if root.resolve() != results:
        return paths
    return [path for path in paths if not re.match(RESULTS, path.relative_to(root).as_posix())]


def portrait() -> np.ndarray:
    """NASA's public-domain portrait of Eileen Collins, which scikit-image ships."""
    from skimage import data

    return data.astronaut()


def mask_of(path: Path) -> Path | None:
    """The mask that belongs to an image, `NAME.mask.EXT` beside `NAME.EXT`, if there is one."""
    for suffix in (path.suffix, *IMAGE_SUFFIXES):
        if (mask := path.with_name(f"{path.stem}.mask{suffix}")).is_file():
            return mask
    return None


def is_mask(path: Path) -> bool:
    """Whether an image is the mask of another one beside it."""
    if not path.stem.endswith(".mask"):
        return False
    name = path.stem.removesuffix(".mask")
    suffixes = (path.suffix, *IMAGE_SUFFIXES)
    return any(path.with_name(name + suffix).is_file() for suffix in suffixes)


def face_mask(pixels: np.ndarray, face: AlignedFace, path: Path | None = None) -> np.ndarray:
    """What of a face's crop counts: float32 [S, S] in [0, 1].

    That is what the crop shows of the photograph, not what alignment continued it by; where a
    mask lies beside the photograph, only what that leaves white.

    Args:
        pixels: the photograph, uint8 [H, W, 3].
        face: cut from it.
        path: the photograph's file, if it is one.

    Raises:
        ImageError: the mask cannot be used, or nothing of the face is left.
    """
    plane = np.ones(pixels.shape[:2], np.float32)
    file = mask_of(path) if path else None
    if file is not None:
        mask = read_image(file)
        if mask.shape != pixels.shape:
            raise ImageError(
                f"{file}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its photograph"
                f" {pixels.shape[1]} x {pixels.shape[0]}; they have to be equal"
            )
        plane = mask[..., 0] / np.float32(255)
    mask = cut_plane(plane, face.quad, len(face.image))
    if mask.any():
        return mask
    if file is None:
        raise ImageError(f"{path or 'photograph'}: the face lies outside the photograph")
    raise ImageError(f"{file}: the mask leaves nothing of the face; white is what counts")


@dataclass(frozen=True, eq=False)
class AgedPhoto:
    """A photograph and its faces at every age.

    images: of each face uint8 [A, R, R, 3]. patches: of each face, what to paste at each age.
    """

    photo: Photo
    images: list[np.ndarray]
    patches: list[list[Patch]]
    ages: list[float]

    @property
    def faces(self) -> list[AlignedFace]:
        return self.photo.faces

    def strips(self) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
        """Of each face the name of its results, the input to show beside them, and its images."""
        results = zip(self.photo.face_names(), self.faces, self.images, self.patches, strict=True)
        for name, face, images, patches in results:
            yield name, input_tile(self.photo.pixels, face, patches[0]), images


@dataclass(frozen=True, eq=False)
class Aged:
    """The faces of photographs at several ages: a sequence of arrays, one for each face.

    images: of each face uint8 [A, R, R, 3]; with the dial R is the face's side in the photograph,
    see `FaceDial`. ages: [A]. faces: the crops that were aged, and where they lie. photo_of_face:
    for each face the number of its photograph, from 0. photos: those photographs, uint8 [H, W, 3].
    patches: of each face, what to paste at each age.
    """

    images: list[np.ndarray]
    ages: list[float]
    faces: list[AlignedFace]
    photo_of_face: list[int]
    photos: list[np.ndarray]
    patches: list[list[Patch]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, face: int) -> np.ndarray:
        return self.images[face]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """uint8 [F, A, R, R, 3], where all images have one size."""
        return np.array(self.images, dtype)

    def strip(self, face: int = 0, size: int = 0, captions: bool = True) -> np.ndarray:
        """Lay a face's crop and results side by side: uint8 [*, size * (A + 1), 3].

        `size` is the side of each, by default that of the results, but at least 128.
        """
        photo = self.photos[self.photo_of_face[face]]
        shown = input_tile(photo, self.faces[face], self.patches[face][0])
        return age_strip(shown, self.images[face], self.ages, size, captions)

    def paste(self, photo: int = 0, feather: float = 0.15) -> np.ndarray:
        """Return a photograph with all its faces aged: uint8 [A, H, W, 3]. See `paste`."""
        patches = [self.patches[face] for face, of in enumerate(self.photo_of_face) if of == photo]
        by_age = zip(*patches, strict=True)
        return np.stack([paste(self.photos[photo], group, feather) for group in by_age])


def age_strip(
    shown: np.ndarray,
    images: Sequence[np.ndarray],
    ages: Sequence[float],
    size: int,
    captions: bool,
) -> np.ndarray:
    """Lay a face and its images [A, R, R, 3] at `ages` side by side: uint8 [*, size * (A + 1), 3].

    `size` is the side of each; 0 takes that of the images, but at least 128.
    """
    words = ["input", *[f"{age:g}" for age in ages]] if captions else None
    return strip([shown, *images], size or max(len(images[0]), SMALLEST_TILE), words)
