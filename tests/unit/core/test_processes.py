"""Work in other processes, and where there can be none."""

import errno
import os
import signal
from concurrent.futures.thread import BrokenThreadPool

import pytest

from paddle_sam.core import processes
from paddle_sam.core.processes import in_processes, process_pool
from paddle_sam.errors import ConfigError, Note

STARTED = []


def start(word):
    STARTED.append(word)


def shout(word):
    return word.upper() + STARTED[-1]


def fail():
    raise ConfigError("--device: tpu is not there")


def handle_signals():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSYS, "Function not implemented"), ImportError()]
)
def test_without_semaphores_a_thread_does_the_work(monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(processes, "ProcessPoolExecutor", refuse)
    with pytest.warns(Note, match="no pools of processes"):
        done = dict(in_processes(shout, ["a", "b"], 1, start=start, arguments=("!",), died=None))
    assert done == {"a": "A!", "b": "B!"}
    with pytest.warns(Note), process_pool(1, fail) as pool, pytest.raises(BrokenThreadPool):
        pool.submit(os.getpid).result()
    with pytest.warns(Note), process_pool(2, handle_signals) as pool:
        assert pool.submit(os.getpid).result() == os.getpid()
