"""Edits of aged codes, and directions in W+ along which a face changes.

An edit is a function `(codes, inverted) -> codes`, all [N, L, D]: `codes` are those of the aged
faces, `inverted` what the faces were inverted to, before ageing. Directions are found in the
generator's weights, or given in files. The closed form is that of Shen and Zhou, "Closed-Form
Factorization of Latent Semantics in GANs" (2021): the unit vectors n that change the styles
A w + b most, eigenvectors of A^T A.

A direction in style space moves A w + b itself, by a number for each channel of each layer, [C] in
the order of rendering (Wu et al., "StyleSpace Analysis", 2021).
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_sam.ageing.options import AgeingOptions
from paddle_sam.ageing.pipeline import AgePipeline, Edit
from paddle_sam.core.files import read_arrays, write_arrays
from paddle_sam.core.pickles import read_torch_arrays
from paddle_sam.errors import CheckpointError, ConfigError, quoted
from paddle_sam.networks.stylegan2 import Generator, modulated_layers
from paddle_sam.networks.stylegan2_ops import EqualLinear, mix_latents
from paddle_sam.options import parse_codes

CLOSED_FORM = "sefa"


def strengthen(factor: float) -> Edit:
    """Scale what ageing does: 0 keeps the inverted face, 1 is the model, beyond extrapolates."""
    return lambda codes, inverted: inverted + factor * (codes - inverted)


def shift(offset: paddle.Tensor) -> Edit:
    """Move every code by `offset` [L, D]."""
    return lambda codes, inverted: codes + offset


def mix(latent_mask: Sequence[int], injected: paddle.Tensor, alpha: float | None = None) -> Edit:
    """Blend the codes that `latent_mask` names with `injected` [N or 1, L, D].

    `alpha` is the share of what is injected; None replaces entirely.
    """
    return lambda codes, inverted: mix_latents(codes, latent_mask, injected, alpha)


def chain(edits: Sequence[Edit]) -> Edit:
    """One edit that applies `edits` in order."""
    return lambda codes, inverted: functools.reduce(
        lambda changed, edit: edit(changed, inverted), edits, codes
    )


def open_edit(options: AgeingOptions, pipeline: AgePipeline) -> Edit:
    """The edit that `--strength`, `--edit` and `--directions` ask for."""
    edits = [] if options.strength == 1 else [strengthen(options.strength)]
    if options.edit or options.directions:
        directions = open_directions(options, pipeline.network.decoder)
        if amounts := parse_edits(options.edit):
            edits.append(shift(paddle.to_tensor(directions.offset(amounts))))
    return chain(edits)


class Directions:
    """Directions by name: `sefa0`, `sefa1`, ... by falling effect, and those of files.

    Args:
        generator: whose weights are factorised when a closed-form direction is first asked for.
        levels: codes that directions change, and whose modulations are factorised; all if None.
        given: further directions, [D], [L, D], or in style space [C].

    Raises:
        ConfigError: a given direction has another shape.
    """

    def __init__(
        self,
        generator: Generator,
        levels: Sequence[int] | None = None,
        given: Mapping[str, np.ndarray] | None = None,
    ):
        self._generator = generator
        self._levels = list(range(generator.n_codes) if levels is None else levels)
        self._known: dict[str, np.ndarray] = {}
        shapes = ((generator.style_dim,), (generator.n_codes, generator.style_dim))
        parts = style_parts(generator, self._levels)
        for name, direction in (given or {}).items():
            fits = direction.shape in shapes
            found = self._at_levels(direction) if fits else as_styles(direction, parts)
            if found is None:
                counts = sum(part[0] for part in parts), sum(n for n, rgb, _ in parts if not rgb)
                raise ConfigError(
                    f"--directions: {name} has the shape {list(direction.shape)}, this model takes"
                    f" {list(shapes[0])} or {list(shapes[1])}, in style space [{counts[0]}] or"
                    f" [{counts[1]}]{_what_it_is(direction)}"
                )
            self._known[name] = found

    def _at_levels(self, direction: np.ndarray) -> np.ndarray:
        """A direction [D] or [L, D] as [L, D], zero at the codes that it leaves alone."""
        chosen = np.zeros((self._generator.n_codes, self._generator.style_dim), np.float32)
        chosen[self._levels] = np.broadcast_to(direction, chosen.shape)[self._levels]
        return chosen

    @functools.cached_property
    def _closed(self) -> np.ndarray:
        return factorise(self._generator, self._levels)[0]

    def __getitem__(self, name: str) -> np.ndarray:
        """A direction, float32 [L, D], zero at the codes that it leaves alone.

        Of one in style space [C], with all layers.

        Raises:
            ConfigError: there is no direction of that name.
        """
        if name in self._known:
            return self._known[name].copy()
        found = re.fullmatch(rf"{CLOSED_FORM}(\d{{1,6}})", name)
        if found and int(found[1]) < self._generator.style_dim:
            return self._at_levels(self._closed[int(found[1])])
        last = f"{CLOSED_FORM}{self._generator.style_dim - 1}"
        known = ", ".join([*self._known, f"{CLOSED_FORM}0 to {last}"])
        raise ConfigError(
            f"--edit, --explore: there is no direction {name!r}; known are {known}, and those"
            " of a file that --directions names"
        )

    def offset(self, edits: Mapping[str, float]) -> np.ndarray:
        """The sum of directions by name, each times its amount: float32 [L, D].

        Raises:
            ConfigError: one is unknown, or one in style space, where codes have no place.
        """
        if styles := [name for name in edits if self[name].ndim == 1]:
            raise ConfigError(
                f"--edit: {styles[0]} is a direction in style space, which is shown by"
                f" scripts/edit.py --explore {styles[0]}; expected one in W"
            )
        return sum(np.float32(amount) * self[name] for name, amount in edits.items())


def _what_it_is(array: np.ndarray) -> str:
    """More about an array that is no direction in W, where its shape tells."""
    if array.ndim == 2 and len(array) > 1000:
        return (
            "; a table of style channels, as StyleCLIP's fs3.npy, becomes a direction only by its"
            " product with a text's features of CLIP"
        )
    return ""


def open_directions(
    options: AgeingOptions, generator: Generator, learned: Mapping[str, np.ndarray] | None = None
) -> Directions:
    """The directions that `--edit`, `--explore` and `--directions` may name, for a generator."""
    levels = None
    if options.edit_level:
        levels = parse_codes(options.edit_level, generator.n_codes, "--edit_level")
    given = read_directions(options.directions) if options.directions else {}
    return Directions(generator, levels, {**given, **(learned or {})})


def factorise(generator: Generator, levels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Directions [D, D] in the rows, by falling effect, and the effects [D].

    The effect of a unit vector n is the squared change of all styles that the codes `levels` drive,
    |A n|^2. The sign is such that the largest component is positive.
    """
    layers = [layer for level in levels for layer in modulations(generator)[level]]
    # Stored [in, out], that is as the transpose of A.
    transposed = np.concatenate(
        [layer.weight.numpy().astype(np.float64) * layer.weight_gain for layer in layers], axis=1
    )
    effects, vectors = np.linalg.eigh(transposed @ transposed.T)
    directions = vectors.T[::-1]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    return (directions * np.sign(largest)).astype(np.float32), effects[::-1]


