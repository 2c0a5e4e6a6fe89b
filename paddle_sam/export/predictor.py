"""One Paddle inference model, run by `paddle.inference`: NumPy in, NumPy out."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np

from paddle_sam.core.device import cpu_threads
from paddle_sam.errors import EngineError


class Predictor:
    """A model of `export.static_model` with one input and one output; threads may share one.

    Calls wait for each other: Paddle keeps a call's input, output and scratch memory in the
    predictor. A call already uses every core, so threads would gain nothing from clones.

    Args:
        path: the model's path without suffix.
        device: `cpu` (through oneDNN), or `gpu:N`.
        precision: of the arithmetic: `float32`, or on a CPU `bfloat16`.

    Raises:
        EngineError: the files cannot be used, or this machine or Paddle cannot run them.
    """

    def __init__(self, path: str | os.PathLike, device: str = "cpu", precision: str = "float32"):
        from paddle import inference

        path = Path(path)
        config = inference.Config(f"{path}.json", f"{path}.pdiparams")
        config.disable_glog_info()
        # The pass behind this option is missing from 3.2.2's oneDNN pipeline, and its default
        # makes loading fail; the executor frees what is not needed any more without it.
        config.enable_memory_optim(False)
        if device.startswith("gpu"):
            config.enable_use_gpu(256, int(device.partition(":")[2] or 0))
        else:
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(cpu_threads())
            config.enable_mkldnn()
            if precision == "bfloat16":
                config.enable_mkldnn_bfloat16()
        try:
            self._predictor = inference.create_predictor(config)
        except Exception as error:  # Paddle raises many types, for files and settings alike
            raise EngineError(f"{path}: cannot be loaded: {_first_line(error)}") from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])
        self._path = path
        self._one_at_a_time = threading.Lock()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Run on float32 [N, ...]."""
        x = np.ascontiguousarray(x, dtype=np.float32)
        with self._one_at_a_time:
            self._input.reshape(x.shape)
            self._input.copy_from_cpu(x)
            try:
                self._predictor.run()
            except Exception as error:
                raise EngineError(f"{self._path}: failed to run: {_first_line(error)}") from error
            return self._output.copy_to_cpu()


def _first_line(error: Exception) -> str:
    """What an error of Paddle says; where its code was compiled from Python a headline is first."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and line != "In user code:"), repr(error))
