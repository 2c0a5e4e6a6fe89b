"""Training of the age regressor (DEX VGG).

The classes 0-100 are learned by cross entropy, and their expectation, which is what the network
answers, by its absolute error (Rothe et al. 2018, section 3, and Pan et al. 2018).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_sam.ageing.train.age_options import SIZES, AgeOptions
from paddle_sam.core.device import seed_of
from paddle_sam.core.images import to_uint8
from paddle_sam.core.sheets import captioned_grid
from paddle_sam.core.weight_file import load_strict
from paddle_sam.errors import CheckpointError, TrainingError
from paddle_sam.imagesets.archive import ImageSource
from paddle_sam.imagesets.loader import Batch
from paddle_sam.networks.age_regressor import AgeRegressor, expected_age
from paddle_sam.networks.lpips import IMAGE_MEAN, IMAGE_STD
from paddle_sam.networks.lpips_weights import load_lpips
from paddle_sam.training.distributed import World, average_gradients, send_from_first
from paddle_sam.training.optimizer_state import named_state, restore_named_state

_PANEL = (2, 4)


class AgeTrainer:
    """Trains an `AgeRegressor`.

    Args:
        config: the run's options.
        ages: years by image.
        world: the processes of the run.
    """

    def __init__(
        self, config: AgeOptions, ages: Mapping[ImageSource, float], world: World | None = None
    ):
        self.config = config
        self.ages = ages
        self.world = world or World()
        widths, fc = SIZES[config.network]
        self.arch = {"input_size": config.input_size, "widths": list(widths), "fc": fc}
        self.network = AgeRegressor(**self.arch)
        if config.vgg_path:
            start_from_vgg(self.network, config.vgg_path)
        self.optimizer = paddle.optimizer.Adam(
            config.learning_rate, parameters=self.network.parameters()
        )
        self._last: tuple[paddle.Tensor, np.ndarray, np.ndarray] | None = None
        send_from_first(self.network.state_dict().values(), self.world)

    def train_step(self, batch: Batch, step: int) -> dict[str, float]:
        """Do step number `step` (0 is the first) on this process's share of its batch.

        Returns:
            losses and the error in years.

        Raises:
            TrainingError: the loss is not a finite number. No parameter has changed then.
        """
        paddle.seed(seed_of(self.config.seed, step, self.world.rank))
        self.network.train()
        years = self._years(batch)
        images, _ = batch.tensors()
        logits = self.network(images)
        classes = F.cross_entropy(logits, years.round().astype("int64"))
        found = expected_age(logits)
        error = (found - years).abs().mean()
        loss = classes + self.config.mae_lambda * error
        if not np.isfinite(float(loss)):
            raise TrainingError(f"step {step + 1}: the loss is {float(loss)}.")
        loss.backward()
        average_gradients(self.network.parameters(), self.world)
        self.optimizer.step()
        self.optimizer.clear_grad()
        self._last = (images, years.numpy(), found.numpy())
        return {"loss": float(loss), "loss_classes": float(classes), "mae_years": float(error)}

    @paddle.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean absolute error in years, over all test images (also as `loss`) and by decade."""
        self.network.eval()
        years, found = [], []
        for batch in batches:
            years.append(self._years(batch).numpy())
            images, _ = batch.tensors()
            found.append(self.network.age(images).numpy())
            self._last = (images, years[-1], found[-1])
        return errors_by_decade(np.concatenate(years), np.concatenate(found))

    def panel(self) -> np.ndarray:
        """Faces of the last batch with their age and what the network takes them for."""
        rows, columns = _PANEL
        tiles = [
            (to_uint8(image.numpy()), f"age {age:.0f}\nfound {guess:.1f}")
            for image, age, guess in list(zip(*self._last, strict=True))[: rows * columns]
        ]
        return captioned_grid([tiles[i : i + columns] for i in range(0, len(tiles), columns)])

    def weights(self) -> dict[str, Any]:
        """Contents of a weight file that `--age_regressor_path` takes."""
        state = {name: tensor.numpy() for name, tensor in self.network.state_dict().items()}
        entry = {"network": "age_regressor", "arch": self.arch, "state": state}
        return {
            "kind": "dex_vgg",
            "networks": {"dex_vgg": entry},
            "options": dataclasses.asdict(self.config),
        }

    def state(self) -> dict[str, Any]:
        """What resuming needs beside the weights."""
        state = named_state(self.optimizer, dict(self.network.named_parameters()))
        return {"optimizer": {name: tensor.numpy() for name, tensor in state.items()}}

    def restore(self, content: Mapping[str, Any]) -> None:
        """Take up the weights and state of a checkpoint's content."""
        load_strict(self.network, content["networks"]["dex_vgg"]["state"], "checkpoint")
        parameters = dict(self.network.named_parameters())
        restore_named_state(self.optimizer, parameters, content["training"]["optimizer"])

    def _years(self, batch: Batch) -> paddle.Tensor:
        return paddle.to_tensor([self.ages[path] for path in batch.paths], "float32")


def errors_by_decade(years: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Mean absolute error of `found` [N] against `years` [N]: overall and for each decade met.

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

    Raises:
        CheckpointError: the file holds no VGG16, or the network has other widths.
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
