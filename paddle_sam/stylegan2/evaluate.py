"""FID and its like of what a generator makes: `scripts/evaluate.py stylegan2`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paddle_sam.core.files import sha256
from paddle_sam.core.processes import batches
from paddle_sam.imagesets.archive import list_sources
from paddle_sam.metrics.sets import feature_store, report, set_measures
from paddle_sam.stylegan2.generator import open_generator
from paddle_sam.stylegan2.options import EvaluationOptions, SamplingOptions
from paddle_sam.stylegan2.sampling import render_seeds


def evaluate_stylegan2(config: EvaluationOptions) -> dict:
    """Compare what a StyleGAN2 generator makes with a folder or archive of images.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    real = list_sources(config.real)
    names = ("checkpoint_path", "truncation", "noise", "batch_size", "device")
    sampling = SamplingOptions(**{name: getattr(config, name) for name in names})
    generator = open_generator(sampling, any_noise=config.noise != "stored")
    store = feature_store(config)
    facts = f"{sha256(generator.source)} {config.truncation} {config.noise}"
    keys = [f"{facts} {seed}" for seed in range(config.num_images)]

    def make(chosen: Sequence[int]) -> list[np.ndarray]:  # as `scripts/sample.py` does
        parts = batches(chosen, config.batch_size)
        return [image for part in parts for image in render_seeds(generator, part, sampling)]

    made = store.of_made(keys, make, "made")
    measures = set_measures(store.of_files(real, "real"), made)
    return report(config, measures | {"real": len(real), "made": len(keys)})
