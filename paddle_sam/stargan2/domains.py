"""Domains of images, in folders or archives, and batches drawn from them for StarGAN v2.

Every draw is a function of the run's seed and the sample's position, so that a resumed run sees
exactly what an unbroken one would.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from paddle_sam.core.folders import is_system_folder
from paddle_sam.core.processes import ahead, reading_pool
from paddle_sam.errors import ConfigError, ImageError, Note
from paddle_sam.imagesets.archive import (
    ImageSource,
    is_archive,
    list_sources,
    open_image_set,
    read_description,
    read_source,
)
from paddle_sam.imagesets.loader import SQUEEZED, read_sample, resize_bilinear, step_positions

# The published crop: shares of the area, ratios of width to height, and attempts to place one.
CROP_AREA = (0.8, 1.0)
CROP_RATIO = (0.9, 1.1)
_CROP_ATTEMPTS = 10
# Independent streams of random numbers: what is drawn for the same position in each differs.
_SOURCE, _REFERENCE, _AUGMENTATION = 10, 11, 12


class Domains:
    """The images of every domain; domains are numbered in order of their names.

    Args:
        root: folder with a folder or a zip archive of images for each domain, or one archive whose
            images have classes (`scripts/prepare_dataset.py --labels folders`).
        option: the option that named it, for messages.

    Raises:
        ConfigError: no domain was found, or two have one name.
        ImageError: a domain has no images.
    """

    def __init__(self, root: str | Path, option: str = "folder"):
        self.root = Path(root)
        self.option = option
        found = self._classes() if is_archive(self.root) else self._folders()
        self.names, self.files = zip(*sorted(found.items()), strict=True)

    def __len__(self) -> int:
        return len(self.names)

    def expect(self, number: int) -> None:
        """Raise `ConfigError` unless there are `number` domains."""
        if len(self) != number:
            raise ConfigError(
                f"{self.option}: {self.root} has {len(self)} domains ({', '.join(self.names)}),"
                f" expected {number}, as --num_domains or the weights say"
            )

    def expect_names_of(self, other: Domains) -> None:
        """Raise `ConfigError` unless `other` has domains of the same names."""
        if self.names != other.names:
            raise ConfigError(
                f"{self.option}: {self.root} has the domains {', '.join(self.names)}, but"
                f" {other.option} has {', '.join(other.names)}"
            )

    def _folders(self) -> dict[str, Sequence[ImageSource]]:
        """List the images of the folders and archives in the root, by name."""
        found: dict[str, Sequence[ImageSource]] = {}
        for entry in self.root.iterdir() if self.root.is_dir() else ():
            zipped = entry.is_file() and entry.suffix.lower() == ".zip"
            if is_system_folder(entry.name) or not (entry.is_dir() or zipped):
                continue
            name = entry.stem if zipped else entry.name
            if name in found:
                raise ConfigError(f"{self.option}: {self.root} has two domains called {name}")
            found[name] = list_sources(entry)
        if not found:
            raise ConfigError(
                f"{self.option}: {self.root} has no folders in it, expected one with images for"
                " each domain (such as female and male)"
            )
        return found

    def _classes(self) -> dict[str, Sequence[ImageSource]]:
        """List the images of the archive by the last part of their classes' names."""
        images = open_image_set(self.root)
        if images.labels is None:
            raise ConfigError(
                f"{self.option}: {self.root} states no classes of its images; make it with"
                " scripts/prepare_dataset.py --labels folders, or name a folder with an archive"
                " for each domain"
            )
        classes = read_description(self.root).get("classes") or []
        labels = sorted(set(images.labels))
        known = [PurePosixPath(classes[n]).name if n < len(classes) else str(n) for n in labels]
        if len(set(known)) < len(known):
            raise ConfigError(f"{self.option}: {self.root} has two classes of one name: {known}")
        names = dict(zip(labels, known, strict=True))
        found: dict[str, list[ImageSource]] = {name: [] for name in known}
        for image, label in zip(images.images, images.labels, strict=True):
            found[names[label]].append(image)
        return found


@dataclasses.dataclass(frozen=True)
class DomainBatch:
    """One step's images, uint8 [N, S, S, 3] for `to_device`, with their domains, int64 [N].

    `reference` and `other_reference` are two images of the target domain.
    """

    source: np.ndarray
    source_domain: np.ndarray
    reference: np.ndarray
    other_reference: np.ndarray
    target_domain: np.ndarray


