import os
import signal

import paddle
import pytest

from tests import DEVICE


def pytest_sessionstart():
    paddle.set_device(DEVICE)  # for fixtures that are made once


@pytest.fixture(autouse=True)
def device():
    """Give each test the same device and switches, whatever those before it have set."""
    paddle.set_device(DEVICE)
    paddle.set_grad_enabled(True)
    paddle.set_default_dtype("float32")
    return DEVICE


@pytest.fixture(scope="session", autouse=True)
def own_model_cache(tmp_path_factory):
    """Exported models go to a folder of this test run, also those of commands it starts."""
    os.environ["PADDLE_SAM_CACHE"] = str(tmp_path_factory.mktemp("model_cache"))


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heard():
    """Shells start what they run in the background deaf to Ctrl-C; some tests send one."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
