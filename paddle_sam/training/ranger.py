"""Ranger: rectified Adam, Lookahead and gradient centralisation in one optimizer.

Written with Paddle's operators alone: there is nothing to compile, and it runs wherever Paddle
runs. It never waits for the device. For a parameter p with gradient g at its t-th update:

    g  <- g - mean(g over all axes but the output axis)            gradient centralisation [1]
    v  <- beta2 v + (1 - beta2) g^2;   m <- beta1 m + (1 - beta1) g
    p  <- p - lr * decay * p                                       decoupled weight decay
    p  <- p - lr * s_t * m / (sqrt(v) + eps)    once the variance of v is tractable [2], or
    p  <- p - lr * s_t * m                      while it is not
    every k updates:  slow <- slow + alpha (p - slow);  p <- slow  Lookahead [3]

[1] Yong et al. 2020, arXiv 2004.01461; [2] Liu et al. 2019, arXiv 1908.03265;
[3] Zhang et al. 2019, arXiv 1907.08610.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterable

import numpy as np
import paddle

from paddle_sam.errors import ConfigError

_PADDLE_GROUP_OPTIONS = frozenset(("params", "learning_rate", "grad_clip"))

# From Paddle 3 on its Adam takes a third moment, which is not used here.
_HAS_AMSGRAD = "amsgrad" in inspect.signature(paddle.optimizer.Adam.__init__).parameters
_CHUNK = 1 << 16  # weights that a GPU's block of threads updates


class Ranger(paddle.optimizer.Optimizer):
    """Ranger with the defaults that SAM trains with.

    Args:
        learning_rate: a float or a `paddle.optimizer.lr.LRScheduler`.
        parameters: tensors to train, or a list of dicts with `params` and, per group, any of
            the options below; there `learning_rate` is a factor on the optimizer's own, as in
            Paddle's optimizers.
        alpha: how far the slow weights move towards the fast ones at a Lookahead step, in (0, 1].
        k: updates between two Lookahead steps.
        N_sma_threshhold: approximated length of the moving average (rho_t in [2], 4) above
            which the adaptive step is used. The published spelling is kept.
        betas: decay rates of the running means of the gradient and of its square.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay rate; 0 for none.
        use_gc: whether gradients are centralised.
        gc_conv_only: centralise convolution weights only (more than 3 axes), not matrices.
        output_axis: the axis that counts a weight's outputs; centralisation averages over the
            others. 0 for convolutions and for matrices stored [out, in]; `paddle.nn.Linear`
            stores [in, out], so its weights belong in a group with `output_axis` -1.
        grad_clip: a `paddle.nn.ClipGradBy...`.
        name: prefix for the names of the optimizer's own tensors.

    Weights of 16 bits (`paddle.amp.decorate` level O2) get a 32-bit master copy.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        parameters=None,
        alpha: float = 0.5,
        k: int = 6,
        N_sma_threshhold: float = 5,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        use_gc: bool = True,
        gc_conv_only: bool = False,
        output_axis: int = 0,
        grad_clip=None,
        name: str | None = None,
    ):
        self._options = {
            "alpha": alpha,
            "k": k,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "use_gc": use_gc,
            "gc_conv_only": gc_conv_only,
            "output_axis": output_axis,
        }
        _check_options(self._options)
        self._threshold = N_sma_threshhold
        # Parameters and gradients of a group, by the number of the update and its rate.
        self._taken: dict[tuple[int, float], tuple[dict, list, list]] = {}
        self._prepared: set[str] = set()  # names of parameters that have moments
        self._steps: dict[str, int] = {}  # what the `step` tensors hold, by parameter
        # weight_decay=None: Paddle's own decay would add to the gradient (coupled L2).
        super().__init__(learning_rate, parameters, None, grad_clip, name)
        self._multi_precision = True

    def _add_param_group(self, param_group):
        known = _PADDLE_GROUP_OPTIONS | set(self._options)
        if unknown := set(param_group) - known:
            raise ConfigError(
                f"Ranger: unknown parameter group option {', '.join(sorted(unknown))}; known are"
                f" {', '.join(sorted(known))}."
            )
        _check_options({**self._options, **param_group})
        decay = param_group.pop("weight_decay", self._options["weight_decay"])
        super()._add_param_group(param_group)  # sees no decay, so installs no coupled one
        param_group["weight_decay"] = decay

    def _create_accumulators(self, block, parameters):
        if isinstance(parameters, dict):
            parameters = parameters["params"]
        for parameter in parameters:
            if parameter.name in self._prepared:
                continue
            weight = self._weight_of(parameter)
            # Paddle fills accumulators from here when a state dict was set before the first step.
            restored = bool(self._accumulators_holder)
            self._add_accumulator("step", weight, dtype="int64", shape=[], device="cpu")
            self._steps.pop(weight.name, None)
            for moment in ("exp_avg", "exp_avg_sq"):
                self._add_accumulator(moment, weight, dtype="float32")
            slow = self._add_accumulator("slow_buffer", weight, dtype="float32")
            if not restored:
                slow.set_value(weight)
            self._prepared.add(parameter.name)

    def _append_optimize_op(self, block, param_and_grad):
        """Take note of a parameter and its gradient; `_finish_update` updates all of a group."""
        options = self._options
        if isinstance(param_and_grad, dict):
            options = {**options, **param_and_grad}
            param_and_grad = param_and_grad["params"]
        parameter, gradient = param_and_grad
        if gradient.dtype != paddle.float32:
            gradient = gradient.astype("float32")
        if options["use_gc"] and gradient.ndim > (3 if options["gc_conv_only"] else 1):
            gradient = centralized(gradient, options["output_axis"])
        step = self._next_step(self._weight_of(parameter))
        lr = self.get_lr() * parameter.optimize_attr.get("learning_rate", 1.0)
        taken = self._taken.setdefault((step, lr), (options, [], []))
        taken[1].append(parameter)
        taken[2].append(gradient)

    def _finish_update(self, block, parameters_and_grads):
        for (step, lr), (options, parameters, gradients) in self._taken.items():
            weights = [self._weight_of(parameter) for parameter in parameters]
            self._update(weights, gradients, step, lr, options)
            for parameter, weight in zip(parameters, weights, strict=True):
                if weight is not parameter:
                    parameter.copy_(weight.astype(parameter.dtype), False)
        self._taken = {}

    def _update(self, weights, gradients, step: int, lr: float, options: dict) -> None:
        """Update parameters of one group that have been updated as often."""
        means = [self._get_accumulator("exp_avg", weight) for weight in weights]
        squares = [self._get_accumulator("exp_avg_sq", weight) for weight in weights]
        beta1, beta2 = options["betas"]
        # The moments are multiples of those in the equations; rate and eps make up for that.
        ratio1, ratio2 = (_kernel_complement(beta) / (1 - beta) for beta in (beta1, beta2))
        if options["weight_decay"]:
            for weight in weights:
                weight.subtract_(weight * (options["weight_decay"] * lr))
        size, adaptive = rectified_step(step, beta1, beta2, self._threshold)
        if adaptive:
            rate = size * lr * math.sqrt(ratio2) / ratio1
            eps = options["eps"] * math.sqrt(ratio2)
            self._adam(weights, gradients, means, squares, rate, (beta1, beta2, eps))
        else:
            for weight, g, m, v in zip(weights, gradients, means, squares, strict=True):
                v.scale_(beta2).add_(g.square().scale_(_kernel_complement(beta2)))
                m.scale_(beta1).add_(g * _kernel_complement(beta1))
                weight.add_(m * (-size * lr / ratio1))
        if step % options["k"] == 0:
            for weight in weights:
                slow = self._get_accumulator("slow_buffer", weight)
                slow.add_((weight - slow).scale_(options["alpha"]))
                weight.copy_(slow, False)

    def _adam(self, weights, gradients, means, squares, rate: float, numbers: tuple) -> None:
        """Update a list by one operator: moments, and p <- p - rate * m / (sqrt(v) + eps).

        That is Paddle's fused Adam without its bias corrections: at 0, the running powers of beta
        correct nothing, and the last flag but one keeps them there.
        """
        from paddle import _C_ops

        one = weights[0].detach().flatten()[:1]
        rate, powers = paddle.full_like(one, rate), [paddle.zeros_like(one)] * len(weights)
        most = [None] * _HAS_AMSGRAD
        flags = [False, False, True, *[False] * _HAS_AMSGRAD]
        _C_ops.fused_adam_(
            *(weights, gradients, rate, means, squares, *most, powers, powers, None, None),
            *(*numbers, _CHUNK, 0.0, *flags),
        )

    def _next_step(self, weight) -> int:
        """Count an update of `weight`, on the host; the tensor is for `state_dict`."""
        counter = self._get_accumulator("step", weight)
        if weight.name not in self._steps:
            self._steps[weight.name] = int(counter)  # restored, or 0
        self._steps[weight.name] += 1
        counter.copy_(_on_host(self._steps[weight.name]), False)
        return self._steps[weight.name]

    def _weight_of(self, parameter):
        """The 32-bit tensor that is updated: the parameter, or its master copy."""
        if self._is_dtype_fp16_or_bf16(parameter.dtype):
            return self._create_master_weight(parameter)
        return parameter


