"""Summarise a benchmark: ages, identity, quality and fairness, with ranges over people.

Beside them stand figures that papers print. Each table of those was measured by its authors'
judges, most of them closed services; they are not comparable with ours number by number. `source`
says where the rows are from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from paddle_sam.metrics.judges import SAME_PERSON
from paddle_sam.metrics.quality import hcs

# Distance below which one pair of strangers in a thousand lies.
STRICT = 0.55
STRICT_SOURCE = "322,636 pairs of 1,000 UTKFace faces, at least 20 years apart"
FEWEST_PAIRS = 1000  # of strangers, to find that distance among the photographs themselves
# What the age judge reads on average in real faces within 5 years of an age.
REAL_READINGS = {
    **{0.0: 2.8, 10.0: 14.4, 20.0: 24.0, 30.0: 32.0, 40.0: 39.2, 50.0: 47.4, 60.0: 56.9},
    **{70.0: 64.1, 80.0: 69.4, 90.0: 74.6, 100.0: 79.0},
}
REAL_SOURCE = "1,000 UTKFace faces"
GAPS = ((0, 15), (15, 25), (25, 101))  # years between a target and the person's own age
RESAMPLES = 1000
_REFERENCES = ("true later photograph", "photograph as it is")
_KEY_NUMBERS = ("age_mae", "age_bias", "distance", "same_person", "strict", "gender_kept")
TABLES = [
    {
        "title": "CelebA-HQ, 200 faces (Cradle2Cane, 2025)",
        "source": "third-party summary; Face++ ages and compare confidence",
        "columns": ["method", "age difference", "identity", "quality", "HCS", "s per image"],
        "rows": [
            ["Lifespan", 22.07, 79.80, 66.68, 57.40, 0.95],
            ["HRFAE", 15.12, 94.32, 62.28, 74.95, 0.17],
            ["SAM", 8.42, 81.96, 68.38, 80.42, 0.39],
            ["CUSP", 9.59, 85.92, 64.98, 80.67, 0.24],
            ["FADING", 14.47, 86.70, 64.65, 73.52, 61.3],
            ["IPFE", 11.95, 75.14, 63.55, 72.54, 8.84],
            ["Cradle2Cane", 7.47, 81.34, 72.69, 81.33, 0.56],
        ],
        "protocols": ["strip"],
    },
    {
        "title": "12 celebrities to other ages (MyTimeMachine, 2024)",
        "source": "paper; FP-Age, and the best ArcFace cosine to real photographs within 3 years",
        "columns": ["method", "MAE, younger", "identity", "MAE, older", "identity"],
        "rows": [
            ["SAM", 8.1, 0.49, 6.9, 0.54],
            ["CUSP", 11.0, 0.39, 7.3, 0.44],
            ["AgeTransGAN", 11.1, 0.53, 8.5, 0.61],
            ["FADING", 8.9, 0.60, 7.6, 0.62],
            ["MyTimeMachine, 50 photographs", 7.7, 0.67, 6.3, 0.70],
        ],
        "protocols": ["reference"],
    },
    {
        "title": "Young faces to 60, CelebA-HQ (FaceTT)",
        "source": "third-party summary; Face++, which reads real people of 60 as 65.14",
        "columns": ["method", "age read", "deviation", "blur", "gender kept %", "smile kept %"],
        "rows": [
            ["HRFAE", 55.05, 9.18, 3.42, 94.80, 74.60],
            ["CUSP", 57.57, 7.88, 3.39, 89.79, 75.88],
            ["FADING", 69.88, 6.20, 2.18, 98.44, 76.17],
            ["FaceTT", 62.05, 6.81, 2.18, 99.79, 78.31],
        ],
        "protocols": ["young60"],
    },
    {
        "title": "Ten classes of FFHQ-Aging (FaceTT)",
        "source": "third-party summary; Face++",
        "columns": ["method", "MAE", "gender kept"],
        "rows": [
            ["HRFAE", 21.84, 0.45],
            ["CUSP", 16.40, 0.51],
            ["FADING", 13.47, 0.57],
            ["FaceTT", 11.40, 0.62],
        ],
        "protocols": ["lifespan"],
    },
    {
        "title": "There and back (FaceTT)",
        "source": "third-party summary; cosine to the input",
        "columns": ["method", "cyclic identity, FFHQ", "celebrities"],
        "rows": [["FaceTT", 0.69, 0.80]],
        "protocols": ["cycle"],
    },
    {
        "title": "Later photographs of the same person (FaceTT)",
        "source": "third-party summary; cosine to the true later photograph",
        "columns": ["method", "reference identity"],
        "rows": [["FADING", 0.50], ["FaceTT", 0.55]],
        "protocols": ["reference"],
    },
]


@dataclasses.dataclass(frozen=True)
class Result:
    """One result: who was aged to what, and what was read. None where a judge saw no face.

    photo, person, gender, group: of the input. own_age: of the person in the input. target: the
    age asked for. age: by the judge. age_by_regressor: by the model's own network. distance: to
    the input. same_gender: whether it is read as before. sharpness: relative to the input.
    niqe: of the result. background_psnr, background_lpips: outside the face, against the input.
    cyclic_distance: to the input, of the result aged back to `own_age`. reference: of the true
    later photograph of the person (see `ReferenceReading`).
    """

    photo: str
    person: str
    gender: str
    group: str
    own_age: float
    target: float
    age: float | None
    age_by_regressor: float | None
    distance: float | None
    same_gender: bool | None
    sharpness: float
    niqe: float | None
    background_psnr: float | None
    background_lpips: float | None
    cyclic_distance: float | None = None
    reference: dict[str, float | None] | None = None

    @property
    def gap(self) -> float:
        """Years between the target and the person's own age."""
        return abs(self.target - self.own_age)


