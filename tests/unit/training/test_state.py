import copy
import dataclasses

import numpy as np
import paddle
import pytest

from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import CheckpointError
from paddle_sam.training.ranger import Ranger
from paddle_sam.training.trainers import RunState, named_state, restore_named_state
from tests.unit.training.comparing import assert_equal

KINDS = {
    "ranger": lambda parameters: Ranger(0.01, parameters),
    "adam": lambda parameters: paddle.optimizer.Adam(0.01, parameters=parameters),
}


def _network(extra_layers=0):
    paddle.seed(1)
    for _ in range(extra_layers):  # shifts Paddle's automatic names
        paddle.nn.Linear(2, 2)
    paddle.seed(1)
    return paddle.nn.Sequential(paddle.nn.Linear(4, 4), paddle.nn.Linear(4, 4))


def _train(network, optimizer, steps):
    for step in steps:
        batch = np.random.default_rng(step).normal(size=(2, 4)).astype("float32")
        network(paddle.to_tensor(batch)).square().mean().backward()
        optimizer.step()
        optimizer.clear_grad()


@pytest.mark.parametrize("kind", KINDS)
def test_continues_bit_for_bit_in_a_network_with_other_automatic_names(kind):
    straight = _network()
    _train(straight, KINDS[kind](straight.parameters()), range(9))

    first = _network()
    optimizer = KINDS[kind](first.parameters())
    _train(first, optimizer, range(4))
    saved = {
        k: v.numpy() for k, v in named_state(optimizer, dict(first.named_parameters())).items()
    }

    second = _network(extra_layers=3)
    assert second[0].weight.name != first[0].weight.name
    second.set_state_dict(first.state_dict())
    optimizer = KINDS[kind](second.parameters())
    restore_named_state(optimizer, dict(second.named_parameters()), saved)
    _train(second, optimizer, range(4, 9))

    for left, right in zip(straight.parameters(), second.parameters(), strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy())


def test_names_are_structured():
    network = _network()
    optimizer = Ranger(0.01, network.parameters())
    _train(network, optimizer, range(1))
    state = named_state(optimizer, dict(network.named_parameters()))
    kinds = ("exp_avg", "exp_avg_sq", "slow_buffer", "step")
    layers = ("0.bias", "0.weight", "1.bias", "1.weight")
    assert sorted(state) == [f"{layer}/{kind}" for layer in layers for kind in kinds]


def test_carries_master_weights():
    def low_precision(name):
        tensor = paddle.ones([2], "bfloat16")
        return paddle.base.framework.EagerParamBase.from_tensor(tensor, name=name)

    def step(parameter, optimizer):
        parameter.clear_gradient()
        parameter.sum().backward()
        optimizer.step()

    first = low_precision("master_a")
    optimizer = Ranger(1e-4, [first])
    step(first, optimizer)
    state = {k: v.numpy() for k, v in named_state(optimizer, {"w": first}).items()}
    second = low_precision("master_b")
    restored = Ranger(1e-4, [second])
    restore_named_state(restored, {"w": second}, state)
    for parameter, which in ((first, optimizer), (second, restored)):
        step(parameter, which)
    np.testing.assert_array_equal(
        optimizer._master_weights["master_a"].numpy(), restored._master_weights["master_b"].numpy()
    )


