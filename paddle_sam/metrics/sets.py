"""Sets of images judged by their features: two folders, a generator, a translator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from paddle_sam.core.device import resolve_device
from paddle_sam.core.files import sha256, write_json
from paddle_sam.core.weights import locate
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import list_sources
from paddle_sam.metrics.feature_store import FeatureStore
from paddle_sam.metrics.features import open_alex_store, open_store
from paddle_sam.metrics.options import (
    ALEXNET,
    FeatureOptions,
    GeneratorOptions,
    SetsOptions,
    StarGAN2EvaluationOptions,
)
from paddle_sam.stargan2.domains import Domains
from paddle_sam.stargan2.protocol import (
    Protocol,
    TranslationEvaluation,
    diversity_store,
    set_measures,
)
from paddle_sam.stargan2.system import StarGAN2
from paddle_sam.stylegan2.generator import StyleGenerator, checkpoint
from paddle_sam.stylegan2.options import SamplingOptions
from paddle_sam.stylegan2.sampling import render_seeds


def evaluate_sets(config: SetsOptions) -> dict:
    """Compare two folders or archives of images.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    _required(config, "real", "made")
    # Before weights are read, so that a mistyped path is noticed at once.
    real, made = (list_sources(place) for place in (config.real, config.made))
    store = _store(config)
    measures = set_measures(store.of_files(real, "real"), store.of_files(made, "made"))
    return _report(config, measures | {"real": len(real), "made": len(made)})


def evaluate_stylegan2(config: GeneratorOptions) -> dict:
    """Compare what a StyleGAN2 generator makes with a folder or archive of images.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    _required(config, "real")
    real = list_sources(config.real)
    names = ("checkpoint_path", "truncation", "noise", "batch_size", "device")
    sampling = SamplingOptions(**{name: getattr(config, name) for name in names})
    path = checkpoint(sampling)
    generator = StyleGenerator.open(path, sampling, any_noise=config.noise != "stored")
    store = _store(config)
    facts = f"{sha256(path)} {config.truncation} {config.noise}"
    keys = [f"{facts} {seed}" for seed in range(config.num_images)]
    made = store.of_made(keys, image_maker(generator, sampling), "made")
    measures = set_measures(store.of_files(real, "real"), made)
    return _report(config, measures | {"real": len(real), "made": len(keys)})


def evaluate_stargan2(config: StarGAN2EvaluationOptions) -> dict:
    """Run StarGAN v2's protocol; a second call goes on where the first was interrupted.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    path = config.weight_file()
    train = Domains(config.train_img_dir, "train_img_dir")
    val = Domains(config.val_img_dir, "val_img_dir")
    system = StarGAN2.from_file(path, config.wing_path, config.device)
    config.expect(system.num_domains, system.generator.w_hpf)
    evaluation = TranslationEvaluation(
        system,
        "".join(sha256(locate(file)) for file in (path, config.wing_path) if file),
        train,
        val,
        Path(config.eval_dir),
        diversity_store(config.lpips_path, Path(config.cache_dir)),
        None if config.no_fid else _store(config),
        Protocol(config.num_outs_per_domain, config.val_batch_size, config.seed, config.max_images),
    )
    return _report(config, evaluation.run())


def image_maker(
    generator: StyleGenerator, config: SamplingOptions
) -> Callable[[Sequence[int]], list[np.ndarray]]:
    """What makes the images of seeds, uint8 RGB [S, S, 3] each, as `scripts/sample.py` does."""

    def make(seeds: Sequence[int]) -> list[np.ndarray]:
        size = config.batch_size
        batches = (seeds[start : start + size] for start in range(0, len(seeds), size))
        return [image for batch in batches for image in render_seeds(generator, batch, config)]

    return make


def _store(config: FeatureOptions) -> FeatureStore:
    if config.features == ALEXNET:
        resolve_device(config.device)
        return open_alex_store(config.lpips_path, config.cache_dir, config.batch_size)
    return open_store(
        config.inception_path,
        config.cache_dir,
        config.device,
        resizing=config.resizing,
        batch_size=config.batch_size,
    )


def _required(config: FeatureOptions, *names: str) -> None:
    fields = {field.name: field for field in dataclasses.fields(config)}
    for name in names:
        if not getattr(config, name):
            raise ConfigError(f"--{name}: is needed: {fields[name].metadata['help']}")


def _report(config: FeatureOptions, results: Mapping) -> dict:
    """Add how the results were made, and write them if asked."""
    report = {"features": config.features, "resizing": config.resizing, **results}
    if config.output:
        write_json(config.output, report)
    return report
