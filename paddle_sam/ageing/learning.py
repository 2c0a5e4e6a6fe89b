"""Learn a direction from random faces and what somebody, or a network, says of each.

A label is taken for a linear function of the code w; its gradient is the direction, of length 1 as
all directions here. How well that holds is measured on faces that the fit has not seen. The idea is
that of Shen et al., "InterFaceGAN" (2020), section 3, with a ridge regression in the place of their
support vector machine, so that ages need not be cut into young and old.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.ageing.latent_options import FEWEST_SEEDS, JUDGED, EditOptions
from paddle_sam.ageing.measures import measure_ages
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.files import read_table
from paddle_sam.core.images import to_uint8
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import ConfigError, quoted
from paddle_sam.metrics.judges import Judges, as_judged
from paddle_sam.networks.face_networks import AgeRegressor
from paddle_sam.networks.load import load
from paddle_sam.networks.stylegan2_ops import seed_latents

HELD_OUT = 5  # one face in so many is not fitted
_PENALTIES = np.logspace(-4, 3, 29)  # of the ridge, in units of the mean squared code


@dataclass(frozen=True, eq=False)
class Fit:
    """A label as a linear function of codes.

    direction: float32 [D], of length 1. slope: of the label along it, in its units for each unit
    of W. r2: share of the held-out labels' variance that it explains. correlation: with them.
    accuracy: of a label with two values, on the held-out ones; else None. fitted, held_out: how
    many faces.
    """

    direction: np.ndarray
    slope: float
    r2: float
    correlation: float
    accuracy: float | None
    fitted: int
    held_out: int

    def __str__(self) -> str:
        text = (
            f"{self.fitted} faces fitted, {self.held_out} held out: R2 {self.r2:.2f}, correlation"
            f" {self.correlation:.2f}"
        )
        if self.accuracy is not None:
            text += f", accuracy {self.accuracy:.0%}"
        return f"{text}; {self.slope:+.3g} for each unit of W"


def fit(codes: np.ndarray, labels: np.ndarray) -> Fit:
    """Fit labels [N] by codes [N, D]; every fifth is held out."""
    if len(codes) < FEWEST_SEEDS:
        raise ConfigError(
            f"--learn: expected {FEWEST_SEEDS} labelled faces or more, found {len(codes)}"
        )
    held = np.arange(len(codes)) % HELD_OUT == HELD_OUT - 1
    if min(np.ptp(labels[held]), np.ptp(labels[~held])) == 0:
        raise ConfigError(f"--learn: all faces have the same label, {labels[held][0]:g}")
    mean, level = codes[~held].mean(axis=0), labels[~held].mean()
    slope = ridge(codes[~held] - mean, labels[~held] - level)
    guess, truth = (codes[held] - mean) @ slope + level, labels[held]
    length = float(np.linalg.norm(slope))
    values = np.unique(labels)
    right = None
    if len(values) == 2:
        middle = values.mean()
        right = float(((guess > middle) == (truth > middle)).mean())
    return Fit(
        direction=(slope / length).astype(np.float32),
        slope=length,
        r2=float(1 - np.square(guess - truth).mean() / truth.var()),
        correlation=float(np.corrcoef(guess, truth)[0, 1]) if np.ptp(guess) else 0.0,
        accuracy=right,
        fitted=int((~held).sum()),
        held_out=int(held.sum()),
    )


def ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients [D] that predict y [N] of x [N, D], both centred.

    The penalty is that of the smallest error of leaving one out, (y - p) / (1 - h), where h is the
    diagonal of the matrix that turns y into the prediction p.
    """
    u, s, vt = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    power = np.square(s)
    best, least = None, math.inf
    for penalty in _PENALTIES * power.mean():
        kept = power / (power + penalty)
        left_out = (y - u @ (kept * (u.T @ y))) / (1 - np.square(u) @ kept).clip(1e-9)
        if (error := np.square(left_out).mean()) < least:
            best, least = penalty, error
    return vt.T @ (s / (power + best) * (u.T @ y))


