"""Measure single results: their age, whether it is the same person, how much changed.

A calibration is what was measured of a model before, so that its faces look the ages asked for.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
import paddle.nn.functional as F
from tqdm import tqdm

from paddle_sam.ageing.options import InferenceOptions
from paddle_sam.ageing.photos import AgedPhoto
from paddle_sam.core.files import write_json
from paddle_sam.core.images import to_network
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError
from paddle_sam.faces.alignment import CropSettings
from paddle_sam.networks.face_networks import AgeRegressor, FaceEmbedder, cosine, face_region
from paddle_sam.networks.load import load

if TYPE_CHECKING:
    from paddle_sam.metrics.judges import Judges, Reading
    from paddle_sam.networks.image_features import LPIPS

FFHQ = CropSettings()
MEASURES = ("measured_age", "identity", "lpips", "judged_age", "distance", "same_gender")
_ROWS = (  # of the printed table
    ("judged_age", "age, judge", "6.0f"),
    ("measured_age", "age, own", "6.0f"),
    ("distance", "distance", "6.2f"),
    ("identity", "identity", "6.2f"),
    ("lpips", "LPIPS", "6.2f"),
)


@dataclass(eq=False)
class Measures:
    """Measures results with the networks that are at hand; the others are left out.

    Args:
        crop: how the faces are cut.
        regressor: reads ages; it is the network that the model was trained with.
        recogniser: compares the persons, by the face region of their crops.
        lpips: compares results with the input.
        judges: read ages, gender and identity independently of the training.
    """

    crop: CropSettings
    regressor: AgeRegressor | None = None
    recogniser: FaceEmbedder | None = None
    lpips: LPIPS | None = None
    judges: Judges | None = None

    @classmethod
    def from_files(
        cls,
        crop: CropSettings,
        checkpoint_path: str = "",
        age_regressor_path: str = "",
        identity_path: str = "",
        device: str = "auto",
        lpips: LPIPS | None = None,
        judges: Judges | None = None,
    ) -> Measures:
        """Load the networks that are named.

        Without `age_regressor_path`, ages come from the embedded regressor where `checkpoint_path`
        is empty too: it reads the embedded model's crop, not those of others.
        """
        regressor = None
        if age_regressor_path:
            regressor = load(
                age_regressor_path,
                device=device,
                expect=AgeRegressor,
                option="--age_regressor_path",
            )
        elif not checkpoint_path:
            regressor = embedded_age_regressor(device)
        recogniser = identity_path and load(
            identity_path, device=device, expect=FaceEmbedder, option="--identity_path"
        )
        return cls(crop, regressor, recogniser or None, lpips, judges)

    def input_age(self, crop: np.ndarray) -> float | None:
        """Return the apparent age of a crop uint8 [S, S, 3]; None without a regressor."""
        if self.regressor is None:
            return None
        return round(measure_ages(self.regressor, crop[None]).item(), 4)

    def __call__(
        self, crop: np.ndarray, images: np.ndarray, picture: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Return arrays [N] by `MEASURES` of results uint8 [N, R, R, 3] for a crop [S, S, 3].

        `picture` is the crop as the judges see it, [T, T, 3]: at the photograph's own resolution
        (see `picture_of` in `metrics.judges`), which tells more about a person than the network's
        input does. What a judge cannot see is NaN.
        """
        found = {}
        if self.judges is not None:
            found |= self._judged(crop if picture is None else picture, images)
        if self.regressor is not None:
            found["measured_age"] = measure_ages(self.regressor, images)
        if self.recogniser is None and self.lpips is None:
            return found
        with paddle.no_grad():
            before, after = (paddle.to_tensor(to_network(one)) for one in (crop, images))
            side = min(before.shape[-1], after.shape[-1])
            before, after = (F.adaptive_avg_pool2d(one, side) for one in (before, after))
            if self.recogniser is not None:
                found["identity"] = cosine(self._embedded(after), self._embedded(before)).numpy()
            if self.lpips is not None:
                found["lpips"] = self.lpips(after, before.expand_as(after)).numpy()
        return found

    def _embedded(self, images: paddle.Tensor) -> paddle.Tensor:
        """Embeddings [N, E] of images [N, 3, S, S], as in SAM's training.

        Of an FFHQ crop only the face region is looked at, of tighter ones everything.
        """
        face = face_region(images) if self.crop.scale >= FFHQ.scale else images
        return self.recogniser(F.adaptive_avg_pool2d(face, self.recogniser.input_size))

    def _judged(self, picture: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        before, *after = map(self.judges.of_face, (picture, *images))

        def compared(compare: Callable[[Reading], float]) -> np.ndarray:
            seen = [before is not None and one is not None for one in after]
            pairs = zip(after, seen, strict=True)
            return np.array([compare(one) if both else np.nan for one, both in pairs], float)

        return {
            "judged_age": np.array([one.age if one else np.nan for one in after]),
            "distance": compared(lambda one: before.distance(one)),
            "same_gender": compared(lambda one: before.same_gender(one)),
        }


def measure_ages(regressor: AgeRegressor, images: np.ndarray) -> np.ndarray:
    """Return the apparent ages [N] in years of uint8 images [N, H, W, 3]."""
    with paddle.no_grad():
        return regressor.age(paddle.to_tensor(to_network(images))).numpy()


def embedded_age_regressor(device: str = "auto") -> AgeRegressor:
    """Load the age regressor that belongs to the embedded default, and to its crop."""
    return load(find_weight("age_mini"), device=device)


def embedded_ages(device: str = "auto") -> Callable[[np.ndarray], np.ndarray]:
    """Return what reads ages [F] of crops uint8 [F, S, S, 3], by that regressor, loaded once."""
    load_once = functools.cache(lambda: embedded_age_regressor(device))
    one_at_a_time = threading.Lock()

    def read(crops: np.ndarray) -> np.ndarray:
        with one_at_a_time:
            regressor = load_once()
        return measure_ages(regressor, crops)

    return read


@dataclass(frozen=True)
class Calibration:
    """A measured curve from the age that a model is asked for to the age its faces look.

    asked, seen: years; both rise strictly. judge: what read the ages.
    """

    asked: tuple[float, ...]
    seen: tuple[float, ...]
    judge: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any] | None, label: str) -> Calibration | None:
        """Build from a weight file's entry `calibration`; None without one.

        Raises:
            CheckpointError: it is not such a curve; the message begins with `label`.
        """
        if not entry:
            return None
        try:
            found = cls(*(tuple(map(float, entry[name])) for name in ("asked", "seen")))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{label}: its `calibration` cannot be used: {error}") from error
        rising = all(len(one) > 1 and (np.diff(one) > 0).all() for one in (found.asked, found.seen))
        if not rising or len(found.asked) != len(found.seen):
            raise CheckpointError(f"{label}: its `calibration` is not a rising curve")
        return cls(found.asked, found.seen, str(entry.get("judge", "")))

    @classmethod
    def fitted(cls, asked: np.ndarray, seen: np.ndarray, judge: str) -> Calibration:
        """The curve through measured ages [N], made to rise: where it does not, points go.

        >>> Calibration.fitted(np.array([0, 50, 80, 100]), np.array([9, 40, 38, 60]), "x").seen
        (9.0, 40.0, 60.0)
        """
        rising = [0]
        for at in range(1, len(asked)):
            if seen[at] > seen[rising[-1]]:
                rising.append(at)
        picked = [tuple(round(float(of[at]), 2) for at in rising) for of in (asked, seen)]
        return cls(*picked, judge)

    @property
    def reach(self) -> tuple[float, float]:
        """The youngest and the oldest age that the model's faces look."""
        return self.seen[0], self.seen[-1]

    def asks(self, ages: np.ndarray) -> np.ndarray:
        """Return what to ask for, float32, so that faces look `ages`, as far as they can."""
        return np.interp(ages, self.seen, self.asked).astype(np.float32)

    def entry(self) -> dict[str, Any]:
        """What a weight file holds of it."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


class MeasureWriter:
    """Prints what results are like in numbers; on `--report` also writes `report.json`.

    Args:
        options: of the run.
        crop: how its faces are cut.
        source: what the weights are called, for the report.
    """

    def __init__(self, options: InferenceOptions, crop: CropSettings, source: str):
        lpips = judges = self._path = None
        self._content = {"checkpoint": source}
        if options.report:  # slower than the ageing itself
            from paddle_sam.metrics.judges import open_judges

            self._path = options.results / "report.json"
            lpips, judges = _report_lpips(), open_judges()
            if judges:
                self._content["judges"] = judges.NAMES
        self._faces = self._content["faces"] = []
        files = (options.checkpoint_path, options.age_regressor_path, options.identity_path)
        self._measures = Measures.from_files(crop, *files, options.device, lpips, judges)

    def add(self, result: AgedPhoto) -> None:
        """Measure, and print a table; a measure that was not taken becomes null in the report."""
        picture = None
        faces = zip(result.photo.face_names(), result.faces, result.images, strict=True)
        for name, face, images in faces:
            if self._measures.judges:
                from paddle_sam.metrics.judges import picture_of

                picture = picture_of(face, result.photo.pixels)
            measured = self._measures(face.image, images, picture)
            if measured:
                tqdm.write(f"{name}:\n{_table(result.ages, measured)}")
            results = [
                {"target_age": age} | {key: _at(measured, key, at) for key in MEASURES}
                for at, age in enumerate(result.ages)
            ]
            input_age = self._measures.input_age(face.image)
            face = {"name": name.as_posix(), "input_age": input_age, "results": results}
            self._faces.append(face)

    def close(self) -> None:
        """Write the report, of what was measured so far."""
        if self._path:
            write_json(self._path, self._content)
            print(f"report: {self._path}")


def _report_lpips() -> LPIPS | None:
    """Return LPIPS for a report; where its weights are missing, say so and return None."""
    from paddle_sam.networks.image_features import load_lpips

    try:
        return load_lpips(find_weight("lpips_alex"))
    except CheckpointError as error:
        print(f"the report is without LPIPS: {error}")
        return None


def _at(measured: Mapping[str, np.ndarray], key: str, at: int) -> float | None:
    found = key in measured and not np.isnan(measured[key][at])
    return round(float(measured[key][at]), 4) if found else None


def _table(ages: list[float], measured: dict[str, np.ndarray]) -> str:
    """Return lines of text: the target ages, and below them what was measured."""
    rows = [("target age", ages, "6.0f")]
    rows += [(name, measured[key], form) for key, name, form in _ROWS if key in measured]
    return "\n".join(
        f"  {name:<11}" + "".join(f"{value:{form}}" for value in values)
        for name, values, form in rows
    )