def modulations(generator: Generator) -> list[list[EqualLinear]]:
    """For each code, the layers that turn it into styles (see `Generator.synthesis`)."""
    driven = [[] for _ in range(generator.n_codes)]
    for code, layer in modulated_layers(generator):
        driven[code].append(layer.modulation)
    return driven


def style_parts(generator: Generator, levels: Sequence[int]) -> list[tuple[int, bool, bool]]:
    """Of each layer: how many styles, whether it makes RGB, and whether `levels` drive it."""
    return [
        (layer.modulation.weight.shape[1], not layer.demodulate, code in levels)
        for code, layer in modulated_layers(generator)
    ]


def as_styles(given: np.ndarray, parts: Sequence[tuple[int, bool, bool]]) -> np.ndarray | None:
    """A direction in style space [C], zero at layers that are left alone; None if it is none.

    Args:
        given: [C], or without the layers to RGB, as StyleCLIP has them.
        parts: see `style_parts`.
    """
    if given.ndim != 1:
        return None
    for leaves_rgb in (False, True):
        widths = [0 if leaves_rgb and rgb else width for width, rgb, _ in parts]
        if sum(widths) != len(given):
            continue
        found, at = [], 0
        for own, (width, _, chosen) in zip(widths, parts, strict=True):
            values = given[at : at + own] if own and chosen else np.zeros(width, np.float32)
            found.append(values)
            at += own
        return np.concatenate(found)
    return None


