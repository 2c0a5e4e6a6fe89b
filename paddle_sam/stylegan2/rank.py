"""Images ordered by how real a discriminator finds them: `scripts/rank_images.py`.

What a trained discriminator finds least real among the images it was trained on often does not
belong there: bad crops, text, drawings among photographs. Look at both ends before dropping.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.core.device import resolve_device
from paddle_sam.core.files import atomic_path, check_outside, sha256
from paddle_sam.core.folders import PART_SIZE, Store, one_writer
from paddle_sam.core.images import contact_sheet, save_image
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import (
    ImageSet,
    archive_name,
    open_image_set,
    read_description,
    read_source,
    source_bytes,
    stamp,
    write_archive,
)
from paddle_sam.imagesets.loader import read_batches, to_device
from paddle_sam.networks.load import load
from paddle_sam.networks.stylegan2 import Discriminator
from paddle_sam.stylegan2.generator import EMBEDDED_GENERATOR
from paddle_sam.stylegan2.options import RankOptions, SamplingOptions
from paddle_sam.stylegan2.sampling import sample

_OF_SAMPLING = ("checkpoint_path", "exp_dir", "truncation", "batch_size", "device", "engine")


@dataclass(frozen=True)
class Ranking:
    """How many images were ranked, how many are unreadable, and the files written."""

    images: int
    unreadable: int
    files: tuple[Path, ...]

    def status(self) -> int:
        """Print what was done; returns the command's exit status."""
        print(*self.files, f"{self.images} images ranked, {self.unreadable} unreadable", sep="\n")
        return int(self.unreadable > 0)


def rank_images(config: RankOptions) -> Ranking:
    """Score all images, and write the table, the sheets of both ends, and perhaps an archive.

    Scores are kept until all is written, so that an interrupted ranking resumes.

    Raises:
        PaddleSamError: the images or weights cannot be used.
    """
    folder = Path(config.exp_dir)
    if config.data_path:
        check_outside("--exp_dir", folder, Path(config.data_path))
    with one_writer(folder, "a ranking"):
        return _rank_images(config, folder)


def _rank_images(config: RankOptions, folder: Path) -> Ranking:
    weights = config.checkpoint_path or find_weight(EMBEDDED_GENERATOR)
    resolve_device(config.device)
    discriminator = load(
        weights, config.discriminator, config.device, expect=Discriminator, option="--discriminator"
    )
    images = make_samples(config) if config.samples else open_image_set(config.data_path)
    facts = {"weights": sha256(weights), "discriminator": config.discriminator}
    store = Store(folder / "scores", facts | {"batch_size": config.batch_size})
    scores, problems = score_all(
        discriminator, images, config.batch_size, config.num_threads, store
    )
    # Best first; of equal scores in the images' order; unreadable ones (NaN) last.
    order = np.argsort(-scores, kind="stable")
    readable = order[: len(order) - len(problems)]
    how = "drop_below" if config.drop_below else "drop_percent"
    selects = bool(getattr(config, how))
    if config.drop_below:
        drop = {index for index in readable if scores[index] < float(config.drop_below)}
    else:
        drop = set(readable[len(readable) - round(len(readable) * config.drop_percent / 100) :])
    drop.update(problems)
    if len(drop) == len(images):
        raise ConfigError(
            f"--{how}: leaves none of {len(images)} images, found {getattr(config, how)}"
        )
    table = folder / "ranking.csv"
    _write_table(table, images, scores, order, problems, drop if selects else set())
    files = [table, *_write_sheets(folder, images, scores, readable, config.sheet_images)]
    if selects:
        files.append(folder / "kept.zip")
        write_subset(
            files[-1], config.data_path, images, [i for i in range(len(images)) if i not in drop]
        )
    shutil.rmtree(folder / "scores", ignore_errors=True)
    return Ranking(len(images), len(problems), tuple(files))


