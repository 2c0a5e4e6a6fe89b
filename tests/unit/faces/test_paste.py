import numpy as np
import pytest
import skimage.data

from paddle_sam.errors import ConfigError
from paddle_sam.faces.alignment import CropSettings, align
from paddle_sam.faces.paste import Patch, cut_plane, moved, paste, paste_back

PORTRAIT = skimage.data.astronaut()
UPRIGHT = np.array([[100, 60], [100, 220], [260, 220], [260, 60]], np.float64)


def turned(degrees, centre=(200, 150), half=70.0):
    angle = np.radians(degrees)
    right = half * np.array([np.cos(angle), np.sin(angle)])
    down = np.array([-right[1], right[0]])
    middle = np.array(centre, np.float64)
    return middle + np.stack([-right - down, -right + down, right + down, right - down])


def test_an_upright_square_is_replaced_inside_and_kept_outside():
    red = np.zeros((160, 160, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    result = paste_back(PORTRAIT, [red], [UPRIGHT], feather=0.25)
    inside = np.zeros(PORTRAIT.shape[:2], bool)
    inside[60:220, 100:260] = True
    np.testing.assert_array_equal(result[~inside], PORTRAIT[~inside])
    np.testing.assert_array_equal(result[110:170, 150:210], red[50:110, 50:110])
    # Half way through the border the smooth step is 1/2.
    row, column = 140, 100 + 19
    share = 19.5 / 40  # the row is the middle one, where the corners' rounding changes nothing
    weight = share * share * (3 - 2 * share)
    want = PORTRAIT[row, column] + weight * (red[0, 0] - PORTRAIT[row, column].astype(float))
    np.testing.assert_array_equal(result[row, column], np.rint(want))


@pytest.mark.parametrize("degrees", [0, 17, -40, 90])
def test_pasting_is_the_inverse_of_alignment(degrees):
    """A crop put back unchanged gives the photograph back, up to resampling."""
    smooth = np.stack(np.meshgrid(np.arange(400.0), np.arange(300.0)), -1)
    photo = np.stack([smooth[..., 0] / 2, smooth[..., 1] / 2, smooth.sum(-1) / 4], -1)
    photo = photo.round().astype(np.uint8)
    quad = turned(degrees)
    landmarks = landmarks_for(quad)
    crop = align(photo, landmarks, CropSettings(size=140, scale=1.0, offset=0.0))
    np.testing.assert_allclose(np.sort(crop.quad, 0), np.sort(quad, 0), atol=0.6)
    result = paste_back(photo, [crop.image], [crop.quad], feather=0.1)
    assert np.abs(result.astype(int) - photo).max() <= 2


def landmarks_for(quad):
    """68 landmarks whose crop is about `quad`: eyes and mouth on the axes of the square."""
    right, down = (quad[3] - quad[0]) / 2, (quad[1] - quad[0]) / 2
    eyes = quad.mean(0) - 0.5
    landmarks = np.tile(eyes, (68, 1))
    landmarks[36:42], landmarks[42:48] = eyes - right / 4, eyes + right / 4
    landmarks[48], landmarks[54] = eyes + down / 1.8 - right / 9, eyes + down / 1.8 + right / 9
    return landmarks


def test_a_size_other_than_the_footprint_does_not_move_the_face():
    ramp = np.tile(np.linspace(0, 255, 640).round().astype(np.uint8)[:, None], (640, 1, 3))
    ramp = ramp.reshape(640, 640, 3)
    large = paste_back(np.zeros((300, 400, 3), np.uint8), [ramp], [turned(0)])
    small = paste_back(np.zeros((300, 400, 3), np.uint8), [ramp[5::10, 5::10]], [turned(0)])
    assert np.abs(large.astype(int) - small)[125:175, 175:225].max() <= 4


def test_several_faces_and_squares_beyond_the_edge():
    white = np.full((50, 50, 3), 255, np.uint8)
    photo = np.zeros((200, 300, 3), np.uint8)
    quads = [turned(20, (80, 100), 30.0), turned(0, (290, 190), 40.0), turned(0, (900, 90), 9.0)]
    result = paste_back(photo, [white] * 3, quads)
    assert result[100, 80].tolist() == [255] * 3
    assert result[190, 290].tolist() == [255] * 3
    assert not result[:, 150:240].any()
    assert not photo.any()


def test_the_covered_part_of_a_crop_that_leaves_the_photograph():
    quad = np.array([[-50, 0], [-50, 100], [50, 100], [50, 0]], np.float64)
    mask = cut_plane(np.ones((100, 200)), quad, 10)
    assert not mask[:, :5].any()
    np.testing.assert_array_equal(mask[:, 5:], 1)
    half = cut_plane(np.ones((100, 200)), quad + (5, 0), 10)
    np.testing.assert_allclose(half[:, 4], 0.5)


def test_a_mask_is_cut_like_the_face():
    plane = np.zeros((300, 400), np.float32)
    plane[:150] = 1
    mask = cut_plane(plane, turned(90), 20)  # turned by 90 degrees: up is right
    assert mask[:, :9].mean() in (0, 1) and mask[:, 11:].mean() == 1 - mask[:, :9].mean()
    x, y = turned(90)[0]
    assert mask[0, 0] == plane[int(y), int(x) - 1]


@pytest.mark.parametrize("feather", [0, 0.6])
def test_a_border_that_cannot_be_is_refused(feather):
    with pytest.raises(ConfigError, match="feather: expected more than 0 and at most 0.5"):
        paste_back(PORTRAIT, [], [], feather)


@pytest.mark.parametrize("distance", [60, 90, 130])
def test_each_pixel_belongs_to_the_nearest_face(distance):
    """What a face may change ends half way to its neighbour, whatever the order."""
    photo = np.full((200, 400, 3), 100, np.uint8)
    quads = [UPRIGHT - [60, 40], UPRIGHT - [60 - distance, 40]]
    faces = [np.full((160, 160, 3), level, np.uint8) for level in (0, 200)]
    both = paste_back(photo, faces, quads)
    np.testing.assert_array_equal(both, paste_back(photo, faces[::-1], quads[::-1]))
    half = 120 + distance // 2  # the middle between the centres
    assert (both[:, :half] <= 100).all() and (both[:, half:] >= 100).all()
    for face, quad, side in zip(faces, quads, (np.s_[:half], np.s_[half:]), strict=True):
        centre = quad.mean(axis=0).astype(int)
        np.testing.assert_array_equal(both[centre[1], centre[0]], face[0, 0])
        alone = paste_back(photo, [face], [quad])
        far = np.abs(np.arange(400) - half) > 0.15 * 160 * 160 / (2 * distance) + 1
        columns = far & np.isin(np.arange(400), np.arange(400)[side])
        np.testing.assert_array_equal(both[80, columns], alone[80, columns])


def test_contents_move_to_where_they_are_sent():
    picture = np.zeros((5, 6, 1), np.float32)
    picture[2, 1] = 8
    shift = np.zeros((5, 6, 2))
    np.testing.assert_array_equal(moved(picture, shift), picture)
    found = moved(picture, shift + [2, -1])[..., 0]
    assert found[1, 3] == 8 and found.sum() == 8
    between = moved(picture, shift + [0.25, 0])[2, :, 0]
    np.testing.assert_array_equal(between, [0, 6, 2, 0, 0, 0])


@pytest.mark.parametrize("degrees", [0, 90])
def test_a_photograph_is_moved_before_a_change_is_added(degrees):
    """A dot in a square of 140 pixels, sent a tenth of its side across: to the right, or down."""
    photo = np.full((300, 400, 3), 100, np.uint8)
    photo[148:152, 198:202] = 200
    shift = np.zeros((8, 8, 2), np.float32)
    shift[..., 0] = 0.1
    change, mask = np.full((4, 4, 3), 20, np.float32), np.ones((4, 4), np.float32)
    result = paste(photo, [Patch(turned(degrees), change, mask, shift)], feather=0.1)
    row, column = (150, 214) if degrees == 0 else (164, 200)
    np.testing.assert_array_equal(result[row - 1 : row + 1, column - 1 : column + 1], 220)
    np.testing.assert_array_equal(result[149:151, 199:201], 120)
    np.testing.assert_array_equal(result[:80], photo[:80])
