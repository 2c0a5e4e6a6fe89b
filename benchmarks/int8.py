"""How far the embedded model would be from float32 with convolutions in int8, simulated.

Maps are rounded to 127 steps each side of zero by their largest value, weights by that of each
output channel: the best that symmetric int8 can do, since nothing has to be calibrated before.

    python -m benchmarks.int8
"""

import numpy as np
import paddle
import paddle.nn.functional as functional

from benchmarks.inference import photograph
from benchmarks.naive import NaiveSAM, Ops, paddle_ops
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT, read_sam
from paddle_sam.core.images import to_network
from paddle_sam.core.weights import find_weight

AGES = (0.0, 20.0, 40.0, 60.0, 80.0)


class Int8:
    """Paddle's functions, with convolutions of rounded maps and weights."""

    def __getattr__(self, name: str):
        return getattr(functional, name)

    def conv2d(self, x, weight, *args, **options):
        return functional.conv2d(rounded(x), rounded(weight, [1, 2, 3]), *args, **options)

    def conv2d_transpose(self, x, weight, *args, **options):
        return functional.conv2d_transpose(rounded(x), rounded(weight, [0, 2, 3]), *args, **options)


def rounded(x, axes: list[int] | None = None):
    """`x` as int8 holds it, with one scale for all, or for each slice along the other axes."""
    scale = paddle.amax(x.abs(), axes, keepdim=True) / 127 + 1e-12
    return (x / scale).round() * scale


def main() -> None:
    paddle.set_device("cpu")
    network, crop, _ = read_sam(find_weight(EMBEDDED_DEFAULT))
    face = paddle.to_tensor(to_network(photograph(crop.size)))
    exact = paddle_ops()
    strips = []
    for ops in (exact, Ops(Int8(), exact.tensor, exact.cat, exact.stack, exact.rsqrt)):
        subject = NaiveSAM(network, ops)
        with paddle.no_grad():
            strips.append(np.concatenate([subject(face, age).numpy() for age in AGES]))
    error = float(((strips[1] - strips[0]) ** 2).mean())
    print(f"{10 * np.log10(4 / error):.1f} dB from float32")


if __name__ == "__main__":
    main()
