"""Who a process of a run is, without the other processes (those are in test_train_command.py)."""

import threading
import time

import paddle
import pytest

from paddle_sam.core.device import resolve_device
from paddle_sam.errors import ConfigError
from paddle_sam.training.distributed import World, join_world, meet


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


def test_nobody_leaves_a_meeting_before_the_last_has_come(monkeypatch):
    class Store:  # what the processes share, here shared by threads
        count, lock = 0, threading.Lock()

        def add(self, key, value):
            with self.lock:
                self.count += value
                return self.count

    store, world, log = Store(), World(0, 3), []
    core = paddle.base.core
    monkeypatch.setattr(core, "create_or_get_global_tcp_store", lambda: store)

    def process(rank):
        for meeting in range(4):
            time.sleep(0.03 * (rank == meeting % 3))
            log.append((meeting, "comes"))
            meet(world)
            log.append((meeting, "leaves"))

    processes = [threading.Thread(target=process, args=[rank]) for rank in range(3)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    for meeting in range(4):
        words = [word for number, word in log if number == meeting]
        assert words == ["comes"] * 3 + ["leaves"] * 3