def centralized(gradient, output_axis: int = 0):
    """`gradient` less its mean over every axis but `output_axis`; same shape."""
    axes = [axis for axis in range(gradient.ndim) if axis != output_axis % gradient.ndim]
    return gradient - gradient.mean(axes, keepdim=True)


def groups_by_layout(parameters: Iterable[paddle.Tensor]) -> list[dict]:
    """Parameter groups for `Ranger`: matrices, which this package stores [in, out], and the rest.

    >>> layer = paddle.nn.Linear(2, 3)
    >>> [[list(p.shape) for p in group["params"]] for group in groups_by_layout(layer.parameters())]
    [[[3]], [[2, 3]]]
    """
    parameters = list(parameters)
    groups = (
        {"params": [p for p in parameters if p.ndim != 2]},
        {"params": [p for p in parameters if p.ndim == 2], "output_axis": -1},
    )
    return [group for group in groups if group["params"]]


def _kernel_complement(beta: float) -> float:
    """1 - beta as Paddle's Adam takes it, from beta in float32: of 0.999 it is 1.3e-5 off."""
    return float(np.float32(1) - np.float32(beta))


@functools.lru_cache(maxsize=4)  # all parameters of a step have the same, or nearly all
def _on_host(step: int) -> paddle.Tensor:
    return paddle.to_tensor(step, "int64", paddle.CPUPlace())


