import numpy as np
import pytest
import scipy.linalg

from paddle_sam.errors import ConfigError
from paddle_sam.metrics.features import Gaussian, fid, frechet_distance, kid, precision_recall


def covariance(gaussian: Gaussian) -> np.ndarray:
    return gaussian.factor.T @ gaussian.factor


def by_definition(a: Gaussian, b: Gaussian) -> float:
    """FID with SciPy's general matrix square root, as the public implementations compute it."""
    root = scipy.linalg.sqrtm(covariance(a) @ covariance(b)).real
    traces = np.trace(covariance(a)) + np.trace(covariance(b)) - 2 * np.trace(root)
    return np.square(a.mean - b.mean).sum() + traces


def random_gaussian(rng, dimensions, rank=None):
    factor = rng.normal(size=(rank or dimensions, dimensions))
    return Gaussian(rng.normal(size=dimensions), factor)


def test_equal_covariances_leave_the_distance_of_the_means():
    rng = np.random.default_rng(0)
    a = random_gaussian(rng, 8)
    b = Gaussian(a.mean + 3.0, a.factor)
    assert frechet_distance(a, b) == pytest.approx(9 * 8, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_diagonal_covariances_have_a_closed_form():
    rng = np.random.default_rng(1)
    left, right = rng.uniform(0.1, 4, 6), rng.uniform(0.1, 4, 6)
    a = Gaussian(np.zeros(6), np.diag(np.sqrt(left)))
    b = Gaussian(np.full(6, 0.5), np.diag(np.sqrt(right)))
    expected = 6 * 0.25 + np.square(np.sqrt(left) - np.sqrt(right)).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [None, 10])
def test_any_covariance_equals_the_definition(rank):
    rng = np.random.default_rng(2)
    a, b = random_gaussian(rng, 24, rank), random_gaussian(rng, 24)
    found = frechet_distance(a, b)
    assert found == pytest.approx(by_definition(a, b), rel=1e-6)
    assert found == pytest.approx(frechet_distance(b, a), rel=1e-7)


def test_two_singular_covariances():
    """Fewer images than features: SciPy's root may fail there, the closed form does not."""
    a = Gaussian(np.zeros(4), np.diag([2.0, 1.0, 0.0, 0.0]))
    b = Gaussian(np.zeros(4), np.diag([1.0, 0.0, 3.0, 0.0]))
    assert frechet_distance(a, b) == pytest.approx(1 + 1 + 9, rel=1e-12)


def test_few_images_and_many_features():
    rng = np.random.default_rng(6)
    left, right = rng.normal(size=(7, 40)), rng.normal(0.5, 2, size=(9, 40))
    padded = [
        Gaussian(g.mean, scipy.linalg.sqrtm(covariance(g) + 1e-12 * np.eye(40)).real)
        for g in (Gaussian.of(left), Gaussian.of(right))
    ]
    assert fid(left, right) == pytest.approx(frechet_distance(*padded), rel=1e-4)
    assert fid(left, left) == pytest.approx(0, abs=1e-9)


def test_a_large_sample_of_known_gaussians_has_their_distance():
    rng = np.random.default_rng(3)
    a, b = random_gaussian(rng, 4), random_gaussian(rng, 4)
    samples = [rng.multivariate_normal(g.mean, covariance(g), 200_000) for g in (a, b)]
    assert fid(*samples) == pytest.approx(frechet_distance(a, b), rel=0.02)


def test_mean_and_covariance_keep_their_digits():
    rng = np.random.default_rng(4)
    features = (rng.normal(size=(257, 5)) + 1e4).astype(np.float32)  # a mean that hides the rest
    found, exact = Gaussian.of(features), features.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-14)
    np.testing.assert_allclose(covariance(found), np.cov(exact.T), rtol=1e-9, atol=1e-12)


def test_kid_of_a_whole_set_equals_the_double_sum():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(6, 4)), rng.normal(0.5, 1, size=(6, 4))

    def kernel(u, v):
        return (u @ v / 4 + 1) ** 3

    within = sum(
        kernel(s[i], s[j]) for s in (x, y) for i in range(6) for j in range(6) if i != j
    ) / (6 * 5)
    across = sum(kernel(u, v) for u in x for v in y) / 36
    mean, deviation = kid(x, y)
    assert mean == pytest.approx(within - 2 * across, rel=1e-9)
    assert deviation == pytest.approx(0, abs=1e-9)


def test_kid_is_without_bias():
    """Between samples of one distribution it is zero on average, unlike FID, and repeatable."""
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(3000, 8)), rng.normal(size=(3000, 8))
    mean, deviation = kid(x, y, subset_size=200)
    assert abs(mean) < deviation / 3
    assert (mean, deviation) == kid(x, y, subset_size=200)
    assert kid(x, y + 0.5, subset_size=200)[0] > 5 * deviation


def test_precision_and_recall_by_hand():
    real = np.array([[0.0], [1.0], [2.0], [3.0], [10.0]])
    # With one neighbour the real balls cover [-1, 4] and [3, 17].
    generated = np.array([[-0.5], [3.5], [18.0], [19.0]])
    # The generated balls cover [-4.5, 7.5] (twice) and [17, 20].
    assert precision_recall(real, generated, 1) == (0.5, 0.8)
    assert precision_recall(real, real, 1) == (1.0, 1.0)


def test_precision_and_recall_tell_quality_from_variety():
    rng = np.random.default_rng(7)
    real = rng.normal(size=(2000, 2))
    few_but_good = real[:20].repeat(10, axis=0) + rng.normal(0, 1e-3, size=(200, 2))
    precision, recall = precision_recall(real, few_but_good)
    assert precision > 0.95 and recall < 0.1
    precision, recall = precision_recall(real, rng.normal(0, 10, size=(2000, 2)))
    assert precision < 0.1 and recall > 0.9


def test_errors_say_what_was_found():
    one = np.zeros((1, 3))
    with pytest.raises(ConfigError, match="FID: expected at least 2 images in a set, found 1"):
        fid(one, np.zeros((5, 3)))
    with pytest.raises(ConfigError, match="KID: expected at least 2 images in a set, found 1"):
        kid(np.zeros((5, 3)), one)
    with pytest.raises(ConfigError, match="more than 3 generated images, found 3"):
        precision_recall(np.zeros((5, 3)), np.zeros((3, 3)))
    with pytest.raises(ConfigError, match=r"expected shape \[\*, 3\], found \[5, 4\]"):
        kid(np.zeros((5, 4)), np.zeros((5, 3)))
