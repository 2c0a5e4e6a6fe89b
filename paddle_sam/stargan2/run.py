"""A whole StarGAN v2 training run from its options (`scripts/stargan2.py --mode train`)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_sam.core.device import seed_everything
from paddle_sam.errors import ConfigError
from paddle_sam.metrics.distances import NEIGHBOURS
from paddle_sam.metrics.features import open_store
from paddle_sam.options import to_json
from paddle_sam.stargan2.domains import DomainBatch, DomainLoader, Domains, read_domains
from paddle_sam.stargan2.options import StarGAN2Options
from paddle_sam.stargan2.protocol import Protocol, TranslationEvaluation, diversity_store
from paddle_sam.stargan2.system import StarGAN2, load_fan
from paddle_sam.stargan2.trainer import StarGAN2Trainer, ValidationSet, build_networks
from paddle_sam.training.checkpoint import RunCheckpoints
from paddle_sam.training.distributed import join_world
from paddle_sam.training.loop import Intervals, Run, check_options, prepare_folder

_SHOWN_PER_DOMAIN = 3


def train_stargan2(config: StarGAN2Options) -> Path:
    """Train, or go on training, in `config.exp_dir`; returns that folder.

    Raises:
        PaddleSamError: the options, data or weights cannot be used, or a loss became NaN.
    """
    folder = Path(config.exp_dir)
    check_options(folder, config)
    world = join_world(config.device)
    seed_everything(config.seed)
    mine = world.share(config.batch_size)
    domains = Domains(config.train_img_dir, "train_img_dir")
    held_out = Domains(config.val_img_dir, "val_img_dir")
    domains.expect(config.num_domains)
    held_out.expect_names_of(domains)
    validation = _validation(held_out, config)
    judge = TranslationJudge(config, domains, held_out) if world.rank == 0 else None

    checkpoints, step = RunCheckpoints(folder / "checkpoints"), config.resume_iter
    resumed = checkpoints.read(step) if step else checkpoints.read_latest()
    fan = load_fan(config.wing_path, config.device) if config.w_hpf > 0 else None
    trainer = StarGAN2Trainer(build_networks(config), config, fan, validation, world, judge)
    intervals = Intervals(
        max_steps=config.total_iters,
        board_interval=config.print_every,
        image_interval=config.sample_every,
        val_interval=config.eval_every,
        save_interval=config.save_every,
    )
    run = Run(
        folder, trainer, intervals, config.lr, config.batch_size, config.keep_checkpoints, world
    )
    run.resume(resumed)
    del resumed
    if world.rank == 0:
        prepare_folder(folder, to_json(config))
    loader = DomainLoader(
        domains,
        config.img_size,
        config.randcrop_prob,
        config.num_workers,
        config.max_bad_images,
        report=tqdm.write,
    )

    def batches_from(step: int) -> Iterator[DomainBatch]:
        return loader.training(config.batch_size, config.seed, step, mine)

    run.train(batches_from, lambda: _batches(validation, config.val_batch_size))
    return folder


class TranslationJudge:
    """StarGAN v2's own measures of a network in training, on the run's validation images.

    They are those of `scripts/evaluate.py stargan2`, on fewer images; what is translated is not
    kept. With FID its mean over latents and references is the `loss` that the best model has
    least of.

    Args:
        config: the run's options.
        train, val: its domains.

    Raises:
        PaddleSamError: weights are missing, a domain is too small for a measure, or a training
            image cannot be read.
    """

    def __init__(self, config: StarGAN2Options, train: Domains, val: Domains):
        self._train, self._val = train, val
        self._diversities = None if config.no_lpips else diversity_store(config.lpips_path, None)
        self._protocol = Protocol(
            config.num_outs_per_domain, config.val_batch_size, config.seed, config.max_val_images
        )
        self._features = None
        if not config.no_fid and len(val) > 1:
            shown = min(len(files[: config.max_val_images or None]) for files in val.files)
            real, made = min(map(len, train.files)), config.num_outs_per_domain * shown
            if min(real, made) <= NEIGHBOURS:
                raise ConfigError(
                    f"train_img_dir, val_img_dir: of a domain there are {real} training images and"
                    f" {made} translations, expected more than {NEIGHBOURS} of each for precision"
                    " and recall; give --no_fid"
                )
            folder = Path(config.exp_dir) / "features"
            self._features = open_store(config.inception_path, folder, config.device)
            # Now, not at the first validation, so that an unreadable image is known at once.
            for name, files in zip(train.names, train.files, strict=True):
                self._features.of_files(files, f"{name}: real")

    def __call__(self, system: StarGAN2) -> dict[str, float]:
        """Means over all pairs of domains: `latent/FID`, `reference/LPIPS` and so on."""
        if len(self._val) < 2 or not (self._diversities or self._features):
            return {}
        with tempfile.TemporaryDirectory() as folder:
            found = TranslationEvaluation(
                system,
                "in training",
                self._train,
                self._val,
                Path(folder),
                self._diversities,
                self._features,
                self._protocol,
                keep_features=False,
            ).run()
        measures = {
            f"{guide}/{name}": values["mean"]
            for guide, by_name in found.items()
            for name, values in by_name.items()
        }
        if self._features is not None:
            measures["loss"] = float(np.mean([measures[f"{guide}/FID"] for guide in found]))
        return measures


def _validation(domains: Domains, config: StarGAN2Options) -> ValidationSet:
    images, labels = read_domains(domains, config.img_size, config.max_val_images)
    firsts = [np.flatnonzero(labels == label)[:_SHOWN_PER_DOMAIN] for label in range(len(domains))]
    return ValidationSet(images, labels, np.concatenate(firsts))


def _batches(validation: ValidationSet, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(validation.images), size):
        part = slice(start, start + size)
        yield validation.images[part], validation.domains[part]
