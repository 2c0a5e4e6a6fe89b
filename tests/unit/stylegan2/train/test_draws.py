"""Adaptive augmentation: each transformation against a result made by hand."""

import math

import numpy as np
import paddle
import pytest

from paddle_sam.stylegan2.train import draws
from paddle_sam.stylegan2.train.draws import Transform
from paddle_sam.stylegan2.train.trainer import adjusted

SIZE = 16


def picture(count=1, size=SIZE, seed=0):
    """Smooth images: random 4 x 4 colours, enlarged."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.uniform(-1, 1, (count, 3, 4, 4)), np.ones((1, 1, size // 4, size // 4)))
    return coarse.astype("float32")


def moved(images, forward):
    """What `forward` [3, 3], from image to result, makes of images."""
    inverse = np.linalg.inv(np.broadcast_to(forward, (len(images), 3, 3)))
    return draws.warped(paddle.to_tensor(images), inverse).numpy()


def one(values):
    return np.array([values], float)


def test_the_filter_is_an_orthonormal_low_pass():
    assert draws.SYM6.sum() == pytest.approx(math.sqrt(2), abs=1e-9)
    for shift in range(6):
        product = (draws.SYM6[2 * shift :] * draws.SYM6[: len(draws.SYM6) - 2 * shift]).sum()
        assert product == pytest.approx(float(shift == 0), abs=1e-9)


def test_enlarging_and_halving_gives_back_the_row_and_keeps_constants():
    enlarging, halving = draws.enlarging(SIZE, 8), draws.halving(SIZE)
    middle = enlarging[16 - 6 : 16 + 2 * SIZE + 6]  # the margin is 8 pixels, 16 when doubled
    np.testing.assert_allclose(halving @ middle, np.eye(SIZE), atol=1e-9)
    np.testing.assert_allclose(enlarging.sum(axis=1), 1, atol=1e-9)


def test_the_identity_changes_nothing():
    images = picture(2)
    np.testing.assert_allclose(moved(images, np.eye(3)), images, atol=2e-5)


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (draws.scaling(one(-1), one(1)), lambda x: x[..., ::-1]),
        # x is rightwards and y downwards, so that this turns clockwise.
        (draws.rotation(one(math.pi / 2)), lambda x: np.rot90(x, -1, (2, 3))),
        (draws.rotation(one(math.pi)), lambda x: x[..., ::-1, ::-1]),
    ],
)
def test_mirror_and_quarter_turns_move_whole_pixels(forward, expected):
    """Up to the slight asymmetry of the filter, which smooth images hardly show."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, 32)] * 2)
    image = np.stack([np.sin(2 * x + y), np.cos(x - 2 * y), x * y])[None].astype("float32")
    np.testing.assert_allclose(moved(image, forward[0]), expected(image), atol=0.02)


def test_a_shift_continues_the_image_by_reflection():
    images = picture()
    right = moved(images, draws.translation(one(2 * 3 / SIZE), one(0))[0])
    np.testing.assert_allclose(right[..., 3:], images[..., :-3], atol=2e-5)
    np.testing.assert_allclose(right[..., :3], images[..., :3][..., ::-1], atol=2e-5)
    down = moved(images, draws.translation(one(0), one(2 * 2 / SIZE))[0])
    np.testing.assert_allclose(down[:, :, 2:], images[:, :, :-2], atol=2e-5)


def test_scaling_enlarges_about_the_centre():
    """A smooth image, known everywhere: a low cosine wave."""
    places = (np.arange(64) + 0.5) / 32 - 1
    wave = np.cos(1.5 * places)
    image = np.broadcast_to(wave, (1, 3, 64, 64)).astype("float32")
    found = moved(image, draws.scaling(one(2), one(2))[0])
    np.testing.assert_allclose(found[0, 0, 32], np.cos(1.5 * places / 2), atol=3e-3)
    stretched = moved(image, draws.scaling(one(1), one(2))[0])
    np.testing.assert_allclose(stretched[0, 0, 32], wave, atol=3e-3)


def colour(matrix):
    image = np.array([0.5, -0.25, 0.1], "float32").reshape(1, 3, 1, 1)
    found = draws.recoloured(paddle.to_tensor(image), np.asarray(matrix)[None, :3])
    return found.numpy().ravel(), image.ravel()


def test_hue_turns_about_grey():
    third = draws.hue_rotation(np.array([2 * math.pi / 3]))[0]
    found, image = colour(third)
    np.testing.assert_allclose(found, np.roll(image, 1), atol=1e-6)  # red becomes green
    np.testing.assert_allclose(third[:3, :3].sum(axis=1), 1, atol=1e-9)  # grey stays


