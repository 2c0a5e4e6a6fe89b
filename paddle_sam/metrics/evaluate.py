"""Whole evaluations from their options (`scripts/evaluate.py`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from paddle_sam.common.checks import ConfigError
from paddle_sam.common.files import atomic_path, sha256
from paddle_sam.configs.evaluate import FeatureConfig, SetsConfig, StarGAN2EvaluationConfig
from paddle_sam.data.archive import list_sources
from paddle_sam.data.domains import Domains
from paddle_sam.losses.lpips import load_lpips
from paddle_sam.metrics.feature_store import FeatureStore
from paddle_sam.metrics.inception_features import InceptionFeatures
from paddle_sam.metrics.translation import Protocol, TranslationEvaluation, set_measures
from paddle_sam.models.stargan2_system import StarGAN2


def evaluate_sets(config: SetsConfig) -> dict:
    """Compare two folders or archives of images.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    for name in ("real", "made"):
        if not getattr(config, name):
            raise ConfigError(f"--{name}: name a folder or archive of images")
    store = feature_store(config)
    real, made = (list_sources(folder) for folder in (config.real, config.made))
    measures = set_measures(store.of_files(real, "real"), store.of_files(made, "made"))
    return _report(config, measures | {"real": len(real), "made": len(made)})


def evaluate_stargan2(config: StarGAN2EvaluationConfig) -> dict:
    """Run StarGAN v2's protocol; a second call goes on where the first was interrupted.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    if not config.checkpoint_path:
        raise ConfigError("--checkpoint_path: name a StarGAN v2 weight file")
    evaluation = TranslationEvaluation(
        StarGAN2.from_file(config.checkpoint_path, config.wing_path, config.device),
        "".join(sha256(path) for path in (config.checkpoint_path, config.wing_path) if path),
        Domains(config.train_img_dir, "train_img_dir"),
        Domains(config.val_img_dir, "val_img_dir"),
        Path(config.eval_dir),
        load_lpips(config.lpips_path),
        None if config.no_fid else feature_store(config),
        Protocol(config.num_outs_per_domain, config.batch_size, config.seed, config.max_images),
    )
    return _report(config, evaluation.run())


def feature_store(config: FeatureConfig) -> FeatureStore:
    """Inception features as the options say, kept in `cache_dir`."""
    features = InceptionFeatures.from_file(
        config.inception_path,
        config.device,
        resizing=config.resizing,
        batch_size=config.batch_size,
    )
    return FeatureStore(Path(config.cache_dir), features, features.settings)


def _report(config: FeatureConfig, results: Mapping) -> dict:
    """Add how the results were made, and write them if asked."""
    report = {"resizing": config.resizing, **results}
    if config.output:
        with atomic_path(config.output) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report
