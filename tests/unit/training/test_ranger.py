import math

import numpy as np
import paddle
import pytest

from paddle_sam.errors import ConfigError
from paddle_sam.training.ranger import Ranger, centralized, rectified_step
from tests import PARITY

EXPECTED = PARITY / "expected" / "ranger.npz"
NAMES = ("conv", "fc", "bias")


def _parameter(values):
    parameter = paddle.create_parameter(np.shape(values), "float32")
    parameter.set_value(np.asarray(values, "float32"))
    return parameter


def _set_gradient(parameter, gradient):
    parameter.clear_gradient()
    (parameter * paddle.to_tensor(np.asarray(gradient, "float32"))).sum().backward()


@pytest.mark.parametrize(
    "name, options",
    [
        ("default", {}),
        ("decay", {"weight_decay": 0.01}),
        ("conv_only", {"gc_conv_only": True}),
        ("k3", {"k": 3, "alpha": 0.8, "betas": (0.9, 0.99)}),
    ],
)
def test_equals_the_published_optimizer_for_fifteen_steps(name, options):
    expected = np.load(EXPECTED)
    parameters = {n: _parameter(expected[f"init/{n}"]) for n in NAMES}
    optimizer = Ranger(0.01, list(parameters.values()), **options)
    compared = 0
    for step in range(1, 16):
        for n, parameter in parameters.items():
            noise = expected[f"noise/{n}/{step}"]
            _set_gradient(parameter, 0.3 * noise + 0.1 * parameter.numpy())
        optimizer.step()
        for n, parameter in parameters.items():
            key = f"{name}/{n}/{step}"
            if key in expected:
                np.testing.assert_allclose(parameter.numpy(), expected[key], rtol=0, atol=5e-7)
                compared += 1
    assert compared == 6 * len(NAMES)


def test_first_step_by_hand():
    # Below the threshold: p - lr * m / (1 - beta1), and m = (1 - beta1) g, so p - lr * g.
    parameter = _parameter([1.0, -2.0])
    optimizer = Ranger(0.1, [parameter])
    _set_gradient(parameter, [0.5, 0.25])
    optimizer.step()
    np.testing.assert_allclose(parameter.numpy(), [0.95, -2.025], rtol=1e-6)


def test_rectified_step_follows_the_paper():
    assert rectified_step(1, 0.9, 0.999) == (pytest.approx(10.0), False)
    size, adaptive = rectified_step(6, 0.9, 0.999)
    assert adaptive
    rho_inf = 1999.0
    rho = rho_inf - 12 * 0.999**6 / (1 - 0.999**6)
    r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    assert size == pytest.approx(r * math.sqrt(1 - 0.999**6) / (1 - 0.9**6))


def test_centralisation_averages_over_all_but_the_output_axis():
    gradient = paddle.to_tensor(np.random.default_rng(0).normal(size=(3, 4)).astype("float32"))
    np.testing.assert_allclose(centralized(gradient).mean(1).numpy(), 0, atol=1e-7)
    np.testing.assert_allclose(centralized(gradient, -1).mean(0).numpy(), 0, atol=1e-7)


def test_linear_weights_stored_in_out_train_as_their_transposes_do():
    values = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    rows, columns = _parameter(values), _parameter(values.T)
    optimizer = Ranger(0.1, [{"params": [rows]}, {"params": [columns], "output_axis": -1}])
    for step in range(8):
        gradient = np.random.default_rng(step + 1).normal(size=(3, 4))
        _set_gradient(rows, gradient)
        _set_gradient(columns, gradient.T)
        optimizer.step()
    np.testing.assert_allclose(rows.numpy(), columns.numpy().T, atol=1e-6)


