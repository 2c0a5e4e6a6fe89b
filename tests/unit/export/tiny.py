"""A network with every kind of layer that the published one has, as small as can be."""

import numpy as np
import paddle

from paddle_sam.networks.sam import SAM, build_sam

SIZE = 32
ENCODER = {
    "input_size": SIZE,
    "n_styles": 8,
    "style_dim": 16,
    "stem": 16,
    "widths": [16, 24, 32, 16],  # the first stage samples its shortcut, the others project it
    "units": [1, 2, 1, 1],
}
ARCH = {
    "encoder": ENCODER | {"in_channels": 4},
    "decoder": {
        "size": SIZE,
        "style_dim": 16,
        "mapping_layers": 2,
        "channels": {4: 24, 8: 24, 16: 16, 32: 8},
    },
    "pretrained_encoder": ENCODER | {"in_channels": 3},
}


def tiny_sam(**options) -> SAM:
    """In eval mode, with every weight, bias and statistic random: none may be left out unseen."""
    network = build_sam(**(ARCH | options))
    random = np.random.default_rng(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("_variance"):
            values = random.uniform(0.5, 2.0, tensor.shape)
        elif name.endswith((".bias", "_mean", "noise.weight", "_avg")) or tensor.ndim == 1:
            values = tensor.numpy() + 0.3 * random.standard_normal(tensor.shape)
        else:
            continue
        tensor.set_value(values.astype(np.float32))
    network.eval()
    return network


def images(count: int, channels: int = 3) -> paddle.Tensor:
    values = np.random.default_rng(1).uniform(-1, 1, (count, channels, SIZE, SIZE))
    return paddle.to_tensor(values.astype(np.float32))
