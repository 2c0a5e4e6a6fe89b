"""A table of a network's layers: `scripts/inspect_generator.py --layers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from paddle_sam.core.weight_file import WeightFile
from paddle_sam.networks.load import build
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.networks.stylegan2_discriminator import Discriminator

Row = tuple[str, list[int], int]


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
