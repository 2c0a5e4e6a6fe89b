"""Faces cut out of photographs as a network expects them: oriented squares, straightened.

The FFHQ recipe (Karras et al. 2019, appendix A, as SAM and pSp apply it at 256 px) takes position,
size and rotation of the square from the eyes and the mouth. Two of its numbers are parameters here,
because a crop belongs to the network that was trained on it: `scale` and `offset`.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from PIL import Image

from paddle_sam.core.images import check_image, crop_square, resize
from paddle_sam.errors import ConfigError, FaceNotFoundError, ImageError, Note, check_shape
from paddle_sam.faces.landmarks import Face, FaceLandmarker, area

FACE_CHOICES = ("best", "largest", "all")
# Fainter detections are mostly no faces (dlib sees one at 0.12 beside scikit-image's portrait);
# `all` leaves them out.
FAINT = 0.25
SMALL = 40  # pixels


@dataclass(frozen=True)
class CropSettings:
    """What a network expects of its aligned faces; the defaults are FFHQ's, as SAM uses them."""

    size: int = 256  # side of the crop in pixels
    scale: float = 1.0  # of the rectangle, relative to FFHQ's
    offset: float = 0.1  # of its centre from the eyes, in eye-to-mouth distances
    oversample: int = 1  # the crop is cut out this many times larger, then reduced (FFHQ: 4)

    def __post_init__(self):
        if self.size < 1 or self.oversample < 1 or not self.scale > 0:
            raise ConfigError(
                f"crop settings: expected size and oversample of at least 1 and a scale above 0,"
                f" found {self.size}, {self.oversample} and {self.scale}"
            )


@dataclass(frozen=True, eq=False)
class AlignedFace:
    """A crop and where it came from.

    image: uint8 `[size, size, 3]`.
    quad: `[4, 2]`, x and y of the crop's corners in the photograph (top left, bottom left, bottom
        right, top right), exactly as sampled. Coordinates are continuous: the photograph's first
        pixel covers 0..1, so its centre is at 0.5. Corners may lie outside the photograph.
    landmarks: `[68, 2]`, x and y in the photograph, counted from the centre of its first pixel;
        None where the face was not looked for.
    """

    image: np.ndarray
    quad: np.ndarray
    landmarks: np.ndarray | None = None

    @property
    def is_small(self) -> bool:
        """Whether the face itself, from jaw to jaw, has fewer pixels than detectors look for."""
        if self.landmarks is None:
            return False
        return float(np.hypot(*(self.landmarks[16] - self.landmarks[0]))) < SMALL

    def seen_in(self, photo: np.ndarray, side: int) -> np.ndarray:
        """Return what the crop shows as its photograph has it, uint8 [side, side, 3].

        Args:
            photo: the photograph that it was cut from, uint8 [H, W, 3].
            side: in pixels.
        """
        return cut_out(photo, self.quad - 0.5, side, plain=True).image

    def scaled(self, factor: float) -> AlignedFace:
        """Return the same face in the photograph resized by a factor."""
        landmarks = self.landmarks
        if landmarks is not None:
            landmarks = (landmarks + 0.5) * factor - 0.5
        return AlignedFace(self.image, self.quad * factor, landmarks)


def align_faces(
    image: np.ndarray,
    find_faces: Callable[[np.ndarray], Sequence],
    settings: CropSettings,
    *,
    choice: str = "best",
    source: str = "image",
) -> list[AlignedFace]:
    """Find the chosen faces of a photograph and cut them out.

    Args:
        image: uint8 RGB `[H, W, 3]`.
        find_faces: returns the faces of an image, most confident first, such as
            `FaceLandmarker().find`.
        settings: the crop.
        choice: `best` (the most confident), `largest`, or `all` (that are not `FAINT`).
        source: the file's name, for messages.

    Raises:
        FaceNotFoundError: there is no face, or none that lies in the image.
    """
    if choice not in FACE_CHOICES:
        raise ConfigError(f"face: expected one of {', '.join(FACE_CHOICES)}, found {choice!r}")
    faces = list(find_faces(image))
    if not faces:
        raise FaceNotFoundError(
            f"{source}: found no face in {image.shape[1]} x {image.shape[0]} pixels. Use a picture"
            " with a face seen from the front."
        )
    faces = faces[:1] if choice == "best" else clear(faces)
    if choice == "largest":
        faces = [max(faces, key=lambda face: area(face.box))]
    try:
        return [align(image, face.landmarks, settings) for face in faces]
    except ImageError as error:
        raise FaceNotFoundError(f"{source}: {error}") from error


