"""Sets of training images, and batches of them read ahead by processes, the same for any number.

They travel as bytes, uint8 [N, S, S, 3], a quarter of what a network takes: `to_device` turns
them into its input where it runs. Paddle is imported there, as reading processes do not need it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from paddle_sam.core.images import to_network
from paddle_sam.core.processes import ahead, batches, reading_pool, spread
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import (
    ImageSource,
    content_digest,
    list_sources,
    read_source,
    relative_name,
    source_size,
)

if TYPE_CHECKING:
    import paddle

SQUEEZED = (
    "images that are not square are squeezed to squares (said once), such as {}; to cut them"
    " instead: python scripts/prepare_dataset.py, or align_all_parallel.py for faces"
)
# Names and sizes of all images are compared; of this many, spread over the set, the content too.
_LOOKED_INTO = 256


class ImagePairs:
    """Source images and, where they differ, the target images they should become.

    Args:
        source: folder (at any depth) or archive of images, or the images themselves.
        target: folder or archive with an image for each source, under the same relative path
            whatever the suffix; the sources are their own targets when empty.
        limit: use the first N only; 0 for all.

    Raises:
        ImageError: a folder or archive is missing or holds no image.
        ConfigError: a source has no target.
    """

    def __init__(self, source: str | Sequence[ImageSource], target: str = "", limit: int = 0):
        files = list_sources(source) if isinstance(source, str | Path) else list(source)
        self.sources = files[: limit or None]
        self.targets: list[ImageSource] | None = None
        if target:
            by_name = {_key(image, target): image for image in list_sources(target)}
            names = [_key(image, source) for image in self.sources]
            if missing := [name for name in names if name not in by_name]:
                raise ConfigError(
                    f"{target}: has no image for {missing[0]} of {source}"
                    f" ({len(missing)} of {len(names)} are missing)."
                )
            self.targets = [by_name[name] for name in names]

    def __len__(self) -> int:
        return len(self.sources)

    def paths(self, index: int) -> tuple[ImageSource, ...]:
        """The source file, and the target file where there are targets."""
        if self.targets is None:
            return (self.sources[index],)
        return self.sources[index], self.targets[index]


class Sample(NamedTuple):
    """Images uint8 RGB [S, S, 3]; `squeezed` says of which one that was not square, if any was."""

    images: tuple[np.ndarray, ...]
    squeezed: str = ""


def read_sample(paths: Sequence[ImageSource], size: int) -> Sample:
    """Read images and resize them to `size`.

    Raises:
        ImageError: one of them cannot be read.
    """
    images = [read_source(path) for path in paths]
    shapes = zip(paths, (image.shape for image in images), strict=True)
    squeezed = next((f"{path}, {w} x {h} pixels" for path, (h, w, _) in shapes if h != w), "")
    return Sample(tuple(resize_bilinear(image, size) for image in images), squeezed)


def resize_bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 RGB [H, W, 3] to [size, size, 3], antialiased, as the published training does.

    The whole picture is kept: one that is not square is squeezed.
    """
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def sample_index(position: int, length: int, seed: int) -> int:
    """Return which sample a run shows at `position`: each once in every pass, reshuffled.

    A function of its arguments alone, so that a resumed run sees what an unbroken one would.
    """
    epoch, place = divmod(position, length)
    return int(_permutation(length, seed, epoch)[place])


@functools.lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(length)


def draw_mirrored(positions: np.ndarray, seed: int) -> np.ndarray:
    """Draw which samples of a run, by their positions, are mirrored: bool [N], half of them."""
    return np.array([np.random.default_rng((seed, 1, p)).random() < 0.5 for p in positions], bool)


def _key(image: ImageSource, root: str) -> str:
    return str(PurePosixPath(relative_name(image, Path(root))).with_suffix(""))


