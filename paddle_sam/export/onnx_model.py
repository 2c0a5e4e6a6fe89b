"""Exported Paddle models to ONNX, compared in onnxruntime. Needs paddle2onnx and onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paddle_sam.errors import ConfigError, EngineError
from paddle_sam.export.predictor import Predictor

TOLERANCE = 1e-3


def to_onnx(model: Path, batch: int = 2) -> tuple[Path, float]:
    """Convert `model` (a path without suffix); gives the file and its largest difference.

    Raises:
        ConfigError: paddle2onnx or onnxruntime is not installed.
        EngineError: the results differ by more than `TOLERANCE`.
    """
    try:
        import onnxruntime
        import paddle2onnx
    except ImportError as error:
        raise ConfigError(f"--onnx: {error}. Install them: pip install -e .[onnx]") from error
    target = model.with_suffix(".onnx")
    paddle2onnx.export(
        f"{model}.json", f"{model}.pdiparams", str(target), opset_version=13, optimize_tool="None"
    )
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    shape = [size if isinstance(size, int) and size > 0 else batch for size in given.shape]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    difference = float(np.abs(session.run(None, {given.name: x})[0] - Predictor(model)(x)).max())
    if not difference <= TOLERANCE:
        raise EngineError(f"{target}: differs from Paddle's model by {difference:.1e}")
    return target, difference