def score_all(
    discriminator: Discriminator, images: ImageSet, batch_size: int, workers: int, store: Store
) -> tuple[np.ndarray, dict[int, str]]:
    """Return scores (logits) float64 [N], higher for what looks more real; NaN if unreadable.

    Also returns why images are unreadable, by their indices. Every image is its own group of the
    minibatch deviation, so that its score does not depend on the others of its batch. What `store`
    holds is not scored again, and what is scored is added to it.

    Raises:
        ImageError: none of them can be read.
    """
    discriminator.group_size = 1
    pairs = zip(images.names, images.images, strict=True)
    keys = [f"{name} {stamp(image)}" for name, image in pairs]
    missing = [index for index, key in enumerate(keys) if key not in store.rows]
    unread = [images.images[index] for index in missing]
    fresh: dict[str, np.ndarray] = {}
    problems: dict[int, str] = {}
    with tqdm(total=len(keys), initial=len(keys) - len(missing), desc="scoring", unit="img") as bar:
        for read, failed in read_batches(unread, discriminator.size, batch_size, workers):
            if read:
                with paddle.no_grad():
                    logits = discriminator(to_device(np.stack(list(read.values())))).numpy()
                fresh |= {
                    keys[missing[place]]: row for place, row in zip(read, logits, strict=True)
                }
            problems |= {missing[place]: reason for place, reason in failed.items()}
            if len(fresh) >= PART_SIZE:
                store.keep(fresh)
                fresh = {}
            bar.update(len(read) + len(failed))
    store.keep(fresh)
    if len(problems) == len(keys):
        raise ImageError(f"none of {len(keys)} images can be read, the first: {problems[0]}")
    return np.array([store.rows.get(key, [np.nan])[0] for key in keys]), problems


def make_samples(config: RankOptions) -> ImageSet:
    """Render `config.samples` seeds from `config.seed` on into `exp_dir/samples`.

    Existing ones are not made again.
    """
    seeds = f"{config.seed}-{config.seed + config.samples - 1}"
    taken_over = {name: getattr(config, name) for name in _OF_SAMPLING}
    sample(SamplingOptions(seeds=seeds, **taken_over))
    images = open_image_set(Path(config.exp_dir) / "samples")
    # An earlier ranking may have left others there.
    names = {f"seed{config.seed + number:04d}.png" for number in range(config.samples)}
    chosen = tuple(index for index, name in enumerate(images.names) if name in names)
    return ImageSet(
        tuple(images.images[i] for i in chosen), tuple(images.names[i] for i in chosen), None
    )


def write_subset(path: Path, data: str, images: ImageSet, chosen: Sequence[int]) -> None:
    """Write an archive with some of the images of a folder or archive, files as they are.

    Labels, and what `dataset.json` says about each image, go with them.
    """
    names = [images.names[index] for index in chosen]
    kept = set(names)
    description = read_description(data)
    if images.labels:
        description["labels"] = [[archive_name(images.names[i]), images.labels[i]] for i in chosen]
    if "images" in description:
        about = description["images"]
        description["images"] = [entry for entry in about if entry.get("name") in kept]
    contents = (source_bytes(images.images[index]) for index in chosen)
    write_archive(path, zip(names, contents, strict=True), description)


def _write_table(
    path: Path, images: ImageSet, scores: np.ndarray, order, problems: dict, drop: set
) -> None:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(["rank", "score", "image", "dropped", "problem"])
        for rank, index in enumerate(order, 1):
            score = "" if index in problems else f"{scores[index]:.6g}"
            dropped = "yes" if index in drop else ""
            table.writerow([rank, score, images.names[index], dropped, problems.get(index, "")])


def _write_sheets(
    folder: Path, images: ImageSet, scores: np.ndarray, order: Sequence[int], number: int
) -> Iterator[Path]:
    """`best.jpg` from the first on, `worst.jpg` from the last on."""
    for name, chosen in (("best", order[:number]), ("worst", order[::-1][:number])):
        tiles = [(read_source(images.images[index]), f"{scores[index]:.2f}") for index in chosen]
        path = folder / f"{name}.jpg"
        save_image(path, contact_sheet(tiles))
        yield path
