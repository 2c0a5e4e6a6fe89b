"""A StyleGAN2 trainer small enough for a test, and images for it."""

import dataclasses
from pathlib import Path

import numpy as np

from paddle_sam.imagesets.loader import Batch
from paddle_sam.stylegan2.train.growth import Archs
from paddle_sam.stylegan2.train.options import StyleGAN2Options
from paddle_sam.stylegan2.train.trainer import StyleGAN2Trainer

TINY = StyleGAN2Options(
    resolution=16,
    latent_dim=6,
    mapping_layers=2,
    channel_base=96,
    channel_max=6,
    batch_size=4,
    mbstd_group=2,
    path_interval=2,
    r1_interval=2,
    r1_gamma=5.0,
    ada_kimg=1.0,
    g_lr=1e-3,
    d_lr=2e-3,
    total_kimg=0.024,
)


def make_trainer(augment="none", start=None, archs=None, **changes):
    config = dataclasses.replace(TINY, **changes)
    trainer = StyleGAN2Trainer(archs or Archs.of_options(config), config, augment, start)
    for layer in [trainer.generator.conv1, *trainer.generator.convs]:
        layer.noise.weight.set_value(np.array([0.1], np.float32))  # starts at 0: no effect
    return trainer


def batch(size=4, seed=0, resolution=16):
    images = np.random.default_rng(seed).uniform(-1, 1, (size, 3, resolution, resolution))
    return Batch(images.astype("float32"), None, tuple(Path(str(i)) for i in range(size)))


def state(trainer):
    return {
        f"{name}.{key}": value.copy()
        for name, entry in trainer.state.entries().items()
        for key, value in entry.state.items()
    }
