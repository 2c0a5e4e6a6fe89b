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

    Two kinds are known: `.onnx` models from RGB in 0..1, [1, 3, H, W], of any height and width, to
    the same, larger; and the `.pb` models of OpenCV's `dnn_superres`, whose names say what they
    are: EDSR_x4.pb, ESPCN_x2.pb, FSRCNN-small_x3.pb, LapSRN_x8.pb.

    Raises:
        ConfigError: the file is missing, of another kind, or does not enlarge.
    """
    if not path.is_file():
        raise ConfigError(f"--upscale: expected lanczos or the file of a model, found {path}")
    if path.suffix == ".pb":
        enlarge, problem = _published_model(path), "dnn_superres"
    elif path.suffix == ".onnx":
        enlarge, problem = _onnx_model(path), "RGB in 0..1, [1, 3, H, W] of any size"
    else:
        raise ConfigError(f"--upscale: expected a model .onnx or .pb, found {path}")
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


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
