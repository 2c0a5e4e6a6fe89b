"""What a result is like in numbers: its age, whether it is the same person, how much changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_sam.ageing.losses import cosine, face_region
from paddle_sam.ageing.options import InferenceOptions
from paddle_sam.ageing.pipeline import embedded_age_regressor, measure_ages
from paddle_sam.core.files import write_json
from paddle_sam.core.images import to_network
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError, ConfigError
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

    Ages come from `--age_regressor_path`, with the embedded model from its own regressor (it reads
    that model's crop, not those of others); identity from `--identity_path`.

    Args:
        config: options of that name.
        crop: how the faces are cut.
        lpips: compares results with the input.
    """

    def __init__(self, config: InferenceOptions, crop: CropSettings, lpips: LPIPS | None = None):
        self._regressor = _age_regressor(config)
        path = config.identity_path
        self._identity = RegionIdentity(path, crop, config.device) if path else None
        self._lpips = lpips

    def input_age(self, crop: np.ndarray) -> float | None:
        """Apparent age of a crop uint8 [S, S, 3]; None without a regressor."""
        if self._regressor is None:
            return None
        return round(measure_ages(self._regressor, crop[None]).item(), 4)

    def __call__(self, crop: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        """Of results uint8 [N, R, R, 3] for a crop uint8 [S, S, 3]: arrays [N] by `MEASURES`."""
        found = {}
        if self._regressor is not None:
            found["measured_age"] = measure_ages(self._regressor, images)
        with paddle.no_grad():
            before, after = (paddle.to_tensor(to_network(one)) for one in (crop, images))
            side = min(before.shape[-1], after.shape[-1])
            before, after = (F.adaptive_avg_pool2d(one, side) for one in (before, after))
            if self._identity is not None:
                found["identity"] = self._identity(before, after)
            if self._lpips is not None:
                found["lpips"] = self._lpips(after, before.expand_as(after)).numpy()
        return found


class RegionIdentity:
    """Identity as SAM's training judges it: by the face region of a crop.

    Args:
        path: face recognition weights, named by `--identity_path`.
        crop: how the faces are cut.
        device: `auto`, `cpu`, `gpu` or `gpu:N`.

    Raises:
        PaddleSamError: the weights are no such network.
    """

    def __init__(self, path: str, crop: CropSettings, device: str = "auto"):
        self._crop = crop
        self._embedder = load(path, device=device)
        if not isinstance(self._embedder, FaceEmbedder):
            raise ConfigError(f"--identity_path: {path} recognises no faces")

    @paddle.no_grad()
    def __call__(self, before: paddle.Tensor, after: paddle.Tensor) -> np.ndarray:
        """Cosines [N] of images [N, 3, S, S] with one [1, 3, S, S], in [-1, 1]."""
        return cosine(self._embed(after), self._embed(before)).numpy()

    def _embed(self, images: paddle.Tensor) -> paddle.Tensor:
        # The part of an FFHQ crop that recognition looks at; tighter crops show no more than that.
        face = face_region(images) if self._crop.scale >= FFHQ.scale else images
        return self._embedder(F.adaptive_avg_pool2d(face, self._embedder.input_size))


def report_lpips() -> LPIPS | None:
    """LPIPS for a report, or None, and a word about it, where its weights are missing."""
    try:
        return load_lpips(find_weight("lpips_alex"))
    except CheckpointError as error:
        print(f"the report is without LPIPS: {error}")
        return None


class Report:
    """Collects the measures of a run and writes them as JSON."""

    def __init__(self, checkpoint: str):
        self._content = {"checkpoint": checkpoint, "faces": []}

    def add(
        self,
        name: Path,
        input_age: float | None,
        ages: list[float],
        measured: dict[str, np.ndarray],
    ) -> None:
        """Note the results of one face; a measure that was not taken becomes null."""
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
        """Write what was collected."""
        write_json(path, self._content)
        print(f"report: {path}")


def table(ages: list[float], measured: dict[str, np.ndarray]) -> str:
    """Lines of text: the target ages, and below them what was measured."""
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


def _age_regressor(config: InferenceOptions) -> AgeRegressor | None:
    if not config.age_regressor_path:
        return None if config.checkpoint_path else embedded_age_regressor(config.device)
    regressor = load(config.age_regressor_path, device=config.device)
    if not isinstance(regressor, AgeRegressor):
        raise ConfigError(f"--age_regressor_path: {config.age_regressor_path} reads no ages")
    return regressor
