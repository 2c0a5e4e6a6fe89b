"""Optimizer state under the names of the network's own parameters.

Paddle files an optimizer's tensors under automatic variable names (`conv2d_7.w_0_moment1_0`),
which depend on everything built before them in the process: the same state loaded into networks
built in another order either fails or lands on another tensor of the same shape. Here every
tensor is called `<parameter name>/<what it is>`, e.g. `encoder.styles.0.linear.weight/exp_avg`.
"""

from __future__ import annotations

from collections.abc import Mapping

import paddle

from paddle_sam.errors import CheckpointError

_MASTER = "master_weight"


def named_state(optimizer, parameters: Mapping[str, paddle.Tensor]) -> dict:
    """Everything `optimizer` remembers of its parameters, as {name: tensor}.

    A learning-rate schedule is not among it: it has its own `state_dict`.

    Args:
        optimizer: any `paddle.optimizer.Optimizer`.
        parameters: {structured name: parameter}, e.g. `dict(network.named_parameters())`;
            it must hold every parameter that the optimizer has updated.
    """
    names = {parameter.name: name for name, parameter in parameters.items()}
    state = {}
    for parameter_name, master in optimizer._master_weights.items():
        names[master.name] = names[parameter_name]
        state[f"{names[parameter_name]}/{_MASTER}"] = master
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
    strangers = sorted(updated - set(parameters))
    if strangers:
        raise CheckpointError(
            f"optimizer state: there is no parameter {strangers[0]}"
            f" ({len(strangers)} such names); it was saved from another network."
        )
    block = paddle.static.default_main_program().global_block()
    optimizer._create_accumulators(
        block, [parameters[name] for name in parameters if name in updated]
    )
    targets = named_state(optimizer, parameters)
    if targets.keys() != state.keys():
        key = min(targets.keys() ^ state.keys())
        raise CheckpointError(
            f"optimizer state: {key} is {'missing' if key in targets else 'not known here'};"
            " it was saved by another kind of optimizer (--optim_name)."
        )
    for key, tensor in targets.items():
        if list(tensor.shape) != list(state[key].shape):
            raise CheckpointError(
                f"optimizer state: {key} has shape {list(state[key].shape)},"
                f" expected {list(tensor.shape)}."
            )
        tensor.set_value(state[key])
