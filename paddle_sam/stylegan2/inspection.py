"""A generator looked at closely, and a table of its layers: `scripts/inspect_generator.py`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from tqdm import tqdm

from paddle_sam.core.files import write_json
from paddle_sam.core.images import resize, save_image, stack, strip
from paddle_sam.core.latents import read_latent
from paddle_sam.core.processes import spread
from paddle_sam.core.video import ease, there_and_back, write_all
from paddle_sam.core.weights import WeightFile, find_weight
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import ImageSet, ImageSource, open_image_set, read_source
from paddle_sam.imagesets.loader import read_batches, read_sample, to_device
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
    ends = [Path(part.strip()) for part in config.latents.split(",") if part.strip()]
    if len(ends) not in (0, 2):
        raise ConfigError(
            f"--latents: expected two files such as a.npz,b.npz, found {config.latents!r}"
        )
    seeds = parse_seeds(config.seeds)
    images = open_image_set(config.data_path) if config.data_path else None
    generator = open_generator(config, any_noise=config.layers)
    folder = Path(config.exp_dir) / "inspection"
    if config.layers:
        print(layer_tables(generator.source, generator.network))
    # What truncation at psi 0 leaves of every face.
    average = np.broadcast_to(generator.w_avg, (1, generator.n_codes, generator.dim))
    face = resize(generator.render(average)[0], generator.tile_size(config.tile_size))
    save_image(folder / "average_face.png", face)
    yield folder / "average_face.png"
    if images is not None:
        yield nearest_sheet(config, generator, seeds, images, folder / "nearest.png")
    if ends:
        yield from interpolate_latents(config, generator, ends, folder)


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

    lpips = None
    if config.features == "lpips":
        lpips = load_lpips(config.lpips_path or find_weight("lpips_alex"))
    table = distances(
        np.stack(queries), sources, Distance(lpips), config.mirror, config.num_threads
    )
    table[range(len(seeds), len(queries)), list(own)] = np.inf
    tile, lines, named = generator.tile_size(config.tile_size), [], []
    rows = zip(samples, seeds, *nearest(table[: len(seeds)], config.neighbours), strict=True)
    for sample, seed, places, far in rows:
        tiles = [sample, *[read_source(sources[place]) for place in places]]
        lines.append(strip(tiles, tile, [f"seed {seed}", *[f"{one:.3g}" for one in far]]))
        named.append(
            [
                {"image": images.names[place], "distance": float(one)}
                for place, one in zip(places, far, strict=True)
            ]
        )
    save_image(path, stack(lines))
    own_nearest = table[len(seeds) :].min(axis=1)
    write_neighbours(path.with_suffix(".json"), config, seeds, named, own_nearest)
    return path


def own_images(sources: Sequence[ImageSource], count: int, size: int) -> dict[int, np.ndarray]:
    """Up to `count` readable images spread evenly over a data set, by their places in it."""
    found = {}
    for place in spread(count, len(sources)) if len(sources) > 1 else ():
        with contextlib.suppress(ImageError):  # the search will name it
            (found[place],) = read_sample((sources[place],), size).images
    return found


def write_neighbours(
    path: Path,
    config: InspectionOptions,
    seeds: Sequence[int],
    named: list[list[dict]],
    own: np.ndarray,
) -> None:
    """Write and print how near the neighbours are.

    Args:
        named: for each seed its neighbours, the nearest first: `image` and `distance`.
        own: distances of images of the data set to their own nearest neighbours.
    """
    content = {
        "features": config.features,
        "samples": [
            {"seed": seed, "neighbours": neighbours}
            for seed, neighbours in zip(seeds, named, strict=True)
        ],
        "data_set_to_itself": own.tolist(),
    }
    write_json(path, content)
    middle = np.median([neighbours[0]["distance"] for neighbours in named])
    print(f"nearest neighbours of {len(seeds)} samples: {middle:.3g} away ({config.features})")
    if len(own):
        print(
            f"nearest neighbours of {len(own)} images of the data set: {np.median(own):.3g} away;"
            " samples that are much nearer are copies"
        )


def interpolate_latents(
    config: InspectionOptions, generator: StyleGenerator, paths: Sequence[Path], folder: Path
) -> Iterator[Path]:
    """Between two projected images, linearly in W+: a strip with the photographs at its ends."""
    first, last = (read_latent(path, generator.n_codes, generator.dim) for path in paths)
    name = f"{paths[0].stem}_to_{paths[1].stem}"
    shares = np.linspace(0, 1, config.steps, dtype=np.float32)
    images = between(generator, first.w_plus, last.w_plus, shares)
    tiles = [first.crop, *images, last.crop]
    captions = [paths[0].stem, *[f"{share:.2f}" for share in shares], paths[1].stem]
    save_image(
        folder / f"{name}.png", strip(tiles, generator.tile_size(config.tile_size), captions)
    )
    yield folder / f"{name}.png"
    if config.video:
        count = max(round(config.fps * config.duration) // 2 + 1, 2)
        shares = ease(np.arange(count) / (count - 1))
        images = between(generator, first.w_plus, last.w_plus, shares)
        size = generator.tile_size(config.tile_size)
        frames = there_and_back((resize(image, size) for image in images), count)
        write_all([folder / f"{name}.mp4"], frames, config.fps)
        yield folder / f"{name}.mp4"


def between(
    generator: StyleGenerator, first: np.ndarray, last: np.ndarray, shares: np.ndarray
) -> Iterator[np.ndarray]:
    """Images of (1 - share) first + share last, codes [L, D], for each share in [0, 1]."""
    codes = ((1 - share) * first + share * last for share in shares)
    return generator.render_all(codes, len(shares))


class Distance:
    """What makes images near: LPIPS, which is small where people see the same picture.

    Without a network it is the root mean square difference of the pixels, in grey levels.
    """

    def __init__(self, lpips: LPIPS | None = None):
        self.lpips = lpips

    @paddle.no_grad()
    def extract(self, images: np.ndarray) -> list:
        """Return what is compared of images uint8 [N, S, S, 3]: levels of [N, ...]."""
        if self.lpips is None:
            return [images.reshape(len(images), -1).astype(np.float32)]
        return self.lpips.extract(to_device(images))

    @paddle.no_grad()
    def between(self, queries: list, images: list) -> np.ndarray:
        """Return distances float [Q, N] between what `extract` gave for Q and for N images."""
        rows = []
        for index in range(len(queries[0])):
            query = [level[index : index + 1] for level in queries]
            if self.lpips is None:
                rows.append(np.sqrt(np.square(images[0] - query[0]).mean(axis=1)))
            else:
                rows.append(self.lpips.distance(query, images).numpy())
        return np.stack(rows)


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


def nearest(table: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places and distances [Q, K] of the `count` smallest in each row, rising.

    There are fewer if fewer images can be read.

    >>> nearest(np.array([[0.5, 0.1, 0.3]]), 2)
    (array([[1, 2]]), array([[0.1, 0.3]]))
    """
    readable = int(np.isfinite(table).sum(axis=1).min())
    places = np.argsort(table, axis=1, kind="stable")[:, : min(count, readable)]
    return places, np.take_along_axis(table, places, axis=1)


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
