"""One writer a folder, in real processes."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from paddle_sam.core import folders
from paddle_sam.core.folders import FolderInUseError, one_writer
from paddle_sam.errors import ConfigError, Note, OutputError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    code = (
        "import sys\nfrom paddle_sam.core.folders import one_writer\n"
        "with one_writer(sys.argv[1], 'a run'):\n    print('held', flush=True)\n    input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_learns_who_the_first_is(tmp_path, other):
    with pytest.raises(FolderInUseError) as caught, one_writer(tmp_path, "a training run"):
        pass
    text = str(caught.value)
    assert f"process {other.pid} on {socket.gethostname()}" in text
    assert text.startswith(f"{tmp_path}: ") and "a training run" in text
    assert isinstance(caught.value, ConfigError)


def test_the_lock_goes_with_its_holder(tmp_path, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with one_writer(tmp_path, "a run"):
        assert json.loads((tmp_path / folders.LOCK).read_text())["pid"] == os.getpid()
    assert (tmp_path / folders.LOCK).read_text() == ""
    with one_writer(tmp_path, "a run"):
        pass


def test_a_writer_can_wait(tmp_path, other):
    other.stdin.write("\n")
    other.stdin.flush()
    with one_writer(tmp_path, "a cache", wait=True):
        pass


def test_an_error_inside_releases_it(tmp_path):
    with pytest.raises(ZeroDivisionError), one_writer(tmp_path / "new" / "run", "a run"):
        raise ZeroDivisionError
    with one_writer(tmp_path / "new" / "run", "a run"):
        pass


def test_where_locks_fail_that_is_said_and_a_living_holder_still_noticed(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders, "_lock", fail)
    with pytest.warns(Note, match="no locks .No locks available"), one_writer(tmp_path, "a run"):
        pass
    holder = {"host": socket.gethostname(), "pid": os.getppid(), "since": 0}
    (tmp_path / folders.LOCK).write_text(json.dumps(holder))
    with (
        pytest.raises(FolderInUseError, match=f"process {os.getppid()}"),
        one_writer(tmp_path, "x"),
    ):
        pass
    for dead in ({**holder, "pid": 2**22 + 1}, {**holder, "host": "elsewhere"}, [], {"pid": "x"}):
        (tmp_path / folders.LOCK).write_text(json.dumps(dead))
        with pytest.warns(Note), one_writer(tmp_path, "a run"):
            pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="file.*could not be written"),
        one_writer(tmp_path / "file" / "run", "a run"),
    ):
        pass
