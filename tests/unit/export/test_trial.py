"""Which precision a large network gets: by a trial on this machine, made once; here simulated."""

import numpy as np
import pytest

from paddle_sam.errors import EngineError
from paddle_sam.export import cache as module
from paddle_sam.export import engine as engine_module
from paddle_sam.export.cache import opened_fastest, opened_half


class Network:
    """Stands for an exported network: images with an error, and the seconds it claims."""

    def __init__(self, error=0.0, seconds=1.0, large=True):
        self.error, self.seconds, self.large, self.trials = error, seconds, large, 0

    def example(self):
        return np.linspace(-1, 1, 300, dtype=np.float32).reshape(1, 3, 10, 10)

    def trial(self, example):
        self.trials += 1
        if isinstance(self.error, Exception):
            raise self.error
        return example + np.float32(self.error), self.seconds

    def release(self):
        pass

    def check(self):
        pass


class Opener:
    """Opens a float32 network, or the given bfloat16 one; knows what was opened."""

    def __init__(self, folder, quick, large=True):
        self.folder, self.opened = folder, []
        self.networks = {"float32": Network(large=large), "bfloat16": quick}

    def __call__(self, precision):
        self.opened.append(precision)
        suffix = "" if precision == "float32" else f".{precision}"
        return self.networks[precision], self.folder / f"0123456789ab{suffix}-01234567"


@pytest.fixture
def bfloat16_cpu(cache_folder, monkeypatch):
    monkeypatch.setattr(module, "has_bfloat16", lambda: True)
    return cache_folder


RIGHT, WRONG = 0.005, 0.2  # 52 and 20 dB


@pytest.mark.parametrize(
    ("quick", "chosen"),
    [
        (Network(RIGHT, 0.5), "bfloat16"),
        (Network(RIGHT, 0.95), "float32"),  # not worth it
        (Network(WRONG, 0.5), "float32"),
        (Network(np.nan, 0.5), "float32"),
        (Network(EngineError("no such kernel"), 0.5), "float32"),
    ],
)
def test_auto_takes_bfloat16_where_it_is_right_and_faster(bfloat16_cpu, quick, chosen, capsys):
    opener = Opener(bfloat16_cpu, quick)
    assert opened_fastest(opener)[0] is opener.networks[chosen]
    assert opened_fastest(opener)[0] is opener.networks[chosen]
    assert quick.trials == 1  # the second time it was remembered
    said = capsys.readouterr().err
    wrong = quick.error is not RIGHT
    assert said.count("note: bfloat16 cannot be used here") == wrong


def test_what_is_known_not_to_pay_is_not_opened_again(bfloat16_cpu):
    opener = Opener(bfloat16_cpu, Network(RIGHT, 2.0))
    opened_fastest(opener)
    opener.opened.clear()
    opened_fastest(opener)
    assert opener.opened == ["float32"]


def test_a_small_network_and_an_older_cpu_are_not_tried(cache_folder, monkeypatch):
    small = Opener(cache_folder, Network(RIGHT, 0.1), large=False)
    monkeypatch.setattr(module, "has_bfloat16", lambda: True)
    opened_fastest(small)
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    old = Opener(cache_folder, Network(RIGHT, 0.1))
    opened_fastest(old)
    assert small.opened == old.opened == ["float32"]


def test_another_machine_makes_its_own_trial(bfloat16_cpu, monkeypatch):
    opener = Opener(bfloat16_cpu, Network(RIGHT, 0.5))
    opened_fastest(opener)
    monkeypatch.setattr(module, "cpu_threads", lambda: 77)
    opened_fastest(opener)
    assert opener.networks["bfloat16"].trials == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [(WRONG, "20 dB"), (np.nan, "nan dB"), (EngineError("no such kernel"), "no such kernel")],
)
def test_bfloat16_asked_for_is_refused_where_it_is_wrong(bfloat16_cpu, error, message):
    opener = Opener(bfloat16_cpu, Network(error, 0.5))
    for _ in range(2):
        with pytest.raises(EngineError, match=message):
            opened_half(opener, "bfloat16")
    assert opener.networks["bfloat16"].trials == 1


def test_bfloat16_asked_for_need_not_be_faster(bfloat16_cpu):
    opener = Opener(bfloat16_cpu, Network(RIGHT, 3.0))
    assert opened_half(opener, "bfloat16")[0] is opener.networks["bfloat16"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("sse avx512_bf16 x", True), ("amx_bf16", True), ("avx512f amx_bf16x", False), ("", False)],
)
def test_instructions_are_read_from_the_processors_flags(monkeypatch, flags, expected):
    monkeypatch.setattr(engine_module, "cpu_facts", lambda name: {"flags": flags}.get(name, ""))
    assert engine_module.has_bfloat16() is expected
