"""Sheets that show what directions do to a face: `scripts/edit.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle

from paddle_sam.ageing.edits import open_directions, save_directions
from paddle_sam.ageing.latent_options import EditOptions
from paddle_sam.ageing.options import parse_ages
from paddle_sam.ageing.photos import Summary, results_folder
from paddle_sam.ageing.run import Ageing, AgeingRun
from paddle_sam.core.images import to_network
from paddle_sam.core.sheets import SMALLEST_TILE, save_sheet, stack, strip


def edit_sheets(options: EditOptions) -> Summary:
    """`exp_dir/directions/NAME`, or `directions/AGE/NAME` with ages: a row for each direction."""
    ages = parse_ages(options.target_age) if options.target_age else [None]
    names, amounts = options.names, options.steps
    root = results_folder(options) / "directions"
    last = "" if ages[-1] is None else f"{ages[-1]:g}"
    run = AgeingRun(options, lambda one: root / last / one.result())
    ageing = run.ageing
    known = open_directions(options, ageing.pipeline.network.decoder)
    directions = {name: known[name] for name in names}
    if options.save_directions:
        save_directions(options.save_directions, directions)
        print(f"directions: {options.save_directions}")
    for photo in run.photos():
        inverted = ageing.invert(photo)
        for index, (name, crop) in enumerate(zip(photo.face_names(), photo.crops, strict=True)):
            start = inverted[index : index + 1]
            for age in ages:
                codes = _codes(ageing, crop, start, age)
                rows = [
                    _row(ageing, options, codes, direction, amounts, label)
                    for label, direction in directions.items()
                ]
                save_sheet(root / (name if age is None else Path(f"{age:g}") / name), stack(rows))
    return run.summary


def _codes(
    ageing: Ageing, crop: np.ndarray, inverted: paddle.Tensor, age: float | None
) -> paddle.Tensor:
    """Code [1, L, D] of a face at an age, or as it is, with the edits of the run."""
    if age is not None:
        return ageing.codes(paddle.to_tensor(to_network(crop)), inverted, age)
    return ageing.edit(inverted, inverted) if ageing.edit else inverted


def _row(
    ageing: Ageing,
    options: EditOptions,
    codes: paddle.Tensor,
    direction: np.ndarray,
    amounts: list[float],
    label: str,
) -> np.ndarray:
    """The face moved by each of `amounts` along a direction [L, D], side by side."""
    moved = codes + paddle.to_tensor(np.stack([amount * direction for amount in amounts]))
    tiles = ageing.pipeline.pictures(moved, ageing.batch_size)
    tile = options.tile_size or max(ageing.pipeline.output_size, SMALLEST_TILE)
    return strip(tiles, tile, [f"{label} {amount:+g}" for amount in amounts])
