"""Work in other processes, and where there can be none."""

import errno
import functools
import os
import threading

import pytest

from paddle_sam.core import processes
from paddle_sam.core.processes import ahead, in_processes, reading_pool
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
