"""The squares to cut out of a picture (its middle, its faces, a cascade's finds), and to enlarge.

A square is given by its corners [4, 2] as `AlignedFace.quad` gives them: top left, bottom left,
bottom right, top right, x and y, the picture's first pixel covering 0..1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from paddle_sam.core.images import resize
from paddle_sam.errors import ConfigError, FaceNotFoundError
from paddle_sam.faces.alignment import (
    CropSettings,
    box_corners,
    clear,
    crop_quad,
    cut_out,
    middle,
    side_of,
)
from paddle_sam.faces.landmarks import FaceLandmarker
from paddle_sam.imagesets.prepare.options import PrepareOptions

OPENCV = "pip install 'opencv-contrib-python-headless<5'"
_OVERSAMPLE = 4  # FFHQ's
_CLIPPED = 0.5  # a face that lies less than half in the picture is left out

FindSquares = Callable[[np.ndarray], list[np.ndarray]]
_PUBLISHED = ("edsr", "espcn", "fsrcnn", "lapsrn")
_PROBE = 24
_PROBES = (48, 64)  # sides for ncnn's models
_STEP = 4  # a multiple that models with pooling need

Enlarge = Callable[[np.ndarray], np.ndarray]


def square_finder(config: PrepareOptions) -> FindSquares:
    """Return the function that finds the squares of a uint8 RGB image [H, W, 3].

    It returns at least one, or raises `FaceNotFoundError`.
    """
    if config.crop == "centre":
        return lambda image: [middle(*image.shape[:2])]
    if config.crop == "cascade":
        return CascadeSquares(config)
    return FaceSquares(config)


def cut_square(image: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """Cut a square out at `size` pixels, or at its own size if that is smaller or `size` is 0."""
    own = round(side_of(corners))
    side = min(size or own, own)
    height, width = image.shape[:2]
    left, top, right, bottom = (int(value) for value in (*corners[0], *corners[2]))
    whole = np.array_equal(corners, box_corners(left, top, right, bottom))
    if whole and left >= 0 and top >= 0 and right <= width and bottom <= height:
        cut = image[top:bottom, left:right]
        return np.ascontiguousarray(resize(cut, side))
    # `cut_out` counts from the centre of the first pixel.
    return cut_out(image, corners - 0.5, side, _OVERSAMPLE).image


class FaceSquares:
    """The oriented squares around the faces that dlib finds, as FFHQ was cut."""

    def __init__(self, config: PrepareOptions):
        self._find = FaceLandmarker().find
        self._settings = CropSettings(max(config.size, 1), config.face_scale, config.face_offset)
        self._choice = config.face

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        faces = self._find(image, every=self._choice != "best")
        if self._choice != "best":
            faces = clear(faces)
        squares = [crop_quad(face.landmarks, self._settings) + 0.5 for face in faces]
        return _chosen(_inside(squares, image), self._choice)


class CascadeSquares:
    """Upright squares around what an OpenCV cascade (Haar or LBP) finds, largest first."""

    def __init__(self, config: PrepareOptions):
        self._cv2 = import_cv2("CascadeClassifier")
        path = find_cascade(config.cascade)
        self._cascade = self._cv2.CascadeClassifier()
        try:
            readable = self._cascade.load(str(path))
        except (self._cv2.error, SystemError):  # the latter for XML of another kind
            readable = False
        if not readable:
            raise ConfigError(f"--cascade: {path} is not a cascade that OpenCV can read (XML)")
        self._config = config

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        smallest = self._config.cascade_min_size
        grey = self._cv2.equalizeHist(self._cv2.cvtColor(image, self._cv2.COLOR_RGB2GRAY))
        boxes = self._cascade.detectMultiScale(
            grey,
            scaleFactor=self._config.cascade_scale_factor,
            minNeighbors=self._config.cascade_neighbours,
            minSize=(smallest, smallest),
        )
        boxes = sorted(np.asarray(boxes).reshape(-1, 4).tolist(), key=lambda b: (-b[2], b))
        squares = []
        for left, top, width, height in boxes:
            centre = left + width / 2, top + height / 2
            half = max(width, height) * self._config.face_scale / 2
            squares.append(
                np.rint(box_corners(*(c - half for c in centre), *(c + half for c in centre)))
            )
        return _chosen(_inside(squares, image), self._config.face)


def find_cascade(name: str) -> Path:
    """Return the file of a cascade: `name` itself, or one of that name among OpenCV's."""
    if Path(name).is_file():
        return Path(name)
    shipped = Path(import_cv2("CascadeClassifier").data.haarcascades)
    if (shipped / name).is_file():
        return shipped / name
    known = ", ".join(sorted(path.name for path in shipped.glob("*.xml")))
    raise ConfigError(f"--cascade: there is no file {name}; OpenCV brings {known}")


