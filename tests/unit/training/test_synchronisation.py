"""How often a training step waits for the device: every copy to the host does."""

import paddle
import pytest

from paddle_sam.training.optimizers import Ranger
from tests.unit.stargan2 import test_trainer as stargan2
from tests.unit.stylegan2.train import tiny as stylegan2
from tests.unit.training import tiny as sam

COPIES = ("numpy", "item", "tolist", "cpu", "__float__", "__int__", "__bool__", "__array__")


@pytest.fixture
def copies(monkeypatch):
    """The names of the tensor methods that copied to the host, innermost calls apart."""
    found, inside = [], []

    def counted(name, method):
        def call(self, *arguments, **named):
            if not inside:
                found.append(name)
            inside.append(name)
            try:
                return method(self, *arguments, **named)
            finally:
                inside.pop()

        return call

    for name in COPIES:
        monkeypatch.setattr(paddle.Tensor, name, counted(name, getattr(paddle.Tensor, name)))
    return found


def test_the_count_counts(copies):
    value = paddle.ones([2])
    float(value.sum()), value.numpy(), value.tolist(), bool(value.sum() > 1)
    assert len(copies) == 4


def test_a_sam_step_waits_at_most_twice(files, copies):
    trainer = sam.trainer(files)
    assert type(trainer.optimizer) is Ranger
    trainer.train_step(sam.batch(), 0)
    copies.clear()
    trainer.train_step(sam.batch(), 1)
    assert len(copies) <= 2, copies


def test_a_stylegan2_step_waits_at_most_twice(copies):
    trainer = stylegan2.make_trainer("ada", augment_p=0.5)
    trainer.train_step(stylegan2.batch(), 0)
    copies.clear()
    trainer.train_step(stylegan2.batch(), 2)  # with both penalties
    assert len(copies) <= 2, copies


def test_a_stargan2_step_waits_at_most_twice(copies):
    trainer = stargan2.make_trainer()
    trainer.train_step(stargan2.batch(), 0)
    copies.clear()
    trainer.train_step(stargan2.batch(), 1)
    assert len(copies) <= 2, copies
