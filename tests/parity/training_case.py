"""One full training step of SAM at published size against the published code.

As there: published option values, batch of two, target ages 20 and 70, LPIPS on recipe weights
with non-negative channel weights, noise weights zero (so that random noise does not matter), and
the frozen pSp encoder's batch norm in train mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
import torch

from paddle_sam.ageing.train.options import SAMOptions
from paddle_sam.ageing.train.run import assemble, build_loss
from paddle_sam.ageing.train.trainer import SAMTrainer
from paddle_sam.convert.convert import convert_file
from paddle_sam.imagesets.loader import Batch
from tests import DEVICE
from tests.parity import recipe
from tests.parity.cases import FULL, Comparison, compare, expected

NAME = "training_step"
# The gradients of this step are not determined to float32's precision: the rendered images differ
# from the published ones by 7e-6, as two correct float32 generators do, and that much changes the
# published-size age network's gradient by 2% of its norm (random weights, thousands of units near
# their kinks). So the step is also computed with inputs moved by NUDGE, which moves the rendered
# images by 5e-6, and gradients and their norms must agree with the published ones within three
# times what that changed.
NUDGE = 1.5e-6
ALLOWANCE = 3.0
# Names in this package for those of the published file, where they differ.
LAYOUT = {"styles.0.linear.weight": lambda tensor: tensor.T}


def training_step(folder: Path) -> Iterator[Comparison]:
    want = expected(NAME)
    trainer = _trainer(folder)
    watched = [key.removeprefix("grad/") for key in want if key.startswith("grad/")]
    ages = want["target_ages"]
    images = want["x"].astype(np.float32)

    statistics = _statistics(trainer.network)
    noise = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    trainer.accumulate(_batch(images + NUDGE * noise), ages)
    nudged = {name: (_gradient(trainer, name), _gradient_norm(trainer, name)) for name in watched}
    trainer.optimizer.clear_grad(set_to_zero=False)
    for tensor, value in statistics:
        tensor.set_value(value)

    losses = trainer.accumulate(_batch(images), ages)
    yield from _losses(want, losses)
    ages = trainer.loss.reference(paddle.to_tensor(images)).age
    yield compare(NAME, "input ages, centuries", ages, want["input_ages"], deviation=1.0)
    outcomes = trainer.last_outcomes
    yield compare(NAME, "aged images", outcomes[0].images, want["y_hat"], FULL)
    yield compare(NAME, "recovered images", outcomes[1].images, want["y_recovered"], FULL)
    allowed = {}
    for name in watched:
        found, whole = _gradient(trainer, name), _gradient_norm(trainer, name)
        wanted, norm = want[f"grad/{name}"], float(want[f"gradnorm/{name}"])
        floor = float(np.abs(found - nudged[name][0]).max() / wanted.std())
        allowed[name] = max(FULL, ALLOWANCE * floor)
        yield compare(NAME, f"d/d {name}", found, wanted, allowed[name])
        floor = abs(whole - nudged[name][1]) / norm
        allowance = max(FULL, ALLOWANCE * floor)
        yield Comparison(NAME, f"norm of d/d {name}", abs(whole - norm) / norm, allowance)

    before = {name: _first(_parameter(trainer, name), name) for name in watched}
    trainer.update()
    for name in watched:
        yield _compare_step(trainer, name, before[name], want[f"delta/{name}"], allowed[name])
    for part in ("encoder", "pretrained_encoder"):
        mean = getattr(trainer.network, part).input_layer[1]._mean
        key = f"{part}.input_layer.1.running_mean"
        yield compare(NAME, key, mean, want[f"bn/{key}"], FULL)


def _compare_step(trainer, name, before, wanted, allowed) -> Comparison:
    """Compare how far a parameter moved, beyond what rounding the parameter hides."""
    moved = _first(_parameter(trainer, name), name) - before
    error = (np.abs(moved - wanted) - np.spacing(np.abs(before))).clip(0).max() / wanted.std()
    return Comparison(NAME, f"Ranger step of {name}", float(error), allowed)


def _batch(images: np.ndarray) -> Batch:
    return Batch(images, None, (Path("a"), Path("b")))


def _parameter(trainer: SAMTrainer, name: str):
    return dict(trainer.network.encoder.named_parameters())[name]


def _gradient(trainer: SAMTrainer, name: str) -> np.ndarray:
    return _first(_parameter(trainer, name).grad, name)


def _gradient_norm(trainer: SAMTrainer, name: str) -> float:
    return float(np.linalg.norm(_parameter(trainer, name).grad.numpy()))


def _first(tensor, name: str) -> np.ndarray:
    """The first 512 values in the published layout."""
    array = LAYOUT.get(name, lambda array: array)(tensor.numpy())
    return array.reshape(-1)[:512].copy()


def _statistics(network) -> list:
    """Batch norm's running statistics and copies of them."""
    state = network.state_dict().items()
    return [(t, t.clone()) for name, t in state if name.endswith(("._mean", "._variance"))]


def _losses(want: dict, losses: dict[str, float]) -> Iterator[Comparison]:
    for name, value in zip(want["loss_names"], want["loss_values"], strict=True):
        # The published log keeps the crop losses of the last pass only, under one name for both.
        found = losses.get(str(name), losses.get(f"{name}_cycle"))
        yield Comparison(NAME, str(name), abs(found - value) / abs(value), FULL)


def _trainer(folder: Path) -> SAMTrainer:
    """The trainer that the published command line makes, from converted files."""
    config = SAMOptions(
        checkpoint_path=_convert("sam_ffhq_aging", folder, _without_noise),
        ir_se50_path=_convert("model_ir_se50", folder),
        age_regressor_path=_convert("dex_age_classifier", folder),
        lpips_path=_convert("alexnet_features", folder),
        lpips_lin_path=_convert("lpips_alex_lin", folder, _non_negative),
        start_from_encoded_w_plus=True,
        use_weighted_id_loss=True,
        batch_size=2,
        decoder_batch=1,
        device=DEVICE,
    )
    assembled = assemble(config)
    trainer = SAMTrainer(assembled, build_loss(config, assembled.network.latent_avg), config)
    for file in folder.glob("*.pdparams"):
        file.unlink()
    return trainer


def _convert(name: str, folder: Path, change=lambda state: None) -> str:
    source, target = folder / f"{name}.pt", folder / f"{name}.pdparams"
    checkpoint = recipe.torch_checkpoint(name)
    change(checkpoint)
    torch.save(checkpoint, source)
    del checkpoint
    convert_file(source, target)
    source.unlink()
    return str(target)


def _without_noise(checkpoint: dict) -> None:
    for name, tensor in checkpoint["state_dict"].items():
        if name.endswith("noise.weight"):
            tensor.zero_()


def _non_negative(checkpoint: dict) -> None:
    for tensor in checkpoint.values():
        tensor.abs_()
