"""What trainers are made of: the state that a run resumes, losses, averages, 16-bit arithmetic.

`RunState` lists all that a checkpoint has to hold. It is a weight file that inference loads, with
one more section, `training`, for what only resuming needs.

Losses return one value per image, [N]. They are Goodfellow et al. 2014 in its non-saturating form,
R1 (Mescheder et al. 2018, arXiv 1801.04406), path lengths (StyleGAN2, Karras et al. 2020, arXiv
1912.04958, section 3.2), and the terms of StarGAN v2 (Choi et al. 2020, arXiv 1912.01865, section
3.1).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.base.layer_helper import LayerHelper

from paddle_sam.core.weights import NetworkEntry, WeightFile, check_fit, load_strict, state_of
from paddle_sam.errors import CheckpointError, ConfigError, quoted
from paddle_sam.networks.load import freeze
from paddle_sam.networks.stylegan2_ops import exact

_BETA2 = 0.99


@dataclasses.dataclass(frozen=True)
class _Part:
    save: Callable[[], Any]
    load: Callable[[Any], None]
    optional: bool = False  # older checkpoints lack it


class RunState:
    """All that a run must resume, registered once by name; saving and loading walk the same list.

    Names are paths in a checkpoint's `training` section: `optimizers/g` is the entry `g` of
    `optimizers`. Registering a name again replaces what it stood for.

    Args:
        describe: returns what weight files of the run say beside the networks: one without any.
    """

    def __init__(self, describe: Callable[[], WeightFile]):
        self._describe = describe
        self._networks: dict[str, tuple[nn.Layer, str, Mapping[str, Any]]] = {}
        self._parts: dict[str, _Part] = {}

    def network(self, name: str, network: nn.Layer, builder: str, arch: Mapping[str, Any]) -> None:
        """Register a network that weight files hold; `builder` makes it from `arch`."""
        self._networks[name] = (network, builder, arch)

    def layer(self, name: str, layer: nn.Layer) -> None:
        """Register a network that only resuming needs."""

        def load(state: dict[str, np.ndarray]) -> None:
            load_strict(layer, _arrays(state, name), name, consume=True)

        self.add(name, lambda: state_of(layer), load)

    def optimizer(self, name: str, optimizer: Any, network: nn.Layer) -> None:
        """Register what `optimizer` remembers of the parameters of `network`."""
        parameters = dict(network.named_parameters())

        def save() -> dict[str, np.ndarray]:
            return {k: t.numpy() for k, t in named_state(optimizer, parameters).items()}

        def load(state: dict[str, np.ndarray]) -> None:
            restore_named_state(optimizer, parameters, _arrays(state, name))

        self.add(name, save, load)

    def values(self, holder: Any, *names: str, optional: bool = False) -> None:
        """Register attributes of `holder`: plain values that keep their type.

        None stands for a number that is not known yet.
        """
        for name in names:
            self.add(
                name,
                lambda name=name: copy.deepcopy(getattr(holder, name)),
                lambda value, name=name: _set(holder, name, value),
                optional,
            )

    def add(self, name: str, save: Callable, load: Callable, optional: bool = False) -> None:
        """Register what `save` returns and `load` takes back; `optional` if old files lack it."""
        self._parts[name] = _Part(save, load, optional)

    def entries(self, names: Iterable[str] | None = None) -> dict[str, NetworkEntry]:
        """Return the networks called `names` as weight files hold them; None for all of them."""
        return {
            name: NetworkEntry.of(builder, arch, network)
            for name, (network, builder, arch) in self._networks.items()
            if names is None or name in names
        }

    def weights(self, names: Iterable[str] | None = None) -> WeightFile:
        """Return a weight file of the networks called `names`, or of all."""
        return dataclasses.replace(self._describe(), networks=self.entries(names))

    def saved(self) -> WeightFile:
        """Return a checkpoint."""
        training: dict[str, Any] = {}
        for name, part in self._parts.items():
            *folders, last = name.split("/")
            place = training
            for folder in folders:
                place = place.setdefault(folder, {})
            place[last] = part.save()
        file = self.weights()
        file.training = training
        return file

    def restore(self, file: WeightFile) -> None:
        """Take up a checkpoint; arrays of networks are dropped on the way.

        Raises:
            CheckpointError: something is missing, unknown, or does not fit.
        """
        if bad := file.not_finite():
            raise CheckpointError(f"{file.label}: {bad} has values that are not finite numbers")
        known = {name.partition("/")[0] for name in self._parts}
        if unknown := sorted(set(file.training) - known):
            raise CheckpointError(f"{file.label}: holds {unknown[0]}, unknown to this run")
        for name, (network, *_) in self._networks.items():
            if name not in file.networks:
                raise CheckpointError(f"{file.label}: there is no network {name}")
            load_strict(network, file.networks[name].state, f"{file.label}: {name}", consume=True)
        for name, part in self._parts.items():
            try:
                value = functools.reduce(operator.getitem, name.split("/"), file.training)
            except (KeyError, TypeError):
                if part.optional:
                    continue
                raise CheckpointError(f"{file.label}: there is no {name} to resume from") from None
            try:
                part.load(value)
            except CheckpointError as error:
                raise CheckpointError(f"{file.label}: {error}") from error


def named_state(optimizer, parameters: Mapping[str, paddle.Tensor]) -> dict[str, paddle.Tensor]:
    """Return everything that `optimizer` remembers, under the names of the parameters.

    Paddle files an optimizer's tensors under automatic names (`conv2d_7.w_0_moment1_0`) that depend
    on everything built before them in the process. Here each is called `PARAMETER/WHAT`, such as
    `encoder.styles.0.linear.weight/exp_avg`.

    Args:
        optimizer: any `paddle.optimizer.Optimizer`.
        parameters: {name: parameter}, such as `dict(network.named_parameters())`; it must hold
            every parameter that the optimizer has updated.
    """
    names = {parameter.name: name for name, parameter in parameters.items()}
    state = {}
    for parameter_name, master in optimizer._master_weights.items():
        names[master.name] = names[parameter_name]
        state[f"{names[parameter_name]}/master_weight"] = master
    for kind, tensors in optimizer._accumulators.items():
        for parameter_name, tensor in tensors.items():
            state[f"{names[parameter_name]}/{kind}"] = tensor
    return state


def restore_named_state(optimizer, parameters: Mapping[str, paddle.Tensor], state: Mapping) -> None:
    """Give `optimizer` the state that `named_state` returned, exactly.

    Call it before the first step. Parameters that had received no update when the state was
    taken have none, and start afresh.

    Raises:
        CheckpointError: the state belongs to another network or another kind of optimizer.
    """
    updated = {key.rpartition("/")[0] for key in state}
    block = paddle.static.default_main_program().global_block()
    if optimizer.helper is None:  # Paddle before 3 makes it in the first step
        optimizer.helper = LayerHelper(type(optimizer).__name__)
    optimizer._create_accumulators(
        block, [parameter for name, parameter in parameters.items() if name in updated]
    )
    targets = named_state(optimizer, parameters)
    check_fit(targets, state, "optimizer state of another network or --optim_name")
    for key, tensor in targets.items():
        # Not `set_value`, which moves what Ranger counts on the host to the GPU.
        tensor.copy_(paddle.to_tensor(state[key], tensor.dtype, tensor.place), False)


def _arrays(state: Any, name: str) -> dict[str, np.ndarray]:
    fits = isinstance(state, dict) and all(isinstance(a, np.ndarray) for a in state.values())
    if not fits:
        raise CheckpointError(f"{name}: expected arrays by name")
    return state


def _set(holder: Any, name: str, value: Any) -> None:
    now = getattr(holder, name)
    expected = float if now is None else type(now)
    numbers = {expected, type(value)} <= {int, float}
    if not (value is None or type(value) is expected or numbers):
        raise CheckpointError(f"{name} is {quoted(value)}, expected {expected.__name__}")
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not all(isinstance(item, int | float) for item in items):
        raise CheckpointError(f"{name} is {quoted(value)}, expected numbers")
    setattr(holder, name, value)


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
