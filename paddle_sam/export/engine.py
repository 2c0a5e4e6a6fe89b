"""Networks as exported models in `paddle.inference`: the methods inference needs, faster.

And the trial of one in 16 bits against itself in float32.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import paddle

from paddle_sam.core.device import cpu_threads, keep_freed_memory, return_freed_memory
from paddle_sam.errors import ConfigError, EngineError, first_line
from paddle_sam.networks.sam import add_age_plane, pool

# Above this size of weights (bytes) memory rules on a CPU: models that are not needed are let go,
# and images run one at a time, as oneDNN keeps a packed copy of all weights for each batch size.
LARGE = 256 << 20
_TRIAL_AGE = 40.0
DESCRIPTION = "network.json"
LATENT_AVG = "latent_avg.npy"
ENCODERS = ("encoder", "pretrained_encoder")
LOWEST_PSNR = 35.0  # dB of images in [-1, 1]; right networks reach 45 and more, wrong ones 20
WORTHWHILE = 0.85  # of float32's time; less gain is not worth the precision


class EngineGenerator:
    """What inference needs of `Generator`, computed by exported models; threads may share one.

    `latent_avg` is a tensor [D] or [L, D], or None where the weight file does not know it.

    Args:
        folder: the models and their description, as `export_generator` or `export_sam` write them.
        device: `cpu` or `gpu:N`.
        precision: see `Predictor`.

    Raises:
        EngineError: this machine or Paddle cannot run them, or a file is damaged.
    """

    def __init__(self, folder: str | os.PathLike, device: str = "cpu", precision: str = "float32"):
        self._folder, self._device, self._precision = Path(folder), device, precision
        try:
            self._describe(json.loads((self._folder / DESCRIPTION).read_text(encoding="utf-8")))
            mean = self._folder / LATENT_AVG
            self.latent_avg = paddle.to_tensor(np.load(mean)) if mean.exists() else None
            weights = [path.stat().st_size for path in self._folder.glob("*.pdiparams")]
        except (OSError, ValueError, KeyError) as error:
            raise EngineError(f"{self._folder}: holds no exported network ({error})") from error
        self.large = device == "cpu" and sum(weights) > LARGE
        self.held: IO | None = None  # what keeps the folder from being removed
        self._predictors: dict[str, Predictor] = {}
        # Of a large network one encoder is in memory: who uses it must be done before it goes.
        self._one_at_a_time = threading.Lock()
        keep_freed_memory()

    def _describe(self, description: dict) -> None:
        self.output_size: int = description["output_size"]
        self.n_codes: int = description["n_codes"]
        self.style_dim: int = description["style_dim"]

    def check(self) -> None:
        """Load the smallest model and run it once.

        Raises:
            EngineError: that failed, or gave values that are not numbers.
        """
        codes = np.ones((1, self.n_codes, self.style_dim), np.float32)
        if not np.isfinite(self._predictor("decoder")(codes)).all():
            raise EngineError(
                f"{self._folder / 'decoder'}: returns values that are not numbers in"
                f" {self._precision}"
            )

    def example(self) -> np.ndarray:
        """Return an input for `trial`, as the network meets them in use: here codes."""
        batch = 1 if self.large else 2
        if self.latent_avg is not None:
            w = self.latent_avg.numpy()
        else:
            z = np.random.default_rng(0).standard_normal((batch, self.style_dim))
            w = self.map_latents(paddle.to_tensor(z, "float32")).numpy()[:, None]
        return np.array(np.broadcast_to(w, (batch, self.n_codes, self.style_dim)))

    def trial(self, example: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the images of an `example` [N, 3, R, R] and the seconds that they took, warm."""
        return self._timed("decoder", example)

    def _timed(self, part: str, x: np.ndarray) -> tuple[np.ndarray, float]:
        x = paddle.to_tensor(x, "float32")
        self._run(part, x)
        start = time.perf_counter()
        result = self._run(part, x).numpy()
        return result, time.perf_counter() - start

    def release(self) -> None:
        """Let go of all models; what is needed is loaded again."""
        self._release(tuple(self._predictors))

    def render(self, codes: paddle.Tensor) -> paddle.Tensor:
        """W+ codes [N, L, D] -> images [N, 3, R, R], with the stored noise."""
        return self._run("decoder", codes)

    def map_latents(self, z: paddle.Tensor) -> paddle.Tensor:
        """The mapping network: z [N, D] -> w [N, D]."""
        return self._run("mapping", z)

    def _run(self, part: str, x: paddle.Tensor) -> paddle.Tensor:
        with self._one_at_a_time:
            predictor = self._predictor(part)
            if self._device != "cpu":
                return predictor.on_tensor(x.astype("float32"))
            values = x.numpy()
            one_by_one = self.large and len(values) > 1
            results = [predictor(one) for one in (values[:, None] if one_by_one else [values])]
        whole = np.concatenate(results) if one_by_one else results[0]
        return paddle.to_tensor(whole, place=x.place)

    def _predictor(self, part: str) -> Predictor:
        if part not in self._predictors:
            if self.large and part in ENCODERS:  # 2 GB each at the published size: one at a time
                self._release(ENCODERS)
            path = self._folder / part
            self._predictors[part] = Predictor(path, self._device, self._precision)
        return self._predictors[part]

    def _release(self, parts: tuple[str, ...]) -> None:
        for part in parts:
            self._predictors.pop(part, None)
        return_freed_memory()


