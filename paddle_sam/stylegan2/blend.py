"""Two generators blended by layers: coarse layers of one, fine layers of the other.

"Resolution Dependent GAN Interpolation for Controllable Image Synthesis Between Domains" (Pinkney
and Adler 2020). Both generators must descend from the same one, or nothing fits: one of them is
usually a transfer of the other.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from paddle_sam.core.images import matrix, save_image
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.stylegan2.generator import StyleGenerator
from paddle_sam.stylegan2.options import BlendOptions
from paddle_sam.stylegan2.parsing import parse_seeds

MAPPING = ("style.", "embed.")  # what parameters of the mapping network begin with
_PREFIXES = {"stylegan2_generator": "", "sam": "decoder."}


def blend_files(options: BlendOptions) -> Iterator[Path]:
    """Write the blended weight file and, beside it, a sheet of both generators and the result.

    The file is that of `low`, SAM or pSp too, with other weights in its generator.

    Raises:
        CheckpointError: a file cannot be used, or the generators differ in shape.
        ConfigError: an option cannot work.
        OutputError: the system refused to write.
    """
    for name in ("low", "high"):
        if not getattr(options, name):
            raise ConfigError(f"--{name}: name a StyleGAN2, SAM or pSp weight file")
    seeds = parse_seeds(options.seeds)
    low, high = (WeightFile.read(getattr(options, name), f"--{name}") for name in ("low", "high"))
    entry, prefix = low.entry(), _prefix(low)
    if prefix and options.mapping == "high":
        raise ConfigError("--mapping high: is for StyleGAN2 files; an encoder makes these codes")
    entry.state |= {
        f"{prefix}{name}": array
        for name, array in blended(
            entry.below(prefix),
            high.entry().below(_prefix(high)),
            options.resolution,
            options.width,
            options.mapping,
            options.layer,
            f"{options.high}, {options.low}",
        ).items()
    }
    # What else a training file holds belongs to the generator as it was.
    first = next(iter(low.networks))
    average = high.latent_avg if options.mapping == "high" else low.latent_avg
    dataclasses.replace(
        low, networks={first: entry}, latent_avg=average, source=None, training=None
    ).write(options.output)
    yield Path(options.output)

    rows = []
    for path in (options.low, options.output, options.high):
        generator = StyleGenerator.open(path, options.device, engine="eager")
        codes = generator.seed_codes(seeds, options.truncation)
        rows.append(list(generator.render_all(codes, len(seeds))))
    sheet = Path(options.output).with_suffix(".png")
    tile = generator.tile_size(0)
    save_image(sheet, matrix(rows, tile, list(map(str, seeds)), ["low", "blended", "high"]))
    yield sheet


def blended(
    low: dict[str, np.ndarray],
    high: dict[str, np.ndarray],
    resolution: int,
    width: float = 0.0,
    mapping: str = "low",
    layer: int = 0,
    names: str = "the generators",
) -> dict[str, np.ndarray]:
    """Arrays of a `Generator`: those of `low` below a resolution or layer, of `high` from it on.

    Args:
        low, high: `state_dict()`s of generators of one shape.
        resolution: the lowest one that comes from `high`, in pixels.
        width: 0 swaps layers whole. Above 0 the share of `high` rises along a sigmoid, by this
            many octaves of resolution from a half to 73%.
        mapping: whose mapping network it has, `low` or `high`.
        layer: the first one that comes from `high`, instead of `resolution`, unless 0; see
            `layer_number`.
        names: what the two are called, for messages.

    Raises:
        CheckpointError: the generators differ in shape.
        ConfigError: the resolution is not between 8 and that of the generators, or there is no such
            layer.
    """
    for name in sorted(set(low) | set(high)):
        shapes = [list(state[name].shape) if name in state else None for state in (low, high)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{names}: these generators differ in shape ({name}: {shapes[1]}, {shapes[0]});"
                " blend one with a transfer of it (scripts/train_stylegan2.py --init_from)"
            )
    largest, last = (max(map(of, low)) for of in (layer_resolution, layer_number))
    if layer > last:
        raise ConfigError(f"--layer: expected 1 to {last}, found {layer}")
    if not layer and (resolution & (resolution - 1) or not 8 <= resolution <= largest):
        raise ConfigError(
            f"--resolution: expected a power of two from 8 to {largest}, found {resolution}"
        )
    found = {}
    for name in low:
        if name.startswith(MAPPING):
            found[name] = (high if mapping == "high" else low)[name]
            continue
        octaves = math.log2(layer_resolution(name) / resolution) + 0.5
        if layer:
            octaves = (layer_number(name) - layer) / 2 + 0.25
        share = high_share(octaves, width)
        mixed = (1 - share) * low[name].astype(np.float64) + share * high[name]
        found[name] = mixed.astype(low[name].dtype)
    return found


def high_share(octaves: float, width: float) -> float:
    """Share of the generator for high resolutions in a layer this far above the border.

    The border lies between two layers, so that none is at 0.

    >>> [high_share(octaves, 0.0) for octaves in (-0.5, 0.5, 1.5)]
    [0.0, 1.0, 1.0]
    >>> [round(high_share(octaves, 1.0), 3) for octaves in (-0.5, 0.5, 1.5)]
    [0.378, 0.622, 0.818]
    """
    return 1 / (1 + math.exp(-octaves / width)) if width else float(octaves > 0)


def layer_resolution(name: str) -> int:
    """The resolution in pixels that a parameter of `Generator` acts on; 0 for the mapping network.

    >>> [layer_resolution(f"{name}.bias") for name in ("style.1", "to_rgb1", "convs.2.activate")]
    [0, 4, 16]
    """
    number = layer_number(name)
    return 0 if number < 0 else 4 << (number + 1) // 2


def layer_number(name: str) -> int:
    """Which convolution a parameter of `Generator` belongs to, from 0; -1 for the mapping network.

    Each resolution above 4 px has two, of which the first doubles the size. A layer to RGB goes
    with the convolution that it reads, as in Pinkney's script, and the constant with the first.

    >>> names = ("input.input", "to_rgb1.bias", "convs.0.conv.weight", "convs.1.conv.weight")
    >>> [layer_number(name) for name in (*names, "to_rgbs.0.bias", "noises.noise_2")]
    [0, 0, 1, 2, 2, 2]
    """
    if name.startswith(MAPPING):
        return -1
    found = re.match(r"(convs|to_rgbs|noises)\.(?:noise_)?(\d+)", name)
    if found is None:
        return 0
    index = int(found[2])
    return {"convs": index + 1, "to_rgbs": 2 * index + 2, "noises": index}[found[1]]


def _prefix(file: WeightFile) -> str:
    """What the generator's arrays are called with in the first network of a file."""
    entry = file.entry()
    if entry.network not in _PREFIXES:
        raise CheckpointError(f"{file.label}: holds {file.kind}, which has no StyleGAN2 generator")
    return _PREFIXES[entry.network]
