import numpy as np
import pytest

from paddle_sam.imagesets.prepare.augmentation import ALTERATIONS, augment
from paddle_sam.imagesets.prepare.options import AUGMENTATIONS
from tests.unit.imagesets.prepare.dirty import pictures

IMAGE = pictures(1)[0]


def test_the_options_name_what_there_is():
    assert set(AUGMENTATIONS) == set(ALTERATIONS)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_alters_by_a_little(name):
    altered, (done,) = augment(IMAGE, [name], "x.png", 0)
    assert done.split()[0] == name
    assert altered.shape == IMAGE.shape and altered.dtype == np.uint8
    difference = np.abs(altered.astype(int) - IMAGE).mean()
    assert 0.3 < difference < (120 if name in ("mirror", "crop") else 15)
    if name == "mirror":
        np.testing.assert_array_equal(altered, IMAGE[:, ::-1])


def test_seed_and_name_decide():
    def outcome(key, seed):
        image, done = augment(IMAGE, AUGMENTATIONS, key, seed)
        return image.tobytes(), tuple(done)

    assert outcome("a", 1) == outcome("a", 1)
    assert len({outcome("a", 1), outcome("a", 2), outcome("b", 1)}) == 3


def test_about_half_of_the_alterations_happen():
    counts = [len(augment(IMAGE[:8, :8], AUGMENTATIONS, str(i), 0)[1]) for i in range(60)]
    assert min(counts) >= 1 and 2.5 < np.mean(counts) < 3.6
