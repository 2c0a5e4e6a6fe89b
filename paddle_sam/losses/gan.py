"""What generators and discriminators are trained with. Every loss gives one value per image, [N].

Goodfellow et al. 2014 in its non-saturating form, R1 (Mescheder et al. 2018, arXiv 1801.04406),
and the terms of StarGAN v2 (Choi et al. 2020, arXiv 1912.01865, section 3.1).
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F


def logistic(logits: paddle.Tensor, real: bool) -> paddle.Tensor:
    """Binary cross entropy [N] of logits [N] that should say `real` (or not).

        -log sigmoid(l) = softplus(-l) for real, -log(1 - sigmoid(l)) = softplus(l) for generated

    A generator that should be taken for real uses it with `real`, too.
    """
    return F.softplus(-logits if real else logits)


def r1_penalty(logits: paddle.Tensor, images: paddle.Tensor) -> paddle.Tensor:
    """Half the squared gradient of logits [N] by real images [N, C, H, W], per image: [N].

    `images` must take gradients, and the discriminator must have second derivatives.
    """
    gradient = paddle.grad(logits.sum(), images, create_graph=True)[0]
    return 0.5 * gradient.square().sum(axis=[1, 2, 3])


def distance(left: paddle.Tensor, right: paddle.Tensor) -> paddle.Tensor:
    """Mean absolute difference [N] of two batches of anything, [N, ...].

    StarGAN v2's style reconstruction (of styles), diversity and cycle consistency (of images).
    """
    return (left - right).abs().mean(axis=list(range(1, left.ndim)))


def diversity_weight(initial: float, step: int, decay_steps: int) -> float:
    """Factor of the diversity loss at `step` (0 is the first): falls linearly to 0.

    >>> [diversity_weight(2.0, step, 4) for step in (0, 1, 3, 4, 9)]
    [2.0, 1.5, 0.5, 0.0, 0.0]
    """
    return initial * max(0.0, 1 - step / decay_steps)
