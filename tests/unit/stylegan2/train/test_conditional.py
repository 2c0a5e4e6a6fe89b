"""Training with labels: which image gets which, and that the networks use them."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import list_sources, write_archive
from paddle_sam.stylegan2.train.draws import Draws, Labels, Part
from paddle_sam.stylegan2.train.growth import Archs
from paddle_sam.stylegan2.train.run import read_labels
from paddle_sam.stylegan2.train.trainer import G, Step, StyleGAN2Trainer
from scripts.train_stylegan2 import main
from tests import DEVICE
from tests.unit.stylegan2.train import tiny
from tests.unit.stylegan2.train.tiny import TINY, batch

CLASSES = 3


def image_bytes(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def labels():
    by_image = {Path(str(index)): index % CLASSES for index in range(4)}
    return Labels(by_image, np.array([0, 1, 2, 0]), CLASSES)


def make_trainer(**changes):
    options = dataclasses.replace(TINY, **changes)
    archs = Archs.of_options(options, CLASSES)
    return StyleGAN2Trainer(archs, options, "none", labels=labels())


@pytest.fixture
def archive(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(6)]
    pictures = [(f"{index}.png", image_bytes(image)) for index, image in enumerate(images)]
    classes = [[name, index % 2] for index, (name, _) in enumerate(pictures)]
    write_archive(tmp_path / "labelled.zip", pictures, {"labels": classes})
    return tmp_path / "labelled.zip"


def test_real_images_keep_their_labels_and_fakes_have_those_of_the_data():
    trainer = make_trainer()
    seen = {}
    forward = trainer.discriminator.forward

    def watch(images, given=None):
        seen.setdefault("labels", []).append(given.numpy())
        return forward(images, given)

    trainer.discriminator.forward = watch
    trainer.train_step(batch(), 1)  # no lazy updates
    fake_g, fake_d, real = seen["labels"]
    np.testing.assert_array_equal(real, np.eye(3, dtype="f4")[[0, 1, 2, 0]][_order(trainer)])
    for fake in (fake_g, fake_d):
        assert fake.shape == (4, CLASSES) and (fake.sum(axis=1) == 1).all()


def _order(trainer):
    (part,) = trainer.parts
    return part.places


def test_drawn_labels_are_as_frequent_as_in_the_data():
    part = Part(np.arange(4), 1.0)
    numbers = np.array([0, 0, 0, 1])
    found = np.concatenate([Draws(TINY, step).labels(part, G, numbers) for step in range(200)])
    assert 0.2 < found.mean() < 0.3
    np.testing.assert_array_equal(Draws(TINY, 7).labels(part, G, numbers), found[28:32])


def test_a_step_trains_everything_that_belongs_to_labels():
    trainer = make_trainer()
    before = {name: p.numpy().copy() for name, p in trainer.generator.named_parameters()}
    before |= {f"d.{name}": p.numpy() for name, p in trainer.discriminator.named_parameters()}
    values = trainer.train_step(batch(), 0)
    assert np.isfinite(values["loss"])
    after = dict(trainer.generator.named_parameters())
    after |= {f"d.{name}": p for name, p in trainer.discriminator.named_parameters()}
    for name in ("embed.weight", "style.1.weight", "d.embed.weight", "d.mapping.1.weight"):
        assert np.abs(after[name].numpy() - before[name]).max() > 0, name
    panel = trainer.panel()
    np.testing.assert_array_equal(panel, trainer.panel())


def test_labels_come_from_archives(archive, tmp_path):
    sets = [(str(archive), list_sources(archive), 2)]
    found = read_labels(sets)
    assert found.classes == 2 and found.numbers.tolist() == [0, 1, 0, 1, 0, 1] * 2
    np.testing.assert_array_equal(found.of(sets[0][1][:2]), [[1, 0], [0, 1]])
    write_archive(tmp_path / "bare.zip", [("0.png", image_bytes(np.zeros((16, 16, 3), "u1")))],
                  {"labels": None})  # fmt: skip
    with pytest.raises(ConfigError, match="cond: .*bare.zip states no classes"):
        read_labels([(str(tmp_path / "bare.zip"), list_sources(tmp_path / "bare.zip"), 1)])


def test_a_conditional_run_resumes_to_the_same_bits(archive, tmp_path, capsys):
    given = [f"--{name}={value}" for name, value in {
        "train_data": archive, "resolution": 16, "latent_dim": 6, "mapping_layers": 2,
        "channel_base": 96, "channel_max": 6, "batch_size": 4, "mbstd_group": 2,
        "num_workers": 0, "device": DEVICE, "save_kimg": 0.008, "snapshot_kimg": 0.008,
    }.items()]  # fmt: skip
    given.append("--cond")
    assert main([*given, f"--exp_dir={tmp_path / 'one'}", "--total_kimg=0.016"]) == 0
    for kimg in ("0.008", "0.016"):
        assert main([*given, f"--exp_dir={tmp_path / 'two'}", f"--total_kimg={kimg}"]) == 0
    one, two = (
        WeightFile.read(tmp_path / name / "checkpoints" / "iteration_4.pdparams")
        for name in ("one", "two")
    )
    assert one.networks["g"].arch["classes"] == 2
    for name, entry in one.networks.items():
        for key, array in entry.state.items():
            np.testing.assert_array_equal(array, two.networks[name].state[key])
    capsys.readouterr()
    start = f"--init_from={tmp_path / 'one' / 'checkpoints' / 'iteration_4.pdparams'}"
    assert main([*given[:-1], start, f"--exp_dir={tmp_path / 'three'}"]) == 2
    assert "cond: the data has 0 classes, the networks to start from 2" in capsys.readouterr().err


def test_losses_without_labels_need_none():
    step = Step(tiny.make_trainer(), Draws(TINY, 0), paddle.zeros([4]))
    part = Part(np.arange(4), 1.0)
    assert step.labels_of_real(part) is None and step.labels_of_fake(part, G) is None
