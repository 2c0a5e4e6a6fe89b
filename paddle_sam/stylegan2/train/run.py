"""A whole StyleGAN2 training run from its options (`scripts/train_stylegan2.py`)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.core import processes
from paddle_sam.core.files import check_outside
from paddle_sam.core.images import grid_columns, save_image, tiled
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import CheckpointError, ConfigError, ImageError, PaddleSamError, quoted
from paddle_sam.imagesets.archive import ImageSource, list_sources, open_image_set, read_source
from paddle_sam.imagesets.loader import BatchLoader, ImagePairs, identify_images, joined
from paddle_sam.metrics.features import AlexFeatures, InceptionFeatures, fid, kid
from paddle_sam.networks.image_features import load_lpips
from paddle_sam.networks.load import build_empty
from paddle_sam.stylegan2.train.draws import Labels, split_batch
from paddle_sam.stylegan2.train.growth import Archs, read_start
from paddle_sam.stylegan2.train.options import PLENTY_OF_IMAGES, StyleGAN2Options
from paddle_sam.stylegan2.train.trainer import Judge, StyleGAN2Trainer
from paddle_sam.training.distributed import World, join_world
from paddle_sam.training.folder import RunCheckpoints, numbered
from paddle_sam.training.run import Intervals, Job, start_run

_REALS_AT_ONCE = 32
_CHECKED = 16
_MOST_WEIGHT = 100


def train_stylegan2(options: StyleGAN2Options) -> Path:
    """Train, or resume training, in `options.exp_dir`; returns that folder. See `start_run`.

    Where batches differ by stage, each stretch of one batch size is a run up to its end, which
    the next one resumes: its data order and schedules are as if it had been stopped there.
    """
    options = numbered(options)
    stretches = options.stretches()
    if len(stretches) == 1:
        return _train_stretch(stretches[0])
    world = join_world(options.device, options.allow_tf32)
    for stretch in stretches:  # before the first, not hours later
        split_batch(stretch, options.mbstd_group, world)
    step = None if options.resume == "latest" else int(options.resume)
    resumed = RunCheckpoints(Path(options.exp_dir) / "checkpoints").read(step)
    done = _images_done(resumed) if resumed else 0
    left = [s for s in stretches if done + s.images_per_step / 2 < 1000 * s.total_kimg]
    first, *later = left or stretches[-1:]
    folder = _train_stretch(first)
    for stretch in later:
        _train_stretch(dataclasses.replace(stretch, resume="latest"))
    return folder


def _train_stretch(options: StyleGAN2Options) -> Path:
    """Train with one batch size up to `options.total_kimg`."""
    sets = data_sets(options.train_data)
    data = _images(sets, options)
    labels = read_labels(sets) if options.cond else None
    every = (options.log_kimg, options.snapshot_kimg, options.metric_kimg, options.save_kimg)

    def build(world: World, resumed: WeightFile | None) -> Job:
        start, size, offset = {}, None, 0
        if resumed is not None:
            _check_described(resumed)
            size = resumed.entry("g").arch["size"]
            # Images beyond steps times batch size, where that was another before.
            offset = _images_done(resumed, options)
            offset -= resumed.training["step"] * options.images_per_step
        elif options.init_from:
            start, new = read_start(options)
            if new and world.rank == 0:
                print(f"{options.init_from}: newly initialised: {new}")
        known = resumed.networks if resumed else start
        trainer = StyleGAN2Trainer(
            Archs.of(known, options, labels.classes if labels else 0),
            options,
            augmentation(options, len(data)),
            start,
            _judge(options, data) if world.rank == 0 else None,
            world,
            size,
            offset,
            labels,
        )
        steps = round((1000 * options.total_kimg - offset) / options.images_per_step)
        return Job(
            trainer,
            Intervals(max(1, steps), *map(options.steps, every)),
            _loader(data, options, options.cache_images),
            snapshot=lambda step, panel: _snapshot(trainer, data, step, panel),
            batch_size=options.images_per_step,
        )

    for root, _, _ in sets:
        check_outside("--exp_dir", Path(options.exp_dir), Path(root))
    inputs = {"train_data": joined([identify_images(*one) for one in sets])}
    step = None if options.resume == "latest" else int(options.resume)
    return start_run(options, build, inputs, step)


def _images_done(resumed: WeightFile, options: StyleGAN2Options | None = None) -> int:
    """Return the images that a checkpoint was trained on; `options` say what old ones do not."""
    was = resumed.options or {}
    batch = was.get("batch_size", options.batch_size if options else 0)
    repeats, beyond = was.get("d_repeats", 1), resumed.training.get("image_offset", 0)
    for number in (batch, repeats, beyond):
        if not isinstance(number, int):
            raise CheckpointError(
                f"{resumed.label}: expected numbers of images, found {quoted(number)}"
            )
    return resumed.training["step"] * batch * repeats + beyond


def _check_described(file: WeightFile) -> None:
    """Raise `CheckpointError` unless the networks can be built as the file describes them."""
    for name, entry in file.networks.items():
        try:
            build_empty(entry.network, entry.arch)
        except PaddleSamError as error:
            raise CheckpointError(f"{file.label}: {name}: {error}") from error
        group = entry.arch.get("group_size", 4)
        if not isinstance(group, int) or group < 1:
            raise CheckpointError(f"{file.label}: {name}: group_size is {quoted(group)}")


def augmentation(options: StyleGAN2Options, images: int) -> str:
    """Return what `--augment` means for a data set of N images: `ada`, `fixed` or `none`."""
    if options.augment != "auto":
        return options.augment
    return "ada" if images < PLENTY_OF_IMAGES else "none"


def data_sets(text: str) -> list[tuple[str, list[ImageSource], int]]:
    """Find the sets that `--train_data` lists: folder or archive, images, and weight of each.

    Raises:
        ImageError: one is missing or holds no image.
        ConfigError: a weight is not a whole number above 0.
    """
    sets = []
    for part in [text] if Path(text).exists() else text.split(","):
        path, colon, weight = part.rpartition(":")
        if not colon or Path(part).exists():
            path, weight = part, "1"
        if not weight.isdecimal() or not 0 < int(weight) <= _MOST_WEIGHT:
            raise ConfigError(
                f"--train_data: expected FOLDER or FOLDER:N with N from 1 to {_MOST_WEIGHT}, found"
                f" {quoted(part)}"
            )
        sets.append((path, list_sources(path), int(weight)))
    return sets


def read_labels(sets: Iterable[tuple[str, Sequence[ImageSource], int]]) -> Labels:
    """The classes that archives state, of data sets (path, images, weight).

    Raises:
        ConfigError: one states none, or all images are of one class.
    """
    by_image: dict[ImageSource, int] = {}
    numbers: list[int] = []
    for path, images, weight in sets:
        found = open_image_set(path)
        if found.labels is None:
            raise ConfigError(
                f"--cond: {path} states no classes of its images; make it with"
                " scripts/prepare_dataset.py --labels folders"
            )
        by_image |= dict(zip(found.images, found.labels, strict=True))
        numbers += [by_image[image] for image in images] * weight
    classes = max(numbers) + 1
    if classes < 2:
        raise ConfigError("--cond: expected at least two classes, found one")
    return Labels(by_image, np.asarray(numbers), classes)


def _images(
    sets: list[tuple[str, list[ImageSource], int]], options: StyleGAN2Options
) -> ImagePairs:
    """Join the training images; some from all over are checked to be large enough squares."""
    data = ImagePairs([image for _, images, weight in sets for image in images * weight])
    for source in spread(data, _CHECKED).sources:
        with contextlib.suppress(ImageError):  # the loader says which cannot be read
            height, width = read_source(source).shape[:2]
            if height != width or height < options.resolution:
                raise ConfigError(
                    f"train_data: {source} has {width} x {height} pixels, expected squares of at"
                    f" least {options.resolution} (--resolution). Prepare the data set first:"
                    " python scripts/prepare_dataset.py --help"
                )
    return data


def _loader(data: ImagePairs, options: StyleGAN2Options, cache: bool = False) -> BatchLoader:
    return BatchLoader(
        data,
        options.resolution,
        options.num_workers,
        options.max_bad_images,
        cache,
        options.mirror,
        report=tqdm.write,
    )


def spread(data: ImagePairs, count: int) -> ImagePairs:
    """Choose at most `count` images from all over the data, which may be sorted."""
    return ImagePairs([data.sources[index] for index in processes.spread(count, len(data))])


def _judge(options: StyleGAN2Options, data: ImagePairs) -> Judge | None:
    """What `--metric` names: FID, or over all images at once the kernel distance of AlexNet's."""
    if options.metric == "none":
        return None
    chosen = spread(data, options.metric_images)
    count, loader = len(chosen), _loader(chosen, options)

    def reals() -> Iterator[np.ndarray]:
        return (batch.source for batch in loader.once(_REALS_AT_ONCE))

    def kernel(real: np.ndarray, made: np.ndarray) -> float:
        return kid(real, made, subsets=1, subset_size=count)[0]

    if options.metric == "fid":
        extract = InceptionFeatures.from_file(options.inception_path, options.device)
        return quality("fid", extract, fid, reals, count)
    extract = AlexFeatures(load_lpips(options.lpips_path))
    return quality("kid_alex", extract, kernel, reals, count)


