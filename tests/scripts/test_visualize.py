"""`scripts/visualize.py` as a process: it says the truth about its port, and leaves nothing."""

import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from paddle_sam.training.folder import RunLogger
from tests import ROOT

pytest.importorskip("visualdl")


@pytest.fixture
def run(tmp_path):
    logger = RunLogger(tmp_path / "run", say=lambda line: None)
    logger.scalars("train", 1, {"loss": 0.5})
    logger.close()
    return tmp_path / "run"


def start(run, *options):
    command = [sys.executable, str(ROOT / "scripts" / "visualize.py"), str(run), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_the_server_ends_with_its_command_however_that_ends(run, name):
    server = start(run, "--port", "0")
    address = server.stdout.readline().split()[0]
    with urlopen(f"{address}alive", timeout=30) as answer:
        assert answer.status == 204
    server.send_signal(getattr(signal, name))
    server.wait(30)
    server.communicate()
    with pytest.raises(OSError):
        urlopen(address, timeout=5)


@pytest.mark.parametrize("options", [(), ("--host", "localhost")])
def test_a_port_of_another_is_not_announced(run, options):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        server = start(run, "--port", port, *options)
        output, errors = server.communicate(timeout=60)
    assert server.returncode == 2
    assert f"port {port} (" in errors and "Name another --port" in errors
    assert "http" not in output and "Traceback" not in errors


def test_the_curves_are_written_for_tensorboard(run, capsys):
    """Its own reader finds what was logged; a second time nothing is written twice."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from scripts.visualize import main

    output = run.parent / "curves"
    for logs in (run, run.parent):
        words = [str(logs), "--tensorboard", str(output / logs.name)]
        assert main(words) == 0
        (folder,) = capsys.readouterr().out.split()
        assert folder == str(output / logs.name / "run")
        events = accumulator.EventAccumulator(folder).Reload()
        tag = "train/loss"
        assert events.Tags()["tensors"] == [tag]
        (event,) = events.Tensors(tag)
        assert (event.step, event.tensor_proto.float_val[0]) == (1, 0.5)
        assert abs(event.wall_time - run.stat().st_mtime) < 60
    assert main(words) == 2
    assert "exists; name another folder" in capsys.readouterr().err
