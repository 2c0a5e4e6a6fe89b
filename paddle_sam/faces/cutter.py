"""Faces out of photographs, cut as one network expects them."""

from __future__ import annotations

import functools
import threading
import warnings

import numpy as np

from paddle_sam.core.images import check_image, crop_square, resize
from paddle_sam.errors import Note
from paddle_sam.faces.alignment import AlignedFace, CropSettings, align_faces
from paddle_sam.faces.landmarks import Face, FaceLandmarker


class FaceCutter:
    """Finds faces and cuts them out; threads may share one.

    Args:
        crop: how the faces are cut.
        centre: of crops that are not square take the centre; else they are resized to a square.
    """

    def __init__(self, crop: CropSettings, centre: bool = False):
        self.crop = crop
        self._centre = centre
        self._said = False
        self._landmarker: FaceLandmarker | None = None
        self._lock = threading.Lock()

    def __call__(
        self, image: np.ndarray, face: str = "best", align: bool = True, source: str = "image"
    ) -> list[AlignedFace]:
        """Crops of one photograph.

        Args:
            image: uint8 RGB [H, W, 3].
            face: `best` (the most confident), `largest` or `all`.
            align: find the face; False where the photograph is an aligned crop already.
            source: what messages call the photograph.

        Raises:
            ImageError, FaceNotFoundError: it cannot be used; the message names it.
            ConfigError: an array is no such image, or `face` is none of these.
        """
        check_image(source, image)
        if align:
            find = functools.partial(self._find, every=face != "best")
            return align_faces(image, find, self.crop, choice=face, source=source)
        height, width = image.shape[:2]
        corners = np.array([[0, 0], [0, height], [width, height], [width, 0]], np.float64)
        if self._centre and width != height:
            self._say_once(f"{source}: is not square; of such images the centre is taken")
            side = min(height, width)
            corner = [(width - side) // 2, (height - side) // 2]
            corners = np.array([[0, 0], [0, side], [side, side], [side, 0]], np.float64) + corner
            image = crop_square(image)
        return [AlignedFace(resize(image, self.crop.size), corners)]

    def _say_once(self, note: str) -> None:
        with self._lock:
            said, self._said = self._said, True
        if not said:
            warnings.warn(note, Note, stacklevel=2)

    def _find(self, image: np.ndarray, every: bool) -> list[Face]:
        with self._lock:  # 100 MB, read when the first face is looked for
            self._landmarker = self._landmarker or FaceLandmarker()
        return self._landmarker.find(image, every)
