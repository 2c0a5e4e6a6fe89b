"""Training of the age regressor (DEX VGG): a whole run, its data and its step.

The classes 0-100 are learned by cross entropy, and their expectation, which is what the network
answers, by its absolute error (Rothe et al. 2018, section 3, and Pan et al. 2018).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from tqdm import tqdm

from paddle_sam.ageing.train.age_labels import read_ages
from paddle_sam.ageing.train.options import AGE_SIZES, AgeOptions
from paddle_sam.core.device import seed_of
from paddle_sam.core.files import check_outside
from paddle_sam.core.images import captioned_grid, to_uint8
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import WeightFile, load_strict
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.imagesets.archive import ImageSource, list_sources
from paddle_sam.imagesets.loader import Batch, BatchLoader, ImagePairs, identify_images
from paddle_sam.networks.face_networks import AgeRegressor, expected_age
from paddle_sam.networks.image_features import IMAGE_MEAN, IMAGE_STD, load_lpips
from paddle_sam.training.distributed import (
    GradientMeans,
    World,
    check_finite,
    read_values,
    send_from_first,
)
from paddle_sam.training.folder import Identity, numbered
from paddle_sam.training.run import Intervals, Job, start_run
from paddle_sam.training.trainers import RunState

_PANEL = (2, 4)


def train_age(options: AgeOptions) -> Path:
    """Train, or resume training, in `options.exp_dir`; returns that folder. See `start_run`."""
    options = numbered(options)
    ages, *images = _split(options)

    def build(world: World, resumed: WeightFile | None) -> Job:
        trainer = AgeTrainer(options, ages, world, resumed)
        training, testing = (
            BatchLoader(
                ImagePairs(part),
                trainer.network.input_size,
                options.workers,
                options.max_bad_images,
                options.cache_images,
                report=tqdm.write,
            )
            for part in images
        )
        test_batches = functools.partial(testing.once, options.test_batch_size)
        return Job(trainer, Intervals.of(options), training, test_batches)

    return start_run(options, build, _inputs(options, ages, images))


class AgeTrainer:
    """Trains an `AgeRegressor`.

    Args:
        options: of the run.
        ages: years by image.
        world: the processes of the run.
        resumed: the checkpoint that the run resumes from, which says what to build.
    """

    def __init__(
        self,
        options: AgeOptions,
        ages: Mapping[ImageSource, float],
        world: World | None = None,
        resumed: WeightFile | None = None,
    ):
        self.options = options
        self.ages = ages
        self.world = world or World()
        self.learning_rate = options.learning_rate
        started = None
        if options.checkpoint_path and resumed is None:
            started = WeightFile.read(options.checkpoint_path, "--checkpoint_path", usual="dex")
        arch = architecture(options, resumed or started)
        self.network = AgeRegressor(**arch)
        if started is not None:
            load_strict(self.network, started.entry().state, started.label, consume=True)
        elif options.vgg_path and resumed is None:
            start_from_vgg(self.network, options.vgg_path)
        parameters = self.network.parameters()
        self.optimizer = paddle.optimizer.Adam(options.learning_rate, parameters=parameters)
        self._last: tuple[paddle.Tensor, ...] | None = None
        send_from_first(self.network.state_dict().values(), self.world)
        self.means = GradientMeans(parameters, self.world)
        self.state = RunState(lambda: WeightFile("dex_vgg", options=dataclasses.asdict(options)))
        self.state.network("dex_vgg", self.network, "age_regressor", arch)
        self.state.optimizer("optimizer", self.optimizer, self.network)

    def train_step(self, batch: Batch, step: int) -> dict[str, float]:
        """Do step number `step` (0 is the first) on this process's share of its batch.

        Returns:
            losses and the error in years.

        Raises:
            TrainingError: the loss is not a finite number. No parameter has changed then.
        """
        paddle.seed(seed_of(self.options.seed, step, self.world.rank))
        self.network.train()
        years = self._years(batch)
        images, _ = batch.tensors()
        logits = self.network(images)
        classes = F.cross_entropy(logits, years.round().astype("int64"))
        found = expected_age(logits)
        error = (found - years).abs().mean()
        loss = classes + self.options.mae_lambda * error
        with self.means.sending():
            loss.backward()
        logged = {"loss": loss, "loss_classes": classes, "mae_years": error}
        logged = read_values(logged, self.world)
        check_finite(logged, step, "Resume with a smaller --learning_rate in a new --exp_dir.")
        self.means.finish()
        self.optimizer.step()
        self.optimizer.clear_grad()
        self._last = (images, years, found)
        return logged

    @paddle.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the mean absolute error in years, over all (also as `loss`) and by decade."""
        self.network.eval()
        years, found = [], []
        for batch in batches:
            years.append(self._years(batch))
            images, _ = batch.tensors()
            found.append(self.network.age(images))
            self._last = (images, years[-1], found[-1])
        return errors_by_decade(paddle.concat(years).numpy(), paddle.concat(found).numpy())

    def panel(self) -> np.ndarray:
        """Return faces of the last batch with their age and what the network takes them for."""
        rows, columns = _PANEL
        images, *ages = (np.asarray(side) for side in self._last)
        tiles = [
            (to_uint8(image), f"age {age:.0f}\nfound {guess:.1f}")
            for image, age, guess in list(zip(images, *ages, strict=True))[: rows * columns]
        ]
        return captioned_grid(list(batches(tiles, columns)))

    def _years(self, batch: Batch) -> paddle.Tensor:
        return paddle.to_tensor([self.ages[path] for path in batch.paths], "float32")


