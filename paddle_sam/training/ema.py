"""Exponential moving averages of weights: what a generator is judged and published by."""

from __future__ import annotations

import copy

import paddle
from paddle import nn


def averaged_copy(network: nn.Layer) -> nn.Layer:
    """Make a frozen copy of `network`, in eval mode, for `update_average`."""
    average = copy.deepcopy(network)
    for parameter in average.parameters():
        parameter.stop_gradient = True
    average.eval()
    return average


@paddle.no_grad()
def update_average(average: nn.Layer, network: nn.Layer, decay: float) -> None:
    """Move `average` towards `network`: a <- decay a + (1 - decay) w, parameter by parameter."""
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        paddle.assign(paddle.lerp(value, mean, decay), mean)