def import_cv2(needed: str):
    """Return the module `cv2`, which must have `needed`."""
    try:
        import cv2
        import cv2.data  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"this needs OpenCV, which cannot be imported: {OPENCV}") from error
    if not hasattr(cv2, needed):
        raise ConfigError(f"this OpenCV, {cv2.__version__}, has no {needed}: {OPENCV}")
    return cv2


def _inside(squares: Sequence[np.ndarray], image: np.ndarray) -> list[np.ndarray]:
    """Return the squares of which at least half lies in the picture, along each axis."""
    kept = []
    for corners in squares:
        low, high = corners.min(axis=0), corners.max(axis=0)
        inside = np.minimum(high, image.shape[1::-1]) - np.maximum(low, 0)
        if (inside >= _CLIPPED * (high - low)).all():
            kept.append(corners)
    return kept


def _chosen(squares: list[np.ndarray], choice: str) -> list[np.ndarray]:
    if not squares:
        raise FaceNotFoundError("no face was found")
    if choice == "all":
        return squares
    return [max(squares, key=side_of) if choice == "largest" else squares[0]]


def upscaler(spec: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return the function (square uint8 [S, S, 3], size) -> uint8 [size, size, 3].

    A super-resolution model is applied until the image is at least as large as wanted, then
    Lanczos reduces it to the size.

    Args:
        spec: `lanczos` (or empty: the same), or the file of a model, see `read_model`.
    """
    if spec in ("", "lanczos"):
        return resize
    enlarge = read_model(Path(spec))

    def apply(image: np.ndarray, size: int) -> np.ndarray:
        while image.shape[0] < size:
            image = enlarge(image)
        return resize(image, size)

    return apply


def read_model(path: Path) -> Enlarge:
    """Read a super-resolution model for OpenCV.

    Three kinds are known: `.onnx` models from RGB in 0..1, [1, 3, H, W], of any height and width,
    to the same, larger; the `.pb` models of OpenCV's `dnn_superres`, whose names say what they
    are: EDSR_x4.pb, ESPCN_x2.pb, FSRCNN-small_x3.pb, LapSRN_x8.pb; and ncnn's `.param` files with
    a `.bin` beside each, from RGB in 0..1 to the same, larger, as waifu2x has them.
    """
    if not path.is_file():
        raise ConfigError(f"--upscale: expected lanczos or the file of a model, found {path}")
    if path.suffix == ".param":
        return NcnnModel(path)
    if path.suffix not in (".onnx", ".pb"):
        raise ConfigError(f"--upscale: expected a model .onnx, .pb or .param, found {path}")
    onnx = path.suffix == ".onnx"
    cv2 = import_cv2("dnn" if onnx else "dnn_superres")
    try:
        enlarge = _onnx_model(cv2, path) if onnx else _published_model(cv2, path)
    except cv2.error as error:
        raise ConfigError(f"--upscale: OpenCV cannot read {path}: {_last_line(error)}") from error
    problem = "RGB in 0..1, [1, 3, H, W] of any size" if onnx else "dnn_superres"
    try:
        larger = enlarge(np.full((_PROBE, _PROBE, 3), 128, np.uint8)).shape[0]
        wider = enlarge(np.full((_PROBE + 3, _PROBE + 3, 3), 128, np.uint8)).shape[0]
    except (cv2.error, ValueError) as error:
        raise ConfigError(
            f"--upscale: {path} does not take {problem} ({_last_line(error)})"
        ) from error
    if larger <= _PROBE or wider * _PROBE != larger * (_PROBE + 3):
        raise ConfigError(
            f"--upscale: {path} makes {larger} pixels of {_PROBE}, expected a multiple"
        )
    return enlarge


def _onnx_model(cv2, path: Path) -> Enlarge:
    network = cv2.dnn.readNetFromONNX(str(path))

    def enlarge(image: np.ndarray) -> np.ndarray:
        network.setInput(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        result = network.forward()
        if result.ndim != 4 or result.shape[:2] != (1, 3):
            raise ValueError(f"it gives {list(result.shape)}")
        return np.rint(result[0].transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)

    return enlarge


def _published_model(cv2, path: Path) -> Enlarge:
    name = re.match(rf"({'|'.join(_PUBLISHED)})\w*?(?:-small)?_x([2348])$", path.stem, re.I)
    if name is None:
        raise ConfigError(
            f"--upscale: the name of {path} does not say which network it is; expected such as"
            " EDSR_x4.pb, ESPCN_x2.pb, FSRCNN_x3.pb or LapSRN_x8.pb"
        )
    model = cv2.dnn_superres.DnnSuperResImpl_create()
    model.readModel(str(path))
    model.setModel(name[1].lower(), int(name[2]))

    def enlarge(image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(model.upsample(image[..., ::-1])[..., ::-1])

    return enlarge


class NcnnModel:
    """A super-resolution model in ncnn's format, uint8 RGB [H, W, 3] to the same, larger.

    Its convolutions may have no padding, as waifu2x's: what they cut off is found by trying, and
    added to the picture by repeating its edges.
    """

    def __init__(self, path: Path):
        try:
            import ncnn
        except ImportError as error:
            raise ConfigError(f"--upscale: {path} needs ncnn: pip install ncnn") from error
        self._mat, self._net = ncnn.Mat, ncnn.Net()
        weights = path.with_suffix(".bin")
        if (
            not weights.is_file()
            or self._net.load_param(str(path)) != 0
            or self._net.load_model(str(weights)) != 0
        ):
            raise ConfigError(f"--upscale: ncnn cannot read {path} with {weights.name} beside it")
        small, large = (self._run(np.zeros((3, side, side), np.float32)) for side in _PROBES)
        self.scale = (large.shape[1] - small.shape[1]) // (_PROBES[1] - _PROBES[0])
        cut_off = self.scale * _PROBES[0] - small.shape[1]
        if small.shape[0] != 3 or self.scale < 2 or cut_off < 0 or cut_off % (2 * self.scale):
            raise ConfigError(
                f"--upscale: {path} makes {list(small.shape)} of [3, {_PROBES[0]}, {_PROBES[0]}],"
                " expected a multiple, or one less what its convolutions cut off"
            )
        self._margin = cut_off // (2 * self.scale)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        sides = [(self._margin, self._margin + -length % _STEP) for length in (height, width)]
        padded = np.pad(image, (*sides, (0, 0)), "edge").transpose(2, 0, 1)
        result = self._run(np.ascontiguousarray(padded, np.float32) / 255).transpose(1, 2, 0)
        result = result[: height * self.scale, : width * self.scale]
        return np.rint(result.clip(0, 1) * 255).astype(np.uint8)

    def _run(self, planes: np.ndarray) -> np.ndarray:
        extractor = self._net.create_extractor()
        extractor.input(self._net.input_names()[0], self._mat(planes).clone())
        _, result = extractor.extract(self._net.output_names()[0])
        return np.array(result)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
