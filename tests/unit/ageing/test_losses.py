import math

import numpy as np
import paddle
import pytest

from paddle_sam.ageing import losses
from paddle_sam.ageing.losses import LossWeights, SAMLoss
from paddle_sam.errors import ConfigError
from paddle_sam.networks.face_networks import AgeRegressor, FaceEmbedder
from paddle_sam.networks.image_features import LPIPS

SIZE = 64


def _images(seed, n=3):
    values = np.random.default_rng(seed).uniform(-1, 1, size=(n, 3, SIZE, SIZE))
    return paddle.to_tensor(values.astype("float32"))


@pytest.fixture(scope="module")
def networks():
    paddle.seed(0)
    embedder = FaceEmbedder(input_size=32, units=(1, 1, 1, 1), embedding_dim=8)
    regressor = AgeRegressor(input_size=32, widths=(4, 4, 4, 4, 4), fc=8)
    regressor.fc8_101.weight.set_value(regressor.fc8_101.weight * 50)  # spreads the ages
    lpips = LPIPS("alex")
    for index in range(5):
        weight = getattr(lpips, f"lin{index}").model[1].weight
        weight.set_value(weight.abs())
    return {"embedder": embedder, "age_regressor": regressor, "lpips": lpips}


def _tensor(*values):
    return paddle.to_tensor(np.array(values, "float32"))


def test_face_region_is_the_published_crop_and_scales():
    full = paddle.arange(256.0).reshape([1, 1, 1, 256]).expand([1, 1, 256, 256])
    face = losses.face_region(full)
    assert face.shape == [1, 1, 188, 188]
    assert (float(face[0, 0, 0, 0]), float(face[0, 0, 0, -1])) == (32, 219)
    assert float(losses.face_region(full.transpose([0, 1, 3, 2]))[0, 0, 0, 0]) == 35
    assert losses.face_region(_images(0)).shape == [3, 3, 47, 47]


def test_l2_by_hand():
    a, b = paddle.zeros([2, 3, 4, 4]), paddle.ones([2, 3, 4, 4])
    b[1] = 3.0
    np.testing.assert_allclose(losses.l2(a, b), [1, 9])


