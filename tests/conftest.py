import os
import signal

import paddle
import psutil
import pytest

from tests import DEVICE

WORKER_BYTES = 5 << 30  # what a process that runs a share of the tests takes at most


@pytest.hookimpl(optionalhook=True)  # pytest alone, as tests.versions installs it, has no such hook
def pytest_xdist_auto_num_workers(config):
    """As many processes as CPUs and memory allow; tests of full size run one after another."""
    if "full_size" in config.option.markexpr.replace("not full_size", ""):
        return 0
    together = psutil.virtual_memory().available // WORKER_BYTES
    return int(min(psutil.cpu_count(), together)) if together > 1 else 0


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
