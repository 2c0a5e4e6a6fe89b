"""Measure single results: their age, whether it is the same person, how much changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_sam.ageing.losses import cosine, face_region
from paddle_sam.core.files import write_json
from paddle_sam.core.images import to_network
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError
from paddle_sam.faces.alignment import CropSettings
from paddle_sam.networks.age_regressor import AgeRegressor
from paddle_sam.networks.face_recognition import FaceEmbedder
from paddle_sam.networks.load import load
from paddle_sam.networks.lpips import LPIPS
from paddle_sam.networks.lpips_weights import load_lpips

FFHQ = CropSettings()
MEASURES = ("measured_age", "identity", "lpips")


class Measures:
    """Measures results with the networks that are at hand; the others are left out.

    Args:
        crop: how the faces are cut.
        regressor: reads ages.
        recogniser: compares the persons, by the face region of their crops.
        lpips: compares results with the input.
    """

    def __init__(
        self,
        crop: CropSettings,
        regressor: AgeRegressor | None = None,
        recogniser: FaceEmbedder | None = None,
        lpips: LPIPS | None = None,
    ):
        self._crop, self._regressor = crop, regressor
        self._recogniser, self._lpips = recogniser, lpips

    @classmethod
    def from_files(
        cls,
        crop: CropSettings,
        checkpoint_path: str = "",
        age_regressor_path: str = "",
        identity_path: str = "",
        device: str = "auto",
        lpips: LPIPS | None = None,
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
        return cls(crop, regressor, recogniser or None, lpips)

    def input_age(self, crop: np.ndarray) -> float | None:
        """Return the apparent age of a crop uint8 [S, S, 3]; None without a regressor."""
        if self._regressor is None:
            return None
        return round(measure_ages(self._regressor, crop[None]).item(), 4)

    def __call__(self, crop: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return arrays [N] by `MEASURES` of results uint8 [N, R, R, 3] for a crop [S, S, 3]."""
        found = {}
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
    try:
        return load_lpips(find_weight("lpips_alex"))
    except CheckpointError as error:
        print(f"the report is without LPIPS: {error}")
        return None


class Report:
    """Collect the measures of a run and write them as JSON."""

    def __init__(self, checkpoint: str):
        self._content = {"checkpoint": checkpoint, "faces": []}

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
            | {
                key: round(float(measured[key][at]), 4) if key in measured else None
                for key in MEASURES
            }
            for at, age in enumerate(ages)
        ]
        face = {"name": name.as_posix(), "input_age": input_age, "results": results}
        self._content["faces"].append(face)

    def write(self, path: Path) -> None:
        """Write all faces added so far."""
        write_json(path, self._content)
        print(f"report: {path}")


def table(ages: list[float], measured: dict[str, np.ndarray]) -> str:
    """Return lines of text: the target ages, and below them what was measured."""
    rows = [("target age", ages, "6.0f")]
    for key, name, form in (
        ("measured_age", "measured", "6.0f"),
        ("identity", "identity", "6.2f"),
        ("lpips", "LPIPS", "6.2f"),
    ):
        if key in measured:
            rows.append((name, measured[key], form))
    return "\n".join(
        f"  {name:<11}" + "".join(f"{value:{form}}" for value in values)
        for name, values, form in rows
    )
