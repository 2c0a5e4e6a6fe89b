"""What a run must resume.

A checkpoint is a weight file that inference loads, with one more section, `training`, that holds
what only resuming needs.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.base.layer_helper import LayerHelper

from paddle_sam.core.weights import NetworkEntry, WeightFile, check_fit, load_strict, state_of
from paddle_sam.errors import CheckpointError, quoted


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
        """Register attributes of `holder`: plain values that keep their type, None apart."""
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
            raise CheckpointError(f"{file.label}: {unknown[0]} is nothing that this run resumes")
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
    expected = type(getattr(holder, name))
    numbers = {expected, type(value)} <= {int, float}
    if expected is not type(value) and type(None) not in (expected, type(value)) and not numbers:
        raise CheckpointError(f"{name} is {quoted(value)}, expected {expected.__name__}")
    setattr(holder, name, value)
