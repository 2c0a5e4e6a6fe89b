"""Sets of images compared by their features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from paddle_sam.core.device import resolve_device
from paddle_sam.core.files import sha256, write_json
from paddle_sam.core.weights import locate
from paddle_sam.imagesets.archive import list_sources
from paddle_sam.metrics.features import (
    ALEX_SIZE,
    TORCHVISION,
    AlexFeatures,
    FeatureStore,
    fid,
    kid,
    open_store,
    precision_recall,
)
from paddle_sam.metrics.options import FeatureOptions, SetsOptions
from paddle_sam.networks.image_features import load_lpips


def evaluate_sets(config: SetsOptions) -> dict:
    """Compare two folders or archives of images."""
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
        extract = AlexFeatures(load_lpips(config.lpips_path), ALEX_SIZE, config.batch_size)
        weights = sha256(locate(config.lpips_path))
        settings = {"features": "AlexNet", "size": ALEX_SIZE, "weights": weights}
        return FeatureStore(Path(config.cache_dir), extract, settings)
    torchvision = config.features == TORCHVISION
    return open_store(
        config.torchvision_path if torchvision else config.inception_path,
        config.cache_dir,
        config.device,
        resizing=TORCHVISION if torchvision else config.resizing,
        batch_size=config.batch_size,
    )


def report(config: FeatureOptions, results: Mapping) -> dict:
    """Return the results with how they were made; write them to `output` if given."""
    resizing = TORCHVISION if config.features == TORCHVISION else config.resizing
    report = {"features": config.features, "resizing": resizing, **results}
    if config.output:
        write_json(config.output, report)
    return report
