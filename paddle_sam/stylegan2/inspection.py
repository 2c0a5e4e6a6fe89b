"""A generator looked at closely, and a table of its layers: `scripts/inspect_generator.py`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import paddle
from paddle import nn
from tqdm import tqdm

from paddle_sam.core.files import atomic_path
from paddle_sam.core.images import resize, save_image, stack, strip, to_network
from paddle_sam.core.latents import read_latent
from paddle_sam.core.processes import spread
from paddle_sam.core.video import ease, there_and_back, write_all
from paddle_sam.core.weights import WeightFile, find_weight
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import ImageSet, ImageSource, open_image_set, read_source
from paddle_sam.imagesets.loader import read_batches, read_sample
from paddle_sam.networks.image_features import LPIPS, load_lpips
from paddle_sam.networks.load import build
from paddle_sam.networks.stylegan2 import Discriminator, Generator
from paddle_sam.stylegan2.generator import StyleGenerator, open_generator
from paddle_sam.stylegan2.options import InspectionOptions
from paddle_sam.stylegan2.parsing import parse_seeds

LARGEST_COMPARISON = 256
BATCH = 16  # images of the data set compared together
Row = tuple[str, list[int], int]


def inspect_generator(config: InspectionOptions) -> Iterator[Path]:
    """Write what the options ask for to `exp_dir/inspection/`; return the paths.

    Raises:
        ConfigError: an option cannot work.
        CheckpointError: a weight file or latent cannot be used.
        ImageError: the data set cannot be read.
        OutputError: the system refused to write.
    """
    ends = latent_paths(config.latents)
    seeds = parse_seeds(config.seeds)
    images = open_image_set(config.data_path) if config.data_path else None
    generator = open_generator(config, any_noise=config.layers)
    folder = Path(config.exp_dir) / "inspection"
    if config.layers:
        print(layer_tables(generator.source, generator.network))
    yield average_face(config, generator, folder / "average_face.png")
    if images is not None:
        yield nearest_sheet(config, generator, seeds, images, folder / "nearest.png")
    if ends:
        yield from interpolate_latents(config, generator, ends, folder)


def average_face(config: InspectionOptions, generator: StyleGenerator, path: Path) -> Path:
    """Render the average code: what truncation at psi 0 leaves of every face."""
    codes = np.broadcast_to(generator.w_avg, (1, generator.n_codes, generator.dim))
    save_image(path, resize(generator.render(codes)[0], generator.tile_size(config.tile_size)))
    return path


def nearest_sheet(
    config: InspectionOptions,
    generator: StyleGenerator,
    seeds: Sequence[int],
    images: ImageSet,
    path: Path,
) -> Path:
    """A row for each sample with its neighbours; the numbers beside it as JSON.

    Also says how far images of the data set are from their own nearest neighbours: samples that
    are much nearer than that are copies.
    """
    sources = images.images[: config.n_images or None]
    size = config.compare_size or min(generator.size, LARGEST_COMPARISON)
    codes = generator.seed_codes(seeds, config.truncation, config.truncation_cutoff)
    samples = list(generator.render_all(codes, len(seeds)))
    own = own_images(sources, config.references, size)
    queries = [*[resize(sample, size) for sample in samples], *own.values()]

    table = distances(
        np.stack(queries), sources, distance_of(config), config.mirror, config.num_threads
    )
    table[range(len(seeds), len(queries)), list(own)] = np.inf
    found = nearest(table[: len(seeds)], config.neighbours)
    tile, lines = generator.tile_size(config.tile_size), []
    for sample, seed, places, far in zip(
        samples, seeds, found.indices, found.distances, strict=True
    ):
        tiles = [sample, *[read_source(sources[place]) for place in places]]
        lines.append(strip(tiles, tile, [f"seed {seed}", *[f"{one:.3g}" for one in far]]))
    save_image(path, stack(lines))
    write_neighbours(
        path.with_suffix(".json"), config, seeds, images, found, table[len(seeds) :].min(axis=1)
    )
    return path


def own_images(sources: Sequence[ImageSource], count: int, size: int) -> dict[int, np.ndarray]:
    """Up to `count` readable images spread evenly over a data set, by their places in it."""
    found = {}
    for place in spread(count, len(sources)) if len(sources) > 1 else ():
        with contextlib.suppress(ImageError):  # the search will name it
            (found[place],) = read_sample((sources[place],), size).images
    return found


def distance_of(config: InspectionOptions) -> Distance:
    """What `--features` names."""
    if config.features == "pixels":
        return PixelDistance()
    return LpipsDistance(load_lpips(config.lpips_path or find_weight("lpips_alex")))


def write_neighbours(
    path: Path, config: InspectionOptions, seeds, images: ImageSet, found, own
) -> None:
    """Write and print how near the neighbours are."""
    content = {
        "features": config.features,
        "samples": [
            {
                "seed": seed,
                "neighbours": [
                    {"image": images.names[place], "distance": float(far)}
                    for place, far in zip(places, distances, strict=True)
                ],
            }
            for seed, places, distances in zip(seeds, found.indices, found.distances, strict=True)
        ],
        "data_set_to_itself": [float(far) for far in own],
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
    middle = np.median(found.distances[:, 0])
    print(f"nearest neighbours of {len(seeds)} samples: {middle:.3g} away ({config.features})")
    if len(own):
        print(
            f"nearest neighbours of {len(own)} images of the data set: {np.median(own):.3g} away;"
            " samples that are much nearer are copies"
        )


def latent_paths(text: str) -> list[Path]:
    """The two files of `--latents`, or none."""
    paths = [Path(part.strip()) for part in text.split(",") if part.strip()]
    if len(paths) not in (0, 2):
        raise ConfigError(f"--latents: expected two files such as a.npz,b.npz, found {text!r}")
    return paths


def interpolate_latents(
    config: InspectionOptions, generator: StyleGenerator, paths: Sequence[Path], folder: Path
) -> Iterator[Path]:
    """Between two projected images, linearly in W+: a strip with the photographs at its ends."""
    first, last = (read_latent(path, generator.n_codes, generator.dim) for path in paths)
    name = f"{paths[0].stem}_to_{paths[1].stem}"
    shares = np.linspace(0, 1, config.steps, dtype=np.float32)
    images = between(config, generator, first.w_plus, last.w_plus, shares)
    tiles = [first.crop, *images, last.crop]
    captions = [paths[0].stem, *[f"{share:.2f}" for share in shares], paths[1].stem]
    save_image(
        folder / f"{name}.png", strip(tiles, generator.tile_size(config.tile_size), captions)
    )
    yield folder / f"{name}.png"
    if config.video:
        count = max(round(config.fps * config.duration) // 2 + 1, 2)
        shares = ease(np.arange(count) / (count - 1))
        images = between(config, generator, first.w_plus, last.w_plus, shares)
        size = generator.tile_size(config.tile_size)
        frames = there_and_back((resize(image, size) for image in images), count)
        write_all([folder / f"{name}.mp4"], frames, config.fps)
        yield folder / f"{name}.mp4"


def between(
    config: InspectionOptions,
    generator: StyleGenerator,
    first: np.ndarray,
    last: np.ndarray,
    shares: np.ndarray,
) -> Iterator[np.ndarray]:
    """Images of (1 - share) first + share last, codes [L, D], for each share in [0, 1]."""
    codes = ((1 - share) * first + share * last for share in shares)
    return generator.render_all(codes, len(shares))


class Distance(Protocol):
    """What makes two images near each other."""

    def extract(self, images: np.ndarray) -> Sequence:
        """What is compared of images uint8 [N, S, S, 3]: arrays or tensors [N, ...]."""

    def between(self, queries: Sequence, images: Sequence) -> np.ndarray:
        """Distances float [Q, N] between what `extract` gave for Q and for N images."""


class PixelDistance:
    """Root mean square difference of the pixels, in grey levels."""

    def extract(self, images: np.ndarray) -> list[np.ndarray]:
        return [images.reshape(len(images), -1).astype(np.float32)]

    def between(self, queries: Sequence, images: Sequence) -> np.ndarray:
        rows = [np.square(images[0] - query).mean(axis=1) for query in queries[0]]
        return np.sqrt(np.stack(rows))


class LpipsDistance:
    """LPIPS, which is small where people see the same picture."""

    def __init__(self, lpips: LPIPS):
        self.lpips = lpips

    def extract(self, images: np.ndarray) -> list[paddle.Tensor]:
        with paddle.no_grad():
            return self.lpips.extract(paddle.to_tensor(to_network(images)))

    def between(self, queries: Sequence, images: Sequence) -> np.ndarray:
        rows = []
        with paddle.no_grad():
            for index in range(len(queries[0])):
                query = [level[index : index + 1] for level in queries]
                rows.append(self.lpips.distance(query, images).numpy())
        return np.stack(rows)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest images of each of Q queries, the nearest first.

    indices: int [Q, K], places in the data set. distances: float [Q, K].
    """

    indices: np.ndarray
    distances: np.ndarray


