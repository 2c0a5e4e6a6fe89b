import numpy as np
import paddle
import pytest

from paddle_sam.ageing.train.options import SAMOptions
from paddle_sam.ageing.train.trainer import SAME_AGE_SHARE, draw_ages
from paddle_sam.errors import ConfigError, TrainingError
from paddle_sam.imagesets.loader import Batch
from tests.unit.training import tiny

AGED = np.array([0.2, 0.7], "float32")


def _gradients(trainer, ages=AGED, batch=None):
    """Encoder gradients of one batch, noise off so that they are a function of it."""
    for layer in trainer.network.decoder.sublayers():
        if type(layer).__name__ == "NoiseInjection":
            layer.weight.set_value(paddle.zeros([1]))
    logged = trainer.accumulate(batch or tiny.batch(), ages)
    return logged, {n: p.grad.numpy().copy() for n, p in _trainable(trainer.network.encoder)}


def _trainable(network):
    """Named parameters; Paddle counts the statistics of batch norm among them."""
    return [(n, p) for n, p in network.named_parameters() if not p.stop_gradient]


def _changed(before, after):
    return {name for name in before if not np.array_equal(before[name], after[name])}


def _assert_same_gradients(left, right, tolerance=1e-4):
    assert left.keys() == right.keys()
    for name in left:
        scale = np.abs(left[name]).max()
        np.testing.assert_allclose(
            right[name], left[name], atol=tolerance * scale + 1e-9, rtol=0, err_msg=name
        )


def test_a_step_changes_the_encoder_and_frozen_statistics_only(files):
    trainer = tiny.trainer(files)
    before = tiny.state(trainer.network)
    trainer.train_step(tiny.batch(), 0)
    changed = _changed(before, tiny.state(trainer.network))
    parameters = {f"encoder.{n}" for n, _ in _trainable(trainer.network.encoder)}
    assert parameters <= changed
    frozen = {name for name in changed if name.startswith(("decoder.", "latent_avg"))}
    assert not frozen
    pretrained = {name for name in changed if name.startswith("pretrained_encoder.")}
    assert pretrained
    assert all(name.endswith(("._mean", "._variance")) for name in pretrained)


def test_frozen_statistics_can_be_kept(files):
    trainer = tiny.trainer(files, freeze_pretrained_bn=True)
    before = tiny.state(trainer.network)
    trainer.train_step(tiny.batch(), 0)
    changed = _changed(before, tiny.state(trainer.network))
    assert not any(name.startswith("pretrained_encoder.") for name in changed)


def test_no_frozen_weight_has_a_gradient(files):
    trainer = tiny.trainer(files)
    _, gradients = _gradients(trainer)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients.values())
    frozen = [
        trainer.network.decoder,
        trainer.network.pretrained_encoder,
        trainer.loss.lpips,
        trainer.loss.embedder,
        trainer.loss.age_regressor,
    ]
    for network in frozen:
        assert all(parameter.grad is None for parameter in network.parameters())


def test_the_decoder_trains_on_request(files):
    trainer = tiny.trainer(files, train_decoder=True)
    before = tiny.state(trainer.network)
    trainer.train_step(tiny.batch(), 0)
    changed = _changed(before, tiny.state(trainer.network))
    assert "decoder.convs.0.conv.weight" in changed


def test_judging_in_small_parts_gives_the_same_gradients(files):
    logged, whole = _gradients(tiny.trainer(files))
    logged_parts, parts = _gradients(tiny.trainer(files, decoder_batch=1))
    _assert_same_gradients(whole, parts)
    assert logged_parts == pytest.approx(logged, rel=1e-4, abs=1e-6)


def test_gradients_equal_those_of_one_plain_graph(files):
    """Against a step written without caches, cut graphs or shared work."""
    trainer = tiny.trainer(files)
    _, found = _gradients(trainer)
    plain = tiny.trainer(files)
    for layer in plain.network.decoder.sublayers():
        if type(layer).__name__ == "NoiseInjection":
            layer.weight.set_value(paddle.zeros([1]))
    network, loss = plain.network, plain.loss
    network.train()
    x = paddle.to_tensor(tiny.batch().source)

    def plane(ages):
        return ages.reshape([2, 1, 1, 1]).expand([2, 1, tiny.SIZE, tiny.SIZE])

    ages = paddle.to_tensor(AGED)
    aged, codes = network(paddle.concat([x, plane(ages)], 1), return_latents=True)
    loss(aged, codes, loss.reference(x), ages, True).total.mean().backward()
    own = loss.age(x)
    back, codes = network(paddle.concat([aged.detach(), plane(own)], 1), return_latents=True)
    loss(back, codes, loss.reference(x), own).total.mean().backward()
    plain_gradients = {n: p.grad.numpy() for n, p in _trainable(network.encoder)}
    _assert_same_gradients(plain_gradients, found)


def test_accumulation_is_the_mean_of_its_parts(files):
    batch = tiny.batch(4)
    wanted = np.array([0.1, 0.4, 0.6, 0.9], "float32")
    trainer = tiny.trainer(files, accumulate=2, batch_size=4)
    logged, found = _gradients(trainer, wanted, batch)
    halves = []
    for start in (0, 2):
        part = Batch(batch.source[start : start + 2], None, batch.paths[start : start + 2])
        ages = wanted[start : start + 2]
        halves.append(_gradients(tiny.trainer(files), ages, part))
    mean = {name: (halves[0][1][name] + halves[1][1][name]) / 2 for name in found}
    _assert_same_gradients(mean, found)
    assert logged["loss"] == pytest.approx((halves[0][0]["loss"] + halves[1][0]["loss"]) / 2)


