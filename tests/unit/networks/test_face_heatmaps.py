import numpy as np
import paddle
import pytest

from paddle_sam.errors import ConfigError
from paddle_sam.networks.face_heatmaps import (
    FaceHeatmaps,
    landmarks_from_heatmaps,
    masks_from_heatmaps,
)


def point(landmark, row, column, value=1.0):
    heatmaps = np.zeros((1, 98, 256, 256), np.float32)
    heatmaps[0, landmark, row, column] = value
    return paddle.to_tensor(heatmaps)


def test_landmarks_are_a_quarter_pixel_towards_the_warmer_neighbour():
    heatmaps = np.zeros((1, 3, 8, 6))
    heatmaps[0, 0, 4, 2], heatmaps[0, 0, 4, 3], heatmaps[0, 0, 3, 2] = 1.0, 0.5, 0.2
    heatmaps[0, 1, 0, 2], heatmaps[0, 1, 0, 3] = 1.0, 0.5  # on the border: its centre
    heatmaps[0, 2, 5, 4] = 1.0  # neighbours alike
    found = landmarks_from_heatmaps(heatmaps)
    assert found.tolist() == [[[2.75, 4.25], [2.5, 0.5], [4.5, 5.5]]]


@pytest.mark.parametrize(
    ("landmark", "whole", "centre"),
    [
        (10, [100], []),  # chin
        (40, [107], []),  # an eyebrow moves down
        (51, [100], [100]),
        (53, [96], [96]),  # the nose moves up
        (57, [92], [92]),
        (62, [108, 124], [108, 124]),  # an eye and the shadow below it
        (79, [108], []),
        (85, [92], []),
        (90, [102], []),
        (97, [100], [100]),
        (3, [], []),  # the ends of outlines are left out
        (33, [], []),
        (46, [], []),
        (76, [], []),
        (82, [], []),
    ],
)
def test_each_part_moves_into_the_masks_it_belongs_to(landmark, whole, centre):
    masks = masks_from_heatmaps(point(landmark, 100, 50))
    for mask, rows in zip(masks, (whole, centre), strict=True):
        assert [[r, 50] for r in rows] == np.argwhere(mask.numpy()[0, 0] > 0.5).tolist()
        assert float(mask.sum()) == pytest.approx(len(rows), abs=1e-4)


def test_weak_heat_is_cut_and_the_rest_spread_to_one():
    heatmaps = point(10, 100, 50, 0.4)
    heatmaps[0, 10, 20, 20] = 0.2
    heatmaps[0, 10, 30, 30] = 0.09
    mask = masks_from_heatmaps(heatmaps)[0][0, 0]
    assert float(mask[100, 50]) == pytest.approx(1.0, abs=1e-4)
    assert float(mask[20, 20]) == pytest.approx(0.5**3, abs=1e-4)
    assert float(mask[30, 30]) == 0


def test_landmarks_are_in_the_pixels_of_the_image():
    network = FaceHeatmaps(channels=8)
    images = paddle.randn([1, 3, 128, 512])
    heatmaps = network(images)
    assert heatmaps.shape == [1, 98, 64, 64]
    in_heatmap = landmarks_from_heatmaps(heatmaps.numpy())
    np.testing.assert_array_equal(network.landmarks(images), in_heatmap * [8.0, 2.0])
    masks = network.masks(images)
    assert [mask.shape for mask in masks] == [[1, 1, 256, 256]] * 2
    assert all(0 <= float(mask.min()) <= float(mask.max()) <= 1 for mask in masks)


def test_the_network_is_frozen():
    network = FaceHeatmaps(channels=8)
    assert not network.training
    assert all(parameter.stop_gradient for parameter in network.parameters())


def test_errors_say_what_was_expected():
    with pytest.raises(ConfigError, match=r"images: expected shape \[\*, 3, \*, \*\]"):
        FaceHeatmaps(8)(paddle.zeros([1, 4, 64, 64]))
    with pytest.raises(ConfigError, match=r"heatmaps: expected shape \[\*, 98, 256, 256\]"):
        masks_from_heatmaps(paddle.zeros([1, 98, 64, 64]))


def test_masks_upload_nothing(monkeypatch):
    heatmaps = point(40, 100, 50)
    monkeypatch.setattr(paddle, "to_tensor", None)
    masks_from_heatmaps(heatmaps)
