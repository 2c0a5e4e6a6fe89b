"""Where networks run: devices, threads."""

import ast
import os
import re
import signal
import subprocess
import sys
import types

import numpy as np
import paddle
import pytest
from paddle.base import core

from paddle_sam.core import device
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import ConfigError, EngineError
from paddle_sam.networks.load import load
from tests import ROOT


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "expected auto, cpu, gpu or gpu:N, found 'tpu'"),
        ("gpu:first", "found 'gpu:first'"),
        ("gpu:99", "gpu:99 is not there"),
        ("gpu:\u00b2", "found 'gpu:\u00b2'"),
    ],
)
def test_devices_that_are_not_there_are_named(name, message):
    with pytest.raises(ConfigError, match=f"device: .*{message}"):
        device.resolve_device(name)


@pytest.mark.parametrize(("asked", "given"), [(None, [3]), ("1", [])])
def test_layers_use_all_cpus_unless_the_user_says_how_many(monkeypatch, asked, given):
    threads = []
    monkeypatch.setattr(core, "set_num_threads", threads.append)
    monkeypatch.setattr(device, "cpu_threads", lambda: 3)
    monkeypatch.setattr(device, "_ASKED_THREADS", asked)
    assert device.resolve_device("cpu") == "cpu"
    assert threads == given


def test_pytorchs_name_of_a_gpu_is_taken(monkeypatch):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 2)
    assert device.find_device("cuda:1") == device.find_device("gpu:1") == "gpu:1"
    assert device.find_device("cuda") == "gpu:0"
    with pytest.raises(ConfigError, match="gpu:2 is not there"):
        device.find_device("cuda:2")


@pytest.mark.parametrize(
    ("files", "cpus", "threads"),
    [
        ({"cpu.max": "max 100000"}, 64, 64),
        ({"cpu.max": "50000 100000"}, 64, 1),
        ({"cpu.max": "250000 100000"}, 64, 3),
        ({"cpu.max": "6400000 100000"}, 8, 8),
        ({"quota": "-1", "period": "100000"}, 64, 64),
        ({"quota": "400000", "period": "100000"}, 64, 4),
        ({"quota": "400000"}, 64, 64),
        ({}, 64, 64),
    ],
)
def test_a_containers_share_of_the_cpus_counts(monkeypatch, tmp_path, files, cpus, threads):
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cpus), raising=False)
    quotas = ((tmp_path / "cpu.max",), (tmp_path / "quota", tmp_path / "period"))
    monkeypatch.setattr(device, "_QUOTAS", quotas)
    assert device.cpu_threads() == threads


def test_a_device_for_a_while_leaves_the_callers(monkeypatch):
    devices = ["gpu:1"]
    monkeypatch.setattr(paddle.device, "get_device", lambda: devices[-1])
    monkeypatch.setattr(paddle.device, "set_device", devices.append)
    with pytest.raises(ZeroDivisionError), device.on_device("cpu") as name:
        assert (name, devices[-1]) == ("cpu", "cpu")
        raise ZeroDivisionError
    assert devices == ["gpu:1", "cpu", "gpu:1"]
    load(find_weight("age_mini"), device="cpu")
    assert devices[-1] == "gpu:1"


def test_what_the_user_says_is_read_before_paddle_overwrites_it():
    lines = "from paddle_sam.core import device; import paddle, os;"
    lines += "print(device._ASKED_THREADS, os.environ['OMP_NUM_THREADS'])"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", lines]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "None 1"


def test_a_kill_needs_no_explanation():
    lines = "import os, signal; from paddle_sam.core.device import resolve_device;"
    lines += "resolve_device('cpu'); os.kill(os.getpid(), signal.SIGTERM)"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert "FatalError" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("2.6.2", (2, 6, 2)),
        ("3.0.0-rc1", (3, 0, 0)),
        ("3.2.2.post117", (3, 2, 2)),
        ("0.0.0", (99,)),
    ],
)
def test_versions_of_paddle_are_numbers(monkeypatch, version, numbers):
    monkeypatch.setattr(paddle, "__version__", version)
    assert device.paddle_version() == numbers


def test_a_paddle_that_is_too_old_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(paddle, "__version__", "2.5.1")
    with pytest.raises(ConfigError, match="PaddlePaddle 2.5.1 is installed; 2.6.2 is the oldest"):
        device.resolve_device("cpu")


@pytest.mark.parametrize(
    ("version", "where", "reason"),
    [
        ("2.6.2", "cpu", "another format; 3.0 is the oldest"),
        ("2.6.2", "gpu:0", "another format"),
        ("3.3.1", "cpu", "crashes in oneDNN"),
        ("3.3.1", "gpu:0", None),
        ("3.0.0", "cpu", None),
    ],
)
def test_an_engine_that_cannot_run_says_so_and_what_to_install(monkeypatch, version, where, reason):
    monkeypatch.setattr(paddle, "__version__", version)
    if reason is None:
        device.check_engine(where)
        return
    with pytest.raises(EngineError, match=f"PaddlePaddle {version}.*{reason}.*paddle==3.2.2"):
        device.check_engine(where)


MAKERS = {"to_tensor", "arange", "linspace", "zeros", "ones", "full", "eye", "empty", "randperm"}
MAKERS |= {"rand", "randn", "uniform", "normal", "standard_normal"}


def makers_without_a_place(source: str) -> list[str]:
    """Statements that make a tensor on the current device, in functions that are given tensors."""
    makers, found = {f"paddle.{name}" for name in MAKERS}, []
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    for function in functions:
        given = [*function.args.args, *function.args.kwonlyargs]
        kinds = [ast.unparse(one.annotation) for one in given if one.annotation]
        tensors = any("Tensor" in one and "Callable" not in one for one in kinds)
        if not tensors and function.name != "forward":
            continue
        for statement in ast.walk(function):
            if isinstance(statement, ast.Assign | ast.Return | ast.Expr | ast.AugAssign):
                parts = ast.walk(statement)
                calls = {ast.unparse(part.func) for part in parts if isinstance(part, ast.Call)}
                words = ast.unparse(statement)
                if makers & calls and not re.search("place|device_of", words):
                    found.append(f"{function.name}: {words}")
    return found


def test_functions_make_tensors_where_their_inputs_are():
    here = "def forward(self, x):\n    return x + paddle.zeros([3])"
    assert makers_without_a_place(here) == ["forward: return x + paddle.zeros([3])"]
    assert not makers_without_a_place(here.replace("zeros([3])", "to_tensor(1, place=x.place)"))
    assert not makers_without_a_place("def make(size: int):\n    return paddle.zeros([size])")
    for path in (ROOT / "paddle_sam").rglob("*.py"):
        assert not makers_without_a_place(path.read_text(encoding="utf-8")), path


def test_a_constant_is_made_once_for_each_type_and_device(monkeypatch):
    made = []
    monkeypatch.setattr(paddle, "to_tensor", lambda *given: made.append(given))
    for dtype, place in (("float32", "gpu:1"), ("float64", "cpu"), ("float32", "gpu:1")):
        beside = types.SimpleNamespace(dtype=dtype, place=f"Place({place})")
        device.constant_beside(beside, np.arange, 4)
    assert [given[1:] for given in made] == [("float32", "gpu:1"), ("float64", "cpu")]
    device._constant.cache_clear()
    monkeypatch.undo()
    x = paddle.zeros([2])
    found = device.constant_beside(x, np.arange, 3)
    assert (found.dtype, str(found.place), found.tolist()) == (x.dtype, str(x.place), [0, 1, 2])
