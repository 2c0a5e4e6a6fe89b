"""What an ageing evaluation found, in numbers and as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from paddle_sam.core.files import atomic_path
from paddle_sam.core.images import read_image, strip
from paddle_sam.metrics.judges import AGE_JUDGE, GENDER_JUDGE, IDENTITY_JUDGE, SAME_PERSON

JUDGES = {"age": AGE_JUDGE, "identity": IDENTITY_JUDGE, "gender": GENDER_JUDGE}
JUDGED = ("judged_age", "distance", "same_gender")
AGE_NUMBERS = ("mean_measured_age", "mean_absolute_error", "bias", "nine_in_ten_below")
GAP_STEP = 10  # years of the steps that age gaps are counted in
CASES = 6  # shown on each side of "best and worst"
_TILE = 128
_STRIP_TILE = 96
_BLUE, _ORANGE, _GREY = "#2b6cb0", "#c05621", "#a0aec0"
_PLOT_STYLE = {
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


@dataclasses.dataclass(frozen=True)
class FaceRecord:
    """What was measured of one face.

    name: of its photograph. input_age: the age it is read as. targets: the A ages asked for.
    measured: the ages the results are read as, [A]. identity: for each judge (face recogniser) the
    similarity of the results to the input, [A]; None where it found no face. reconstruction: by
    measure, of the result at `input_age`. judged: by `JUDGED`, what independent judges read in the
    results, [A] each; None where no face was found; empty without judges.
    """

    name: str
    input_age: float
    targets: list[float]
    measured: list[float]
    identity: dict[str, list[float | None]]
    reconstruction: dict[str, float]
    judged: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)


def summarise(records: Sequence[FaceRecord]) -> dict:
    """Return age errors, identity and reconstruction of all faces as plain values.

    - `age_error`: over all results (`overall`) and `by_target`: number, mean absolute error,
      `bias` (measured minus target, positive where too old), the error that nine in ten stay
      below, and the mean measured age.
    - `identity`: for each judge the mean similarity of results to their inputs, over all and
      `by_gap`, the distance of the target from the input's age in steps of `GAP_STEP` years; and
      the number of results in which it found no face.
    - `reconstruction`: for each measure mean and standard deviation.
    - `judged`: None, or who the independent judges are, `age_error` as above by theirs, the mean
      distance to the input, and the shares of results that show the same person and the same
      gender. A result in which no face is found counts as neither.
    """
    measured = np.array([record.measured for record in records])
    return {
        "number_of_faces": len(records),
        "age_error": _age_errors(measured, records[0].targets),
        "identity": {judge: _identity(records, judge) for judge in records[0].identity},
        "reconstruction": {
            name: mean_and_deviation([record.reconstruction[name] for record in records])
            for name in records[0].reconstruction
        },
        "judged": _judged([record for record in records if record.judged]),
    }


def _judged(records: Sequence[FaceRecord]) -> dict | None:
    if not records:
        return None
    ages, distances, genders = (
        np.array([record.judged[name] for record in records], float) for name in JUDGED
    )  # [F, A], NaN where no face was found
    return {
        "judges": JUDGES,
        "age_error": _age_errors(ages, records[0].targets),
        "distance": None if np.isnan(distances).all() else float(np.nanmean(distances)),
        "same_person": float((distances < SAME_PERSON).mean()),
        "gender_kept": float((genders == 1).mean()),
        "faces_not_found": int(np.isnan(ages).sum()),
    }


def gaps_and_similarities(
    records: Sequence[FaceRecord], judge: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return age gaps [M] in years and similarities [M] of results where the judge found a face."""
    pairs = [
        (abs(target - record.input_age), similarity)
        for record in records
        for target, similarity in zip(record.targets, record.identity[judge], strict=True)
        if similarity is not None
    ]
    gaps, similarities = np.array(pairs, float).reshape(-1, 2).T
    return gaps, similarities


