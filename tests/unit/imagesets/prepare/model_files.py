"""Super-resolution networks that double each pixel, written byte by byte as protocol buffers."""

import numpy as np


def message(*fields) -> bytes:
    """A message of (number, value): int is a varint, bytes, str and lists of messages a string."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            value = value.encode() if isinstance(value, str) else value
            parts.append(varint(number << 3 | 2) + varint(len(value)) + value)
    return b"".join(parts)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def doubling_onnx(channels: int = 3) -> bytes:
    """ONNX: a 1x1 convolution to 4 equal copies of each channel, and DepthToSpace."""
    weight = np.zeros((4 * channels, channels, 1, 1), "<f4")
    for copy in range(4):
        weight[copy * channels : (copy + 1) * channels, :, 0, 0] = np.eye(channels)

    def port(name: str, count: int) -> bytes:
        sizes = [message((1, 1)), message((1, count)), message((2, "h")), message((2, "w"))]
        shape = message(*[(1, size) for size in sizes])
        return message((1, name), (2, message((1, message((1, 1), (2, shape))))))

    kernel = message((1, "kernel_shape"), (8, 1), (8, 1), (20, 7))
    block = message((1, "blocksize"), (3, 2), (20, 2))
    dims = [(1, size) for size in weight.shape]
    graph = message(
        (1, message((1, "x"), (1, "w"), (2, "y"), (3, "conv"), (4, "Conv"), (5, kernel))),
        (1, message((1, "y"), (2, "z"), (3, "shuffle"), (4, "DepthToSpace"), (5, block))),
        (2, "doubling"),
        (5, message(*dims, (2, 1), (8, "w"), (9, weight.tobytes()))),
        (11, port("x", channels)),
        (12, port("z", channels)),
    )
    return message((1, 8), (7, graph), (8, message((1, ""), (2, 13))))


def doubling_espcn() -> bytes:
    """A frozen TensorFlow graph as OpenCV's ESPCN_x2.pb is one, of the brightness alone."""

    def attributes(**values) -> list[tuple[int, bytes]]:
        return [(5, message((1, name), (2, value))) for name, value in values.items()]

    kind, layout = message((6, 1)), message((2, "NHWC"))
    ones = message((1, message(*[(3, 1)] * 4)))
    shape = message(*[(2, message((1, size))) for size in (1, 1, 1, 4)])
    tensor = message((1, 1), (2, shape), (4, np.ones(4, "<f4").tobytes()))
    nodes = [
        message((1, "x"), (2, "Placeholder"), *attributes(dtype=kind)),
        message((1, "w"), (2, "Const"), *attributes(dtype=kind, value=message((8, tensor)))),
        message(
            *[(1, "conv"), (2, "Conv2D"), (3, "x"), (3, "w")],
            *attributes(T=kind, data_format=layout, padding=message((2, "SAME")), strides=ones),
        ),
        message(
            *[(1, "shuffle"), (2, "DepthToSpace"), (3, "conv")],
            *attributes(T=kind, data_format=layout, block_size=message((3, 2))),
        ),
    ]
    return message(*[(1, node) for node in nodes])
