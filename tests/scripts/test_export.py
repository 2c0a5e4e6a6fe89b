"""scripts/export.py writes models that run without this package."""

from importlib.util import find_spec

import numpy as np

from paddle_sam.export.engine import Predictor
from scripts.export import main


def test_models_are_written(tmp_path, capsys):
    assert main(["--exp_dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    names = ("decoder", "encoder", "mapping", "pretrained_encoder")
    assert [name in printed for name in names] == [True] * 4
    image = Predictor(tmp_path / "decoder")(np.zeros((2, 10, 128), np.float32))
    assert image.shape == (2, 3, 64, 64) and np.isfinite(image).all()


def test_onnx_equals_paddle_or_says_what_to_install(tmp_path, capsys):
    status = main(["--exp_dir", str(tmp_path), "--onnx"])
    captured = capsys.readouterr()
    if find_spec("paddle2onnx") is None or find_spec("onnxruntime") is None:
        assert status == 2 and "pip install -e .[onnx]" in captured.err
    else:
        assert status == 0 and captured.out.count("largest difference from Paddle") == 4
