import pytest

from paddle_sam.ageing.pipeline import AgePipeline


@pytest.fixture(scope="session")
def pipeline():
    """The embedded default, layer by layer; not to be changed."""
    return AgePipeline.from_checkpoint(device="cpu", engine="eager")
