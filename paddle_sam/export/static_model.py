"""Networks to Paddle inference models: `NAME.json` (the program) and `NAME.pdiparams`.

The batch is dynamic; every other size and all weights are constants of the model.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from paddle_sam.core.device import check_engine
from paddle_sam.core.files import atomic_folder
from paddle_sam.errors import ConfigError, EngineError
from paddle_sam.export.engine import DESCRIPTION, LATENT_AVG, Predictor
from paddle_sam.export.static_networks import StaticDecoder, StaticEncoder, StaticMapping
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Generator

ONNX_TOLERANCE = 1e-3  # of images in [-1, 1] and codes of unit deviation


def static_parts(
    network: SAM, precision: str = "float32"
) -> Iterator[tuple[str, nn.Layer, InputSpec]]:
    """The parts of an ageing network as inference layers: name, layer, and its one input.

    - `pretrained_encoder`, where there is one: RGB [N, 3, S, S] in [-1, 1] -> the codes [N, L, D]
      that faces start from, `latent_avg` added;
    - `encoder`: RGB and the plane of age / 100 [N, 4, S, S] -> offsets [N, L, D];
    - `decoder`: W+ codes [N, L, D] -> images [N, 3, R, R];
    - `mapping`: z [N, D] -> w [N, D].

    One at a time, so that only one folded copy is in memory. `precision` is what they will be run
    in, `float32` or `bfloat16`; the models themselves are float32.
    """
    size = network.input_size
    if network.start == "encoded_w_plus":
        yield (
            "pretrained_encoder",
            StaticEncoder(network.pretrained_encoder, network.latent_avg, precision),
            InputSpec([-1, 3, size, size], "float32", "images"),
        )
    yield (
        "encoder",
        StaticEncoder(network.encoder, precision=precision),
        InputSpec([-1, network.encoder.in_channels, size, size], "float32", "x"),
    )
    yield from generator_parts(network.decoder)


def generator_parts(generator: Generator) -> Iterator[tuple[str, nn.Layer, InputSpec]]:
    """`decoder` and `mapping` of `static_parts`."""
    codes = [-1, generator.n_codes, generator.style_dim]
    yield "decoder", StaticDecoder(generator), InputSpec(codes, "float32", "w_plus")
    yield "mapping", StaticMapping(generator), InputSpec([-1, generator.style_dim], "float32", "z")


def export_sam(network: SAM, folder: str | os.PathLike, precision: str = "float32") -> None:
    """Write the parts of `network` to `folder` as Paddle inference models, and what they are.

    For `precision` see `static_parts`.
    """
    description = {"start": network.start, "input_size": network.input_size}
    description |= _describe(network.decoder)
    _export(static_parts(network, precision), description, network.latent_avg, Path(folder))


def export_generator(generator: Generator, folder: str | os.PathLike) -> None:
    """Write `generator` to `folder` as Paddle inference models, and what they are."""
    parts = generator_parts(generator)
    _export(parts, _describe(generator), generator.latent_avg, Path(folder))


def _describe(generator: Generator) -> dict:
    return {
        "output_size": generator.size,
        "n_codes": generator.n_codes,
        "style_dim": generator.style_dim,
    }


def _export(
    parts: Iterator, description: dict, latent_avg: paddle.Tensor | None, folder: Path
) -> None:
    with atomic_folder(folder) as aside:
        for name, layer, spec in parts:
            save_inference_model(layer, spec, aside / name)
        if latent_avg is not None:
            np.save(aside / LATENT_AVG, latent_avg.numpy())
        (aside / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


def save_inference_model(layer: nn.Layer, spec: InputSpec, path: str | os.PathLike) -> None:
    """Write `layer`, in eval mode, to `path`.json and `path`.pdiparams.

    Raises:
        EngineError: this Paddle writes another format.
    """
    check_engine()
    layer.eval()
    static = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True)
    with contextlib.redirect_stdout(io.StringIO()):  # Paddle prints notes of its own
        paddle.jit.save(static, str(path))


def to_onnx(model: Path, batch: int = 2) -> tuple[Path, float]:
    """Convert `model` (a path without suffix) to ONNX by paddle2onnx and compare in onnxruntime.

    Returns the file and the largest difference of its output from Paddle's.

    Raises:
        ConfigError: paddle2onnx or onnxruntime is not installed.
        EngineError: the difference is above `ONNX_TOLERANCE`.
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
    if not difference <= ONNX_TOLERANCE:
        raise EngineError(f"{target}: differs from Paddle's model by {difference:.1e}")
    return target, difference
