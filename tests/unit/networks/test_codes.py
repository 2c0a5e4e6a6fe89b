"""Which layers are coarse, middle and fine, at every size."""

import pytest

from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.networks.stylegan2_ops import first_resolution, noise_resolutions, style_ranges

# Size: first code of the middle range, of the fine range, and one past the last.
EXPECTED = {
    16: (2, 4, 6),
    32: (2, 4, 8),
    64: (2, 4, 10),
    128: (4, 8, 12),
    256: (4, 8, 14),
    512: (4, 8, 16),
    1024: (4, 8, 18),
}


@pytest.mark.parametrize(("size", "borders"), EXPECTED.items())
def test_ranges_follow_the_size(size, borders):
    ranges = style_ranges(size)
    assert list(ranges) == ["coarse", "middle", "fine"]
    middle, fine, end = borders
    assert list(ranges.values()) == [range(middle), range(middle, fine), range(fine, end)]


def test_the_resolutions_of_the_papers_at_1024():
    assert [first_resolution(codes) for codes in style_ranges(1024).values()] == [4, 16, 64]
    assert [first_resolution(codes) for codes in style_ranges(64).values()] == [4, 8, 16]


def test_noise_maps_have_the_sides_of_the_generators():
    generator = Generator(32, 8, 1, dict.fromkeys((4, 8, 16, 32), 2))
    sides = [noise.shape[-1] for noise in generator.noises.as_list()]
    assert noise_resolutions(32) == sides == [4, 8, 8, 16, 16, 32, 32]


def test_too_small_a_generator_is_refused():
    with pytest.raises(ConfigError, match="a generator of 16 px or more, found 8"):
        style_ranges(8)
