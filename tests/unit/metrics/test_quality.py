"""Quality of single pictures, and the composite of identity and age."""

import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy.ndimage import gaussian_filter

from paddle_sam.ageing.benchmark_summary import TABLES, tables_for
from paddle_sam.errors import ConfigError
from paddle_sam.metrics.quality import face_area, hcs, niqe, psnr_outside, sharpness

PORTRAIT = np.ascontiguousarray(skimage.data.astronaut()[:256, 100:356])


def blurred(image, sigma):
    return gaussian_filter(image, (sigma, sigma, 0))


def test_hcs_reproduces_the_seven_published_rows():
    """Each printed value is one that the row's inputs, known to two decimals, can give.

    The table cuts its values off: 80.427 is printed as 80.42, 72.546 as 72.54. So a row of
    inputs within half of the last decimal has to reach from the printed value to 0.01 above it.
    HRFAE's row is the farthest: its printed inputs give 0.014 more than it says.
    """
    (table,) = [table for table in TABLES if "HCS" in table["columns"]]
    assert len(table["rows"]) == 7
    half = 0.005
    for name, difference, identity, _, published, _ in table["rows"]:
        least = hcs(identity - half, difference + half)
        most = hcs(identity + half, difference - half)
        assert most - least < 0.025
        assert least < published + 0.01 and most >= published, name
        off = hcs(identity, difference) - published
        assert 0 <= off < (0.0145 if name == "HRFAE" else 0.007), name
    assert hcs(0, 10) == 0 and hcs(80, 40) == 0 and hcs(80, 60) == 0
    assert hcs(100, 0) == 100


def test_published_rows_belong_to_protocols():
    for protocol in ("strip", "young60", "lifespan", "cycle", "reference"):
        tables = tables_for(protocol)
        assert tables
        for table in tables:
            assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_niqe_is_that_of_the_reference_and_rises_with_defects():
    """BasicSR 1.4.2 gives 3.065, 5.115 and 2.626 for these pictures."""
    assert niqe(skimage.data.astronaut()) == pytest.approx(3.065, rel=0.02)
    assert niqe(PORTRAIT) == pytest.approx(5.115, rel=0.02)
    assert niqe(skimage.data.chelsea()[:288, :384]) == pytest.approx(2.626, rel=0.02)
    small = Image.fromarray(PORTRAIT).resize((64, 64)).resize((256, 256))
    assert niqe(np.asarray(small)) > niqe(PORTRAIT) + 2
    assert niqe(blurred(PORTRAIT, 3)) > niqe(PORTRAIT) + 2
    assert niqe(np.full((192, 192, 3), 128, np.uint8)) == float("inf")
    with pytest.raises(ConfigError, match=r"NIQE: .*found \(96, 100\)"):
        niqe(PORTRAIT[:96, :100])


def test_sharpness_falls_with_blur():
    values = [sharpness(blurred(PORTRAIT, sigma)) for sigma in (0, 1, 2)]
    assert values[0] > 2 * values[1] > 4 * values[2] > 0
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    # Luma of black and white: 16 and 235, so the Laplacian is -4 and 4 times 219.
    picture = checks[..., None].repeat(3, 2).astype(np.uint8)
    assert sharpness(picture) == pytest.approx((4 * 219) ** 2, rel=0.1)


def test_the_face_area_holds_the_landmarks_and_the_forehead():
    landmarks = np.zeros((68, 2))
    angle = np.linspace(0, np.pi, 17)
    landmarks[:17] = np.stack([50 - 30 * np.cos(angle), 50 + 35 * np.sin(angle)], 1)  # jaw
    landmarks[17:27] = np.stack([np.linspace(25, 75, 10), np.full(10, 40)], 1)  # brows
    landmarks[27:36] = np.stack([np.full(9, 50), np.linspace(45, 65, 9)], 1)  # nose
    landmarks[36:] = [50, 60]
    area = face_area(landmarks, (100, 100))
    assert area[60, 50] and area[30, 50]  # mouth; forehead, above the brows
    assert not area[5, 5] and not area[95, 50] and not area[10, 50]


def test_psnr_looks_outside_the_face_only():
    face = np.zeros((256, 256), bool)
    face[64:192, 64:192] = True
    changed = PORTRAIT.copy()
    changed[face] = 0
    assert psnr_outside(PORTRAIT, changed, face) == float("inf")
    grey = np.full((8, 8, 3), 100, np.uint8)
    outside = np.zeros((8, 8), bool)
    assert psnr_outside(grey, grey + 10, outside) == pytest.approx(20 * np.log10(25.5))
    assert np.isnan(psnr_outside(grey, grey, ~outside))