class Fixed:
    """In place of random draws: says which values each kind of draw gives."""

    def __init__(self, **values):
        self.values, self.count, self.p = values, 1, 1.0
        self.order = {"normal": [], "factor": [], "integer": [], "uniform": []}

    def _next(self, kind, argument, still):
        self.order[kind].append(argument)
        name = f"{kind}{len(self.order[kind])}"
        return np.array([self.values.get(name, still)], float)

    def normal(self, deviation):
        return self._next("normal", deviation, 0.0)

    def factor(self, octaves):
        return self._next("factor", octaves, 1.0)

    def integer(self, choices):
        return self._next("integer", choices, 0)

    def uniform(self, limit, p=None):
        return self._next("uniform", (limit, p), 0.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, lambda x: x),
        ({"normal1": 0.2}, lambda x: x + 0.2),  # brightness
        ({"factor1": 1.5}, lambda x: 1.5 * x),  # contrast
        ({"integer1": 1}, lambda x: x - 2 * x.mean()),  # luma flip
        ({"uniform1": -2 * math.pi / 3}, lambda x: np.roll(x, -1)),  # hue
        ({"factor2": 0.0}, lambda x: np.full(3, x.mean())),  # saturation
        ({"factor2": 2.0}, lambda x: x.mean() + 2 * (x - x.mean())),
    ],
)
def test_each_colour_transformation_by_hand(values, expected):
    found, image = colour(draws._colours(Fixed(**values))[0])
    np.testing.assert_allclose(found, expected(image), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "group", "forward"),
    [
        ({"integer1": 1}, "blit", np.diag([-1.0, 1, 1])),
        ({"integer2": 2}, "blit", np.diag([-1.0, -1, 1])),
        ({"uniform1": 0.1}, "blit", [[1, 0, 2 * 2 / SIZE], [0, 1, 0], [0, 0, 1]]),  # 1.6 px is 2
        ({"factor1": 1.5}, "geometry", np.diag([1.5, 1.5, 1])),
        ({"factor2": 2.0}, "geometry", np.diag([2, 0.5, 1])),
        ({"normal2": 0.25}, "geometry", [[1, 0, 0], [0, 1, 0.5], [0, 0, 1]]),
        ({"uniform3": math.pi / 2}, "geometry", [[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    ],
)
def test_each_movement_by_hand(values, group, forward):
    inverse = draws._geometry(Fixed(**values), SIZE, (group,))[0]
    np.testing.assert_allclose(inverse @ np.array(forward, float), np.eye(3), atol=1e-12)
    other = "geometry" if group == "blit" else "blit"
    np.testing.assert_allclose(draws._geometry(Fixed(**values), SIZE, (other,))[0], np.eye(3))


def test_strengths_are_the_papers():
    fixed = Fixed()
    draws._geometry(fixed, SIZE, ())
    draws._colours(fixed)
    assert fixed.order == {
        "integer": [2, 4, 2],
        "uniform": [(0.125, None)] * 2 + [(math.pi, 1.0)] * 2 + [(math.pi, None)],
        "factor": [0.2, 0.2, 0.5, 1.0],
        "normal": [0.125, 0.125, 0.2],
    }


def draw(p, count=400, groups=("blit", "geometry", "colour"), seed=0):
    return draws.draw(np.random.default_rng(seed), p, count, SIZE, groups)


def test_no_probability_is_no_transformation():
    transform = draw(0.0)
    assert transform == Transform(None, None)
    images = paddle.to_tensor(picture())
    assert transform(images) is images
    assert draw(1.0, groups=()) == Transform(None, None)
    assert draw(1.0, groups=("colour",)).inverse is None
    assert draw(1.0, groups=("blit",)).colour is None


def test_p_is_the_share_of_images_that_are_transformed():
    counts = {}
    for p in (0.2, 0.8):
        colours = draw(p, 2000, ("colour",)).colour
        moved = np.abs(colours[:, :, 3]).max(axis=1) > 1e-9  # only brightness adds a constant
        counts[p] = moved
    assert counts[0.2].mean() == pytest.approx(0.2, abs=0.03)
    assert counts[0.8].mean() == pytest.approx(0.8, abs=0.03)
    assert counts[0.8][counts[0.2]].all()  # p decides which of the same draws happen


def test_images_are_transformed_each_for_itself():
    transform, images = draw(0.7, 6), paddle.to_tensor(picture(6))
    whole = transform(images).numpy()
    chosen = np.array([4, 1])
    np.testing.assert_allclose(
        transform.of(chosen)(images[chosen.tolist()]).numpy(), whole[chosen], atol=2e-5
    )
    assert np.abs(whole - images.numpy()).max() > 0.1


def test_the_transposed_and_the_linear_part():
    """<A x, y> = <x, A^T y>, where A x is the transformed image less the transformed zero."""
    transform = draw(0.9, 3)
    x, y = (paddle.to_tensor(picture(3, seed=seed)).astype("float64") for seed in (1, 2))
    linear = transform.linear()
    zero = transform(paddle.zeros_like(x))
    np.testing.assert_allclose((transform(x) - zero).numpy(), linear(x).numpy(), atol=1e-9)
    assert float(zero.abs().max()) > 0.01
    left, right = (linear(x) * y).sum(), (x * linear.transposed(y)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-9)
    same = Transform(None, None)
    assert same.linear().transposed(y) is y


def test_gradients_reach_the_images():
    images = paddle.to_tensor(picture(4))
    images.stop_gradient = False
    draw(0.9, 4)(images).square().sum().backward()
    assert np.isfinite(images.grad.numpy()).all()
    assert (images.grad.abs().sum(axis=[1, 2, 3]).numpy() > 0).all()


def test_the_sign_statistic_drives_p():
    p, history = 0.0, []
    for sign in [0.9] * 10 + [0.3] * 20:
        p = adjusted(p, sign, 0.6, 64, 1.0)
        history.append(p)
    np.testing.assert_allclose(history[:10], 0.064 * np.arange(1, 11))
    assert history[-1] == 0
    assert adjusted(0.99, 1.0, 0.6, 64, 1.0) == 1
    assert adjusted(0.5, 0.6, 0.6, 64, 1.0) == 0.5


def test_a_step_uploads_what_was_drawn_and_no_matrices(monkeypatch):
    transform, images = draw(1.0, count=2), paddle.to_tensor(picture(2))
    transform(images)
    upload, sizes = paddle.to_tensor, []

    def watched(values, *arguments, **named):
        sizes.append(np.size(values))
        return upload(values, *arguments, **named)

    monkeypatch.setattr(paddle, "to_tensor", watched)
    transform(images)
    assert sizes == [2 * 2 * 3, 2 * 3 * 4]