@functools.lru_cache(maxsize=64)
def rectified_step(
    step: int, beta1: float, beta2: float, threshold: float = 5
) -> tuple[float, bool]:
    """RAdam's step size factor s_t and whether the adaptive denominator applies.

    With rho_inf = 2/(1-beta2) - 1 and rho_t = rho_inf - 2 t beta2^t / (1-beta2^t) ([2], eq. 4
    and 5), above the threshold

        s_t = sqrt((1-beta2^t) (rho_t-4)(rho_t-2) rho_inf / ((rho_inf-4)(rho_inf-2) rho_t))
              / (1-beta1^t)

    and 1/(1-beta1^t) below it. `step` counts from 1.
    """
    decayed = beta2**step
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * step * decayed / (1 - decayed)
    unbiased = 1 - beta1**step
    if rho <= threshold:
        return 1 / unbiased, False
    rectification = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
    return math.sqrt((1 - decayed) * rectification) / unbiased, True


def _check_options(options: dict) -> None:
    beta1, beta2 = options["betas"]
    for name, fits, meaning in (
        ("alpha", 0 < options["alpha"] <= 1, "in (0, 1]"),
        ("k", options["k"] >= 1, "1 or more"),
        ("betas", 0 <= beta1 < 1 and 0 <= beta2 < 1, "two numbers in [0, 1)"),
        ("eps", options["eps"] > 0, "above 0"),
        ("weight_decay", options["weight_decay"] >= 0, "0 or more"),
    ):
        if not fits:
            raise ConfigError(f"Ranger: {name} must be {meaning}, found {options[name]}.")
