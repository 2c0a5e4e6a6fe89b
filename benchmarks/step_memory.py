"""What each part of a SAM step at published size keeps for its gradients, one image, on a CPU.

    python -m benchmarks.step_memory

Prints by how much the process grows while the result of a forward pass is held, MB. Weights are
random and, as in training, frozen in all parts but the encoder.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

import paddle
import psutil

from benchmarks.gpu_subjects import Distances, Rendering, uniform
from paddle_sam.networks.face_networks import AgeRegressor, FaceEmbedder
from paddle_sam.networks.load import freeze
from paddle_sam.networks.sam import GradualStyleEncoder


def main() -> None:
    paddle.set_device("cpu")
    for warm_up in (True, False):  # the first forward pass fills caches of Paddle's own
        face = held(FaceEmbedder, (1, 3, 112, 112), frozen=True)
        if not warm_up:
            print(f"identity: {face:.0f} MB")
    age = held(lambda: AgeRegressor(224), (1, 3, 224, 224), frozen=True)
    lpips = held(lambda: Distances("alex"), (1, 3, 256, 256), frozen=True)
    print(f"age: {age:.0f} MB\nLPIPS: {lpips:.0f} MB")
    print(f"encoder: {held(lambda: GradualStyleEncoder(256), (1, 3, 256, 256)):.0f} MB")
    print(f"decoder: {held(lambda: Rendering(size=1024), (1, 18, 512), frozen=True):.0f} MB")


def held(build: Callable[[], paddle.nn.Layer], shape: tuple[int, ...], frozen=False) -> float:
    """Return the MB that a network's result on an input of this shape keeps."""
    network = build()
    network.eval()
    if frozen:
        freeze(network)
    x = paddle.to_tensor(uniform(shape), stop_gradient=False)
    before = _resident()
    result = network(x)
    grown = _resident() - before
    del result
    return grown


def _resident() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    main()