def test_l2_is_exact_on_large_images():
    values = np.random.default_rng(0).normal(size=(2, 3, 256, 256)).astype("float32")
    found = losses.l2(paddle.to_tensor(values), paddle.zeros([2, 3, 256, 256]))
    expected = (values.astype("float64") ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_identity_weights_by_hand():
    found = losses.identity_weights(_tensor(0.2, 0.2, 1.0, 0.75), _tensor(0.2, 0.7, 0.0, 0.25))
    np.testing.assert_allclose(found, [1, 0.75, 0.5, 0.75], atol=1e-6)


def test_latent_norm_by_hand():
    w_plus = paddle.full([1, 4, 4], 2.0)
    np.testing.assert_allclose(losses.latent_norm(w_plus, None), [8])
    np.testing.assert_allclose(losses.latent_norm(w_plus, paddle.ones([4, 4])), [4])


def test_age_error_by_hand():
    np.testing.assert_allclose(losses.age_error(_tensor(0.5), _tensor(0.3)), [0.04], rtol=1e-5)


def test_sum_uses_the_factors_of_the_age_change(networks):
    weights = LossWeights(l2=0.25, l2_aging=0.5, lpips=0.1, lpips_aging=0.3)
    loss = SAMLoss(weights, **networks, weigh_identity=True)
    x, y, codes = _images(1), _images(2), paddle.ones([3, 4, 4])
    reference = loss.reference(x)
    target = _tensor(0.1, 0.5, 0.9)
    for age_changes, l2, lpips in ((False, 0.25, 0.1), (True, 0.5, 0.3)):
        found = loss(y, codes, reference, target, age_changes)
        terms = found.terms
        expected = (
            0.1 * terms["loss_id"]
            + l2 * terms["loss_l2"]
            + lpips * terms["loss_lpips"]
            + 0.6 * terms["loss_lpips_crop"]
            + 1.0 * terms["loss_l2_crop"]
            + 0.005 * terms["loss_w_norm"]
            + 5.0 * terms["loss_aging"]
        )
        np.testing.assert_allclose(found.total, expected, rtol=1e-5)


def test_terms_equal_their_definitions(networks):
    loss = SAMLoss(LossWeights(), **networks, weigh_identity=True)
    x, y, codes = _images(1), _images(2), paddle.ones([3, 4, 4])
    target = _tensor(0.1, 0.5, 0.9)
    found = loss(y, codes, loss.reference(x), target)
    similarity = losses.cosine(loss.embed(x), loss.embed(y))
    weights = losses.identity_weights(target, loss.age(x))
    assert float(weights.min()) < 0.999
    np.testing.assert_allclose(found.terms["loss_id"], weights * (1 - similarity), rtol=1e-5)
    np.testing.assert_allclose(found.terms["loss_lpips"], networks["lpips"](x, y), rtol=1e-5)
    cropped = networks["lpips"](losses.face_region(x), losses.face_region(y))
    np.testing.assert_allclose(found.terms["loss_lpips_crop"], cropped, rtol=1e-5)
    ages = networks["age_regressor"].age(y)
    assert float(ages.max() - ages.min()) > 1e-3
    np.testing.assert_allclose(found.captions["output_age"], ages, rtol=1e-5)
    np.testing.assert_allclose(found.captions["target_age"], [10, 50, 90], rtol=1e-5)
    np.testing.assert_allclose(
        found.terms["loss_aging"], (ages / 100 - target).square(), rtol=1e-4, atol=1e-8
    )
    np.testing.assert_allclose(
        found.terms["age_error_years"], (ages - 100 * target).abs(), rtol=1e-4
    )


def test_target_other_than_the_input(networks):
    loss = SAMLoss(LossWeights(), **networks, weigh_identity=True)
    x, y, output, codes = _images(1), _images(2), _images(3), paddle.ones([3, 4, 4])
    target = _tensor(0.1, 0.5, 0.9)
    found = loss(output, codes, loss.reference(x, y), target)
    views = losses.cosine(loss.embed(x), loss.embed(y))
    assert float(views.max()) < 0.9999
    np.testing.assert_allclose(found.captions["diff_views"], views, rtol=1e-5)
    np.testing.assert_allclose(
        found.captions["diff_input"], losses.cosine(loss.embed(x), loss.embed(output)), rtol=1e-5
    )
    np.testing.assert_allclose(
        found.terms["id_improve"], found.captions["diff_target"] - views, rtol=1e-5
    )
    np.testing.assert_allclose(found.terms["loss_l2"], losses.l2(output, y), rtol=1e-5)
    # What counts is how far the age is from the input's, whatever the target's is.
    weights = losses.identity_weights(target, loss.age(x))
    dissimilar = 1 - losses.cosine(loss.embed(y), loss.embed(output))
    np.testing.assert_allclose(found.terms["loss_id"], weights * dissimilar, rtol=1e-5)


def test_parts_of_a_batch_give_the_same_values(networks):
    loss = SAMLoss(LossWeights(), **networks, weigh_identity=True)
    x, y, codes, target = _images(1), _images(2), paddle.ones([3, 4, 4]), _tensor(0.1, 0.5, 0.9)
    reference = loss.reference(x)
    whole = loss(y, codes, reference, target)
    part = loss(y[1:3], codes[1:3], reference.part(1, 3), target[1:3])
    np.testing.assert_allclose(part.total, whole.total[1:3], rtol=1e-5)


def test_every_term_has_a_gradient_and_no_frozen_weight_has(networks):
    x, target = _images(1), _tensor(0.1, 0.5, 0.9)
    silent = dict.fromkeys(("id", "l2", "l2_crop", "lpips", "lpips_crop", "w_norm", "aging"), 0.0)
    for name in silent:
        loss = SAMLoss(LossWeights(**silent | {name: 1.0}), **networks)
        output, codes = _images(2), paddle.ones([3, 4, 4])
        output.stop_gradient = codes.stop_gradient = False
        loss(output, codes, loss.reference(x), target).total.mean().backward()
        receiver = codes if name == "w_norm" else output
        assert float(receiver.grad.abs().max()) > 0, name
        assert np.isfinite(receiver.grad.numpy()).all(), name
    for network in networks.values():
        assert all(parameter.grad is None for parameter in network.parameters())


def test_ageing_gradient_is_right(networks):
    """The early Paddle port lost it: compared with a finite difference along a direction."""
    loss = SAMLoss(LossWeights(), **networks)
    image = _images(5, n=1)
    direction = _images(6, n=1)
    image.stop_gradient = False
    age = loss.age(image)
    age.sum().backward()
    slope = float((image.grad * direction).sum())
    step = 1e-2
    with paddle.no_grad():
        difference = loss.age(image + step * direction) - loss.age(image - step * direction)
    assert abs(slope) > 1e-6
    assert slope == pytest.approx(difference.item() / (2 * step), rel=0.05)


@pytest.mark.parametrize("missing", ["embedder", "age_regressor", "lpips"])
def test_a_needed_network_must_be_given(networks, missing):
    given = {name: network for name, network in networks.items() if name != missing}
    with pytest.raises(ConfigError, match="there is no network to compute it"):
        SAMLoss(LossWeights(), **given)


def test_weighted_identity_needs_ages(networks):
    with pytest.raises(ConfigError, match="use_weighted_id_loss: needs the age regressor"):
        SAMLoss(
            LossWeights(aging=0),
            embedder=networks["embedder"],
            lpips=networks["lpips"],
            weigh_identity=True,
        )


def test_a_loss_of_factor_zero_is_not_computed():
    loss = SAMLoss(LossWeights(id=0, lpips=0, lpips_crop=0, aging=0))
    x = _images(1)
    found = loss(_images(2), paddle.ones([3, 4, 4]), loss.reference(x))
    assert sorted(found.terms) == ["loss_l2", "loss_l2_crop", "loss_w_norm"]
    assert found.captions == {}
    assert math.isfinite(float(found.total.mean()))
