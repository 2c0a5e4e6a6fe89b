"""Which parameters a backward pass reached."""

from paddle import nn


def without_gradient(network: nn.Layer) -> list[str]:
    """Names of the trainable parameters that have no gradient, or one of zeros.

    The running statistics of batch norm are parameters to Paddle, but not trainable.
    """
    trainable = [(name, p) for name, p in network.named_parameters() if not p.stop_gradient]
    assert trainable
    return [name for name, p in trainable if p.grad is None or float(p.grad.abs().sum()) == 0]
