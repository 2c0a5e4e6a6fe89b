"""Faces and their 68 landmarks, by dlib's frontal detector and shape predictor."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paddle_sam.core.images import resize
from paddle_sam.core.weights import command_for, find_weight
from paddle_sam.errors import CheckpointError, ConfigError, check_shape, first_line

# The detector sees faces of 40 pixels and more. It looks at copies whose longer side is one of
# these, the small ones first: each takes four times as long as the one before. Beyond, gigabytes.
_SIDES = (1024, 2048, 4096)
_SMALL_SIDE = 400  # smaller photographs are enlarged to this
_LARGE_FACE = 0.25  # of the longer side; beside one, smaller faces than 40 pixels are passers-by
_SAME_FACE = 0.4  # overlap of boxes above which two detections are one face
_BOX = 1.5  # half side of the detector's boxes, in root mean square distances of brows to mouth
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

    Raises:
        ConfigError: dlib is not installed.
        CheckpointError: the predictor is missing, damaged, or predicts other landmarks.
    """

    def __init__(self):
        path = find_weight("landmarks")
        try:
            import dlib
        except ImportError as error:
            raise ConfigError(
                f"dlib, which finds the faces, cannot be imported ({error}). Install it with"
                " `pip install dlib-bin`, or give aligned faces and --no_align."
            ) from error
        self._rectangle = dlib.rectangle
        self._make_detector = dlib.get_frontal_face_detector
        self._thread = threading.local()
        try:
            self._predictor = dlib.shape_predictor(str(path))
            found = self._predictor(np.zeros((8, 8, 3), np.uint8), dlib.rectangle(0, 0, 7, 7))
            if found.num_parts != 68:
                raise RuntimeError(f"it predicts {found.num_parts} landmarks")
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: found a damaged file or another one ({first_line(error)}),"
                " expected dlib's predictor of 68 landmarks. Delete it, then:"
                f" {command_for('landmarks')}"
            ) from error

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

    def near(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Return the landmarks [68, 2] of the upright face in an image where one is known to be.

        Args:
            image: uint8 RGB `[H, W, 3]`, of any size.
            landmarks: `[68, 2]`, of a face of about the same place and size.
        """
        inner = landmarks[17:]  # without the jaw, as the detector's boxes are
        centre = inner.mean(axis=0)
        half = _BOX * np.sqrt(((inner - centre) ** 2).sum(axis=1).mean())
        rectangle = self._rectangle(*map(round, [*(centre - half), *(centre + half)]))
        points = [(p.x, p.y) for p in self._predictor(image, rectangle).parts()]
        return np.array(points, float)

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
        copy = resize(image, tuple(max(round(side * scale), 1) for side in image.shape[:2]))
        boxes, confidences, _ = self._detector.run(copy, 1, 0.0)
        on, larger = (copy, scale) if scale > 1 else (image, 1.0)
        faces = []
        for box, confidence in zip(boxes, confidences, strict=True):
            corners = np.array([box.left(), box.top(), box.right(), box.bottom()], float)
            rectangle = self._rectangle(*map(round, _moved(corners, larger / scale)))
            points = [(p.x, p.y) for p in self._predictor(on, rectangle).parts()]
            landmarks = _moved(np.array(points, float), 1 / larger)
            faces.append(Face(tuple(_moved(corners, 1 / scale).tolist()), confidence, landmarks))
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


def area(box: Sequence[float]) -> float:
    """Area of a box: left, top, right, bottom."""
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Area that two boxes share, relative to that of the smaller one."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min(area(a), area(b))
    return max(width, 0) * max(height, 0) / smaller if smaller > 0 else 0.0


def _turned_back(face: Face, turns: int, shape: tuple[int, int]) -> Face:
    """A face found in `np.rot90(image, turns)`, in the coordinates of the image of this shape."""
    height, width = shape
    back = {
        1: lambda x, y: (width - 1 - y, x),
        2: lambda x, y: (width - 1 - x, height - 1 - y),
        3: lambda x, y: (y, height - 1 - x),
    }[turns]
    corners = np.stack(back(*np.reshape(face.box, (2, 2)).T))
    box = (*corners.min(axis=1).tolist(), *corners.max(axis=1).tolist())
    return Face(box, face.confidence, np.stack(back(*face.landmarks.T), axis=1))


def _moved(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Pixel coordinates after resizing; they count from pixel centres, resizing from edges."""
    return pixels if scale == 1 else (pixels + 0.5) * scale - 0.5
