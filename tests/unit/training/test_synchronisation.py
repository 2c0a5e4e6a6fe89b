"""How often a training step waits for the device."""

import paddle

from paddle_sam.training.ranger import Ranger
from tests.unit.stargan2 import test_trainer as stargan2
from tests.unit.stylegan2.train import tiny as stylegan2
from tests.unit.training import tiny as sam


def test_the_count_counts(host_copies):
    value = paddle.ones([2])
    float(value.sum()), value.numpy(), value.tolist(), bool(value.sum() > 1)
    value.copy_(value + 1, False)
    assert len(host_copies) == 4
    value.copy_(value + 1, True)
    assert host_copies[4:] == ["copy_"]


def test_a_sam_step_waits_at_most_twice(files, host_copies):
    trainer = sam.trainer(files)
    assert type(trainer.optimizer) is Ranger
    trainer.train_step(sam.batch(), 0)
    host_copies.clear()
    trainer.train_step(sam.batch(), 1)
    assert len(host_copies) <= 2, host_copies


def test_a_stylegan2_step_waits_at_most_twice(host_copies):
    trainer = stylegan2.make_trainer("ada", augment_p=0.5)
    trainer.train_step(stylegan2.batch(), 0)
    host_copies.clear()
    trainer.train_step(stylegan2.batch(), 2)  # with both penalties
    assert len(host_copies) <= 2, host_copies


def test_a_stargan2_step_waits_at_most_twice(host_copies):
    trainer = stargan2.make_trainer()
    trainer.train_step(stargan2.batch(), 0)
    host_copies.clear()
    trainer.train_step(stargan2.batch(), 1)
    assert len(host_copies) <= 2, host_copies