def identify_images(root: str, images: Sequence[ImageSource], facts: Any = None) -> dict[str, Any]:
    """Describe a set of images by its content, and `facts` that belong to them, such as ages."""
    looked_into = set(spread(_LOOKED_INTO, len(images)))
    digest = hashlib.sha256(json.dumps(facts).encode())
    for index, image in enumerate(images):
        content = ""
        if index in looked_into:
            try:
                content = content_digest(image)
            except ImageError:
                content = "unreadable"  # the loader says so
        line = f"{relative_name(image, Path(root))}\0{source_size(image)}\0{content}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return {"images": len(images), "sha256": digest.hexdigest()}


def joined(sets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Describe several sets of images as one."""
    if len(sets) == 1:
        return sets[0]
    digest = hashlib.sha256(json.dumps(sets).encode()).hexdigest()
    return {"images": sum(one["images"] for one in sets), "sha256": digest}


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images uint8 RGB [N, S, S, 3]; `target` is None where it equals `source`.

    mirror: bool [N], which of them are shown mirrored; None for none.
    """

    source: np.ndarray
    target: np.ndarray | None
    paths: tuple[ImageSource, ...]
    mirror: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, part: slice) -> Batch:
        target, mirror = (None if a is None else a[part] for a in (self.target, self.mirror))
        return Batch(self.source[part], target, self.paths[part], mirror)

    def tensors(self, size: int = 0) -> tuple[paddle.Tensor, paddle.Tensor | None]:
        """Return source and target as `to_device` makes them."""
        target = None if self.target is None else to_device(self.target, self.mirror, size)
        return to_device(self.source, self.mirror, size), target


