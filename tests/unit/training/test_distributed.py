"""Who a process of a run is, and what two of them (together.py) say to each other."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
import pytest

from paddle_sam.core.device import resolve_device
from paddle_sam.errors import ConfigError, TrainingError
from paddle_sam.training import distributed
from paddle_sam.training.distributed import World, join_world, meet
from tests import ROOT


def test_each_process_has_its_share_of_a_batch():
    assert [World(rank, 3).share(6) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(ConfigError, match="batch_size: 4 cannot be shared by 3 processes"):
        World(0, 3).share(4)


def test_alone_the_device_is_the_one_that_was_named():
    assert join_world("cpu") == World(0, 1)
    with pytest.raises(ConfigError, match="device: expected auto, cpu, gpu or gpu:N"):
        join_world("tpu")


@pytest.mark.parametrize("name", ["auto", "gpu", "gpu:0"])
def test_with_several_processes_each_takes_the_gpu_assigned_to_it(monkeypatch, name):
    """Whenever a device is asked for: networks that judge are loaded after the run has begun."""
    taken = []
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(paddle.device, "set_device", taken.append)
    assert resolve_device(name) == "gpu:0"
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "4")
    monkeypatch.setenv("FLAGS_selected_gpus", "3")
    assert resolve_device(name) == "gpu:3"
    assert taken == ["gpu:0", "gpu:3"]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What together.py found in one process, and in each of two."""
    folder = tmp_path_factory.mktemp("together")
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    launch += ["--log_dir", str(folder / "logs")]
    found = []
    for processes, words in ((1, []), (2, launch)):
        done = subprocess.run(
            [sys.executable, *words, str(ROOT / "tests/unit/training/together.py"), str(folder)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found += [json.loads((folder / f"{r}.json").read_text()) for r in range(processes)]
    return found


@pytest.mark.parametrize("parts", ["parts_1", "parts_2"])
def test_gradients_of_two_processes_are_those_of_one_on_the_whole_batch(together, parts):
    alone, *others = (found[parts] for found in together)
    for other in others:
        assert other["gradients"].keys() == alone["gradients"].keys()
        for name, gradient in other["gradients"].items():
            np.testing.assert_allclose(gradient, alone["gradients"][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("parts", ["parts_1", "parts_2"])
def test_gradients_are_sent_while_backward_still_computes_others(together, parts):
    """All buckets but those that wait for parameters without gradients."""
    for found in together[1:]:
        buckets = found[parts]["buckets"]
        assert buckets >= 3
        assert found[parts]["sent"] == [found[parts]["sent"][0]] * 2
        assert found[parts]["sent"][0] >= buckets - 1


def test_batch_norm_of_two_processes_is_that_of_one_on_the_whole_batch(together):
    alone, *shares = (found["batch_norm"] for found in together)
    for name in ("y", "x_grad", "weight_grad", "bias_grad", "mean", "variance"):
        if name in ("y", "x_grad"):
            found = np.concatenate([share[name] for share in shares])
        elif name.endswith("grad"):
            found = np.sum([share[name] for share in shares], axis=0)
        else:
            found = np.array(shares[0][name])
            np.testing.assert_array_equal(found, shares[1][name])
        np.testing.assert_allclose(found, alone[name], rtol=1e-4, atol=2e-5, err_msg=name)
    for share in shares:
        np.testing.assert_allclose(share["in 16 bits"], share["y"], rtol=2**-7, atol=0.03)


def test_nobody_leaves_a_meeting_before_the_last_has_come(together):
    _, first, second = (np.array(found["times"]) for found in together)
    assert (np.diff(first) > 0.45).all() and (np.diff(second) > 0.45).all()
    assert np.abs(first - second).max() < 0.2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_has_ended_is_noticed_by_those_who_wait(monkeypatch, rank):
    """Whether it is waited for, or would be told that this one is here."""
    here, there = multiprocessing.Pipe()
    monkeypatch.setattr(distributed, "_lines", lambda world: [here])
    there.send_bytes(b".")
    meet(World(rank, 2))
    there.close()
    with pytest.raises(TrainingError, match="another process of this run has ended"):
        meet(World(rank, 2))


def test_a_first_process_that_ends_before_the_first_meeting_is_noticed(monkeypatch):
    class Store:
        def get(self, name):
            raise ValueError("(InvalidArgument) TCP connection reset by peer.")

    monkeypatch.setattr(paddle.base.core, "create_or_get_global_tcp_store", Store)
    with pytest.raises(TrainingError, match="another process of this run has ended"):
        meet(World(1, 3))


def test_strangers_do_not_keep_the_processes_of_a_run_apart(monkeypatch):
    """One connects and says nothing, one speaks HTTP, one guesses; then the second process."""
    store, known = {}, threading.Event()

    class Store:
        def set(self, name, text):
            store[name] = text.encode()
            known.set()

        def get(self, name):
            return store[name]

    monkeypatch.setattr(paddle.base.core, "create_or_get_global_tcp_store", Store)
    monkeypatch.setattr(distributed, "_PATIENCE", 0.1)
    connect = distributed._lines.__wrapped__
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(connect, World(0, 2))
        assert known.wait(10)
        host, port, _ = store["meeting"].decode().split()
        strangers = [socket.create_connection((host, int(port))) for _ in range(3)]
        strangers[1].sendall(b"GET / HTTP/1.0\r\n\r\n")
        strangers[2].sendall((16).to_bytes(4, "big") + b"0123456789abcdef")
        (second,) = connect(World(1, 2))
        (line,) = first.result(10)
    line.send_bytes(b"!")
    assert second.recv_bytes() == b"!"
    for end in (line, second, *strangers):
        end.close()


def test_on_gpus_nobody_polls_or_waits(monkeypatch):
    """Collectives of GPUs have no limit of time."""
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(distributed, "_lines", None)
    meet(World(0, 2))
