import pytest

from paddle_sam.core.device import check_engine
from paddle_sam.errors import EngineError


@pytest.fixture(scope="session", autouse=True)
def engine_runs():
    """Skip what a Paddle cannot run that is not the pinned one (tests/versions.py)."""
    try:
        check_engine("cpu")
    except EngineError as error:
        pytest.skip(str(error))
