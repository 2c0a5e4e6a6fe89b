import numpy as np
import pytest

from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.stargan2.align import align_to_mean_face, mirrored_to_square, onto


def face(seed=0):
    """98 landmarks of an upright face at 256 pixels, pupils and mouth where they belong."""
    points = np.random.default_rng(seed).uniform(70, 190, (98, 2))
    points[60:68] = points[96] = [95, 110]
    points[68:76] = points[97] = [160, 112]
    points[76], points[82] = [102, 180], [152, 181]
    return points


def moved(points, factor, shift):
    z = (points[:, 0] + 1j * points[:, 1]) * factor + shift
    return np.stack([z.real, z.imag], axis=1)


def by_published_recipe(source, target):
    """Translation, rotation and scale as matrices in turn, as the reference composes them."""

    def axis(p):
        left, right = p[[*range(60, 68), 96]].mean(0), p[[*range(68, 76), 97]].mean(0)
        up = (left + right) / 2 - (p[76] + p[82]) / 2
        x = right - left - np.array([up[1], -up[0]])
        return x / np.linalg.norm(x)

    a, b = axis(source), axis(target)
    cos = a @ b
    sin = np.sqrt(max(0, 1 - cos**2)) * np.sign(a[0] * b[1] - a[1] * b[0])
    arms = [np.linalg.norm(p - p.mean(0), axis=1)[[96, 97, 76, 82]] for p in (source, target)]
    scale = (arms[1] / arms[0]).mean()
    matrix = np.eye(3)
    for step in (
        [[1, 0, -source.mean(0)[0]], [0, 1, -source.mean(0)[1]], [0, 0, 1]],
        [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]],
        np.diag([scale, scale, 1]),
        [[1, 0, target.mean(0)[0]], [0, 1, target.mean(0)[1]], [0, 0, 1]],
    ):
        matrix = np.array(step) @ matrix
    return matrix


@pytest.mark.parametrize("angle", [-2.5, -0.4, 0.0, 0.7])
def test_the_map_is_the_published_one(angle):
    source = moved(face(1), 2.3 * np.exp(1j * angle), 40 - 15j)
    factor, shift = onto(source, face())
    matrix = by_published_recipe(source, face())
    assert matrix[0, 0] + 1j * matrix[1, 0] == pytest.approx(factor, abs=1e-9)
    assert matrix[0, 2] + 1j * matrix[1, 2] == pytest.approx(shift, abs=1e-7)


def test_a_similar_face_comes_to_lie_exactly_on_the_mean():
    source = moved(face(), 3 * np.exp(0.3j), 100 + 20j)
    np.testing.assert_allclose(moved(source, *onto(source, face())), face(), atol=1e-9)


def test_landmarks_in_the_photograph_are_the_mean_face_in_the_crop():
    """Dots at the pupils and the mouth of a large turned face, off the centre of a wide photo."""
    mean = face()
    landmarks = moved(mean, 2.5 * np.exp(0.25j), 420 - 60j)
    photo = np.zeros((800, 1300, 3), np.uint8)
    rows, columns = np.mgrid[:800, :1300] + 0.5
    dots = [96, 97, 76, 82]
    for x, y in landmarks[dots]:
        photo[np.hypot(columns - x, rows - y) < 9] = 255
    seen = []

    def find(square):
        seen.append(square.shape)
        return landmarks + [0, 250]  # where they are in the square

    crop = align_to_mean_face(photo, find, mean, 128)
    assert seen == [(1300, 1300, 3)]
    assert crop.shape == (128, 128, 3)
    rows, columns = np.mgrid[:128, :128] + 0.5
    for x, y in mean[dots] / 2:
        near = (np.hypot(columns - x, rows - y) < 6) * crop[..., 0].astype(float)
        centre = (near * columns).sum() / near.sum(), (near * rows).sum() / near.sum()
        assert np.abs(np.array(centre) - [x, y]).max() < 0.2


def test_beyond_the_photograph_its_mirror_image_goes_on():
    mean = face()
    photo = np.random.default_rng(0).integers(150, 200, (120, 120, 3), dtype=np.uint8)
    crop = align_to_mean_face(photo, lambda square: moved(mean, 0.9, -60 - 60j), mean, 64)
    assert crop.min() > 120  # no black corner


@pytest.mark.parametrize(
    ("shape", "corner"), [((4, 8), [0, 2]), ((9, 4), [2, 0]), ((5, 5), [0, 0])]
)
def test_squares_are_mirrored_on(shape, corner):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    square, found = mirrored_to_square(image)
    assert square.shape == (max(shape), max(shape), 3)
    assert found.tolist() == corner
    x, y = corner
    np.testing.assert_array_equal(square[y : y + shape[0], x : x + shape[1]], image)
    if y:
        np.testing.assert_array_equal(square[y - 1], image[0])


def test_errors_say_what_is_wrong():
    photo = np.zeros((50, 50, 3), np.uint8)
    with pytest.raises(ImageError, match="coincide"):
        align_to_mean_face(photo, lambda square: np.ones((98, 2)), face(), 64)
    with pytest.raises(ImageError, match="outside the image"):
        align_to_mean_face(photo, lambda square: face() + 5000, face(), 64)
    with pytest.raises(ConfigError, match=r"mean face: expected shape \[98, 2\]"):
        align_to_mean_face(photo, lambda square: face(), np.ones((68, 2)), 64)