def learn(options: EditOptions, pipeline: AgePipeline) -> tuple[str, Fit]:
    """The name of what `--learn` asks for, and its fit."""
    if options.learn in JUDGED:
        name, seeds = options.learn.removeprefix("judge_"), list(range(options.learn_seeds))
        codes = seed_codes(pipeline, seeds, options.learn_truncation)
        labels = judged(options, pipeline, codes)
    else:
        path = Path(options.learn)
        name = path.stem
        seeds, labels = read_labels(path)
        codes = seed_codes(pipeline, seeds, options.learn_truncation)
    known = np.isfinite(labels)
    if not known.all():
        print(f"--learn: no face was found in {np.sum(~known)} of {len(seeds)} images")
    return name, fit(codes[known], labels[known])


def seed_codes(pipeline: AgePipeline, seeds: list[int], truncation: float) -> np.ndarray:
    """Codes w, float32 [N, D], of seeds as `scripts/sample.py` draws them."""
    network = pipeline.network
    with paddle.no_grad():
        z = paddle.to_tensor(seed_latents(seeds, network.style_dim))
        w = network.map_latents(z).numpy()
    average = network.latent_avg.numpy().mean(axis=0)
    return average + truncation * (w - average)


def judged(options: EditOptions, pipeline: AgePipeline, codes: np.ndarray) -> np.ndarray:
    """Labels [N] of the faces of codes [N, D]; NaN where the judge finds no face."""
    read = _judge(options)
    labels = []
    size = options.test_batch_size or 8
    with tqdm(total=len(codes), unit="face", leave=False) as progress:
        for part in batches(codes, size):
            w_plus = np.repeat(part[:, None], pipeline.n_codes, axis=1)
            images = pipeline.decode(paddle.to_tensor(w_plus), resize_outputs=True)
            labels += list(read(to_uint8(images)))
            progress.update(len(part))
    return np.array(labels, np.float64)


def _judge(options: EditOptions) -> Callable[[np.ndarray], np.ndarray]:
    """What reads a label in each of images uint8 [N, S, S, 3]."""
    if options.learn == "age":
        path = options.age_regressor_path
        if not path and options.checkpoint_path:
            raise ConfigError(
                "--learn age: name the age regressor that belongs to this model by"
                " --age_regressor_path, or use --learn judge_age"
            )
        regressor = load(path or find_weight("age_mini"), expect=AgeRegressor, option="--learn")
        return functools.partial(measure_ages, regressor)
    judges = Judges()

    def ask(images: np.ndarray) -> np.ndarray:
        readings = [judges(as_judged(image)) for image in images]
        if options.learn == "judge_age":
            return np.array([one.age if one else np.nan for one in readings])
        return np.array([float(one.male > 0.5) if one else np.nan for one in readings])

    return ask


def read_labels(path: Path) -> tuple[list[int], np.ndarray]:
    """Seeds and labels of a table with these columns; words become 0 and 1 in their order."""
    rows = read_table(path, ("seed", "label"), "--learn")
    if wrong := [row["seed"] for row in rows if not re.fullmatch(r"\d{1,18}", row["seed"])]:
        raise ConfigError(f"--learn: {path}: expected seeds such as 0, found {quoted(wrong[0])}")
    words = [row["label"] for row in rows]
    try:
        labels = np.array([float(word) for word in words])
    except ValueError:
        kinds = sorted(set(words))
        if len(kinds) != 2:
            raise ConfigError(
                f"--learn: {path}: expected numbers or two kinds of labels, found"
                f" {', '.join(kinds[:4])}"
            ) from None
        labels = np.array([float(kinds.index(word)) for word in words])
    if not np.isfinite(labels).all():
        raise ConfigError(f"--learn: {path}: expected finite numbers as labels")
    return [int(row["seed"]) for row in rows], labels