@contextlib.contextmanager
def shifted_styles(generator: Generator, offset: np.ndarray) -> Iterator[None]:
    """Within this context, every code gives styles that are moved by `offset` [C].

    Styles are A w + b, so that their offset is one of b.
    """
    layers = [layer.modulation for _, layer in modulated_layers(generator)]
    biases = [layer.bias.numpy() for layer in layers]
    ends = np.cumsum([len(bias) for bias in biases])
    try:
        for layer, bias, part in zip(layers, biases, np.split(offset, ends[:-1]), strict=True):
            layer.bias.set_value(bias + part.astype(bias.dtype))
        yield
    finally:
        for layer, bias in zip(layers, biases, strict=True):
            layer.bias.set_value(bias)


def parse_edits(text: str) -> dict[str, float]:
    """Names and amounts of `--edit`.

    >>> parse_edits("smile=1.5, sefa3=-2")
    {'smile': 1.5, 'sefa3': -2.0}
    """
    edits = {}
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"\s*([^=\s]+)\s*=\s*([-+]?\d{1,9}(?:\.\d*)?|[-+]?\.\d+)\s*", part)
        if found is None:
            raise ConfigError(f"--edit: expected NAME=AMOUNT,... such as sefa0=3, found {part!r}")
        edits[found[1]] = float(found[2])
    return edits


def read_directions(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the directions of a file, float32 [D] or [L, D], by name.

    Besides the files of this package: one array or tensor (`.npy`, `.pt`), such as InterFaceGAN's
    boundaries and e4e's directions, called by the file's name; dicts of them; and the components
    of GANSpace, of e4e's `.pt` or GANSpace's own `.npz`, as `ganspace0`, `ganspace1`, ..., each
    times its standard deviation. A list of arrays is one direction in style space, a layer each.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if path.suffix in (".pt", ".pth"):
        content = read_torch_arrays(path)
        if isinstance(content, list) and all(isinstance(part, np.ndarray) for part in content):
            content = np.concatenate([part.reshape(-1) for part in content or [np.zeros(0)]])
        arrays = content if isinstance(content, dict) else {path.stem: content}
    else:
        arrays = read_arrays(path, "expected a file of arrays, each a named direction")
    for names in (("comp", "std"), ("lat_comp", "lat_stdev")):
        if set(names) <= arrays.keys():
            components, deviations = (np.asarray(arrays[name]) for name in names)
            scaled = components.reshape(len(components), -1) * deviations.reshape(-1, 1)
            arrays = {f"ganspace{number}": row for number, row in enumerate(scaled)}
            break
    return {str(name): _direction(array, f"{path}: {name}") for name, array in arrays.items()}


def _direction(array: Any, where: str) -> np.ndarray:
    numbers = isinstance(array, np.ndarray) and array.dtype.kind == "f"
    if not numbers or array.ndim not in (1, 2, 3) or not np.isfinite(array).all():
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else array
        raise CheckpointError(
            f"{where}: expected a direction, finite numbers [D] or [L, D], found {quoted(found)}"
        )
    if array.ndim > 1 and array.shape[0] == 1:  # a batch of one, as InterFaceGAN and e4e keep it
        array = array[0]
    return array.astype(np.float32)


def save_directions(path: str | os.PathLike, directions: Mapping[str, np.ndarray]) -> None:
    """Write directions by name, for `read_directions`."""
    write_arrays(path, directions, compress=True)