def _saved_by(kind):
    network = _network()
    optimizer = KINDS[kind](network.parameters())
    _train(network, optimizer, range(1))
    parameters = dict(network.named_parameters())
    return parameters, {k: v.numpy() for k, v in named_state(optimizer, parameters).items()}


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda s: {k.replace("0.", "7."): v for k, v in s.items()},
            "of another network .* unknown .*7.bias/",
        ),
        (
            lambda s: {k: v for k, v in s.items() if k != "0.weight/step"},
            "1 missing .0.weight/step",
        ),
        (lambda s: s | {"0.weight/x": s["0.weight/step"]}, "1 unknown .* .0.weight/x"),
        (
            lambda s: s | {"0.weight/exp_avg": np.zeros((2, 2))},
            r"0.weight/exp_avg: file \[2, 2\], network \[4, 4\]",
        ),
        (
            lambda s: s | {"0.weight/exp_avg": np.full((4, 4), "x")},
            "1 not of real numbers .0.weight/exp_avg",
        ),
    ],
)
def test_refuses_foreign_state(damage, message):
    parameters, state = _saved_by("ranger")
    with pytest.raises(CheckpointError, match=message):
        restore_named_state(Ranger(0.01, list(parameters.values())), parameters, damage(state))


def test_refuses_the_state_of_another_optimizer():
    parameters, state = _saved_by("adam")
    with pytest.raises(CheckpointError, match="optim_name"):
        restore_named_state(Ranger(0.01, list(parameters.values())), parameters, state)


class Holder:
    mean, count, signs, best = 0.5, 3, [1.0], None


def _registered(network, optimizer, holder):
    state = RunState(lambda: WeightFile("toy", options={"size": 4}))
    state.network("net", network, "builder", {"size": 4})
    state.layer("networks/live", network)
    state.optimizer("optimizers/net", optimizer, network)
    state.values(holder, "mean", "count", "signs", "best")
    state.values(holder, "late", optional=True) if hasattr(holder, "late") else None
    return state


def _saved_run():
    network = _network()
    optimizer = KINDS["adam"](network.parameters())
    _train(network, optimizer, range(2))
    holder = Holder()
    holder.mean, holder.signs, holder.best = 0.25, [1.0, -1.0], 2.0
    return _registered(network, optimizer, holder).saved()


def test_what_is_registered_is_saved_and_restored():
    content = _saved_run()
    assert content.kind == "toy" and content.options == {"size": 4}
    assert content.networks["net"].arch == {"size": 4}
    assert set(content.training) == {"networks", "optimizers", "mean", "count", "signs", "best"}
    expected = copy.deepcopy(content)
    network, holder = _network(extra_layers=2), Holder()
    state = _registered(network, KINDS["adam"](network.parameters()), holder)
    state.restore(content)
    assert (holder.mean, holder.count, holder.signs, holder.best) == (0.25, 3, [1.0, -1.0], 2.0)
    assert_equal(dataclasses.asdict(state.saved()), dataclasses.asdict(expected))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.training.pop("mean"), "there is no mean to resume from"),
        (lambda c: c.training.update(mean="high"), "mean is 'high', expected float"),
        (lambda c: c.training.update(best="high"), "best is 'high', expected float"),
        (lambda c: c.training.update(signs=["up"]), "signs is .*up.*, expected numbers"),
        (lambda c: c.training.update(extra=1), "holds extra, unknown to this run"),
        (lambda c: c.training.update(optimizers=3), "there is no optimizers/net"),
        (lambda c: c.networks.clear(), "there is no network net"),
        (lambda c: c.training["networks"]["live"].popitem(), "networks/live"),
        (
            lambda c: c.networks["net"].state.update({"0.weight": np.full((4, 4), "x")}),
            "net: .* 1 not of real numbers .0.weight",
        ),
        (
            lambda c: c.training["networks"]["live"].update({"0.weight": np.ones((4, 4), "c8")}),
            "networks/live: .* 1 not of real numbers .0.weight",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_the_list_is_refused(damage, message):
    content = _saved_run()
    damage(content)
    network = _network()
    state = _registered(network, KINDS["adam"](network.parameters()), Holder())
    with pytest.raises(CheckpointError, match=message):
        state.restore(content)


def test_older_checkpoints_may_lack_what_is_optional():
    content, holder = _saved_run(), Holder()
    holder.late = {"x": 1.0}
    network = _network()
    state = _registered(network, KINDS["adam"](network.parameters()), holder)
    state.restore(content)
    assert holder.late == {"x": 1.0}
