"""What training steps are made of: losses of GANs, StyleGAN2's Adam, averages, mixed precision.

Losses return one value per image, [N]. They are Goodfellow et al. 2014 in its non-saturating form,
R1 (Mescheder et al. 2018, arXiv 1801.04406), path lengths (StyleGAN2, Karras et al. 2020, arXiv
1912.04958, section 3.2), and the terms of StarGAN v2 (Choi et al. 2020, arXiv 1912.01865, section
3.1).
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Sequence

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.errors import ConfigError
from paddle_sam.networks.load import freeze
from paddle_sam.networks.stylegan2_ops import exact

_BETA2 = 0.99


def logistic(logits: paddle.Tensor, real: bool) -> paddle.Tensor:
    """Return the binary cross entropy [N] of logits [N] that should say `real` (or not).

        -log sigmoid(l) = softplus(-l) for real, -log(1 - sigmoid(l)) = softplus(l) for generated

    A generator that should be taken for real uses it with `real`, too.
    """
    return F.softplus(-logits if real else logits)


def r1_penalty(logits: paddle.Tensor, images: paddle.Tensor) -> paddle.Tensor:
    """Return half the squared gradient of logits [N] with respect to images [N, C, H, W]: [N].

    `images` must take gradients, and the discriminator must have second derivatives.
    """
    gradient = paddle.grad(logits.sum(), images, create_graph=True)[0]
    return 0.5 * gradient.square().sum(axis=[1, 2, 3])


def r1_penalty_through(
    logits: paddle.Tensor, transformed: paddle.Tensor, linear: Callable
) -> paddle.Tensor:
    """Return R1 with respect to the images x when the discriminator sees A x + constant: [N].

    The gradient g with respect to what it saw gives A^T g with respect to x, and the gradient of
    the penalty is that of (A A^T g) . g with the first factor held. So A needs no second
    derivative, which sampling from a grid does not have in Paddle.

    Args:
        logits: [N], of `transformed`.
        transformed: A x + constant, [N, C, H, W]; must take gradients.
        linear: A, of images; its method `transposed` is A^T.
    """
    gradient = paddle.grad(logits.sum(), transformed, create_graph=True)[0]
    by_images = linear.transposed(gradient.detach())
    value = 0.5 * by_images.square().sum(axis=[1, 2, 3])
    with paddle.no_grad():
        direction = linear(by_images)
    carrier = (gradient * direction).sum(axis=[1, 2, 3])
    return carrier - carrier.detach() + value


def path_lengths(
    images: paddle.Tensor, w_plus: paddle.Tensor, noise: paddle.Tensor
) -> paddle.Tensor:
    """Return how far images move with their codes: |J^T y| per image, [N].

    J is the derivative of the image with respect to w, y random (equation 4). The square is scaled
    by the number of pixels and averaged over layers, as in the paper's implementation.

    Args:
        images: [N, C, H, W], rendered from `w_plus` with operators that have second derivatives.
        w_plus: [N, L, D]; must take gradients.
        noise: y, standard normal [N, C, H, W].
    """
    scaled = (images * noise).sum() / math.sqrt(images.shape[2] * images.shape[3])
    gradient = paddle.grad(scaled, w_plus, create_graph=True)[0]
    return gradient.square().sum(axis=2).mean(axis=1).sqrt()


def distance(left: paddle.Tensor, right: paddle.Tensor) -> paddle.Tensor:
    """Return the mean absolute difference [N] of two batches of anything, [N, ...].

    StarGAN v2's style reconstruction (of styles), diversity and cycle consistency (of images).
    """
    return (left - right).abs().mean(axis=list(range(1, left.ndim)))


def diversity_weight(initial: float, step: int, decay_steps: int) -> float:
    """Return the factor of the diversity loss at `step` (0 is the first): falls linearly to 0.

    >>> [diversity_weight(2.0, step, 4) for step in (0, 1, 3, 4, 9)]
    [2.0, 1.5, 0.5, 0.0, 0.0]
    """
    return initial * max(0.0, 1 - step / decay_steps)


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
    """Move `average` towards `network`: a <- a + (1 - decay) (w - a), for all parameters w."""
    means = list(average.parameters())
    values = [value.detach() for value in network.parameters()]
    if means[0].place.is_gpu_place():
        if not hasattr(average, "work_space"):
            average.work_space = [paddle.zeros_like(mean) for mean in means]
        average_together(means, values, decay, average.work_space)
        return
    for mean, value in zip(means, values, strict=True):
        mean.add_((value - mean).scale_(1 - decay))


@paddle.no_grad()
def average_together(
    means: list[paddle.Tensor],
    values: list[paddle.Tensor],
    decay: float,
    work_space: list[paddle.Tensor],
) -> None:
    """Do all of `update_average` in two operators, for GPUs: a CPU does it faster one by one.

    They are Paddle's update with momentum: u <- a, then u <- u - w and a <- a - (1 - decay) u.
    `work_space` is u: finite float32 tensors of the same shapes. The values w keep their bits.
    """
    from paddle import _C_ops

    one = paddle.ones_like(means[0].flatten()[:1])
    copied, moved = (values, means, 0.0, 0.0, 1.0), (means, values, 1 - decay, 1.0, -1.0)
    for weights, gradients, rate, mu, scale in (copied, moved):
        flags = None, mu, False, [], [], False, scale
        _C_ops.merged_momentum_(weights, gradients, work_space, [rate * one], *flags)


class MixedPrecision:
    """16-bit arithmetic for one optimizer's losses, or plain arithmetic where it is not enabled.

    Args:
        enabled: whether `--amp` was given.

    Raises:
        ConfigError: it is enabled on a CPU, for which Paddle has no 16-bit training.
    """

    def __init__(self, enabled: bool):
        if enabled and not paddle.device.get_device().startswith("gpu"):
            raise ConfigError("--amp: Paddle has 16-bit training on GPUs only; leave it out here")
        self.enabled = enabled
        self.dtype = "bfloat16" if enabled and paddle.amp.is_bfloat16_supported() else "float16"
        self.scaler = paddle.amp.GradScaler(enable=enabled and self.dtype == "float16")

    def arithmetic(self):
        """Return the context in which forward passes run.

        Paddle's list of what 16 bits are for lacks the transposed convolution, the generator's
        heaviest operation.
        """
        if not self.enabled:
            return contextlib.nullcontext()
        return paddle.amp.auto_cast(dtype=self.dtype, custom_white_list={"conv2d_transpose"})

    def exact(self):
        """Return a context, within `arithmetic`, for what 16 bits are too coarse for."""
        return exact() if self.enabled else contextlib.nullcontext()

    def scale(self, loss: paddle.Tensor) -> paddle.Tensor:
        """What to call `backward` on."""
        return self.scaler.scale(loss)

    def step(self, optimizer) -> None:
        """Step the optimizer with the gradients of scaled losses."""
        self.scaler.step(optimizer)
        self.scaler.update()
