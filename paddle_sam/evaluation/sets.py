"""Sets of images judged by their features: two folders, a generator, a translator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.common.checks import CheckpointError, ConfigError
from paddle_sam.common.files import sha256, write_json
from paddle_sam.common.images import to_uint8
from paddle_sam.configs.evaluate import (
    FeatureConfig,
    GeneratorConfig,
    SetsConfig,
    StarGAN2EvaluationConfig,
)
from paddle_sam.data.archive import list_sources
from paddle_sam.data.domains import Domains
from paddle_sam.losses.lpips import load_lpips
from paddle_sam.metrics.feature_store import FeatureStore
from paddle_sam.metrics.inception_features import open_store
from paddle_sam.metrics.translation import Protocol, TranslationEvaluation, set_measures
from paddle_sam.models.checkpoint import load
from paddle_sam.models.stargan2_system import StarGAN2
from paddle_sam.models.stylegan2 import Generator

_MEAN_LATENTS = 4096


def evaluate_sets(config: SetsConfig) -> dict:
    """Compare two folders or archives of images.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    _required(config, "real", "made")
    store = _store(config)
    real, made = (list_sources(place) for place in (config.real, config.made))
    measures = set_measures(store.of_files(real, "real"), store.of_files(made, "made"))
    return _report(config, measures | {"real": len(real), "made": len(made)})


def evaluate_stylegan2(config: GeneratorConfig) -> dict:
    """Compare what a StyleGAN2 generator makes with a folder or archive of images.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    _required(config, "checkpoint_path", "real")
    generator = load(config.checkpoint_path, device=config.device)
    if not isinstance(generator, Generator):
        raise CheckpointError(
            f"{config.checkpoint_path}: expected a StyleGAN2 generator, found"
            f" {type(generator).__name__}"
        )
    store = _store(config)
    real = list_sources(config.real)
    facts = f"{sha256(config.checkpoint_path)} {config.seed} {config.truncation}"
    keys = [f"{facts} {index}" for index in range(config.num_images)]
    make = image_maker(generator, config.seed, config.truncation, config.batch_size)
    measures = set_measures(store.of_files(real, "real"), store.of_made(keys, make, "made"))
    return _report(config, measures | {"real": len(real), "made": len(keys)})


def evaluate_stargan2(config: StarGAN2EvaluationConfig) -> dict:
    """Run StarGAN v2's protocol; a second call goes on where the first was interrupted.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    path = config.weight_file()
    system = StarGAN2.from_file(path, config.wing_path, config.device)
    config.expect(system.num_domains, system.generator.w_hpf)
    evaluation = TranslationEvaluation(
        system,
        "".join(sha256(file) for file in (path, config.wing_path) if file),
        Domains(config.train_img_dir, "train_img_dir"),
        Domains(config.val_img_dir, "val_img_dir"),
        Path(config.eval_dir),
        load_lpips(config.lpips_path),
        None if config.no_fid else _store(config),
        Protocol(config.num_outs_per_domain, config.val_batch_size, config.seed, config.max_images),
    )
    return _report(config, evaluation.run())


def image_maker(
    generator: Generator, seed: int, truncation: float = 1.0, batch_size: int = 32
) -> Callable[[Sequence[int]], list[np.ndarray]]:
    """What makes the images of these numbers: uint8 RGB [S, S, 3] each.

    Latent and noise of an image are drawn for its number alone, so neither the batch nor the
    order matters.
    """
    shapes = [noise.shape[1:] for noise in generator.noises.as_list()]
    centre = _mean_latent(generator) if truncation != 1 else None

    def draw(index: int) -> list[np.ndarray]:
        rng = np.random.default_rng((seed, index))
        return [
            rng.standard_normal(shape, np.float32) for shape in ([generator.style_dim], *shapes)
        ]

    def make(indices: Sequence[int]) -> list[np.ndarray]:
        made = []
        for start in range(0, len(indices), batch_size):
            drawn = [draw(index) for index in indices[start : start + batch_size]]
            z, *noise = (paddle.to_tensor(np.stack(part)) for part in zip(*drawn, strict=True))
            with paddle.no_grad():
                images = generator(
                    [z], truncation=truncation, truncation_latent=centre, noise=noise
                )
            made.extend(to_uint8(images.numpy()))
        return made

    return make


def _mean_latent(generator: Generator) -> paddle.Tensor:
    """Mean [1, D] of w: the one that training kept, or over random z."""
    if generator.latent_avg is not None:
        return generator.latent_avg.reshape([1, -1])
    z = np.random.default_rng(0).standard_normal([_MEAN_LATENTS, generator.style_dim], np.float32)
    with paddle.no_grad():
        return generator.style(paddle.to_tensor(z)).mean(axis=0, keepdim=True)


def _store(config: FeatureConfig) -> FeatureStore:
    return open_store(
        config.inception_path,
        config.cache_dir,
        config.device,
        resizing=config.resizing,
        batch_size=config.batch_size,
    )


def _required(config: FeatureConfig, *names: str) -> None:
    fields = {field.name: field for field in dataclasses.fields(config)}
    for name in names:
        if not getattr(config, name):
            raise ConfigError(f"--{name}: is needed: {fields[name].metadata['help']}")


def _report(config: FeatureConfig, results: Mapping) -> dict:
    """Add how the results were made, and write them if asked."""
    report = {"resizing": config.resizing, **results}
    if config.output:
        write_json(config.output, report)
    return report