def test_the_input_age_is_the_target_where_the_age_stays(files):
    trainer = tiny.trainer(files)
    trainer.accumulate(tiny.batch(), None)
    real, cycle = trainer.last_outcomes
    images = paddle.to_tensor(tiny.batch().source)
    years = trainer.loss.age_regressor.age(images).numpy()
    for row in range(2):
        for outcome in (real, cycle):
            expected = f"age {years[row]:.0f}, target {years[row]:.0f}, found"
            assert outcome.caption(row).startswith(expected)


def test_logs_the_published_names(files):
    logged = tiny.trainer(files).train_step(tiny.batch(), 0)
    terms = ("loss_id", "id_improve", "loss_l2", "loss_lpips", "loss_l2_crop", "loss_lpips_crop")
    terms += ("loss_w_norm", "loss_aging", "age_error_years", "loss")
    assert set(logged) == {f"{t}_{stage}" for t in terms for stage in ("real", "cycle")} | {"loss"}
    assert logged["loss"] == pytest.approx(logged["loss_real"] + logged["loss_cycle"])


def test_psp_trains_without_ages_or_a_way_back(files):
    changes = {"task": "psp", "input_nc": 3, "start_from_encoded_w_plus": False}
    trainer = tiny.trainer(
        files, **changes, start_from_latent_avg=True, aging_lambda=0.0, cycle_lambda=0.0
    )
    before = tiny.state(trainer.network)
    logged = trainer.train_step(tiny.batch(), 0)
    assert not any(name.endswith(("_cycle", "aging_real", "years_real")) for name in logged)
    changed = _changed(before, tiny.state(trainer.network))
    assert changed
    assert all(name.startswith("encoder.") for name in changed)


def test_a_loss_that_is_no_number_stops_before_any_parameter_changes(files):
    trainer = tiny.trainer(files)
    bad = tiny.batch()
    bad.source[0, 0, 0, 0] = np.nan
    before = {n: p.numpy().copy() for n, p in _trainable(trainer.network)}
    with pytest.raises(TrainingError, match="step 5: .* is nan.*smaller learning_rate"):
        trainer.train_step(bad, 4)
    assert not _changed(before, {n: p.numpy() for n, p in _trainable(trainer.network)})


def test_a_third_of_the_steps_keeps_the_age_and_the_others_cover_the_century():
    config = SAMOptions(batch_size=4)
    drawn = [draw_ages(config, step, 4) for step in range(3000)]
    same = sum(ages is None for ages in drawn) / len(drawn)
    assert same == pytest.approx(SAME_AGE_SHARE, abs=0.03)
    ages = np.concatenate([ages for ages in drawn if ages is not None])
    years = np.rint(ages * 100).astype(int)
    np.testing.assert_allclose(ages * 100, years, atol=1e-4)
    counts = np.bincount(years, minlength=101)
    assert len(counts) == 101
    assert counts.min() > 0.5 * counts.mean()


def test_target_ages_can_be_restricted():
    config = SAMOptions(target_age="20,80")
    drawn = [draw_ages(config, step, 4) for step in range(50)]
    found = {float(age) for ages in drawn if ages is not None for age in ages}
    assert found == {np.float32(0.2), np.float32(0.8)}


def test_evaluation_repeats_itself_and_leaves_no_trace(files):
    trainer = tiny.trainer(files)
    before = tiny.state(trainer.network)
    batches = [tiny.batch(3, seed=1), tiny.batch(1, seed=2)]
    first, second = trainer.evaluate(batches), trainer.evaluate(batches)
    assert first == second
    assert not _changed(before, tiny.state(trainer.network))
    alone = [trainer.evaluate([batch])["loss_l2_crop_cycle"] for batch in batches[:1]]
    assert first["loss_l2_crop_cycle"] != pytest.approx(alone[0])


@pytest.mark.skipif(paddle.device.is_compiled_with_cuda(), reason="the error of a CPU build")
def test_mixed_precision_needs_a_gpu(files):
    with pytest.raises(ConfigError, match="amp: Paddle has 16-bit training on GPUs only"):
        tiny.trainer(files, amp=True)


@pytest.mark.skipif(
    not paddle.device.is_compiled_with_cuda() or not paddle.device.cuda.device_count(),
    reason="needs a GPU",
)
def test_mixed_precision_trains(files):
    trainer, full = (tiny.trainer(files, device="gpu", amp=amp) for amp in (True, False))
    logged, plain = trainer.train_step(tiny.batch(), 0), full.train_step(tiny.batch(), 0)
    assert logged["loss"] == pytest.approx(plain["loss"], rel=0.05)
    assert all(p.dtype == paddle.float32 for p in trainer.network.parameters())


def test_adam_is_the_other_optimizer(files):
    trainer = tiny.trainer(files, optim_name="adam")
    before = tiny.state(trainer.network)
    trainer.train_step(tiny.batch(), 0)
    weight = "encoder.latlayer1.weight"
    moved = np.abs(tiny.state(trainer.network)[weight] - before[weight])
    assert np.median(moved) == pytest.approx(1e-3, rel=0.01)  # Adam's first step is the rate


def test_the_panel_shows_each_face_four_times(files):
    trainer = tiny.trainer(files)
    trainer.train_step(tiny.batch(), 0)
    assert trainer.panel().shape == (2 * 300, 4 * 256, 3)