def quality(
    name: str,
    extract: Callable[[Sequence[np.ndarray]], np.ndarray],
    distance: Callable[[np.ndarray, np.ndarray], float],
    reals: Callable[[], Iterable[np.ndarray]],
    most: int,
) -> Judge:
    """Return what compares images that a generator makes with real ones.

    It returns the measure under its name and as `loss` (smaller is better).

    Args:
        name: of the measure.
        extract: uint8 images of a batch -> features [N, D].
        distance: of features of real and generated images.
        reals: returns batches of real images, uint8 [N, H, W, 3]; read once, at the first call.
        most: images of each kind.
    """

    def features(batches: Iterable[np.ndarray]) -> np.ndarray:
        found, left = [], most
        for batch in batches:
            found.append(extract(list(batch[:left])))
            left -= len(found[-1])
            if not left:
                break
        return np.concatenate(found)

    real_features = functools.cache(lambda: features(reals()))

    def judge(fakes: Callable[[int], Iterator[np.ndarray]]) -> dict[str, float]:
        value = distance(real_features(), features(fakes(most)))
        return {name: value, "loss": value}

    return judge


def _snapshot(
    trainer: StyleGAN2Trainer, data: ImagePairs, step: int, panel: np.ndarray
) -> Callable[[], None]:
    """Return what writes the averaged generator alone, and its images of always the same latents.

    The first time also a grid of real images as they are trained on, to compare with.
    """
    options = trainer.options
    folder = Path(options.exp_dir)
    images = trainer.images(step)
    close = options.snapshot_kimg < 1  # closer than whole thousands can tell apart
    kimg = f"{images / 1000:010.3f}" if close else f"{images // 1000:06d}"
    weights = trainer.state.weights(["g_ema"])

    def write() -> None:
        weights.write(folder / "snapshots" / f"network_{kimg}.pdparams")
        save_image(folder / "samples" / f"fakes_{kimg}.png", panel)
        reals = folder / "samples" / "reals.png"
        columns = grid_columns(options.resolution)
        chosen = spread(data, columns * columns)
        if not reals.exists() and len(chosen) >= columns:
            batch = next(_loader(chosen, options).once(len(chosen) // columns * columns))
            save_image(reals, tiled(batch.source, columns))

    return write