def test_groups_have_their_own_rate_and_decay():
    still, decayed, plain = (_parameter([1.0, 1.0]) for _ in range(3))
    optimizer = Ranger(
        0.1,
        [
            {"params": [still], "learning_rate": 0.0},
            {"params": [decayed], "weight_decay": 0.5},
            {"params": [plain]},
        ],
    )
    for parameter in (still, decayed, plain):
        _set_gradient(parameter, [0.0, 1.0])
    optimizer.step()
    np.testing.assert_allclose(still.numpy(), [1, 1])
    np.testing.assert_allclose(decayed.numpy(), [0.95, 0.85], rtol=1e-6)
    np.testing.assert_allclose(plain.numpy(), [1, 0.9], rtol=1e-6)


def plain_steps(
    values, gradients, rate, dtype=np.float64, beta1=0.95, beta2=0.999, eps=1e-5, alpha=0.5, k=6
):
    """The formulas of the module, for a vector, operation by operation in `dtype`."""
    p, slow = values.astype(dtype), values.astype(dtype)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for step, g in enumerate(gradients.astype(dtype), start=1):
        v = dtype(beta2) * v + dtype(1 - beta2) * (g * g)
        m = dtype(beta1) * m + dtype(1 - beta1) * g
        size, adaptive = rectified_step(step, beta1, beta2)
        p = p + (m / (np.sqrt(v) + dtype(eps)) if adaptive else m) * dtype(-size * rate)
        if step % k == 0:
            slow = slow + dtype(alpha) * (p - slow)
            p = slow.copy()
    return p


@pytest.mark.parametrize("rate", [1e-4, 1e-3])
@pytest.mark.parametrize("size", [1.0, 0.05])
def test_the_fused_update_is_that_of_single_operations(size, rate):
    """Each weight is within 1e-7, or of the largest weight's size where that is above 1.

    Near 1 the next number in float32 is 1.2e-7 away, so that one rounding may differ there.
    """
    rng = np.random.default_rng(0)
    values = (size * rng.normal(size=20_000)).astype("float32")
    gradients = 0.01 * rng.normal(size=(60, 20_000)).astype("float32")
    parameters = [_parameter(part) for part in np.split(values, [5, 5000])]
    optimizer = Ranger(rate, parameters)
    for gradient in gradients:
        for parameter, part in zip(parameters, np.split(gradient, [5, 5000]), strict=True):
            _set_gradient(parameter, part)
        optimizer.step()
    found = np.concatenate([parameter.numpy() for parameter in parameters])
    plain, exact = (plain_steps(values, gradients, rate, d) for d in (np.float32, np.float64))
    assert np.abs(found - plain).max() < 1e-7 * max(1, np.abs(plain).max())
    fused_error, plain_error = (np.sqrt(np.square(x - exact).mean()) for x in (found, plain))
    assert fused_error < 1.01 * plain_error < 2e-7


def test_an_adaptive_step_is_one_operator_a_group(monkeypatch):
    parameters = [_parameter(np.ones((3, 4))) for _ in range(20)]
    groups = [{"params": parameters[:10]}, {"params": parameters[10:], "output_axis": -1}]
    optimizer = Ranger(0.01, groups)
    for parameter in parameters:
        _set_gradient(parameter, np.ones((3, 4)))
    for _ in range(6):
        optimizer.step()
    fused, lengths = paddle._C_ops.fused_adam_, []
    count = lambda *given: (lengths.append(len(given[0])), fused(*given))  # noqa: E731
    monkeypatch.setattr(paddle._C_ops, "fused_adam_", count)
    optimizer.step()
    assert lengths == [10, 10]


def test_weights_updated_less_often_keep_their_own_count():
    often, seldom, alone = (_parameter([1.0, -2.0]) for _ in range(3))
    together, single = Ranger(0.01, [often, seldom]), Ranger(0.01, [alone])
    for step in range(16):
        _set_gradient(often, [0.5, 0.1])
        for parameter in (seldom, alone):
            parameter.clear_gradient(False)
            if step % 2:
                _set_gradient(parameter, [0.3, step])
        together.step()
        if step % 2:
            single.step()
    np.testing.assert_array_equal(seldom.numpy(), alone.numpy())


