"""Summarise the measurements of many faces."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from paddle_sam.metrics.judges import AGE_JUDGE, GENDER_JUDGE, IDENTITY_JUDGE, SAME_PERSON

JUDGED = ("judged_age", "distance", "same_gender")
AGE_NUMBERS = ("mean_measured_age", "mean_absolute_error", "bias", "nine_in_ten_below")
GAP_STEP = 10  # years of the steps that age gaps are counted in


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
            name: _mean_and_deviation([record.reconstruction[name] for record in records])
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
        "judges": {"age": AGE_JUDGE, "identity": IDENTITY_JUDGE, "gender": GENDER_JUDGE},
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


def _mean_and_deviation(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "deviation": float(np.std(values))}
