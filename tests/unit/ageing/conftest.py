import pytest

from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.stylegan2.generator import StyleGenerator
from tests.unit.ageing.tiny import tiny_generator


@pytest.fixture(scope="session")
def pipeline():
    """The embedded default, layer by layer; not to be changed."""
    return AgePipeline.from_checkpoint(device="cpu", engine="eager")


@pytest.fixture(scope="session")
def generator():
    """A StyleGAN2 of the smallest size; not to be changed."""
    return StyleGenerator(tiny_generator())