def distances(
    queries: np.ndarray,
    images: Sequence[ImageSource],
    distance: Distance,
    mirror: bool = False,
    workers: int = 0,
) -> np.ndarray:
    """Distance float [Q, N] of queries uint8 [Q, S, S, 3] from every image of a data set.

    Images that cannot be read are named and infinitely far.

    Args:
        mirror: take the smaller of the distances of a query and of its mirror image.
        workers: processes that read; 0: a thread of this one.

    Raises:
        ImageError: no image can be read.
    """
    size = queries.shape[1]
    if mirror:
        queries = np.concatenate([queries, queries[:, :, ::-1]])
    wanted = distance.extract(queries)
    found = np.full((len(queries), len(images)), np.inf)
    unreadable = {}
    with tqdm(total=len(images), unit="image") as progress:
        for read, failed in read_batches(images, size, BATCH, workers):
            if read:
                pixels = np.stack(list(read.values()))
                found[:, list(read)] = distance.between(wanted, distance.extract(pixels))
            for reason in failed.values():
                tqdm.write(f"skipped: {reason}", file=sys.stderr)
            unreadable |= failed
            progress.update(len(read) + len(failed))
    if len(unreadable) == len(images):
        raise ImageError(f"none of {len(images)} images can be read, the first: {unreadable[0]}")
    return found.reshape(2, -1, len(images)).min(axis=0) if mirror else found


