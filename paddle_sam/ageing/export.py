"""An ageing network as Paddle inference models and ONNX files: `scripts/export.py`."""

from __future__ import annotations

from pathlib import Path

from paddle_sam.ageing.options import ExportOptions
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT, read_sam
from paddle_sam.core.device import resolve_device
from paddle_sam.core.weights import find_weight
from paddle_sam.export.static_model import export_sam, to_onnx


def export(config: ExportOptions) -> None:
    """Write the models of an ageing network to `exp_dir`."""
    resolve_device("cpu")
    path = Path(config.checkpoint_path or find_weight(EMBEDDED_DEFAULT))
    folder = Path(config.exp_dir)
    network = read_sam(path).network
    folder.mkdir(parents=True, exist_ok=True)
    export_sam(network, folder)
    for model in sorted(folder.glob("*.pdiparams")):
        print(f"{model.with_suffix('')}.json, .pdiparams: {model.stat().st_size / 1e6:.1f} MB")
        if config.onnx:
            target, error = to_onnx(model.with_suffix(""))
            print(f"{target}: largest difference from Paddle {error:.1e}")
