import os
import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_model_cache(tmp_path_factory):
    """Exported models go to a folder of this test run, also those of commands it starts."""
    os.environ["PADDLE_SAM_CACHE"] = str(tmp_path_factory.mktemp("model_cache"))


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heard():
    """Shells start what they run in the background deaf to Ctrl-C; some tests send one."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