def architecture(options: AgeOptions, file: WeightFile | None) -> dict:
    """Return the arguments of an age regressor: those of a weight file, or of the options."""
    if file is None:
        widths, fc = AGE_SIZES[options.network]
        return {"input_size": options.input_size, "widths": list(widths), "fc": fc}
    entry = file.entry()
    if entry.network != "age_regressor":
        raise CheckpointError(f"{file.label}: holds {file.kind}, expected an age regressor")
    return entry.arch


def _inputs(
    options: AgeOptions, ages: Mapping[ImageSource, float], images: Sequence[Sequence[ImageSource]]
) -> dict[str, Identity]:
    """Identify the images for training and testing, with their ages."""
    places = (options.train_data, options.test_data or options.train_data)
    for place in places:
        check_outside("--exp_dir", Path(options.exp_dir), Path(place))
    return {
        name: identify_images(place, part, [ages[image] for image in part])
        for name, place, part in zip(("train_data", "test_data"), places, images, strict=True)
    }


def _split(
    options: AgeOptions,
) -> tuple[dict[ImageSource, float], list[ImageSource], list[ImageSource]]:
    """Return ages of all labelled images, and which of them are for training and for testing."""
    if not options.train_data:
        raise ConfigError("--train_data: name a folder or archive of face images")
    ages, labelled = _labelled(options, options.train_data)
    if options.test_data:
        test_ages, test = _labelled(options, options.test_data)
        return ages | test_ages, labelled, test
    order = np.random.default_rng((options.seed, 4)).permutation(len(labelled))
    held_out = max(1, round(options.holdout * len(labelled)))
    if held_out >= len(labelled):
        raise ConfigError(f"--holdout: {options.holdout} leaves none of {len(labelled)} images")
    test_indices = set(order[:held_out].tolist())
    train = [image for i, image in enumerate(labelled) if i not in test_indices]
    return ages, train, [labelled[i] for i in sorted(test_indices)]


def _labelled(options: AgeOptions, data: str) -> tuple[dict[ImageSource, float], list[ImageSource]]:
    """Return the images of a folder or archive that have an age, and their ages."""
    images = list_sources(data)
    ages = read_ages(options.labels, images, data)
    if without := [image for image in images if image not in ages]:
        print(
            f"{data}: {len(without)} of {len(images)} images have no age in --labels"
            f" {options.labels} and are left out, such as {without[0].name}"
        )
    return ages, [image for image in images if image in ages]


def errors_by_decade(years: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Return the mean absolute error of `found` [N] against `years` [N]: overall and by decade.

    >>> errors_by_decade(np.array([5.0, 30, 31]), np.array([6.0, 30, 35]))["mae_30s"]
    2.0
    """
    errors = np.abs(found - years)
    result = {"loss": float(errors.mean()), "mae_years": float(errors.mean())}
    for decade in range(0, 101, 10):
        inside = (years >= decade) & (years < decade + 10)
        if inside.any():
            result[f"mae_{decade}s"] = float(errors[inside].mean())
    return result


def start_from_vgg(network: AgeRegressor, path: str) -> None:
    """Copy VGG16's ImageNet convolutions, as `lpips_vgg.npz` holds them, into `network`.

    VGG16 wants images normalised by the statistics of ImageNet, this network in [-1, 1]; the
    difference is folded into the first convolution: w' = w / std, b' = b - sum(w mean / std).
    """
    features = load_lpips(path).features
    sources = [layer for layer in features if isinstance(layer, paddle.nn.Conv2D)]
    targets = [getattr(network, name) for name in network.conv_names]
    shapes = [[layer.weight.shape for layer in layers] for layers in (sources, targets)]
    if shapes[0] != shapes[1]:
        raise CheckpointError(
            f"--vgg_path: {path} does not fit; it takes VGG16 features and --network published"
        )
    for source, target in zip(sources, targets, strict=True):
        target.weight.set_value(source.weight)
        target.bias.set_value(source.bias)
    first = targets[0]
    std = paddle.to_tensor(IMAGE_STD, "float32").reshape([1, 3, 1, 1])
    mean = paddle.to_tensor(IMAGE_MEAN, "float32").reshape([1, 3, 1, 1])
    with paddle.no_grad():
        weight = first.weight / std
        first.bias.set_value(first.bias - (weight * mean).sum([1, 2, 3]))
        first.weight.set_value(weight)
