from dataclasses import dataclass

import numpy as np
import pytest
import scipy.ndimage
import skimage.data

from paddle_sam.errors import ConfigError, FaceNotFoundError, ImageError
from paddle_sam.faces.alignment import CropSettings, align, align_faces, crop_quad
from paddle_sam.faces.landmarks import Face
from tests import PARITY

PHOTO = skimage.data.astronaut()
FIXTURE = np.load(PARITY / "expected/alignment_astronaut.npz")
LANDMARKS = FIXTURE["landmarks"]
FFHQ = CropSettings()


def face(eyes=((40, 50), (80, 50)), mouth=((45, 90), (75, 90))) -> np.ndarray:
    """Landmarks whose eyes and mouth corners are where they are said to be."""
    landmarks = np.zeros((68, 2))
    landmarks[36:42], landmarks[42:48] = eyes
    landmarks[48], landmarks[54] = mouth
    return landmarks


def positions(quad: np.ndarray, size: int) -> np.ndarray:
    """Where the centres of a crop's pixels lie, x and y `[2, size, size]`."""
    along = (np.arange(size) + 0.5) / size
    right, down = quad[3] - quad[0], quad[1] - quad[0]
    grid = along[None, :, None] * right + along[:, None, None] * down
    return np.moveaxis(quad[0] + grid, -1, 0)


def resampled(image: np.ndarray, quad: np.ndarray, size: int) -> np.ndarray:
    """What a quad in continuous coordinates covers, read straight from the photograph."""
    x, y = positions(quad, size) - 0.5
    channels = [
        scipy.ndimage.map_coordinates(channel, [y, x], order=1, mode="nearest")
        for channel in np.moveaxis(image.astype(float), -1, 0)
    ]
    return np.stack(channels, -1)


# --- the recipe ------------------------------------------------------------------------------


TIGHT = CropSettings(64, scale=0.6, offset=0.5)
CORNER = (180, 40)  # of a cut around the face so close that most of the crop lies outside
CUT = PHOTO[40:170, 180:290]


@pytest.mark.parametrize(
    ("expected", "image", "landmarks", "settings"),
    [
        ("aligned256", PHOTO, LANDMARKS, FFHQ),
        ("padded256", CUT, LANDMARKS - CORNER, FFHQ),
        ("tight64", PHOTO, LANDMARKS, TIGHT),
        ("shrunk16", PHOTO, LANDMARKS, CropSettings(16)),
    ],
)
def test_crop_equals_the_published_recipes(expected, image, landmarks, settings):
    crop = align(image, landmarks, settings).image
    assert crop.shape == (settings.size, settings.size, 3) and crop.dtype == np.uint8
    assert np.abs(crop.astype(int) - FIXTURE[expected]).mean() < 0.05


def test_quad_of_an_upright_face_by_hand():
    """Eyes 40 apart, mouth 40 below: half side max(2 * 40, 1.8 * 40) = 80 about (60, 54)."""
    expected = [(-20, -26), (-20, 134), (140, 134), (140, -26)]
    np.testing.assert_allclose(crop_quad(face(), FFHQ), expected)


def test_a_long_face_is_measured_from_eyes_to_mouth():
    quad = crop_quad(face(mouth=((45, 150), (75, 150))), FFHQ)
    assert np.hypot(*(quad[3] - quad[0])) == pytest.approx(2 * 1.8 * 100)


def test_scale_and_offset_of_the_tight_crop():
    """Scale 0.6 gives a half side of 48, offset 0.5 the centre (60, 70)."""
    expected = [(12, 22), (12, 118), (108, 118), (108, 22)]
    np.testing.assert_allclose(crop_quad(face(), TIGHT), expected)


def test_quad_turns_with_the_face():
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(
        crop_quad(face() @ turn.T, FFHQ), crop_quad(face(), FFHQ) @ turn.T, atol=1e-9
    )


def test_landmarks_move_the_crop_by_parts_of_a_pixel():
    quarter = np.array([0.25, 0.0])
    moved = align(PHOTO, LANDMARKS + quarter, FFHQ)
    still = align(PHOTO, LANDMARKS, FFHQ)
    np.testing.assert_allclose(moved.quad - still.quad, [quarter] * 4, atol=1e-9)
    assert not np.array_equal(moved.image, still.image)


# --- where the crop came from ----------------------------------------------------------------