def clear(faces: list[Face]) -> list[Face]:
    """Leave out faint detections, unless there are no others."""
    return [face for face in faces if face.confidence >= FAINT] or faces[:1]


def align(image: np.ndarray, landmarks: np.ndarray, settings: CropSettings) -> AlignedFace:
    """Cut the face with these 68 landmarks out of a uint8 RGB `[H, W, 3]` image.

    Raises:
        ImageError: the landmarks describe no rectangle that touches the image.
    """
    face = cut_out(image, crop_quad(landmarks, settings), settings.size, settings.oversample)
    return dataclasses.replace(face, landmarks=np.asarray(landmarks, np.float64))


def cut_out(
    image: np.ndarray, quad: np.ndarray, size: int, oversample: int = 1, *, plain: bool = False
) -> AlignedFace:
    """Straighten a quad `[4, 2]` of a uint8 RGB `[H, W, 3]` image; see `crop_quad` for its corners.

    Beyond the image's edges its content is mirrored, and blurred more and more. The recipe begins
    with that near an edge already; with `plain` a quad within the image shows the image alone.

    Raises:
        ImageError: the quad does not touch the image.
    """
    check_shape("image to align", image, (None, None, 3))
    picture, quad, pixels_per_pixel = _shrink(Image.fromarray(image), quad, size)
    picture, quad, corner = _crop(picture, quad)
    sampled = (quad + corner + 0.5) * pixels_per_pixel
    if not (plain and _holds(picture, quad)):
        picture, quad = _pad(picture, quad)
    side = size * oversample
    picture = picture.transform(
        (side, side),
        Image.Transform.QUAD,
        (quad + 0.5).ravel().tolist(),  # landmarks count from the first pixel's centre
        Image.Resampling.BILINEAR,
    )
    if oversample > 1:
        picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    return AlignedFace(np.array(picture), sampled)


def crop_quad(landmarks: np.ndarray, settings: CropSettings) -> np.ndarray:
    """Corners `[4, 2]` of the oriented square: top left, bottom left, bottom right, top right.

    In the coordinates of the landmarks, float64 x and y. The square's axes follow the mean of the
    eye line and the (turned) eye-to-mouth line; its half side is twice the distance of the eyes or
    1.8 times that of eyes and mouth, whichever is larger.
    """
    check_shape("landmarks", landmarks, (68, 2))
    landmarks = np.asarray(landmarks, np.float64)
    eye_left, eye_right = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    eyes = (eye_left + eye_right) / 2
    eye_to_eye = eye_right - eye_left
    eye_to_mouth = (landmarks[48] + landmarks[54]) / 2 - eyes

    right = eye_to_eye + _turned(eye_to_mouth, clockwise=False)
    length = np.hypot(*right)
    if not length > 0:
        raise ImageError("the landmarks of the face coincide, so it has no direction")
    half_side = max(2.0 * np.hypot(*eye_to_eye), 1.8 * np.hypot(*eye_to_mouth)) * settings.scale
    right *= half_side / length
    down = _turned(right, clockwise=True)
    centre = eyes + settings.offset * eye_to_mouth
    return centre + np.stack([-right - down, -right + down, right + down, right - down])


def box_corners(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Corners [4, 2] of an upright box: top left, bottom left, bottom right, top right."""
    return np.array([[left, top], [left, bottom], [right, bottom], [right, top]], np.float64)


def middle(height: int, width: int) -> np.ndarray:
    """Corners [4, 2] of the largest square in the middle of a picture."""
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return box_corners(left, top, left + side, top + side)


def side_of(quad: np.ndarray) -> float:
    """Length of a square's sides, of its corners [4, 2]."""
    return float(np.hypot(*(quad[3] - quad[0])))


def _turned(vector: np.ndarray, *, clockwise: bool) -> np.ndarray:
    """Turn by 90 degrees as seen on the image, whose y axis points down."""
    x, y = vector
    return np.array([-y, x] if clockwise else [y, -x])


def _bounds(quad: np.ndarray) -> np.ndarray:
    """Whole-pixel left, top, right, bottom around a quad."""
    return np.concatenate([np.floor(quad.min(0)), np.ceil(quad.max(0))]).astype(int)


def _border(quad: np.ndarray) -> int:
    return max(round(side_of(quad) * 0.1), 3)


def _shrink(picture: Image.Image, quad: np.ndarray, size: int):
    """Reduce a photograph that is far larger than the crop needs, antialiased.

    Also gives how many pixels of the original one pixel of the result spans, in x and y.
    """
    factor = int(side_of(quad) / size * 0.5)
    if factor <= 1:
        return picture, quad, np.ones(2)
    reduced = [max(round(length / factor), 1) for length in picture.size]
    span = np.array(picture.size) / reduced
    return picture.resize(reduced, Image.Resampling.LANCZOS), quad / factor, span


def _crop(picture: Image.Image, quad: np.ndarray):
    """Keep the quad and a border, as far as the picture reaches; also give the corner cut at."""
    border = _border(quad)
    left, top, right, bottom = _bounds(quad) + [-border, -border, border, border]
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, picture.width), min(bottom, picture.height)
    if left >= right or top >= bottom:
        raise ImageError("the face lies outside the image")
    corner = np.array([left, top])
    return picture.crop((left, top, right, bottom)), quad - corner, corner