def test_many_steps_follow_the_formulas():
    rng = np.random.default_rng(0)
    values, gradients = rng.normal(size=50), rng.normal(size=(40, 50))
    parameter = _parameter(values)
    optimizer = Ranger(0.01, [parameter])
    for gradient in gradients:
        _set_gradient(parameter, gradient)
        optimizer.step()
    want = plain_steps(values.astype(np.float32), gradients.astype(np.float32), 0.01)
    np.testing.assert_allclose(parameter.numpy(), want, rtol=1e-6, atol=1e-6)


def test_a_step_never_waits_for_the_device(host_copies):
    """Neither in the first steps nor in those of the adaptive kernel and Lookahead."""
    parameters = [_parameter(np.ones((3, 4))) for _ in range(20)]
    optimizer = Ranger(0.01, parameters)
    for parameter in parameters:
        _set_gradient(parameter, np.ones((3, 4)))
    optimizer.step()
    host_copies.clear()
    for _ in range(12):
        optimizer.step()
    assert host_copies == []


def test_state_dict_continues_bit_for_bit():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(9, 3, 4))

    def steps(parameter, optimizer, which):
        for index in which:
            _set_gradient(parameter, gradients[index])
            optimizer.step()

    straight = _parameter(start)
    steps(straight, Ranger(0.1, [straight]), range(9))

    first = _parameter(start)
    before = Ranger(0.1, [first])
    steps(first, before, range(4))
    second = _parameter(first.numpy())
    second.name = first.name  # as in a fresh process that builds the same network
    after = Ranger(0.1, [second])
    with paddle.utils.unique_name.guard():
        after.set_state_dict(before.state_dict())
        steps(second, after, range(4, 9))
    np.testing.assert_array_equal(straight.numpy(), second.numpy())


def test_scheduler_sets_the_rate():
    parameter = _parameter([1.0])
    scheduler = paddle.optimizer.lr.StepDecay(0.1, step_size=1, gamma=0.1)
    optimizer = Ranger(scheduler, [parameter])
    _set_gradient(parameter, [1.0])
    optimizer.step()
    scheduler.step()
    assert parameter.item() == pytest.approx(0.9)
    assert optimizer.get_lr() == pytest.approx(0.01)


def test_bfloat16_weights_keep_a_master_copy():
    parameter = _parameter([1.0, 1.0]).astype("bfloat16").detach()
    parameter = paddle.base.framework.EagerParamBase.from_tensor(parameter, name="low_precision")
    optimizer = Ranger(1e-3, [parameter])
    for _ in range(60):  # each step rounds to nothing in bfloat16
        parameter.clear_gradient()
        parameter.sum().backward()
        optimizer.step()
    moved = optimizer._master_weights[parameter.name].numpy()
    assert moved.dtype == np.float32
    assert 0.99 < moved[0] < 0.997
    assert parameter.astype("float32").numpy()[0] == pytest.approx(moved[0], abs=2**-8)


def test_grad_scaler_skips_a_step_with_infinite_gradients():
    parameter = _parameter([1.0])
    optimizer = Ranger(0.1, [parameter])
    scaler = paddle.amp.GradScaler(init_loss_scaling=1024.0)
    if not scaler.is_enable():
        pytest.skip("this Paddle scales gradients on GPUs only")
    scaler.scale(parameter.sum() * np.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    assert parameter.item() == 1.0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"alpha": 0}, r"alpha must be in \(0, 1\], found 0"),
        ({"k": 0}, "k must be 1 or more, found 0"),
        ({"betas": (1.0, 0.9)}, r"betas must be two numbers in \[0, 1\)"),
        ({"eps": 0}, "eps must be above 0"),
        ({"weight_decay": -1}, "weight_decay must be 0 or more"),
    ],
)
def test_refuses_options_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        Ranger(0.1, [_parameter([1.0])], **options)


def test_refuses_an_unknown_group_option():
    with pytest.raises(ConfigError, match="unknown parameter group option decay; known are alpha"):
        Ranger(0.1, [{"params": [_parameter([1.0])], "decay": 1}])
