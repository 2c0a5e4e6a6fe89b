"""Work in other processes, and where there can be none."""

import errno
import functools
import os
import signal
import threading

import pytest

from paddle_sam.core import processes
from paddle_sam.core.processes import ahead, in_processes, reading_pool, stop_signals
from paddle_sam.errors import ImageError, Note


def shout(end, word):
    return word.upper() + end


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSYS, "Function not implemented"), ImportError()]
)
def test_without_semaphores_a_thread_does_the_work(monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(processes, "ProcessPoolExecutor", refuse)
    with pytest.warns(Note, match="no pools of processes"):
        done = dict(in_processes(functools.partial(shout, "!"), ["a", "b"], 1, died=None))
    assert done == {"a": "A!", "b": "B!"}
    with pytest.warns(Note), reading_pool(2) as pool:  # a thread can set no signal handlers
        assert pool.submit(os.getpid).result() == os.getpid()


def test_without_workers_a_thread_reads_ahead():
    done, read = threading.Semaphore(0), []

    def sample(index):
        read.append(threading.current_thread())
        done.release()
        return index

    with reading_pool(0) as pool:
        jobs = ahead(range(100), lambda index: pool.submit(sample, index))
        assert next(jobs).result() == 0
        for _ in range(4):  # three more than were asked for
            assert done.acquire(timeout=10)
    assert len(read) == 4
    assert threading.main_thread() not in read


def test_what_cannot_be_read_is_raised_where_it_is_asked_for():
    def sample(index):
        raise ImageError(f"{index}: damaged")

    with reading_pool(0) as pool:
        jobs = list(ahead(range(2), lambda index: pool.submit(sample, index)))
        with pytest.raises(ImageError, match="1: damaged"):
            jobs[1].result()


@pytest.mark.parametrize("interrupt", [True, False])
def test_a_second_ctrl_c_acts_as_usual_but_not_a_second_sigterm(interrupt, capfd):
    before = signal.getsignal(signal.SIGINT)
    with stop_signals(interrupt) as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.wait(1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            stop.wait(0)
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr().err.count("stopping after this step") == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_each_signal_to_end_is_heard(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with stop_signals() as stop:
        os.kill(os.getpid(), number)
        assert stop.wait(1)
    assert signal.getsignal(number) is before


def test_under_nohup_a_closed_terminal_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.wait(0.05)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
