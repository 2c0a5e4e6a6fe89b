"""Which images are duplicates, and which of them stays."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from paddle_sam.imagesets.prepare.defects import (
    Candidate,
    Duplicate,
    correlation,
    find_duplicates,
    look_the_same,
    near_pairs,
    perceptual_hash,
    to_grey,
)
from tests.unit.imagesets.prepare.dirty import near, pictures


def candidate(pixels, bits, side=64.0, sharpness=1.0):
    return Candidate(pixels, bits, side, sharpness)


def yes(one, other):
    return True


def test_pairs_are_those_of_a_plain_count():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, 300, np.uint64)
    hashes[100:200] = hashes[:100] ^ np.uint64(0b1011)
    hashes[200] = hashes[3]
    wanted = [
        (i, j)
        for i in range(300)
        for j in range(i + 1, 300)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= 3
    ]
    assert list(near_pairs(hashes, 3)) == wanted
    assert len(wanted) == 102
    assert list(near_pairs(hashes, -1)) == []
    assert list(near_pairs(hashes[:0], 3)) == []


def test_many_hashes_are_compared_in_seconds():
    hashes = np.random.default_rng(0).integers(0, 2**63, 10_000, np.uint64)
    start = time.process_time()
    assert list(near_pairs(hashes, 4)) == []
    assert time.process_time() - start < 5  # a loop over 5e7 pairs takes a minute


def test_the_larger_then_the_sharper_stays():
    images = [
        candidate("a", 0, side=64, sharpness=5),
        candidate("b", 1, side=128, sharpness=1),
        candidate("c", 3, side=128, sharpness=2),
        candidate("d", 0xFFFF, side=999),
    ]
    near = {0: Duplicate(2, "near_duplicate"), 1: Duplicate(2, "near_duplicate")}
    assert find_duplicates(images, 4, yes) == near
    assert find_duplicates(images, 0, yes) == {}


def test_equal_pixels_are_found_whatever_the_hash_search():
    images = [candidate("a", 0), candidate("b", 9), candidate("a", 0)]
    assert find_duplicates(images, -1, yes) == {2: Duplicate(0, "duplicate")}


def test_a_duplicate_names_what_is_kept_in_the_end():
    images = [candidate("a", 0), candidate("a", 0), candidate("b", 1, side=65)]
    found = find_duplicates(images, 4, yes)
    assert found == {0: Duplicate(2, "near_duplicate"), 1: Duplicate(2, "duplicate")}


def test_a_chain_does_not_vanish_into_its_first_image():
    """0 is like 1, and 1 like 2, but 0 is not like 2: only 1 goes."""
    images = [candidate("a", 0b0000), candidate("b", 0b0011), candidate("c", 0b1111)]
    assert find_duplicates(images, 2, yes) == {1: Duplicate(0, "near_duplicate")}


def test_pairs_that_do_not_look_the_same_stay():
    images = [candidate("a", 0), candidate("b", 1)]
    assert find_duplicates(images, 4, lambda one, other: False) == {}


def test_alterations_of_a_picture_are_like_it_and_other_pictures_are_not():
    originals = pictures(11)
    altered = [
        np.asarray(Image.open(io.BytesIO(content)).convert("RGB").resize((64, 64)))
        for content in near(originals).values()
    ]
    hashes = [perceptual_hash(image) for image in (*originals, *altered)]
    for index in range(11):
        assert (hashes[index] ^ hashes[index + 11]).bit_count() <= 10
    originals, altered = ([to_grey(image) for image in images] for images in (originals, altered))
    for index in range(11):
        assert look_the_same(originals[index], altered[index])
        assert look_the_same(altered[index], originals[index])
        assert correlation(originals[index], altered[index - 1]) < 0.9
        assert not look_the_same(originals[index], altered[index - 1])


def test_the_best_correlation_is_that_of_the_place_and_size_it_was_cut_from():
    image = pictures(1)[0]
    whole, part = (
        to_grey(image),
        to_grey(np.ascontiguousarray(image[6:90, 9:93])),
    )
    assert np.corrcoef(whole.ravel(), part.ravel())[0, 1] < 0.9
    assert correlation(whole, part) > 0.97
    assert correlation(whole, whole) == pytest.approx(1)
    assert correlation(whole, 255 - whole) < 0.7


def test_nothing_looks_like_a_blank():
    for level in (0, 255):
        blank, picture = np.full((32, 32), level, np.uint8), to_grey(pictures(1)[0])
        assert correlation(blank, picture) == correlation(picture, blank) == 0
        assert not look_the_same(blank, picture)