def _identity(records: Sequence[FaceRecord], judge: str) -> dict:
    gaps, similarities = gaps_and_similarities(records, judge)
    steps = (gaps // GAP_STEP).astype(int)
    by_gap = [
        {
            "from": int(step * GAP_STEP),
            "to": int((step + 1) * GAP_STEP),
            "number": int((steps == step).sum()),
            "mean": float(similarities[steps == step].mean()),
        }
        for step in np.unique(steps)
    ]
    return {
        "mean": float(similarities.mean()) if len(similarities) else None,
        "number": len(similarities),
        "faces_not_found": len(records) * len(records[0].targets) - len(similarities),
        "by_gap": by_gap,
    }


def _age_errors(measured: np.ndarray, targets: Sequence[float]) -> dict[str, dict]:
    """Numbers over ages [F, A], NaN where no face was found, and over those of each target."""

    def numbers(ages: np.ndarray, wanted: np.ndarray) -> dict[str, float | None]:
        seen = ~np.isnan(ages)
        ages, errors = ages[seen], (ages - wanted)[seen]
        if not len(errors):
            return {"number": 0} | dict.fromkeys(AGE_NUMBERS)
        return {
            "number": len(errors),
            "mean_absolute_error": float(np.abs(errors).mean()),
            "bias": float(errors.mean()),
            "nine_in_ten_below": float(np.quantile(np.abs(errors), 0.9)),
            "mean_measured_age": float(ages.mean()),
        }

    wanted = np.array(targets)
    by_target = {f"{age:g}": numbers(measured[:, at], age) for at, age in enumerate(targets)}
    return {"overall": numbers(measured, wanted), "by_target": by_target}


def mean_and_deviation(values: Sequence[float]) -> dict[str, float]:
    """Return the mean of values, and their standard deviation."""
    return {"mean": float(np.mean(values)), "deviation": float(np.std(values))}


def write_page(
    path: Path,
    report: Mapping,
    records: Sequence[FaceRecord],
    strips: Sequence[Path] | None,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        report: what `evaluate_ageing` returns.
        records: the faces.
        strips: for each face a picture of its input, its results and its reconstruction in a row,
            (A + 2) S wide and S high; None shows numbers only.
    """
    ages, identity = report["age_error"], report["identity"]
    reconstruction = report["reconstruction"]
    render(
        "report.html.j2",
        path,
        report=report,
        model=Path(report["settings"]["checkpoint_path"] or "the embedded model").name,
        age_plot=_plot_ages(records),
        error_plot=_plot_age_errors(ages["by_target"]),
        age_rows=_age_rows(ages),
        judged_rows=_age_rows(report["judged"]["age_error"]) if report["judged"] else [],
        identity_plots={
            judge: _plot_identity(records, judge, found["by_gap"])
            for judge, found in identity.items()
        },
        identity_rows={
            judge: [
                [f"{step['from']} to {step['to']}", step["number"], number(step["mean"])]
                for step in found["by_gap"]
            ]
            for judge, found in identity.items()
        },
        reconstruction_plots=[_plot_reconstruction(records, name) for name in reconstruction],
        reconstruction_rows=[
            [name.upper(), number(values["mean"]), number(values["deviation"])]
            for name, values in reconstruction.items()
        ],
        cases=_all_cases(records, strips) if strips else [],
        strips=_whole_strips(records, strips) if strips else [],
        facts=_facts(report),
    )


def _age_rows(ages: Mapping) -> list[list[str]]:
    """Rows of a table: the target age and its `AGE_NUMBERS`, at last those of all."""
    rows = [*ages["by_target"].items(), ("all", ages["overall"])]
    return [[target, *(_years(values[key]) for key in AGE_NUMBERS)] for target, values in rows]


def _years(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"


def render(template: str, path: Path, **values: object) -> None:
    """Write a page from a template of this folder; all values are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    with atomic_path(path) as temporary:
        page = environment.get_template(template).render(**values)
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def number(value: float | None) -> str:
    """Return a value with three decimals, "none" for None."""
    return "none" if value is None else f"{value:.3f}"


def _all_cases(records: Sequence[FaceRecord], strips: Sequence[Path]) -> list[tuple]:
    """By every measure its title, the best and the worst faces."""

    def by_age(record: FaceRecord) -> list[tuple[float, str]]:
        pairs = zip(record.targets, record.measured, strict=True)
        return [(abs(seen - asked), f"{asked:g} → {seen:.1f}") for asked, seen in pairs]

    def by_identity(judge: str, record: FaceRecord) -> list[tuple[float, str]]:
        pairs = zip(record.targets, record.identity[judge], strict=True)
        return [
            (np.nan if seen is None else -seen, f"at {age:g}: {number(seen)}")
            for age, seen in pairs
        ]

    def by_reconstruction(record: FaceRecord) -> list[tuple[float, str]]:
        # The reconstruction follows the results in a strip.
        lpips = record.reconstruction["lpips"]
        return [(np.nan, "")] * len(record.targets) + [(lpips, f"LPIPS {number(lpips)}")]

    measures = {"by age error (asked → measured)": by_age}
    measures |= {
        f"by identity, {judge}": functools.partial(by_identity, judge)
        for judge in records[0].identity
    }
    measures["by reconstruction"] = by_reconstruction
    return [
        (title, *(_cases(records, strips, losses, sign) for sign in (1, -1)))
        for title, losses in measures.items()
    ]


def _cases(
    records: Sequence[FaceRecord],
    strips: Sequence[Path],
    losses: Callable[[FaceRecord], list[tuple[float, str]]],
    sign: int,
) -> list[dict]:
    """The faces of the smallest `sign * loss`, each once; NaN is left out."""
    found = []
    for face, record in enumerate(records):
        rows = losses(record)
        values = sign * np.array([loss for loss, _ in rows], float)
        if not np.isnan(values).all():
            at = int(np.nanargmin(values))
            found.append((values[at], face, at, rows[at][1]))
    cases = []
    for _, face, at, caption in sorted(found)[:CASES]:
        tiles = _tiles(strips[face])
        pictures = {"input": _thumbnail(tiles[0]), "result": _thumbnail(tiles[at + 1])}
        cases.append({"name": records[face].name, "caption": caption, **pictures})
    return cases


def _whole_strips(records: Sequence[FaceRecord], strips: Sequence[Path]) -> list[dict]:
    """The faces of the least, the middle and the largest mean age error, at all ages."""
    errors = [np.abs(np.subtract(record.measured, record.targets)).mean() for record in records]
    order = np.argsort(errors)
    chosen = dict(zip(("best", "middle", "worst"), order[[0, len(order) // 2, -1]], strict=True))
    found = []
    for name, face in chosen.items():
        record = records[face]
        pairs = zip(record.targets, record.measured, strict=True)
        captions = ["input", *(f"{target:g}: {measured:.0f}" for target, measured in pairs)]
        picture = strip(_tiles(strips[face])[:-1], _STRIP_TILE, captions)
        title = f"{name}: {record.name}, {errors[face]:.1f} years"
        found.append({"title": title, "picture": image_uri(picture)})
    return found


def _facts(report: Mapping) -> list[tuple[str, str]]:
    facts = [(name, str(value)) for name, value in report["settings"].items() if value != ""]
    return facts + [
        (f"sha256 of {name.removesuffix('_path')}", f"{value[:16]}…")
        for name, value in report["made_from"].items()
        if isinstance(value, str) and len(value) == 64
    ]


def _tiles(file: Path) -> list[np.ndarray]:
    row = read_image(file)
    return np.split(row, row.shape[1] // row.shape[0], axis=1)


def _thumbnail(tile: np.ndarray) -> str:
    image = Image.fromarray(tile)
    image.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
    return image_uri(np.asarray(image))


def image_uri(image: np.ndarray) -> str:
    """Return a uint8 image [H, W, 3] as a data URI that holds a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _plot_ages(records: Sequence[FaceRecord]) -> str:
    """Ages that the results are read as, over the ages asked for."""
    targets = records[0].targets
    measured = np.array([record.measured for record in records])
    figure, axes = _figure("target age", "measured age")
    axes.plot([0, 100], [0, 100], color=_GREY, linestyle="--", label="as asked")
    axes.boxplot(
        list(measured.T),
        positions=targets,
        widths=_bar_width(targets),
        manage_ticks=False,
        medianprops={"color": _ORANGE},
        boxprops={"color": _BLUE},
        whiskerprops={"color": _BLUE},
        capprops={"color": _BLUE},
        flierprops={"marker": ".", "markeredgecolor": _GREY, "markersize": 4},
    )
    return _svg_uri(figure)


def _plot_age_errors(by_target: Mapping[str, Mapping[str, float]]) -> str:
    """Mean absolute error and bias over the ages asked for."""
    targets = [float(target) for target in by_target]
    figure, axes = _figure("target age", "years")
    errors = [found["mean_absolute_error"] for found in by_target.values()]
    axes.bar(targets, errors, _bar_width(targets), color=_BLUE, label="mean absolute error")
    bias = [found["bias"] for found in by_target.values()]
    axes.plot(targets, bias, "o-", color=_ORANGE, markersize=4, label="bias (above 0: too old)")
    axes.axhline(0, color="black", linewidth=0.8)
    return _svg_uri(figure)


def _plot_identity(records: Sequence[FaceRecord], judge: str, by_gap: Sequence[Mapping]) -> str:
    """Similarity to the input over the distance of the target from the input's age."""
    gaps, similarities = gaps_and_similarities(records, judge)
    figure, axes = _figure("age gap in years", "cosine similarity")
    # As pixels: as shapes, the results of thousands of faces would make the page huge.
    axes.plot(gaps, similarities, ".", color=_GREY, markersize=3, label="results", rasterized=True)
    middles = [(step["from"] + step["to"]) / 2 for step in by_gap]
    axes.plot(middles, [step["mean"] for step in by_gap], "o-", color=_BLUE, label="mean")
    axes.set_ylim(top=1)
    return _svg_uri(figure)


def _plot_reconstruction(records: Sequence[FaceRecord], name: str) -> str:
    """Histogram of one measure of reconstruction."""
    figure, axes = _figure(name.upper(), "faces", width=3.2)
    axes.hist([record.reconstruction[name] for record in records], bins=20, color=_BLUE)
    axes.yaxis.get_major_locator().set_params(integer=True)
    return _svg_uri(figure)


def _bar_width(targets: Sequence[float]) -> float:
    """Of a bar or a box, so that neighbours stay apart."""
    return 0.6 * min(np.diff(sorted(targets)), default=10)


def _figure(x: str, y: str, width: float = 5):
    with rc_context(_PLOT_STYLE):
        figure = Figure(figsize=(width, 3.2), layout="constrained")
        axes = figure.add_subplot(xlabel=x, ylabel=y)
    return figure, axes


def _svg_uri(figure: Figure) -> str:
    (axes,) = figure.axes
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)
    stream = io.BytesIO()
    with rc_context(_PLOT_STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None}, dpi=200)
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()