class EngineSAM(EngineGenerator):
    """What inference needs of `SAM`, computed by exported models; see `EngineGenerator`."""

    def _describe(self, description: dict) -> None:
        super()._describe(description)
        self.input_size: int = description["input_size"]
        self.start: str = description["start"]

    def example(self) -> np.ndarray:
        """Return faces [N, 3, S, S] for `trial`: what the average code renders."""
        faces = self.decode(paddle.to_tensor(super().example(), "float32"))[0]
        return faces.numpy().clip(-1, 1)

    def trial(self, example: np.ndarray) -> tuple[np.ndarray, float]:
        """Age the faces of an `example`; the seconds are those of one more age."""
        faces = paddle.to_tensor(example)
        start = self.invert(faces).numpy()
        aged = add_age_plane(faces, paddle.full([len(example)], _TRIAL_AGE))
        offsets, encoding = self._timed("encoder", aged.numpy())
        images, decoding = self._timed("decoder", start + offsets)
        return images, encoding + decoding

    def invert(self, images: paddle.Tensor) -> paddle.Tensor:
        """See `SAM.invert`."""
        if self.start != "encoded_w_plus":
            start = self.latent_avg * (self.start == "latent_avg")
            return start.expand([images.shape[0], -1, -1])
        return self._run("pretrained_encoder", images)

    def encode(self, x: paddle.Tensor, inverted: paddle.Tensor | None = None) -> paddle.Tensor:
        """See `SAM.encode`."""
        if inverted is None:
            inverted = self.invert(x[:, :3])
        return self._run("encoder", x) + inverted

    def decode(
        self, codes: paddle.Tensor, resize: bool = True, randomize_noise: bool = False
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """See `SAM.decode`; the noise is always the stored one, and codes are W+."""
        if randomize_noise:
            raise ConfigError("randomize_noise: exported models have the stored noise only")
        images = self.render(codes)
        return pool(images, self.input_size) if resize else images, codes


class Predictor:
    """A model of `export.static_model` with one input and one output; threads may share one.

    Calls wait for each other: Paddle keeps a call's input, output and scratch memory in the
    predictor. A call already uses every core, so threads would gain nothing from clones.

    Args:
        path: the model's path without suffix.
        device: `cpu` (through oneDNN), or `gpu:N`.
        precision: of the arithmetic: `float32`, on a CPU `bfloat16`, on a GPU `float16`.

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
            kinds = inference.PrecisionType
            kind = kinds.Half if precision == "float16" else kinds.Float32
            config.enable_use_gpu(256, int(device.partition(":")[2] or 0), kind)
        else:
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(cpu_threads())
            config.enable_mkldnn()
            if precision == "bfloat16":
                config.enable_mkldnn_bfloat16()
        try:
            self._predictor = inference.create_predictor(config)
        except Exception as error:  # Paddle raises many types, for files and settings alike
            raise EngineError(f"{path}: cannot be loaded: {first_line(error)}") from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])
        self._path = path
        self._one_at_a_time = threading.Lock()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Run on float32 [N, ...]."""
        x = np.ascontiguousarray(x, dtype=np.float32)
        with self._running():
            self._input.reshape(x.shape)
            self._input.copy_from_cpu(x)
            self._predictor.run()
            return self._output.copy_to_cpu()

    def on_tensor(self, x: paddle.Tensor) -> paddle.Tensor:
        """Run on float32 [N, ...] where it is, without a copy to the host."""
        with self._running():
            return self._predictor.run([x])[0].astype("float32")

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        with self._one_at_a_time:
            try:
                yield
            except Exception as error:
                raise EngineError(f"{self._path}: failed to run: {first_line(error)}") from error


@dataclass(frozen=True)
class Trial:
    """What was measured: PSNR of 16 bits against float32 (dB), and seconds of an image in each.

    `failed` is why 16 bits did not run at all, else empty.
    """

    psnr: float = 0.0
    float32_s: float = 0.0
    bfloat16_s: float = 0.0
    failed: str = ""

    @property
    def problem(self) -> str:
        """Why 16 bits must not be used; empty where they may."""
        if self.failed:
            return self.failed
        if not self.psnr >= LOWEST_PSNR:  # not a number, too
            return f"16-bit arithmetic is wrong on this machine: {self.psnr:.0f} dB against float32"
        return ""

    @property
    def pays(self) -> bool:
        """Whether bfloat16 may be used and is clearly faster."""
        return not self.problem and self.bfloat16_s <= WORTHWHILE * self.float32_s


def compared(exact: EngineGenerator, quick: EngineGenerator) -> Trial:
    """Run a network in float32 and in 16 bits; leaves both without models in memory."""
    example = exact.example()
    want, float32_s = exact.trial(example)
    exact.release()
    try:
        found, bfloat16_s = quick.trial(example)
        trial = Trial(_psnr(found, want), float32_s, bfloat16_s)
    except EngineError as error:
        trial = Trial(failed=str(error))
    quick.release()
    return trial


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 (AVX512-BF16 or AMX), as Linux lists them."""
    flags = cpu_facts("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def cpu_facts(name: str) -> str:
    """Return what Linux says of this CPU under a name such as `flags`; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _psnr(found: np.ndarray, want: np.ndarray) -> float:
    """Peak signal to noise ratio in dB, of images in [-1, 1]; inf where they are equal."""
    error = float(np.square(found - want, dtype=np.float64).mean())
    return float(10 * np.log10(4 / error)) if error else float("inf")
