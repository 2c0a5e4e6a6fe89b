"""What `scripts/export.py` does."""

from __future__ import annotations

from pathlib import Path

from paddle_sam.ageing.engines import read_sam
from paddle_sam.ageing.options import ExportOptions
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT
from paddle_sam.core.device import resolve_device
from paddle_sam.core.weights import find_weight
from paddle_sam.export.onnx_model import to_onnx
from paddle_sam.export.static_model import export_sam


def export(config: ExportOptions) -> None:
    """Write the models to `exp_dir` and say what was written.

    Raises:
        CheckpointError: the weight file cannot be used.
        ConfigError: ONNX was asked for without the packages it needs.
        EngineError: an ONNX model does not give what Paddle's gives.
    """
    resolve_device("cpu")
    path = Path(config.checkpoint_path or find_weight(EMBEDDED_DEFAULT))
    folder = Path(config.exp_dir)
    network, _ = read_sam(path)
    folder.mkdir(parents=True, exist_ok=True)
    export_sam(network, folder)
    for model in sorted(folder.glob("*.pdiparams")):
        print(f"{model.with_suffix('')}.json, .pdiparams: {model.stat().st_size / 1e6:.1f} MB")
        if config.onnx:
            target, error = to_onnx(model.with_suffix(""))
            print(f"{target}: largest difference from Paddle {error:.1e}")
