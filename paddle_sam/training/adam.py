"""The optimizer of StyleGAN2 and the averages of weights by which generators are published."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import paddle
from paddle import nn

from paddle_sam.networks.load import freeze

_BETA2 = 0.99


def lazy_adam(
    parameters: Sequence[paddle.Tensor], rate: float, interval: int | None
) -> paddle.optimizer.Adam:
    """Return StyleGAN2's Adam: no momentum, beta2 0.99, both per step of the loss.

    With a regularisation every `interval` steps, in an update of its own, there are interval + 1
    updates in `interval` steps; rate and decays are corrected for that by c = interval /
    (interval + 1): c rate, beta2^c (Karras et al. 2020, arXiv 1912.04958, appendix B).

    Args:
        parameters: to be updated.
        rate: learning rate.
        interval: None where there is no regularisation.
    """
    ratio = 1.0 if interval is None else interval / (interval + 1)
    return paddle.optimizer.Adam(
        rate * ratio, beta1=0.0, beta2=_BETA2**ratio, epsilon=1e-8, parameters=list(parameters)
    )


def averaged_copy(network: nn.Layer) -> nn.Layer:
    """Return a frozen copy of `network`, in eval mode, for `update_average`."""
    average = copy.deepcopy(network)
    freeze(average)
    average.eval()
    return average


@paddle.no_grad()
def update_average(average: nn.Layer, network: nn.Layer, decay: float) -> None:
    """Move `average` towards `network`: a <- decay a + (1 - decay) w, parameter by parameter."""
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
