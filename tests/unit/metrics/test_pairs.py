import itertools

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_sam.core.images import to_network
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.metrics.pairs import (
    TEMPLATE,
    align_five_points,
    diversity,
    embeddings,
    five_points,
    perceptual_distance,
    similarity,
    squared_error,
    ssim,
)
from paddle_sam.networks.face_networks import FaceEmbedder
from paddle_sam.networks.image_features import LPIPS


def noise(count, size=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def ssim_by_definition(a, b):
    """Eq. 13 of the paper, window by window, for one grey image; mean over all whole windows."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for y, x in itertools.product(range(a.shape[0] - 10), range(a.shape[1] - 10)):
        p, q = a[y : y + 11, x : x + 11].astype(float), b[y : y + 11, x : x + 11].astype(float)
        mp, mq = (window * p).sum(), (window * q).sum()
        vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
        cov = (window * (p - mp) * (q - mq)).sum()
        values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return np.mean(values)


def test_ssim_equals_its_definition():
    a, other = noise(1, 20)[0, :, :, :1].repeat(3, 2), noise(1, 20, 1)[0, :, :, :1].repeat(3, 2)
    b = (0.7 * a + 0.3 * other).astype(np.uint8)
    found = ssim(a[None], b[None])
    assert found == pytest.approx(ssim_by_definition(a[..., 0], b[..., 0]), abs=1e-6)
    assert 0.2 < found[0] < 0.95
    assert ssim(a[None], a[None]) == pytest.approx(1)


def test_squared_error_is_in_the_units_of_network_images():
    left, right = np.full((2, 3, 4, 4), -1.0), np.full((2, 3, 4, 4), 1.0)
    right[1] = -0.5
    assert squared_error(left, right).tolist() == [4.0, 0.25]


def test_diversity_is_the_mean_over_all_pairs():
    paddle.seed(0)
    lpips = LPIPS("alex")
    for name, parameter in lpips.named_parameters():
        if name.startswith("lin"):
            parameter.set_value(parameter.abs())
    outputs = to_network(noise(4, 64))
    pairs = [
        perceptual_distance(lpips, outputs[i : i + 1], outputs[j : j + 1])[0]
        for i, j in itertools.combinations(range(4), 2)
    ]
    assert min(pairs) > 0
    assert diversity(lpips, outputs) == pytest.approx(np.mean(pairs), rel=1e-4)
    same = outputs[[0, 0, 0]]
    assert diversity(lpips, same) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ConfigError, match="at least 2 outputs, found 1"):
        diversity(lpips, outputs[:1])


def test_similarity_of_embeddings():
    paddle.seed(0)
    embedder = FaceEmbedder(input_size=16, units=(1, 1, 1, 1), embedding_dim=8)
    embedder.eval()
    found = embeddings(embedder, noise(3, 32))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(similarity(found, found), 1, rtol=1e-5)
    half = noise(1, 16).repeat(2, axis=1).repeat(2, axis=2)  # pooling undoes the doubling
    np.testing.assert_allclose(
        embeddings(embedder, half), embeddings(embedder, noise(1, 16)), atol=1e-5
    )
    assert similarity(np.eye(2), np.eye(2)[::-1]).tolist() == [0, 0]


def test_five_points_come_to_lie_on_the_template():
    """Crosses at the points of a large, turned face are found on the template after alignment."""
    angle, scale, shift = 0.4, 3.0, np.array([150.0, 60.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE @ turn.T) * scale + shift
    image = np.zeros((500, 500, 3), np.uint8)
    for x, y in points:
        rows, columns = np.mgrid[:500, :500]
        image[np.hypot(columns - x, rows - y) < 6] = 255
    crop = align_five_points(image, points)
    assert crop.shape == (112, 112, 3)
    for x, y in TEMPLATE:
        rows, columns = np.mgrid[:112, :112]
        near = (np.hypot(columns - x, rows - y) < 8) * crop[..., 0].astype(float)
        centre = (near * columns).sum() / near.sum(), (near * rows).sum() / near.sum()
        assert np.abs(np.array(centre) - [x, y]).max() < 0.3


def test_large_faces_are_not_aliased():
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = align_five_points(stripes, TEMPLATE * 8 + 20)
    assert crop.std() < 5
    assert crop.mean() == pytest.approx(127, abs=3)


def test_an_upright_crop_is_left_as_it_is():
    image = np.array(Image.fromarray(noise(1, 28)[0]).resize((112, 112), Image.Resampling.BICUBIC))
    found = align_five_points(image, TEMPLATE)
    assert np.abs(found[2:-2, 2:-2].astype(int) - image[2:-2, 2:-2]).max() <= 1


def test_five_of_68_landmarks():
    landmarks = np.arange(136, dtype=float).reshape(68, 2)
    expected = [landmarks[36:42].mean(0), landmarks[42:48].mean(0), *landmarks[[30, 48, 54]]]
    np.testing.assert_array_equal(five_points(landmarks), expected)
    with pytest.raises(ImageError, match="coincide"):
        align_five_points(noise(1)[0], np.ones((5, 2)))


def test_errors_say_what_was_expected():
    with pytest.raises(ConfigError, match=r"images: expected shape \[2, 3, 4, 4\]"):
        squared_error(np.zeros((2, 3, 4, 4)), np.zeros((1, 3, 4, 4)))
    with pytest.raises(ConfigError, match="at least 11 pixels"):
        ssim(noise(1, 8), noise(1, 8))