@dataclasses.dataclass(eq=False)
class DomainLoader:
    """Draws training batches in which every domain is as frequent as any other.

    Unreadable images are reported once each and replaced by the next readable one.

    Attributes:
        domains: the images.
        size: S.
        crop_probability: that an image is cropped at random before it is resized.
        workers: reading processes; 0: a thread of this one.
        max_bad: unreadable images to tolerate.
        report: called with a message for each unreadable image.
        bad: those found so far.
    """

    domains: Domains
    size: int
    crop_probability: float = 0.5
    workers: int = 0
    max_bad: int = 0
    report: Callable[[str], None] = print
    bad: set[ImageSource] = dataclasses.field(default_factory=set)
    _squeezed: bool = False

    def training(
        self, batch_size: int, seed: int, start: int, part: slice
    ) -> Iterator[DomainBatch]:
        """Yield batches without end, as `BatchLoader.training` does."""
        with reading_pool(self.workers) as pool:

            def submit(places: np.ndarray) -> tuple:
                draws = [draw(self.domains, seed, int(place)) for place in places]
                return draws, [[self._submit(pool, i) for i in one] for one in draws]

            for jobs in ahead(step_positions(batch_size, start, part), submit):
                yield self._collect(pool, *jobs)

    def _submit(self, pool, image: Drawn):
        path = self.domains.files[image.domain][image.index]
        return pool.submit(read_augmented, path, self.size, self.crop_probability, image.key)

    def _collect(self, pool, draws: Sequence[Draw], jobs: Sequence[Sequence]) -> DomainBatch:
        images = [
            [self._result(pool, image, job) for image, job in zip(one, row, strict=True)]
            for one, row in zip(draws, jobs, strict=True)
        ]
        source, reference, other = (np.stack(side) for side in zip(*images, strict=True))
        return DomainBatch(
            source,
            np.array([one.source.domain for one in draws]),
            reference,
            other,
            np.array([one.reference.domain for one in draws]),
        )

    def _result(self, pool, image: Drawn, job) -> np.ndarray:
        files = self.domains.files[image.domain]
        while True:
            try:
                picture, squeezed = job.result()
            except ImageError as error:
                self._note_bad(files, files[image.index], str(error))
            else:
                if squeezed and not self._squeezed:
                    self._squeezed = True
                    self.report(SQUEEZED.format(squeezed))
                return picture
            image = dataclasses.replace(image, index=(image.index + 1) % len(files))
            job = self._submit(pool, image)

    def _note_bad(self, domain: Sequence[ImageSource], path: ImageSource, message: str) -> None:
        if path not in self.bad:
            self.bad.add(path)
            self.report(f"skipped an unreadable image: {message}")
        if len(self.bad) > self.max_bad or self.bad.issuperset(domain):
            raise ImageError(
                f"{len(self.bad)} training images cannot be read, the last: {message} Repair or"
                " remove them, or allow more with --max_bad_images."
            )


@dataclasses.dataclass(frozen=True)
class Drawn:
    """An image of a domain, and the key that its augmentation is drawn from."""

    domain: int
    index: int
    key: tuple[int, ...]


class Draw(NamedTuple):
    """The images that make one sample of a step."""

    source: Drawn
    reference: Drawn
    other_reference: Drawn


def draw(domains: Domains, seed: int, position: int) -> Draw:
    """Draw the sample at `position` of a run: first a domain, then an image of it.

    The target domain is drawn apart from the source's, and may be the same.
    """

    def image(rng: np.random.Generator, domain: int, place: int) -> Drawn:
        key = (seed, _AUGMENTATION, place, position)
        return Drawn(domain, int(rng.integers(len(domains.files[domain]))), key)

    source, target = (np.random.default_rng((seed, s, position)) for s in (_SOURCE, _REFERENCE))
    from_domain, to_domain = (int(rng.integers(len(domains))) for rng in (source, target))
    return Draw(
        image(source, from_domain, 0), image(target, to_domain, 1), image(target, to_domain, 2)
    )


def read_augmented(
    path: ImageSource, size: int, crop_probability: float, key: tuple[int, ...]
) -> tuple[np.ndarray, str]:
    """Read an image, crop it at random or not, resize and perhaps mirror it: uint8 [S, S, 3].

    The text says which picture was squeezed, where it is not square.
    """
    image = read_source(path)
    height, width = image.shape[:2]
    squeezed = f"{path}, {width} x {height} pixels" if height != width else ""
    rng = np.random.default_rng(key)
    if rng.random() < crop_probability:
        top, left, height, width = crop_box(height, width, rng)
        image = image[top : top + height, left : left + width]
    image = resize_bilinear(np.ascontiguousarray(image), size)
    return image[:, ::-1] if rng.random() < 0.5 else image, squeezed


def crop_box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a crop of random area and ratio: top, left, height, width; the whole if none fits."""
    for _ in range(_CROP_ATTEMPTS):
        area = height * width * rng.uniform(*CROP_AREA)
        ratio = math.exp(rng.uniform(*np.log(CROP_RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return 0, 0, height, width


def read_all(paths: Sequence[ImageSource], size: int) -> np.ndarray:
    """Read images unaltered and resize them: uint8 [N, size, size, 3].

    Those that are not square are squeezed, which a `Note` says.
    """
    samples = [read_sample([path], size) for path in paths]
    if squeezed := [sample.squeezed for sample in samples if sample.squeezed]:
        warnings.warn(f"{len(squeezed)} of {len(paths)}: {SQUEEZED.format(squeezed[0])}", Note, 2)
    return np.stack([sample.images[0] for sample in samples])


def read_domains(domains: Domains, size: int, limit: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `limit` images of every domain (0: all), as `read_all` does, and their
    domains, int64 [N].
    """
    files = [paths[: limit or None] for paths in domains.files]
    images = np.concatenate([read_all(paths, size) for paths in files])
    return images, np.repeat(np.arange(len(files)), [len(paths) for paths in files])