def to_device(images: np.ndarray, mirror: np.ndarray | None = None, size: int = 0) -> paddle.Tensor:
    """Turn images into network input on Paddle's device: float32 [N, 3, S, S] in [-1, 1].

    Args:
        images: uint8 [N, S, S, 3]; or network input as an array, whose values are kept.
        mirror: bool [N], which of them to mirror.
        size: reduce them to this side by averaging squares of pixels; 0 keeps S.
    """
    import paddle

    if images.dtype == np.uint8 and paddle.get_device() == "cpu":
        images = to_network(images)  # NumPy does it in a quarter of Paddle's time there
    x = paddle.to_tensor(images)
    if images.dtype == np.uint8:
        # A division, as in `to_network`; Paddle's own by a number multiplies by its inverse.
        x = x.transpose([0, 3, 1, 2]).astype("float32")
        x = paddle.divide(x, paddle.full_like(x[:1, :1, :1, :1], 127.5)) - 1
    if mirror is not None and mirror.any():
        x = paddle.where(paddle.to_tensor(mirror)[:, None, None, None], paddle.flip(x, [3]), x)
    if size and size != x.shape[2]:
        x = paddle.nn.functional.avg_pool2d(x, x.shape[2] // size)
    return x


class BatchLoader:
    """Reads batches of an `ImagePairs`.

    Unreadable images are reported once each and replaced by the next readable one.

    Args:
        data: the images.
        size: height and width to resize to.
        workers: reading processes; 0: a thread of this one.
        max_bad: unreadable images to tolerate.
        cache: keep decoded images in memory.
        mirror: mirror half of the training images, at random.
        report: called with a message for each unreadable image.
    """

    def __init__(
        self,
        data: ImagePairs,
        size: int,
        workers: int = 0,
        max_bad: int = 0,
        cache: bool = False,
        mirror: bool = True,
        report: Callable[[str], None] = print,
    ):
        self.data, self.size = data, size
        self.workers, self.max_bad = workers, max_bad
        self.bad: dict[int, str] = {}
        self._keep, self._cache = cache, {}
        self._mirror, self._squeezed = mirror, False
        self._report = report

    def training(self, batch_size: int, seed: int, start: int, part: slice) -> Iterator[Batch]:
        """Yield shuffled batches without end, from step `start` (0 is the first).

        Args:
            batch_size: samples per step in the whole run.
            seed: the run's seed.
            start: first step to yield.
            part: which samples of each step to read (those of this process).
        """
        places = step_positions(batch_size, start, part)
        wanted = ((p, [sample_index(int(i), len(self.data), seed) for i in p]) for p in places)
        for positions, batch in self._read(wanted):
            mirror = draw_mirrored(positions, seed) if self._mirror else None
            yield dataclasses.replace(batch, mirror=mirror)

    def once(self, batch_size: int) -> Iterator[Batch]:
        """Yield every sample once, in order; the last batch may be smaller."""
        wanted = ((None, indices) for indices in batches(range(len(self.data)), batch_size))
        return (batch for _, batch in self._read(wanted))

    def _read(self, wanted: Iterable[tuple[Any, Sequence[int]]]) -> Iterator[tuple[Any, Batch]]:
        """Yield (tag, batch) for each (tag, indices) wanted."""
        with reading_pool(self.workers) as executor:

            def submit(item: tuple) -> tuple:
                tag, indices = item
                return tag, indices, [self._submit(executor, index) for index in indices]

            for tag, indices, futures in ahead(wanted, submit):
                yield tag, self._collect(executor, indices, futures)

    def _submit(self, executor: Executor, index: int) -> Future | None:
        if index in self.bad or index in self._cache:
            return None
        return executor.submit(read_sample, self.data.paths(index), self.size)

    def _collect(self, executor, indices: Sequence[int], futures: Sequence) -> Batch:
        samples, paths = [], []
        for index, future in zip(indices, futures, strict=True):
            images = self._result(index, future)
            while images is None:  # unreadable: take the next that is not
                index = (index + 1) % len(self.data)
                images = self._result(index, self._submit(executor, index))
            samples.append(images)
            paths.append(self.data.sources[index])
        source, *target = (np.stack(side) for side in zip(*samples, strict=True))
        return Batch(source, target[0] if target else None, tuple(paths))

    def _result(self, index: int, future: Future | None) -> tuple[np.ndarray, ...] | None:
        if future is None:
            return self._cache.get(index)
        try:
            images, squeezed = future.result()
        except ImageError as error:
            self._note_bad(index, str(error))
            return None
        if squeezed and not self._squeezed:
            self._squeezed = True
            self._report(SQUEEZED.format(squeezed))
        if self._keep:
            self._cache[index] = images
        return images

    def _note_bad(self, index: int, message: str) -> None:
        if index in self.bad:
            return
        self.bad[index] = message
        self._report(f"skipped an unreadable image: {message}")
        if len(self.bad) > self.max_bad or len(self.bad) == len(self.data):
            raise ImageError(
                f"{len(self.bad)} of {len(self.data)} training or test images cannot be read, the"
                f" last: {message} Repair or remove them, or allow more with --max_bad_images."
            )


def read_batches(
    images: Sequence[ImageSource], size: int, batch_size: int, workers: int
) -> Iterator[tuple[dict[int, np.ndarray], dict[int, str]]]:
    """Yield images uint8 RGB [size, size, 3] by their indices, and why others cannot be read.

    Args:
        images: read and resized in this order, each once.
        size: side to resize to.
        batch_size: images in each batch, the unreadable ones counted.
        workers: processes that read; 0: a thread of this one.
    """
    with reading_pool(workers) as pool:

        def submit(indices: range) -> dict[int, Future]:
            return {i: pool.submit(read_sample, (images[i],), size) for i in indices}

        for jobs in ahead(batches(range(len(images)), batch_size), submit):
            read, failed = {}, {}
            for index, job in jobs.items():
                try:
                    (read[index],) = job.result().images
                except ImageError as error:
                    failed[index] = str(error)
            yield read, failed


def step_positions(batch_size: int, start: int, part: slice) -> Iterator[np.ndarray]:
    """Yield the positions of a run's samples, step after step from `start`, of one process."""
    for step in itertools.count(start):
        yield np.arange(step * batch_size, (step + 1) * batch_size)[part]
