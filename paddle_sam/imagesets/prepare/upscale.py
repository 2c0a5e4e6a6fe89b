"""Enlarging squares that are smaller than the data set's images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from paddle_sam.core.images import resize
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.prepare.squares import import_cv2

_PUBLISHED = ("edsr", "espcn", "fsrcnn", "lapsrn")
_PROBE = 24
_PROBES = (48, 64)  # sides for ncnn's models
_STEP = 4  # a multiple that models with pooling need

Enlarge = Callable[[np.ndarray], np.ndarray]


def upscaler(spec: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return the function (square uint8 [S, S, 3], size) -> uint8 [size, size, 3].

    A super-resolution model is applied until the image is at least as large as wanted, then
    Lanczos reduces it to the size.

    Args:
        spec: `lanczos` (or empty: the same), or the file of a model, see `read_model`.

    Raises:
        ConfigError: the model cannot be used.
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

    Raises:
        ConfigError: the file is missing, of another kind, or does not enlarge.
    """
    if not path.is_file():
        raise ConfigError(f"--upscale: expected lanczos or the file of a model, found {path}")
    if path.suffix == ".pb":
        enlarge, problem = _published_model(path), "dnn_superres"
    elif path.suffix == ".onnx":
        enlarge, problem = _onnx_model(path), "RGB in 0..1, [1, 3, H, W] of any size"
    elif path.suffix == ".param":
        return NcnnModel(path)
    else:
        raise ConfigError(f"--upscale: expected a model .onnx, .pb or .param, found {path}")
    cv2 = import_cv2("dnn")
    try:
        larger = enlarge(np.full((_PROBE, _PROBE, 3), 128, np.uint8)).shape[0]
        wider = enlarge(np.full((_PROBE + 3, _PROBE + 3, 3), 128, np.uint8)).shape[0]
    except (cv2.error, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(f"--upscale: {path} does not take {problem} ({reason})") from error
    if larger <= _PROBE or wider * _PROBE != larger * (_PROBE + 3):
        raise ConfigError(
            f"--upscale: {path} makes {larger} pixels of {_PROBE}, expected a multiple"
        )
    return enlarge


def _onnx_model(path: Path) -> Enlarge:
    cv2 = import_cv2("dnn")
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise ConfigError(f"--upscale: OpenCV cannot read {path}: {_last_line(error)}") from error

    def enlarge(image: np.ndarray) -> np.ndarray:
        network.setInput(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        result = network.forward()
        if result.ndim != 4 or result.shape[:2] != (1, 3):
            raise ValueError(f"it gives {list(result.shape)}")
        return np.rint(result[0].transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)

    return enlarge


def _published_model(path: Path) -> Enlarge:
    cv2 = import_cv2("dnn_superres")
    name = re.match(rf"({'|'.join(_PUBLISHED)})\w*?(?:-small)?_x([2348])$", path.stem, re.I)
    if name is None:
        raise ConfigError(
            f"--upscale: the name of {path} does not say which network it is; expected such as"
            " EDSR_x4.pb, ESPCN_x2.pb, FSRCNN_x3.pb or LapSRN_x8.pb"
        )
    model = cv2.dnn_superres.DnnSuperResImpl_create()
    try:
        model.readModel(str(path))
    except cv2.error as error:
        raise ConfigError(f"--upscale: OpenCV cannot read {path}: {_last_line(error)}") from error
    model.setModel(name[1].lower(), int(name[2]))

    def enlarge(image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(model.upsample(image[..., ::-1])[..., ::-1])

    return enlarge


class NcnnModel:
    """A super-resolution model in ncnn's format, uint8 RGB [H, W, 3] to the same, larger.

    Its convolutions may have no padding, as waifu2x's: what they cut off is found by trying, and
    added to the picture by repeating its edges.

    Raises:
        ConfigError: ncnn is not installed, or the model does not enlarge.
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
