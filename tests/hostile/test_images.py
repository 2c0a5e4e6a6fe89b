"""Any damage to an image file of any format is answered: an image, or one line that names it."""

import os
import random
import warnings

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from paddle_sam.core.decoding import decode_image
from paddle_sam.errors import ImageError
from tests.hostile.corpus import FORMATS, encode

SOUND = {
    (kind, mode): encode(random.Random(0), kind, mode)
    for kind, modes in FORMATS.items()
    for mode in modes
}
PATCHES = st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=8)), max_size=4)
CALM = settings(
    max_examples=int(os.environ.get("PADDLE_SAM_FUZZ", "200")),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@seed(0)
@CALM
@given(st.sampled_from(sorted(SOUND)), PATCHES, st.integers(0, 10**6), st.booleans())
def test_any_damaged_image_is_answered(which, patches, end, cut):
    data = bytearray(SOUND[which])
    for where, patch in patches:
        where %= len(data)
        data[where : where + len(patch)] = patch
    if cut:
        del data[end % len(data) :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = decode_image(bytes(data), "odd.png", 1_000_000)
        except ImageError as error:
            assert "odd.png" in str(error) and "\n" not in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            assert image.size <= 3_000_000
