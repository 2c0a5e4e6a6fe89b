"""Faces and their 68 landmarks, by dlib's frontal detector and shape predictor."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError, ConfigError, check_shape

# The detector is run on copies whose longer side lies between these; beyond them it would take
# minutes and gigabytes, below them faces are smaller than the 40 pixels it can see.
_LARGE_SIDE = 2048
_LARGEST_SIDE = 4096
_SMALL_SIDE = 400


@dataclass(frozen=True, eq=False)
class Face:
    """A face in an image, in pixels counted from the centre of the first one.

    box: left, top, right, bottom; may reach beyond the image.
    confidence: the detector's score; above 0, about 1 to 3 for clear faces.
    landmarks: float64 `[68, 2]`, x and y in the iBUG 300-W order.
    """

    box: tuple[float, float, float, float]
    confidence: float
    landmarks: np.ndarray


class FaceLandmarker:
    """Finds faces and their landmarks; loads the predictor when it is made. Threads may share it.

    Args:
        predictor_path: dlib's `shape_predictor_68_face_landmarks.dat`; None looks for it among
            the weights.

    Raises:
        CheckpointError: the file is missing, damaged, or predicts other landmarks.
    """

    def __init__(self, predictor_path: str | os.PathLike | None = None):
        path = find_weight("landmarks") if predictor_path is None else Path(predictor_path)
        dlib = _import_dlib()
        self._rectangle = dlib.rectangle
        self._make_detector = dlib.get_frontal_face_detector
        self._thread = threading.local()
        self._predictor = _load_predictor(dlib, path)

    def find(self, image: np.ndarray) -> list[Face]:
        """Give the faces of a uint8 RGB `[H, W, 3]` image, most confident first; may be none."""
        check_shape("image", image, (None, None, 3))
        image = np.ascontiguousarray(image)
        for scale in _scales(max(image.shape[:2])):
            if faces := self._find_at(image, scale):
                return sorted(faces, key=lambda face: -face.confidence)
        return []

    @property
    def _detector(self):
        # A dlib detector keeps the image pyramid it works on: two threads in one miss faces.
        if not hasattr(self._thread, "detector"):
            self._thread.detector = self._make_detector()
        return self._thread.detector

    def _find_at(self, image: np.ndarray, scale: float) -> list[Face]:
        """Detect on a copy resized by `scale`; landmarks come from the larger of the two."""
        copy = _rescaled(image, scale)
        boxes, confidences, _ = self._detector.run(copy, 1, 0.0)
        faces = []
        for box, confidence in zip(boxes, confidences, strict=True):
            corners = np.array([box.left(), box.top(), box.right(), box.bottom()], float)
            landmarks_scale = max(scale, 1.0)
            on = copy if scale == landmarks_scale else image
            rectangle = self._rectangle(
                *(round(c) for c in _moved(corners, landmarks_scale / scale))
            )
            points = np.array([(p.x, p.y) for p in self._predictor(on, rectangle).parts()], float)
            faces.append(
                Face(
                    box=tuple(_moved(corners, 1 / scale).tolist()),
                    confidence=confidence,
                    landmarks=_moved(points, 1 / landmarks_scale),
                )
            )
        return faces


def _scales(side: int) -> list[float]:
    """Sizes to try until a face turns up, for an image of this longer side."""
    if side > _LARGE_SIDE:
        return [_LARGE_SIDE / side, min(1.0, _LARGEST_SIDE / side)]
    if side < _SMALL_SIDE:
        return [1.0, _SMALL_SIDE / side]
    return [1.0]


def _rescaled(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return image
    size = [max(round(side * scale), 1) for side in (image.shape[1], image.shape[0])]
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _moved(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Pixel coordinates after resizing; they count from pixel centres, resizing from edges."""
    return pixels if scale == 1 else (pixels + 0.5) * scale - 0.5


def _import_dlib():
    try:
        import dlib
    except ImportError as error:
        raise ConfigError(
            f"dlib, which finds the faces, cannot be imported ({error}). Install it with"
            " `pip install dlib-bin`, or give aligned faces and --no_align."
        ) from error
    return dlib


def _load_predictor(dlib, path: Path):
    again = "Get it with: python scripts/download_weights.py landmarks"
    if not path.is_file():
        raise CheckpointError(f"{path}: the landmark predictor is missing. {again}")
    try:
        predictor = dlib.shape_predictor(str(path))
        blank = predictor(np.zeros((8, 8, 3), np.uint8), dlib.rectangle(0, 0, 7, 7))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: found a damaged file or none of dlib's ({reason}), expected its 68-landmark"
            f" predictor. Delete it. {again}"
        ) from error
    if blank.num_parts != 68:
        raise CheckpointError(
            f"{path}: this predictor gives {blank.num_parts} landmarks, expected 68. {again}"
        )
    return predictor
