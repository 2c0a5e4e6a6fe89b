"""A generator looked at closely: `scripts/inspect_generator.py`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from paddle_sam.ageing.animate import there_and_back, write_all
from paddle_sam.ageing.latents import read_latent
from paddle_sam.core.files import atomic_path
from paddle_sam.core.images import resize, save_image
from paddle_sam.core.sheets import stack, strip
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import ImageSet, ImageSource, open_image_set, read_source
from paddle_sam.imagesets.dataset import read_sample
from paddle_sam.networks.lpips_weights import load_lpips
from paddle_sam.stylegan2.generator import StyleGenerator, checkpoint
from paddle_sam.stylegan2.nearest import Distance, LpipsDistance, PixelDistance, distances, nearest
from paddle_sam.stylegan2.options import InspectionOptions, parse_seeds

LARGEST_COMPARISON = 256


def inspect_generator(config: InspectionOptions) -> Iterator[Path]:
    """Write what the options ask for to `exp_dir/inspection/`; gives the paths.

    Raises:
        ConfigError: an option cannot work.
        CheckpointError: a weight file or latent cannot be used.
        ImageError: the data set cannot be read.
        OutputError: the system refused to write.
    """
    ends = latent_paths(config.latents)
    seeds = parse_seeds(config.seeds)
    images = open_image_set(config.data_path) if config.data_path else None
    generator = StyleGenerator.open(checkpoint(config), config)
    folder = Path(config.exp_dir) / "inspection"
    yield average_face(config, generator, folder / "average_face.png")
    if images is not None:
        yield nearest_sheet(config, generator, seeds, images, folder / "nearest.png")
    if ends:
        yield from interpolation(config, generator, ends, folder)


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
    own = references(sources, config.references, size)
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
    report(path.with_suffix(".json"), config, seeds, images, found, table[len(seeds) :].min(axis=1))
    return path


def references(sources: Sequence[ImageSource], count: int, size: int) -> dict[int, np.ndarray]:
    """Up to `count` readable images spread evenly over a data set, by their places in it."""
    places = np.linspace(0, len(sources) - 1, min(count, len(sources))).round().astype(int)
    found = {}
    for place in places if len(sources) > 1 else ():
        with contextlib.suppress(ImageError):  # the search will name it
            (found[int(place)],) = read_sample((sources[place],), size)
    return found


def distance_of(config: InspectionOptions) -> Distance:
    """What `--features` names."""
    if config.features == "pixels":
        return PixelDistance()
    return LpipsDistance(load_lpips(config.lpips_path or find_weight("lpips_alex")))


def report(path: Path, config: InspectionOptions, seeds, images: ImageSet, found, own) -> None:
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


def interpolation(
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
        shares = (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2
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