def _holds(picture: Image.Image, quad: np.ndarray) -> bool:
    """Whether a picture reaches as far as a quad, give or take a hundredth of a pixel."""
    edges = quad + 0.5
    return edges.min() >= -0.01 and bool((edges.max(axis=0) <= np.array(picture.size) + 0.01).all())


def _pad(picture: Image.Image, quad: np.ndarray):
    """Where the quad leaves the picture, continue it by its mirror image, blurred outwards.

    Towards the new edge the mirrored content is blurred more and more and fades into the
    picture's median colour, so that no second face looks in.
    """
    border = _border(quad)
    left, top, right, bottom = _bounds(quad)
    missing = np.array([-left, -top, right - picture.width, bottom - picture.height]) + border
    if missing.max() <= border - 4:
        return picture, quad
    left, top, right, bottom = pad = np.maximum(missing, max(round(side_of(quad) * 0.3), 1))
    pixels = np.pad(
        np.asarray(picture, np.float32), ((top, bottom), (left, right), (0, 0)), "reflect"
    )
    outwards = _distance_outwards(pixels.shape[:2], pad)[..., None]
    sigma = side_of(quad) * 0.02
    blurred = scipy.ndimage.gaussian_filter(pixels, [sigma, sigma, 0])
    pixels += (blurred - pixels) * (outwards * 3 + 1).clip(0, 1)
    pixels += (np.median(pixels, axis=(0, 1)) - pixels) * outwards.clip(0, 1)
    pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels), quad + pad[:2]


def _distance_outwards(shape: tuple[int, int], pad: np.ndarray) -> np.ndarray:
    """1 at the padded picture's edges, 0 where the photograph begins, negative inside it."""
    left, top, right, bottom = pad.astype(np.float32)
    y, x = np.ogrid[: shape[0], : shape[1]]
    from_sides = 1 - np.minimum(np.float32(x) / left, np.float32(shape[1] - 1 - x) / right)
    from_ends = 1 - np.minimum(np.float32(y) / top, np.float32(shape[0] - 1 - y) / bottom)
    return np.maximum(from_sides, from_ends)


class FaceCutter:
    """Finds faces and cuts them out; threads may share one.

    Args:
        crop: how the faces are cut.
        centre: of crops that are not square take the centre; else they are resized to a square.
    """

    def __init__(self, crop: CropSettings, centre: bool = False):
        self.crop, self.centre = crop, centre
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
            ConfigError: an array is not such an image, or `face` is none of these.
        """
        check_image(source, image)
        if align:
            find = functools.partial(self.landmarker.find, every=face != "best")
            return align_faces(image, find, self.crop, choice=face, source=source)
        height, width = image.shape[:2]
        corners = box_corners(0, 0, width, height)
        if self.centre and width != height:
            self._say_once(f"{source}: is not square; of such images the centre is taken")
            image, corners = crop_square(image), middle(height, width)
        return [AlignedFace(resize(image, self.crop.size), corners)]

    def _say_once(self, note: str) -> None:
        with self._lock:
            said, self._said = self._said, True
        if not said:
            warnings.warn(note, Note, stacklevel=2)

    @property
    def landmarker(self) -> FaceLandmarker:
        """What finds the faces."""
        with self._lock:  # 100 MB, read when the first face is looked for
            self._landmarker = self._landmarker or FaceLandmarker()
        return self._landmarker
