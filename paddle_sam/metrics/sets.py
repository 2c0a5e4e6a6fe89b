"""Sets of images compared by their features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from paddle_sam.core.device import resolve_device
from paddle_sam.core.files import write_json
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.archive import list_sources
from paddle_sam.metrics.features import (
    TORCHVISION,
    FeatureStore,
    fid,
    kid,
    open_alex_store,
    open_store,
    precision_recall,
)
from paddle_sam.metrics.options import FeatureOptions, SetsOptions


def evaluate_sets(config: SetsOptions) -> dict:
    """Compare two folders or archives of images.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    require(config, "real", "made")
    # Before weights are read, so that a mistyped path is noticed at once.
    real, made = (list_sources(place) for place in (config.real, config.made))
    store = feature_store(config)
    measures = set_measures(store.of_files(real, "real"), store.of_files(made, "made"))
    return report(config, measures | {"real": len(real), "made": len(made)})


def set_measures(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """FID, KID, precision and recall of features [M, D] `made` against [N, D] `real`."""
    precision, recall = precision_recall(real, made)
    return {
        "FID": fid(real, made),
        "KID": kid(real, made)[0],
        "precision": precision,
        "recall": recall,
    }


def feature_store(config: FeatureOptions) -> FeatureStore:
    """Open what the options compare images by, with the features kept in `cache_dir`.

    Raises:
        PaddleSamError: the weights or the device cannot be used.
    """
    resolve_device(config.device)
    if config.features == "alexnet":
        return open_alex_store(config.lpips_path, config.cache_dir, config.batch_size)
    torchvision = config.features == TORCHVISION
    return open_store(
        config.torchvision_path if torchvision else config.inception_path,
        config.cache_dir,
        config.device,
        resizing=TORCHVISION if torchvision else config.resizing,
        batch_size=config.batch_size,
    )


def require(config: FeatureOptions, *names: str) -> None:
    """Raise `ConfigError` if one of these options is empty."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    for name in names:
        if not getattr(config, name):
            raise ConfigError(f"--{name}: is needed: {fields[name].metadata['help']}")


def report(config: FeatureOptions, results: Mapping) -> dict:
    """Return the results with how they were made; write them to `output` if given."""
    resizing = TORCHVISION if config.features == TORCHVISION else config.resizing
    report = {"features": config.features, "resizing": resizing, **results}
    if config.output:
        write_json(config.output, report)
    return report
