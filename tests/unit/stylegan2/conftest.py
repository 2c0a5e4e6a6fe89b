import pytest

from paddle_sam.stylegan2.generator import StyleGenerator
from tests.unit.ageing.tiny import tiny_generator


@pytest.fixture(scope="session")
def generator():
    """A StyleGAN2 of the smallest size; not to be changed."""
    return StyleGenerator(tiny_generator())
