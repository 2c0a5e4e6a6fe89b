"""Curves of a run as one picture, from its text records."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path

from paddle_sam.common.checks import ConfigError
from paddle_sam.common.files import atomic_path

# What runs of StyleGAN2 and of SAM are watched by; other runs show all they have.
_FIRST = (
    "fid",
    "kid_alex",
    "D/score_real",
    "D/score_fake",
    "augment_p",
    "G/path_length",
    "D/r1",
    "loss",
    "age_error_years_real",
    "loss_l2_real",
    "loss_l2_cycle",
    "loss_lpips_real",
    "loss_id_real",
)
_COLUMNS = 3
_MOST = 6


def draw_curves(run: Path, output: Path) -> None:
    """Draw training and test curves of the run in folder `run` to the image file `output`.

    Raises:
        ConfigError: the folder holds no records, or matplotlib is not installed.
    """
    curves = _read(Path(run) / "stats.jsonl")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("matplotlib is not installed: pip install matplotlib") from error
    names = sorted(curves, key=lambda n: (_FIRST.index(n) if n in _FIRST else len(_FIRST), n))
    names = [name for name in names if name in _FIRST][:_MOST] or names[:_MOST]
    rows = math.ceil(len(names) / _COLUMNS)
    figure = Figure(figsize=(4 * _COLUMNS, 2.8 * rows), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, _COLUMNS, index + 1)
        for split, style in (("train", "-"), ("test", "o-")):
            if points := curves[name].get(split):
                axes.plot(*zip(*points, strict=True), style, label=split, linewidth=1, markersize=4)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step")
        if all(value >= 0 for points in curves[name].values() for _, value in points):
            axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    with atomic_path(output) as temporary:
        figure.savefig(temporary, dpi=100)


def _read(path: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Points (step, value) by name and split."""
    if not path.exists():
        raise ConfigError(f"{path.parent}: holds no records; name the --exp_dir of a training")
    curves: dict = defaultdict(lambda: defaultdict(list))
    for record in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        if record["split"] in ("train", "test"):
            for name, value in record.items():
                if name not in ("split", "step", "time"):
                    curves[name][record["split"]].append((record["step"], value))
    if not curves:
        raise ConfigError(f"{path}: holds no losses yet")
    return curves