@pytest.mark.parametrize("size", [256, 128, 48, 16])
def test_quad_says_where_every_pixel_was_read(size):
    """Small sizes reduce the photograph first; half a pixel of error there would show."""
    found = align(PHOTO, LANDMARKS, CropSettings(size))
    span = max(int(np.hypot(*(found.quad[3] - found.quad[0])) / size * 0.5), 1)
    expected = resampled(scipy.ndimage.uniform_filter(PHOTO, (span, span, 1)), found.quad, size)
    shifted = resampled(PHOTO, found.quad + 1.5 * span, size)
    inner = np.s_[size // 8 : -size // 8, size // 8 : -size // 8]
    error = np.abs(found.image - expected)[inner].mean()
    assert error < 6
    assert error < 0.5 * np.abs(found.image - shifted)[inner].mean()


def test_oversampled_crop_shows_the_same():
    fine = align(PHOTO, LANDMARKS, CropSettings(oversample=4))
    assert fine.image.shape == (256, 256, 3)
    assert np.abs(fine.image.astype(int) - FIXTURE["aligned256"]).mean() < 3


# --- faces at and beyond the edge ------------------------------------------------------------


@pytest.mark.parametrize("shift", [(-150, 0), (250, 0), (0, -110), (0, 350), (-150, -110)])
def test_face_at_the_edge_is_padded(shift):
    """The photograph is kept as it is up to 25 px from its edges; beyond them it is smooth."""
    image = np.roll(PHOTO, shift[::-1], (0, 1))
    found = align(image, LANDMARKS + shift, FFHQ)
    depth = np.minimum(positions(found.quad, 256), 512 - positions(found.quad, 256)).min(0)
    kept, beyond = depth > 25, depth < 0
    assert kept.sum() > 15_000 and beyond.sum() > 2_000
    error = np.abs(found.image - resampled(image, found.quad, 256))[kept]
    assert error.mean() < 1
    detail = np.hypot(*np.gradient(found.image.astype(float).mean(-1)))
    assert detail[beyond].mean() < 0.6 * detail[kept].mean()


@pytest.mark.parametrize(("rows_cut", "padded"), [(0, False), (11, False), (12, True)])
def test_padding_starts_where_the_recipe_says(rows_cut, padded):
    """The square's top is at row 15 and its border 17 wide, of which 13 rows may miss, not 14."""
    crop = align(PHOTO[rows_cut:], LANDMARKS - (0, rows_cut), FFHQ).image
    assert np.array_equal(crop, FIXTURE["aligned256"]) != padded


def test_padding_continues_a_single_colour():
    image = np.full((90, 90, 3), (200, 120, 40), np.uint8)
    crop = align(image, face(), FFHQ).image
    assert np.abs(crop.astype(int) - (200, 120, 40)).max() <= 1


def test_padding_wider_than_the_image():
    tiny = PHOTO[80:100, 200:220]
    crop = align(tiny, face() - (50, 60), FFHQ).image
    assert crop.shape == (256, 256, 3)
    assert tiny.min() <= crop.min() and crop.max() <= tiny.max()


def test_one_pixel_image():
    crop = align(np.full((1, 1, 3), 77, np.uint8), face() - (60, 54), FFHQ).image
    assert np.abs(crop.astype(int) - 77).max() == 0


def test_absurdly_large_face_stays_small_in_memory():
    """A face of 40,000 px in a 512 px image: padding at full size would need 80 GB."""
    assert align(PHOTO, face() * 1000 - (60_000, 54_000), FFHQ).image.shape == (256, 256, 3)


@pytest.mark.parametrize(
    ("landmarks", "words"),
    [
        (np.zeros((68, 2)), "coincide"),
        (np.full((68, 2), np.nan), "coincide"),
        (face() + 5000, "outside the image"),
        (face() - 5000, "outside the image"),
    ],
)
def test_impossible_landmarks(landmarks, words):
    with pytest.raises(ImageError, match=words):
        align(PHOTO, landmarks, FFHQ)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"scale": 0}, {"scale": -1}, {"oversample": 0}])
def test_impossible_settings(wrong):
    with pytest.raises(ConfigError, match="crop settings"):
        CropSettings(**wrong)


def test_wrong_number_of_landmarks():
    with pytest.raises(ConfigError, match=r"landmarks: expected shape \[68, 2\], found \[5, 2\]"):
        align(PHOTO, np.zeros((5, 2)), FFHQ)


# --- choosing among several faces ------------------------------------------------------------


@dataclass
class Found:
    box: tuple
    landmarks: np.ndarray
    confidence: float = 1.0


SURE = Found((175, 76, 265, 166), LANDMARKS, 2.5)
LARGE = Found((0, 0, 400, 400), LANDMARKS + 20, 0.6)
FAINT = Found((0, 0, 90, 90), LANDMARKS + 40, 0.1)


@pytest.mark.parametrize(
    ("choice", "expected"), [("best", [SURE]), ("largest", [LARGE]), ("all", [SURE, LARGE])]
)
def test_choice_of_faces(choice, expected):
    found = align_faces(PHOTO, lambda image: [SURE, LARGE, FAINT], FFHQ, choice=choice)
    assert len(found) == len(expected)
    for crop, want in zip(found, expected, strict=True):
        assert np.array_equal(crop.image, align(PHOTO, want.landmarks, FFHQ).image)


def test_a_faint_face_is_taken_where_it_is_the_only_one():
    assert len(align_faces(PHOTO, lambda image: [FAINT], FFHQ, choice="all")) == 1


def test_no_face_names_the_file_and_the_way_on():
    with pytest.raises(FaceNotFoundError, match="beach.jpg: found no face in 512 x 512"):
        align_faces(PHOTO, lambda image: [], FFHQ, source="beach.jpg")


def test_unusable_face_names_the_file():
    outside = Found((0, 0, 1, 1), LANDMARKS + 9999)
    with pytest.raises(FaceNotFoundError, match="beach.jpg: the face lies outside"):
        align_faces(PHOTO, lambda image: [outside], FFHQ, source="beach.jpg")


def test_unknown_choice():
    with pytest.raises(ConfigError, match="face: expected one of best, largest, all.*'first'"):
        align_faces(PHOTO, lambda image: [SURE], FFHQ, choice="first")


def test_the_largest_face_is_not_a_faint_detection():
    landmarks = LANDMARKS
    clear = Face((0, 0, 80, 80), 1.1, landmarks)
    faint = Face((0, 0, 200, 200), 0.05, landmarks + 90)
    (found,) = align_faces(PHOTO, lambda _: [clear, faint], CropSettings(64), choice="largest")
    np.testing.assert_array_equal(found.landmarks, landmarks)
    (only,) = align_faces(PHOTO, lambda _: [faint], CropSettings(64), choice="largest")
    np.testing.assert_array_equal(only.landmarks, landmarks + 90)
