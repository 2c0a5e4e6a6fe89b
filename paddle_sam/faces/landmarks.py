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

# The detector sees faces of 40 pixels and more. It looks at copies whose longer side is one of
# these, the small ones first: each takes four times as long as the one before. Beyond, gigabytes.
_SIDES = (1024, 2048, 4096)
_SMALL_SIDE = 400  # smaller photographs are enlarged to this
_LARGE_FACE = 0.25  # of the longer side; beside one, smaller faces than 40 pixels are passers-by
_SAME_FACE = 0.4  # overlap of boxes above which two detections are one face
SURE = 0.5  # confidence that a face in a turned image needs; upright ones are mostly above 1


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

    def find(self, image: np.ndarray, every: bool = False) -> list[Face]:
        """Find the faces of a uint8 RGB `[H, W, 3]` image.

        Where no face is found the image is turned, as photographs of phones may lie on their side.

        Args:
            image: the photograph.
            every: look for faces of all sizes, which takes several times longer where none fills
                a quarter of the picture; else the first size at which there are any is enough.

        Returns:
            the faces, most confident first; their coordinates are those of the image as given.
        """
        check_shape("image", image, (None, None, 3))
        scales = _scales(max(image.shape[:2]), every)
        if faces := self._find_upright(image, scales, every):
            return faces
        for turns in (1, 3, 2):
            turned = self._find_upright(np.rot90(image, turns).copy(), scales[:2], every)
            if clear := [face for face in turned if face.confidence >= SURE]:
                return [_turned_back(face, turns, image.shape[:2]) for face in clear]
        return []

    def _find_upright(self, image: np.ndarray, scales: list[float], every: bool) -> list[Face]:
        image = np.ascontiguousarray(image)
        large = _LARGE_FACE * max(image.shape[:2])
        faces: list[Face] = []
        for scale in scales:
            faces += self._find_at(image, scale)
            sure = [face for face in faces if face.confidence >= SURE]
            if any(face.box[2] - face.box[0] >= large for face in sure) or (sure and not every):
                break
        return _distinct(sorted(faces, key=lambda face: -face.confidence))

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


def _scales(side: int, every: bool) -> list[float]:
    """Sizes to look at, one after the other, for an image of this longer side."""
    sides = {min(side, _SIDES[-1]), *(s for s in _SIDES if 1.5 * s < side)}
    if every:  # distant faces of small photographs, too
        sides.add(min(max(2 * side, _SMALL_SIDE), _SIDES[1]))
    elif side < _SMALL_SIDE:
        sides.add(_SMALL_SIDE)
    return [s / side for s in sorted(sides)]


def _distinct(faces: list[Face]) -> list[Face]:
    """Of faces, most confident first, those that are not another one found at another size."""
    kept: list[Face] = []
    for face in faces:
        if all(_overlap(face.box, other.box) < _SAME_FACE for other in kept):
            kept.append(face)
    return kept


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Area that two boxes share, relative to that of the smaller one."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller if smaller > 0 else 0.0


def _turned_back(face: Face, turns: int, shape: tuple[int, int]) -> Face:
    """A face found in `np.rot90(image, turns)`, in the coordinates of the image of this shape."""
    corners = np.array(face.box).reshape(2, 2)
    height, width = shape
    moved = []
    for points in (corners, face.landmarks):
        x, y = points[:, 0], points[:, 1]
        if turns == 1:
            x, y = width - 1 - y, x
        elif turns == 2:
            x, y = width - 1 - x, height - 1 - y
        else:
            x, y = y, height - 1 - x
        moved.append(np.stack([x, y], axis=1))
    box = (*moved[0].min(axis=0).tolist(), *moved[0].max(axis=0).tolist())
    return Face(box, face.confidence, moved[1])


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
