import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_model_cache(tmp_path_factory):
    """Exported models go to a folder of this test run, also those of commands it starts."""
    os.environ["PADDLE_SAM_CACHE"] = str(tmp_path_factory.mktemp("model_cache"))
