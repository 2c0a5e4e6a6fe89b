"""Measure single results: their age, whether it is the same person, how much changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle
import paddle.nn.functional as F

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


class Measures:
    """Measures results with the networks that are at hand; the others are left out.

    Args:
        crop: how the faces are cut.
        regressor: reads ages; it is the network that the model was trained with.
        recogniser: compares the persons, by the face region of their crops.
        lpips: compares results with the input.
        judges: read ages, gender and identity independently of the training.
    """

    def __init__(
        self,
        crop: CropSettings,
        regressor: AgeRegressor | None = None,
        recogniser: FaceEmbedder | None = None,
        lpips: LPIPS | None = None,
        judges: Judges | None = None,
    ):
        self._crop, self._regressor = crop, regressor
        self._recogniser, self._lpips, self.judges = recogniser, lpips, judges

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

        Raises:
            PaddleSamError: a file is missing, damaged, or holds another network.
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
        if self._regressor is None:
            return None
        return round(measure_ages(self._regressor, crop[None]).item(), 4)

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
        if self._regressor is not None:
            found["measured_age"] = measure_ages(self._regressor, images)
        with paddle.no_grad():
            before, after = (paddle.to_tensor(to_network(one)) for one in (crop, images))
            side = min(before.shape[-1], after.shape[-1])
            before, after = (F.adaptive_avg_pool2d(one, side) for one in (before, after))
            if self._recogniser is not None:
                found["identity"] = region_identity(self._recogniser, self._crop, before, after)
            if self._lpips is not None:
                found["lpips"] = self._lpips(after, before.expand_as(after)).numpy()
        return found

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


@paddle.no_grad()
def region_identity(
    recogniser: FaceEmbedder, crop: CropSettings, before: paddle.Tensor, after: paddle.Tensor
) -> np.ndarray:
    """Return the cosines [N] of images [N, 3, S, S] with one [1, 3, S, S], as in SAM's training.

    `crop` is how the faces are cut: of an FFHQ crop only the face region is looked at, of tighter
    ones everything.
    """

    def embed(images: paddle.Tensor) -> paddle.Tensor:
        face = face_region(images) if crop.scale >= FFHQ.scale else images
        return recogniser(F.adaptive_avg_pool2d(face, recogniser.input_size))

    return cosine(embed(after), embed(before)).numpy()


def report_lpips() -> LPIPS | None:
    """Return LPIPS for a report; where its weights are missing, say so and return None."""
    from paddle_sam.networks.image_features import load_lpips

    try:
        return load_lpips(find_weight("lpips_alex"))
    except CheckpointError as error:
        print(f"the report is without LPIPS: {error}")
        return None


class Report:
    """Collect the measures of a run and write them as JSON."""

    def __init__(self, checkpoint: str, judges: Judges | None = None):
        judges = {"judges": judges.NAMES} if judges else {}
        self._content = {"checkpoint": checkpoint, **judges, "faces": []}

    def add(
        self,
        name: Path,
        input_age: float | None,
        ages: list[float],
        measured: dict[str, np.ndarray],
    ) -> None:
        """Add the results of one face; a measure that was not taken becomes null."""
        results = [
            {"target_age": age}
            | {key: _rounded(measured[key][at]) if key in measured else None for key in MEASURES}
            for at, age in enumerate(ages)
        ]
        face = {"name": name.as_posix(), "input_age": input_age, "results": results}
        self._content["faces"].append(face)

    def write(self, path: Path) -> None:
        """Write all faces added so far."""
        write_json(path, self._content)
        print(f"report: {path}")


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def table(ages: list[float], measured: dict[str, np.ndarray]) -> str:
    """Return lines of text: the target ages, and below them what was measured."""
    rows = [("target age", ages, "6.0f")]
    rows += [(name, measured[key], form) for key, name, form in _ROWS if key in measured]
    return "\n".join(
        f"  {name:<11}" + "".join(f"{value:{form}}" for value in values)
        for name, values, form in rows
    )
