"""Networks that are used but not trained, for good or for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import paddle
from paddle import nn


def freeze(*networks: nn.Layer) -> None:
    """Compute no gradients with respect to these networks' parameters."""
    for network in networks:
        for parameter in network.parameters():
            parameter.stop_gradient = True


def trained(network: nn.Layer) -> list[paddle.Tensor]:
    """Return the parameters of `network` that are not frozen."""
    return [parameter for parameter in network.parameters() if not parameter.stop_gradient]


@contextlib.contextmanager
def held(*networks: nn.Layer) -> Iterator[None]:
    """Within this context, freeze these networks; afterwards each parameter is as it was."""
    parameters = [parameter for network in networks for parameter in trained(network)]
    for parameter in parameters:
        parameter.stop_gradient = True
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.stop_gradient = False