def impostor_threshold(
    descriptors: Sequence[np.ndarray], people: Sequence[str]
) -> tuple[float, str]:
    """Return the distance below which one pair of strangers in a thousand lies, and its source.

    It is found among the photographs, [N, 128] with the person of each, where they make up
    `FEWEST_PAIRS`; otherwise it is that of a larger collection.
    """
    points, names = np.array(descriptors), np.array(people)
    left, right = np.triu_indices(len(points), 1)
    strangers = names[left] != names[right]
    if strangers.sum() < FEWEST_PAIRS:
        return STRICT, STRICT_SOURCE
    distances = np.linalg.norm(points[left[strangers]] - points[right[strangers]], axis=1)
    return float(np.quantile(distances, 0.001)), f"{len(distances)} pairs of these photographs"


def summarise(
    results: Sequence[Result], missed: int, strict: float, real: Mapping[float, float]
) -> dict:
    """Return every number of the benchmark as plain values.

    Args:
        results: at least one.
        missed: results that are missing because their photograph could not be used. They count as
            failures of identity and gender, as results do in which no face is found.
        strict: distance of `impostor_threshold`.
        real: what the judge reads in real faces, by age.
    """
    numbers = _key_numbers(results, strict, missed)
    targets = sorted({result.target for result in results})
    fixed = [t for t in targets if sum(r.target == t for r in results) > 1]
    return {
        "results": len(results),
        "faces": len({result.photo for result in results}),
        "people": len({result.person for result in results}),
        "faces_not_found": sum(result.age is None for result in results),
        "missed_with_their_photograph": missed,
        **numbers,
        "ranges_95": _ranges(results, strict, missed),
        "by_target": [_at_target([r for r in results if r.target == t], real) for t in fixed],
        "by_gap": [
            {"from": low, "to": high, **_key_numbers(inside, strict)}
            for low, high in GAPS
            if (inside := [r for r in results if low <= r.gap < high])
        ],
        "groups": _groups(results, strict),
        "quality": {
            "sharpness_of_photograph": _mean(r.sharpness for r in results),
            "niqe": _mean(r.niqe for r in results),
            "background_psnr": _mean(r.background_psnr for r in results),
            "background_lpips": _mean(r.background_lpips for r in results),
        },
        "cyclic": _cyclic(results, strict),
        "reference": _reference(results),
    }


def _key_numbers(results: Sequence[Result], strict: float, missed: int = 0) -> dict:
    errors = [r.age - r.target for r in results if r.age is not None]
    own = [r.age_by_regressor - r.target for r in results if r.age_by_regressor is not None]
    count = len(results) + missed
    distances = [r.distance for r in results]
    accepted = _share_below(strict, distances, count)
    age_mae = _mean(map(abs, errors))
    return {
        "number": len(results),
        "age_mae": age_mae,
        "age_bias": _mean(errors),
        "age_deviation": float(np.std(errors)) if errors else None,
        "regressor_mae": _mean(map(abs, own)),
        "regressor_bias": _mean(own),
        "distance": _mean(distances),
        "same_person": _share_below(SAME_PERSON, distances, count),
        "strict": accepted,
        "gender_kept": sum(r.same_gender is True for r in results) / count,
        "hcs": None if age_mae is None else hcs(100 * accepted, age_mae),
    }


def _at_target(results: Sequence[Result], real: Mapping[float, float]) -> dict:
    """Ages at one target, beside what the judge reads in real faces of that age."""
    read = [r.age for r in results if r.age is not None]
    target = results[0].target
    line = float(np.interp(target, list(real), list(real.values()))) if real else None
    return {
        "target": target,
        "number": len(results),
        "read": _mean(read),
        "deviation": float(np.std(read)) if read else None,
        "mae": _mean(abs(age - target) for age in read),
        "regressor_reads": _mean(r.age_by_regressor for r in results),
        "real_faces_read": line,
        "bias_to_real": None if line is None or not read else float(np.mean(read)) - line,
    }


