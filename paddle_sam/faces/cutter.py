"""Faces out of photographs, cut as one network expects them."""

from __future__ import annotations

import functools
import threading

import numpy as np

from paddle_sam.core.images import check_image, resize
from paddle_sam.faces.alignment import AlignedFace, CropSettings, align_faces
from paddle_sam.faces.landmarks import Face, FaceLandmarker


class FaceCutter:
    """Finds faces and cuts them out; threads may share one.

    Args:
        crop: how the faces are cut.
    """

    def __init__(self, crop: CropSettings):
        self.crop = crop
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
        return [AlignedFace(resize(image, self.crop.size), corners)]

    def _find(self, image: np.ndarray, every: bool) -> list[Face]:
        with self._lock:  # 100 MB, read when the first face is looked for
            self._landmarker = self._landmarker or FaceLandmarker()
        return self._landmarker.find(image, every)
