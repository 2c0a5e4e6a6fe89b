"""The report of an ageing evaluation: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from paddle_sam.ageing import report_plots as plots
from paddle_sam.ageing.evaluation_summary import FaceRecord
from paddle_sam.core.files import atomic_path
from paddle_sam.core.images import read_image
from paddle_sam.core.sheets import strip

CASES = 6  # shown on each side of "best and worst"
_TILE = 128
_STRIP_TILE = 96
_NAMES = {"l2": "L2", "lpips": "LPIPS", "ssim": "SSIM"}

_STYLE = """
:root { color-scheme: light dark; --card: #f7f9fb; --line: #d8dee6; --dim: #5a6675; }
@media (prefers-color-scheme: dark) {
  :root { --card: #1d232b; --line: #39434f; --dim: #9aa7b5; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1, h2, h3, h4 { line-height: 1.2; margin-bottom: .6rem }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
.dim, figcaption { color: var(--dim); font-size: .85rem }
.row { display: flex; flex-wrap: wrap; gap: 1rem }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem 1rem; min-width: 9rem }
.tile b { display: block; font-size: 1.6rem }
.plot { background: white; border-radius: 8px; max-width: 100%; border: 1px solid var(--line) }
.halves { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: right;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums }
td:first-child, th:first-child, .words td, .words th { text-align: left }
.words td { overflow-wrap: anywhere; font-size: .85rem }
figure { margin: 0 } .cases { display: flex; flex-wrap: wrap; gap: .8rem }
.cases img { width: 78px; height: 78px; margin-right: 2px } .cases figure { width: 160px }
figcaption { overflow-wrap: anywhere }
.scroll { overflow-x: auto } .strip { width: 100%; min-width: 760px; display: block }
@media (max-width: 700px) { .halves { grid-template-columns: 1fr } .row { gap: .6rem }
  .tile { flex: 1 1 40%; min-width: 0; padding: .5rem .7rem }
  td, th { padding: .2rem .35rem; font-size: .85rem } }
"""


def write_page(
    path: Path,
    report: Mapping,
    records: Sequence[FaceRecord],
    strips: Sequence[Path | None],
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        report: what `evaluate_ageing` returns.
        records: the faces.
        strips: of each face a picture of its input, its results and its reconstruction in a row,
            (A + 2) S wide and S high; None shows numbers only.
    """
    pictured = strips[0] is not None
    sections = [
        _head(report),
        _age_section(report, records),
        _identity_section(report, records),
        _reconstruction_section(report, records),
        *([_cases_section(records, strips), _strips_section(records, strips)] if pictured else []),
        _facts_section(report),
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Face ageing, measured</title><style>{_STYLE}</style></head>\n<body>"
        + "\n".join(sections)
        + "</body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _head(report: Mapping) -> str:
    errors = report["age_error"]["overall"]
    tiles = [("mean absolute age error", f"{errors['mean_absolute_error']:.1f} years")]
    tiles += [
        (f"identity, {judge}", _number(found["mean"]))
        for judge, found in report["identity"].items()
    ]
    tiles += [
        (f"reconstruction, {_NAMES[name]}", _number(found["mean"]))
        for name, found in report["reconstruction"].items()
    ]
    model = report["settings"]["checkpoint_path"] or "the embedded model"
    boxes = "".join(f'<div class="tile"><b>{value}</b>{name}</div>' for name, value in tiles)
    return (
        f"<h1>Face ageing, measured</h1><p>{report['number_of_faces']} faces, each at"
        f" {len(report['age_error']['by_target'])} ages, by {html.escape(Path(model).name)}.</p>"
        f'<div class="row">{boxes}</div>'
    )


def _age_section(report: Mapping, records: Sequence[FaceRecord]) -> str:
    found = report["age_error"]
    keys = ("mean_measured_age", "mean_absolute_error", "bias", "nine_in_ten_below")
    rows = [
        [target, *(f"{values[key]:.1f}" for key in keys)]
        for target, values in [*found["by_target"].items(), ("all", found["overall"])]
    ]
    head = ("target age", "measured, mean", "mean absolute error", "bias", "nine in ten below")
    return (
        "<h2>Is the age as asked?</h2>"
        + _figures(plots.plot_ages(records), plots.plot_age_errors(found["by_target"]))
        + _table(head, rows)
        + '<p class="dim">In years, as the age regressor reads the results. Bias is measured less'
        " target.</p>"
    )


def _identity_section(report: Mapping, records: Sequence[FaceRecord]) -> str:
    parts = ["<h2>Is it the same person?</h2>"]
    if not report["identity"]:
        parts.append("<p>Not measured: no face recognition weights were given.</p>")
    for judge, found in report["identity"].items():
        rows = [
            [f"{step['from']} to {step['to']}", step["number"], _number(step["mean"])]
            for step in found["by_gap"]
        ]
        parts += [
            f"<h3>{html.escape(judge)}</h3>",
            _figures(plots.plot_identity(records, judge, found["by_gap"])),
            _table(("age gap, years", "results", "mean similarity"), rows),
            f'<p class="dim">No face was found in {found["faces_not_found"]} results.</p>',
        ]
    return "".join(parts)


def _reconstruction_section(report: Mapping, records: Sequence[FaceRecord]) -> str:
    found = report["reconstruction"]
    rows = [
        [_NAMES[name], _number(values["mean"]), _number(values["deviation"])]
        for name, values in found.items()
    ]
    return (
        "<h2>Does a face come back?</h2>"
        "<p>Rendered at the age that the input itself is read as, and compared with the input.</p>"
        + _figures(*(plots.plot_reconstruction(records, _NAMES[name]) for name in found))
        + _table(("measure", "mean", "deviation"), rows)
    )


def _cases_section(records: Sequence[FaceRecord], strips: Sequence[Path]) -> str:
    """Best and worst side by side, by every measure; each face once on a side."""
    ages = _cases(records, lambda record: [abs(e) for e in _errors(record)])
    parts = [
        "<h2>Best and worst</h2><p>Input and result; each face once on a side.</p>",
        _sides("by age error (asked → measured)", ages, records, strips, _age_caption),
    ]
    for judge in records[0].identity:
        found = _cases(records, lambda r, judge=judge: [_loss(s) for s in r.identity[judge]])

        def caption(record: FaceRecord, at: int, judge: str = judge) -> str:
            return f"at {record.targets[at]:g}: {_number(record.identity[judge][at])}"

        parts.append(_sides(f"by identity, {judge}", found, records, strips, caption))
    # The reconstruction follows the results in a strip.
    last = len(records[0].targets)
    found = _cases(records, lambda r: [np.nan] * last + [r.reconstruction["lpips"]])
    parts.append(_sides("by reconstruction", found, records, strips, _lpips_caption))
    return "".join(parts)


def _cases(
    records: Sequence[FaceRecord], losses: Callable[[FaceRecord], list[float]]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Best and worst: (face, place in `losses`), each face once on a side, NaN left out."""
    sides = []
    for sign in (1, -1):
        of_face = []
        for face, record in enumerate(records):
            values = sign * np.array(losses(record), float)
            if not np.isnan(values).all():
                at = int(np.nanargmin(values))
                of_face.append((values[at], face, at))
        sides.append([(face, at) for _, face, at in sorted(of_face)[:CASES]])
    return tuple(sides)


def _sides(title: str, sides, records, strips, caption: Callable[[FaceRecord, int], str]) -> str:
    columns = []
    for name, cases in zip(("best", "worst"), sides, strict=True):
        figures = []
        for face, at in cases:
            tiles = _tiles(strips[face])
            pictures = "".join(
                f'<img src="{_picture(tile, _TILE)}" alt="{what}">'
                for what, tile in (("input", tiles[0]), ("result", tiles[at + 1]))
            )
            words = f"{html.escape(records[face].name)}<br>{caption(records[face], at)}"
            figures.append(f"<figure>{pictures}<figcaption>{words}</figcaption></figure>")
        columns.append(f'<div><h4>{name}</h4><div class="cases">{"".join(figures)}</div></div>')
    return f'<h3>{html.escape(title)}</h3><div class="halves">{"".join(columns)}</div>'


def _strips_section(records: Sequence[FaceRecord], strips: Sequence[Path]) -> str:
    """The faces of the least, the middle and the largest mean age error, at all ages."""
    order = np.argsort([np.abs(_errors(record)).mean() for record in records])
    chosen = dict(zip(("best", "middle", "worst"), order[[0, len(order) // 2, -1]], strict=True))
    parts = ["<h2>Whole strips</h2><p>By the mean age error of a face.</p>"]
    for name, face in chosen.items():
        record = records[face]
        pairs = zip(record.targets, record.measured, strict=True)
        captions = ["input", *(f"{target:g}: {measured:.0f}" for target, measured in pairs)]
        picture = strip(_tiles(strips[face])[:-1], _STRIP_TILE, captions)
        parts.append(
            f"<h4>{name}: {html.escape(record.name)}, {np.abs(_errors(record)).mean():.1f} years"
            f'</h4><div class="scroll"><img class="strip" src="{_encoded(picture)}"'
            f' alt="{name}"></div>'
        )
    return "".join(parts) + '<p class="dim">Under each face: age asked, age measured.</p>'


def _facts_section(report: Mapping) -> str:
    settings = {name: value for name, value in report["settings"].items() if value != ""}
    facts = {
        f"sha256 of {name.removesuffix('_path')}": f"{value[:16]}…"
        for name, value in report["made_from"].items()
        if _is_hash(value)
    }
    rows = [[html.escape(str(k)), html.escape(str(v))] for k, v in (settings | facts).items()]
    failures = "".join(f"<li>{html.escape(reason)}</li>" for reason in report["failed"].values())
    failed = f"<h3>Not evaluated</h3><ul>{failures}</ul>" if failures else ""
    return f"<h2>How this was made</h2>{_table(('setting', 'value'), rows, 'words')}{failed}"


def _age_caption(record: FaceRecord, at: int) -> str:
    return f"{record.targets[at]:g} → {record.measured[at]:.1f}"


def _lpips_caption(record: FaceRecord, at: int) -> str:
    return f"LPIPS {_number(record.reconstruction['lpips'])}"


def _errors(record: FaceRecord) -> np.ndarray:
    return np.array(record.measured) - record.targets


def _loss(similarity: float | None) -> float:
    return np.nan if similarity is None else -similarity


def _tiles(file: Path) -> list[np.ndarray]:
    row = read_image(file)
    return np.split(row, row.shape[1] // row.shape[0], axis=1)


def _picture(tile: np.ndarray, largest: int) -> str:
    image = Image.fromarray(tile)
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return _encoded(np.asarray(image))


def _encoded(image: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _figures(*sources: str) -> str:
    return "".join(
        [
            '<p class="row">',
            *(f'<img class="plot" src="{one}" alt="plot">' for one in sources),
            "</p>",
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence], kind: str = "numbers") -> str:
    def line(cells: Sequence, tag: str) -> Iterator[str]:
        yield "<tr>"
        yield from (f"<{tag}>{cell}</{tag}>" for cell in cells)
        yield "</tr>"

    body = "".join(text for row in rows for text in line(row, "td"))
    table = f'<table class="{kind}">{"".join(line(head, "th"))}{body}</table>'
    return f'<div class="scroll">{table}</div>'


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64