def nearest(table: np.ndarray, count: int) -> Neighbours:
    """The `count` smallest of each row of `distances`, or all of them if there are fewer.

    >>> nearest(np.array([[0.5, 0.1, 0.3]]), 2).indices
    array([[1, 2]])
    """
    readable = int(np.isfinite(table).sum(axis=1).min())
    indices = np.argsort(table, axis=1, kind="stable")[:, : min(count, readable)]
    return Neighbours(indices, np.take_along_axis(table, indices, axis=1))


def layer_tables(path: str | Path, generator: Generator) -> str:
    """The layers of a generator, and of the discriminator if its weight file has one."""

    def render() -> None:
        z = paddle.zeros([1, generator.style_dim])
        codes = generator.map_latents(z).unsqueeze(1).expand([-1, generator.n_codes, -1])
        generator.render(codes)

    text = layer_table("generator", layer_rows(generator, render))
    file = WeightFile.read(path)
    if "d" in file.networks:
        discriminator = build(file, "d", expect=Discriminator)
        images = paddle.zeros([1, 3, discriminator.size, discriminator.size])
        rows = layer_rows(discriminator, lambda: discriminator(images))
        text += "\n" + layer_table("discriminator", rows)
    return text


@paddle.no_grad()
def layer_rows(network: nn.Layer, run: Callable[[], object]) -> list[Row]:
    """Name, output shape for one image and number of parameters of each layer that `run` calls."""
    rows: list[Row] = []

    def watch(name: str, layer: nn.Layer):
        count = sum(int(np.prod(parameter.shape)) for parameter in layer.parameters())

        def note(_, __, output) -> None:
            rows.append((name, list(output.shape), count))

        return layer.register_forward_post_hook(note)

    hooks = [watch(name, layer) for name, layer in _units(network)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def layer_table(title: str, rows: list[Row]) -> str:
    """Rows as aligned text, with their sum."""
    total = sum(count for _, _, count in rows)
    lines = [(title, "output shape", "parameters")]
    lines += [(name, " x ".join(map(str, shape)), f"{count:,}") for name, shape, count in rows]
    lines.append(("total", "", f"{total:,}"))
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    return "\n".join(
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {count:>12}" for name, shape, count in lines
    )


def _units(network: nn.Layer) -> Iterator[tuple[str, nn.Layer]]:
    """What a reader calls the layers: direct parts, and the members of lists of parts."""
    for name, part in network.named_children():
        if isinstance(part, nn.Sequential | nn.LayerList):
            for index, member in part.named_children():
                yield f"{name}.{index}", member
        else:
            yield name, part
