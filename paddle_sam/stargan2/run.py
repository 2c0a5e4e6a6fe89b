"""A whole StarGAN v2 training run from its options (`scripts/stargan2.py --mode train`)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.core.files import check_outside
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import WeightFile, locate
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.loader import identify_images
from paddle_sam.metrics.features import NEIGHBOURS, FeatureStore, open_store
from paddle_sam.stargan2.domains import DomainLoader, Domains, read_domains
from paddle_sam.stargan2.options import StarGAN2Options
from paddle_sam.stargan2.protocol import Protocol, TranslationEvaluation, diversity_store
from paddle_sam.stargan2.system import StarGAN2, load_fan
from paddle_sam.stargan2.trainer import StarGAN2Trainer, ValidationSet
from paddle_sam.training.distributed import World
from paddle_sam.training.folder import identify_file, numbered
from paddle_sam.training.run import Intervals, Job, start_run

_SHOWN_PER_DOMAIN = 3


def train_stargan2(options: StarGAN2Options) -> Path:
    """Train, or resume training, in `options.exp_dir`; returns that folder. See `start_run`."""
    options = numbered(options)
    domains = Domains(options.train_img_dir, "train_img_dir")
    held_out = Domains(options.val_img_dir, "val_img_dir")
    domains.expect(options.num_domains)
    held_out.expect_names_of(domains)

    every = (options.print_every, options.sample_every, options.eval_every, options.save_every)

    def build(world: World, resumed: WeightFile | None) -> Job:
        validation = _validation(held_out, options)
        judge = translation_judge(options, domains, held_out) if world.rank == 0 else None
        fan = load_fan(options.wing_path, options.device) if options.w_hpf > 0 else None
        return Job(
            StarGAN2Trainer(options, fan, validation, world, judge),
            Intervals(options.total_iters, *every),
            DomainLoader(
                domains,
                options.img_size,
                options.randcrop_prob,
                options.num_workers,
                options.max_bad_images,
                report=tqdm.write,
            ),
            lambda: zip(
                batches(validation.images, options.val_batch_size),
                batches(validation.domains, options.val_batch_size),
                strict=True,
            ),
        )

    inputs = {}
    for data in (domains, held_out):
        check_outside("--exp_dir", Path(options.exp_dir), data.root)
        images = [image for files in data.files for image in files]
        facts = list(zip(data.names, map(len, data.files), strict=True))
        inputs[data.option] = identify_images(str(data.root), images, facts)
    if options.w_hpf > 0:
        inputs["wing_path"] = identify_file(locate(options.wing_path))
    return start_run(options, build, inputs, options.resume_iter or None)


def translation_judge(
    options: StarGAN2Options, train: Domains, val: Domains
) -> Callable[[StarGAN2], dict[str, float]]:
    """Return what measures a network in training on the run's validation images.

    The measures are those of `scripts/evaluate.py stargan2`, on fewer images, as means over all
    pairs of domains: `latent/FID`, `reference/LPIPS` and so on. The mean FID over latents and
    references is the `loss` by which the best model is chosen. Translations are not kept.

    Raises:
        PaddleSamError: weights are missing, a domain is too small for a measure, or a training
            image cannot be read.
    """
    diversities = None if options.no_lpips else diversity_store(options.lpips_path, None)
    features = None if options.no_fid or len(val) < 2 else _real_features(options, train, val)
    protocol = Protocol(
        options.num_outs_per_domain, options.val_batch_size, options.seed, options.max_val_images
    )

    def judge(system: StarGAN2) -> dict[str, float]:
        if len(val) < 2 or (diversities is None and features is None):
            return {}
        with tempfile.TemporaryDirectory() as folder:
            found = TranslationEvaluation(
                *(system, "in training", train, val, Path(folder), diversities, features, protocol),
                keep_features=False,
            ).run()
        measures = {
            f"{guide}/{name}": values["mean"]
            for guide, by_name in found.items()
            for name, values in by_name.items()
        }
        if features is not None:
            measures["loss"] = float(np.mean([measures[f"{guide}/FID"] for guide in found]))
        return measures

    return judge


def _real_features(options: StarGAN2Options, train: Domains, val: Domains) -> FeatureStore:
    """Return the features of all training images.

    Now, not at the first validation, so that an unreadable image is known at once.
    """
    shown = min(len(files[: options.max_val_images or None]) for files in val.files)
    real, made = min(map(len, train.files)), options.num_outs_per_domain * shown
    if min(real, made) <= NEIGHBOURS:
        raise ConfigError(
            f"train_img_dir, val_img_dir: of a domain there are {real} training images and {made}"
            f" translations, expected more than {NEIGHBOURS} of each for precision and recall; give"
            " --no_fid"
        )
    store = open_store(options.inception_path, Path(options.exp_dir) / "features", options.device)
    for name, files in zip(train.names, train.files, strict=True):
        store.of_files(files, f"{name}: real")
    return store


def _validation(domains: Domains, options: StarGAN2Options) -> ValidationSet:
    images, labels = read_domains(domains, options.img_size, options.max_val_images)
    firsts = [np.flatnonzero(labels == label)[:_SHOWN_PER_DOMAIN] for label in range(len(domains))]
    return ValidationSet(images, labels, np.concatenate(firsts))
