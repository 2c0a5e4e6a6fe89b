"""What generators and discriminators are trained with. Losses return one value per image, [N].

Goodfellow et al. 2014 in its non-saturating form, R1 (Mescheder et al. 2018, arXiv 1801.04406),
path lengths (StyleGAN2, Karras et al. 2020, arXiv 1912.04958, section 3.2), and the terms of
StarGAN v2 (Choi et al. 2020, arXiv 1912.01865, section 3.1).
"""

from __future__ import annotations

import math
from typing import Protocol

import paddle
import paddle.nn.functional as F


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


class LinearMap(Protocol):
    """A map A of images, with its transpose."""

    def __call__(self, images: paddle.Tensor) -> paddle.Tensor: ...

    def transposed(self, gradient: paddle.Tensor) -> paddle.Tensor: ...


def r1_penalty_through(
    logits: paddle.Tensor, transformed: paddle.Tensor, linear: LinearMap
) -> paddle.Tensor:
    """Return R1 with respect to the images x when the discriminator sees A x + constant: [N].

    The gradient g with respect to what it saw gives A^T g with respect to x, and the gradient of
    the penalty is that of (A A^T g) . g with the first factor held. So A needs no second
    derivative, which sampling from a grid does not have in Paddle.

    Args:
        logits: [N], of `transformed`.
        transformed: A x + constant, [N, C, H, W]; must take gradients.
        linear: A.
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
