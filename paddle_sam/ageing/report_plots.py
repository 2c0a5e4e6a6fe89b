"""The plots of an ageing report, each as an SVG that a page can hold inline."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from paddle_sam.ageing.evaluation_summary import FaceRecord, gaps_and_similarities

_BLUE, _ORANGE, _GREY = "#2b6cb0", "#c05621", "#a0aec0"
_STYLE = {
    "svg.fonttype": "none",  # text as text: small, and sharp in the reader's own font
    "svg.hashsalt": "paddle_sam",  # the same data give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "axes.axisbelow": True,
}


def plot_ages(records: Sequence[FaceRecord]) -> str:
    """Ages that the results are read as, over the ages asked for."""
    targets = records[0].targets
    measured = np.array([record.measured for record in records])
    figure, axes = _figure("target age", "measured age")
    axes.plot([0, 100], [0, 100], color=_GREY, linestyle="--", label="as asked")
    axes.boxplot(
        list(measured.T),
        positions=targets,
        widths=_width(targets),
        manage_ticks=False,
        medianprops={"color": _ORANGE},
        boxprops={"color": _BLUE},
        whiskerprops={"color": _BLUE},
        capprops={"color": _BLUE},
        flierprops={"marker": ".", "markeredgecolor": _GREY, "markersize": 4},
    )
    axes.legend(frameon=False)
    return _data_uri(figure)


def plot_age_errors(by_target: Mapping[str, Mapping[str, float]]) -> str:
    """Mean absolute error and bias over the ages asked for."""
    targets = [float(target) for target in by_target]
    figure, axes = _figure("target age", "years")
    errors = [found["mean_absolute_error"] for found in by_target.values()]
    axes.bar(targets, errors, _width(targets), color=_BLUE, label="mean absolute error")
    bias = [found["bias"] for found in by_target.values()]
    axes.plot(targets, bias, "o-", color=_ORANGE, markersize=4, label="bias (above 0: too old)")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.legend(frameon=False)
    return _data_uri(figure)


def plot_identity(records: Sequence[FaceRecord], judge: str, by_gap: Sequence[Mapping]) -> str:
    """Similarity to the input over the distance of the target from the input's age."""
    gaps, similarities = gaps_and_similarities(records, judge)
    figure, axes = _figure("age gap in years", "cosine similarity")
    # As pixels: as shapes, the results of thousands of faces would make the page huge.
    axes.plot(gaps, similarities, ".", color=_GREY, markersize=3, label="results", rasterized=True)
    middles = [(step["from"] + step["to"]) / 2 for step in by_gap]
    axes.plot(middles, [step["mean"] for step in by_gap], "o-", color=_BLUE, label="mean")
    axes.set_ylim(top=1)
    axes.legend(frameon=False)
    return _data_uri(figure)


def plot_reconstruction(records: Sequence[FaceRecord], name: str) -> str:
    """How often which value of one measure of reconstruction occurs."""
    figure, axes = _figure(name, "faces", width=3.2)
    values = [record.reconstruction[name.lower()] for record in records]
    axes.hist(values, bins=20, color=_BLUE)
    axes.yaxis.get_major_locator().set_params(integer=True)
    return _data_uri(figure)


def _width(targets: Sequence[float]) -> float:
    """Of a bar or a box, so that neighbours stay apart."""
    return 0.6 * min(np.diff(sorted(targets)), default=10)


def _figure(x: str, y: str, width: float = 5):
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, 3.2), layout="constrained")
        axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _data_uri(figure: Figure) -> str:
    stream = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None}, dpi=200)
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()
