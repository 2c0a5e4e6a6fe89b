"""A whole SAM or pSp training run from its options (`scripts/train.py`)."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from paddle_sam.ageing.train.networks import assemble, build_loss, judges, weight_path
from paddle_sam.ageing.train.options import SAMOptions, data_folders
from paddle_sam.ageing.train.trainer import SAMTrainer
from paddle_sam.core.files import check_outside
from paddle_sam.core.weights import WeightFile
from paddle_sam.imagesets.loader import BatchLoader, ImagePairs, identify_images
from paddle_sam.training.distributed import World
from paddle_sam.training.folder import Identity, identify_file, numbered
from paddle_sam.training.run import Intervals, Job, start_run


def train_sam(options: SAMOptions) -> Path:
    """Train, or resume training, in `options.exp_dir`; returns that folder. See `start_run`."""
    options = numbered(options)
    train = ImagePairs(*data_folders(options, "train"))
    test = ImagePairs(*data_folders(options, "test"), options.max_test_images)

    def build(world: World, resumed: WeightFile | None) -> Job:
        assembled = assemble(options, resumed)
        loss = build_loss(options, assembled.network.latent_avg)
        training, testing = (
            BatchLoader(
                data,
                assembled.network.input_size,
                workers,
                options.max_bad_images,
                options.cache_images,
                report=tqdm.write,
            )
            for data, workers in ((train, options.workers), (test, options.test_workers))
        )
        return Job(
            SAMTrainer(assembled, loss, options, world),
            Intervals.of(options),
            training,
            lambda: testing.once(options.test_batch_size),
        )

    return start_run(options, build, _inputs(options, train, test))


def _inputs(options: SAMOptions, train: ImagePairs, test: ImagePairs) -> dict[str, Identity]:
    """Identify the data of both splits, and the networks that judge."""
    found = {}
    for split, data in (("train", train), ("test", test)):
        source, target = data_folders(options, split)
        found[f"{split}_data"] = identify_images(source, data.sources)
        if target:
            found[f"{split}_target"] = identify_images(target, data.targets)
        for place in filter(None, (source, target)):
            check_outside("--exp_dir", Path(options.exp_dir), Path(place))
    return found | {name: identify_file(weight_path(options, name)) for name in judges(options)}