def _ranges(results: Sequence[Result], strict: float, missed: int) -> dict:
    """95% ranges of the key numbers over people drawn with replacement."""
    people: dict[str, list[Result]] = {}
    for result in results:
        people.setdefault(result.person, []).append(result)
    if len(people) < 2:
        return {}
    groups, rng = list(people.values()), np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in (*_KEY_NUMBERS, "hcs")}
    for _ in range(RESAMPLES):
        drawn = [r for at in rng.integers(len(groups), size=len(groups)) for r in groups[at]]
        numbers = _key_numbers(drawn, strict, missed)
        for name, values in found.items():
            if numbers[name] is not None:
                values.append(numbers[name])
    return {
        name: np.quantile(values, [0.025, 0.975]).tolist()
        for name, values in found.items()
        if values
    }


def _groups(results: Sequence[Result], strict: float) -> dict:
    """Key numbers by gender, decade and group, with the largest difference of each number."""
    by: dict[str, Callable[[Result], str]] = {
        "gender": lambda r: r.gender,
        "decade": lambda r: f"{int(r.own_age // 10) * 10}s",
        "group": lambda r: r.group,
    }
    found = {}
    for name, of in by.items():
        parts = {value: [r for r in results if of(r) == value] for value in map(of, results)}
        rows = {value: _key_numbers(parts[value], strict) for value in sorted(parts) if value}
        if len(rows) < 2:
            continue
        largest = {}
        for number in _KEY_NUMBERS:
            values = [row[number] for row in rows.values() if row[number] is not None]
            largest[number] = max(values) - min(values) if values else None
        found[name] = {"rows": rows, "largest_difference": largest}
    return found


def _cyclic(results: Sequence[Result], strict: float) -> dict | None:
    distances = [r.cyclic_distance for r in results]
    if (mean := _mean(distances)) is None:
        return None
    return {
        "distance": mean,
        "same_person": _share_below(SAME_PERSON, distances, len(distances)),
        "strict": _share_below(strict, distances, len(distances)),
    }


def _reference(results: Sequence[Result]) -> dict | None:
    """Three rows: the true later photograph, the photograph as it is, and the result."""
    pairs = [r for r in results if r.reference]
    if not pairs:
        return None

    def row(ages: list[float | None], distances: list[float | None]) -> dict:
        errors = [age - r.target for age, r in zip(ages, pairs, strict=True) if age is not None]
        return {
            "age_mae": _mean(map(abs, errors)),
            "age_bias": _mean(errors),
            "distance": _mean(distances),
            "same_person": _share_below(SAME_PERSON, distances, len(pairs)),
        }

    of = [r.reference for r in pairs]
    return {
        "pairs": len(pairs),
        "true later photograph": row([o["true_age"] for o in of], [0.0] * len(pairs)),
        "photograph as it is": row([o["photo_age"] for o in of], [o["photo"] for o in of]),
        "result": row([r.age for r in pairs], [o["result"] for o in of]),
        "result, nearest within 3 years": row([r.age for r in pairs], [o["best"] for o in of]),
    }


def _mean(values) -> float | None:
    found = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(found)) if found else None


def _share_below(limit: float, distances: Sequence[float | None], count: int) -> float:
    """The share, of `count` results, of those whose distance is known and below a limit."""
    return sum(distance is not None and distance < limit for distance in distances) / count


def tables_for(protocol: str) -> list[dict]:
    """Return the tables whose authors measured about what this protocol measures."""
    return [table for table in TABLES if protocol in table["protocols"]]


def dial_table(reports: Mapping[str, dict]) -> str:
    """Return a table in Markdown: a row for each setting's report.

    With true later photographs, those and the photographs as they are come first.
    """
    first = next(iter(reports.values()))
    if first["reference"]:
        rows = {name: first["reference"][name] for name in _REFERENCES}
        rows |= {name: one["reference"]["result"] for name, one in reports.items()}
        title = f"{first['reference']['pairs']} pairs"
        heads = (title, "age error (bias)", "distance to the later photograph", "below 0.6")
        body = [
            (name, _error(row), _two(row["distance"]), _percent(row["same_person"]))
            for name, row in rows.items()
        ]
    else:
        title = f"{first['people']} people, {first['results']} results"
        gaps = [f"at {low} to {high - 1} years" for low, high in GAPS]
        heads = (title, "distance", "below 0.6", "below the strict limit", *gaps)
        heads += ("age error (bias)", "gender kept")
        body = [(name, *_cells(report)) for name, report in reports.items()]
    lines = [heads, ["---"] * len(heads), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(report: dict) -> list[str]:
    low, high = report["ranges_95"].get("same_person", (None, None))
    spread = "" if low is None else f" ({100 * low:.0f} to {100 * high:.0f})"
    by_gap = {gap["from"]: _percent(gap["same_person"]) for gap in report["by_gap"]}
    return [
        _two(report["distance"]),
        _percent(report["same_person"]) + spread,
        _percent(report["strict"]),
        *(by_gap.get(start, "-") for start, _ in GAPS),
        _error(report),
        _percent(report["gender_kept"]),
    ]


def _error(row: dict) -> str:
    return "-" if row["age_mae"] is None else f"{row['age_mae']:.1f} ({row['age_bias']:+.1f})"


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
