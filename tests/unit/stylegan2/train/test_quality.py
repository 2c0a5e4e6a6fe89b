"""Measures of a generator in training, with AlexNet of random weights."""

import numpy as np
import paddle
import pytest

from paddle_sam.metrics.features import AlexFeatures, kid
from paddle_sam.networks.image_features import LPIPS
from paddle_sam.stylegan2.train.run import quality


def images(count, seed, brightness=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 128, (count, 4, 4, 3)) + brightness
    return np.kron(coarse, np.ones((1, 16, 16, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def features():
    paddle.seed(0)
    return AlexFeatures(LPIPS())


def test_alex_features_are_mean_activations(features):
    pictures = images(2, 0)
    found = features(list(pictures))
    assert found.shape == (2, 64 + 192 + 384 + 256 + 256)
    x = paddle.to_tensor(pictures.transpose(0, 3, 1, 2).astype("float32") / 127.5 - 1)
    first = features.network.extract(x)[0].numpy()
    np.testing.assert_allclose(found[:, :64], 8 * first.mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features([pictures[1]])[0], found[1], rtol=1e-4, atol=1e-5)


def test_alex_features_of_small_images(features):
    small = np.full((8, 8, 3), 90, np.uint8)
    large = np.full((64, 64, 3), 90, np.uint8)
    np.testing.assert_allclose(features([small]), features([large]), atol=1e-5)


def test_quality_compares_what_is_made_with_what_is_real(features):
    reads, asked = [], []

    def reals():
        reads.append(1)
        yield from (images(5, 1), images(5, 2))

    def fakes(brightness):
        def batches(count):
            asked.append(count)
            yield from (images(4, 3, brightness), images(4, 4, brightness))

        return batches

    def distance(real, made):
        return kid(real, made, subsets=1, subset_size=8)[0]

    judge = quality("kid_alex", features, distance, reals, 8)
    near, far = judge(fakes(0)), judge(fakes(100))
    assert set(near) == {"kid_alex", "loss"}
    assert near["loss"] == near["kid_alex"] < far["kid_alex"]
    assert reads == [1]
    assert asked == [8, 8]
    real = np.concatenate([features(list(images(5, 1))), features(list(images(5, 2)[:3]))])
    made = np.concatenate([features(list(images(4, seed))) for seed in (3, 4)])
    assert near["kid_alex"] == pytest.approx(distance(real, made), rel=1e-6)
