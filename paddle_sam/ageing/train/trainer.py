"""One step of SAM (or pSp) training, and the same networks judged on test images.

A step of SAM renders every face twice: aged, and from that back to its own age (section 3.2).
Both passes share what is known of the input (`Reference`), and each frees its memory before the
next begins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import paddle

from paddle_sam.ageing.losses import MAX_AGE, Reference, SAMLoss
from paddle_sam.ageing.train.networks import Assembled
from paddle_sam.ageing.train.options import SAMOptions, target_ages
from paddle_sam.core.device import seed_of
from paddle_sam.core.images import to_uint8
from paddle_sam.core.sheets import captioned_grid
from paddle_sam.core.weight_file import load_strict
from paddle_sam.errors import TrainingError
from paddle_sam.imagesets.loader import Batch
from paddle_sam.networks.sam import add_age_plane
from paddle_sam.training.amp import MixedPrecision
from paddle_sam.training.distributed import (
    World,
    average_gradients,
    meet,
    send_from_first,
    synchronise_batch_norm,
)
from paddle_sam.training.optimizer_state import named_state, restore_named_state
from paddle_sam.training.ranger import Ranger, groups_by_layout

# The share of steps that keep the input's age (section 3.2).
SAME_AGE_SHARE = 1 / 3
_PANEL_ROWS = 4


@dataclasses.dataclass(frozen=True)
class Task:
    """What one step asks for: target ages [N] as fractions of a century, None for the input's own.

    pSp training has no ages at all; there both passes collapse into one.
    """

    ages: np.ndarray | None

    @property
    def age_changes(self) -> bool:
        return self.ages is not None


def draw_task(config: SAMOptions, step: int, stream: int = 2) -> Task:
    """Draw a step's ages; a function of the seed and the step, whatever ran before."""
    rng = np.random.default_rng((config.seed, stream, step))
    if config.task == "psp" or rng.random() <= SAME_AGE_SHARE:
        return Task(None)
    size = config.batch_size if stream == 2 else config.test_batch_size
    years = rng.choice(target_ages(config.target_age), size)
    return Task((years / MAX_AGE).astype("float32"))


class SAMTrainer:
    """Trains the encoder (and the decoder, if asked) of a `SAM` network.

    Args:
        assembled: the network, from `assemble`.
        loss: its losses, from `build_loss`.
        config: the run's options.
        world: the processes of the run.
    """

    def __init__(
        self, assembled: Assembled, loss: SAMLoss, config: SAMOptions, world: World | None = None
    ):
        self.assembled = assembled
        self.network = assembled.network
        self.loss = loss
        self.config = config
        self.world = world or World()
        self.optimizer = _make_optimizer(self.network, config)
        self.amp = MixedPrecision(config.amp)
        self.last_batch: Batch | None = None
        self.last_outcomes: list[_Outcome] = []
        synchronise_batch_norm(self.network, self.world)
        send_from_first(self.network.state_dict().values(), self.world)

    # Training

    def train_step(self, batch: Batch, step: int) -> dict[str, float]:
        """Do step number `step` (0 is the first) on this process's share of its batch.

        Returns:
            every loss and similarity by name, averaged over the share.

        Raises:
            TrainingError: a loss is not a finite number. No parameter has changed then.
        """
        paddle.seed(seed_of(self.config.seed, step, self.world.rank))
        logged = self.accumulate(batch, draw_task(self.config, step))
        _check_finite(logged, step)
        self.update()
        return logged

    def accumulate(self, batch: Batch, task: Task) -> dict[str, float]:
        """Add the gradients of this process's share of a batch; returns the values to log."""
        self._training_mode()
        mine = self.world.share(self.config.batch_size)
        logged: dict[str, float] = {}
        for part, ages in _split(batch, task.ages, mine, self.config.accumulate):
            share = len(part) / len(batch)
            for name, value in self._passes(part, ages, share).items():
                logged[name] = logged.get(name, 0.0) + share * value
        return logged

    def update(self) -> None:
        """Step the optimizer with the accumulated gradients of all processes."""
        average_gradients(self._trainable(), self.world)
        self.amp.step(self.optimizer)
        self.optimizer.clear_grad(set_to_zero=False)

    def _passes(self, batch: Batch, ages: np.ndarray | None, share: float | None) -> dict:
        """The aged pass and the way back, for a batch; see `_pass` for `share`."""
        images, target = batch.tensors()
        reference = self.loss.reference(images, target)
        if self.config.task == "psp":
            found = self._pass(images, None, reference, False, share)
            self._keep(batch, found)
            return found.logged("real") | {"loss": found.total}
        target_age = reference.age if ages is None else paddle.to_tensor(ages)
        real = self._pass(images, target_age, reference, ages is not None, share)
        logged = real.logged("real") | {"loss": real.total}
        if self.config.cycle_lambda == 0:
            self._keep(batch, real)
            return logged
        way_back = None if share is None else share * self.config.cycle_lambda
        cycle = self._pass(real.images, reference.age, reference, False, way_back)
        self._keep(batch, real, cycle)
        return logged | cycle.logged("cycle") | {"loss": real.total + cycle.total}

    def _pass(
        self,
        images: paddle.Tensor,
        target_age: paddle.Tensor | None,
        reference: Reference,
        age_changes: bool,
        share: float | None,
    ) -> _Outcome:
        """Encode, render and judge; with `share` also back-propagate the mean loss times it.

        The encoder runs on the whole batch, on which its batch norm depends. Rendering and
        judging treat every image alone, so they may go in smaller parts (`--decoder_batch`): each
        part sends its gradient back to the codes, and the codes send the whole one on to the
        encoder. The gradients are the same; the memory is that of one part.
        """
        x = images if target_age is None else add_age_plane(images, target_age * MAX_AGE)
        outcome = _Outcome()
        with self.amp.arithmetic():
            codes = self.network.encode(x)
        leaf = codes.detach()
        leaf.stop_gradient = share is None
        size = len(images)
        for start, stop in _ranges(size, self.config.decoder_batch or size):
            with self.amp.arithmetic():
                output, w_plus = self.network.decode(leaf[start:stop])
                judgement = self.loss(
                    output,
                    w_plus,
                    reference.part(start, stop),
                    None if target_age is None else target_age[start:stop],
                    age_changes,
                )
            if share is not None:
                self.amp.scale(judgement.total.sum() * (share / size)).backward()
            outcome.add(output, judgement)
        if share is not None:
            meet(self.world)  # rendering may take longer elsewhere
            codes.backward(leaf.grad)
        return outcome

    def _training_mode(self) -> None:
        """Train mode as the published training has it: the frozen pSp encoder's batch norm too."""
        self.network.train()
        if self.config.freeze_pretrained_bn and self.network.pretrained_encoder is not None:
            self.network.pretrained_encoder.eval()

    def _trainable(self) -> list[paddle.Tensor]:
        return [p for p in self.network.parameters() if not p.stop_gradient]

    # Judging

    @paddle.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean losses over test batches. The ages asked for are the same at every call."""
        self.network.eval()
        paddle.seed(seed_of(self.config.seed, 0, self.world.rank))
        total: dict[str, float] = {}
        count = 0
        for index, batch in enumerate(batches):
            ages = draw_task(self.config, index, stream=3).ages
            found = self._passes(batch, None if ages is None else ages[: len(batch)], None)
            for name, value in found.items():
                total[name] = total.get(name, 0.0) + value * len(batch)
            count += len(batch)
        return {name: value / count for name, value in total.items()}

    def panel(self) -> np.ndarray:
        """Inputs, targets, outputs and recovered faces of the last batch, as one uint8 picture."""
        batch, outcomes = self.last_batch, self.last_outcomes
        rows = min(_PANEL_ROWS, len(batch))
        source, target = batch[:rows].tensors()
        target = source if target is None else target
        sides = [source, target, *(outcome.images[:rows] for outcome in outcomes)]
        tiles = [to_uint8(side.numpy()) for side in sides]
        return captioned_grid(
            [
                [(tiles[0][row], "input"), (tiles[1][row], "target")]
                + [(tiles[2 + i][row], o.caption(row)) for i, o in enumerate(outcomes)]
                for row in range(rows)
            ]
        )

    def _keep(self, batch: Batch, *outcomes: _Outcome) -> None:
        self.last_batch, self.last_outcomes = batch, list(outcomes)

    # State

    def weights(self) -> dict[str, Any]:
        """Contents of a weight file that inference loads."""
        name = self.config.task
        state = {key: tensor.numpy() for key, tensor in self.network.state_dict().items()}
        entry = {"network": "sam", "arch": self.assembled.arch, "state": state}
        return {
            "kind": name,
            "networks": {name: entry},
            "alignment": self.assembled.alignment,
            "options": dataclasses.asdict(self.config),
        }

    def state(self) -> dict[str, Any]:
        """What resuming needs beside the weights."""
        optimizer = named_state(self.optimizer, dict(self.network.named_parameters()))
        return {
            "optimizer": {name: tensor.numpy() for name, tensor in optimizer.items()},
            "loss_scale": self.amp.state(),
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Take up the weights and state of a checkpoint's content."""
        entry = content["networks"][self.config.task]
        load_strict(self.network, entry["state"], "checkpoint", consume=True)
        training = content["training"]
        parameters = dict(self.network.named_parameters())
        restore_named_state(self.optimizer, parameters, training["optimizer"])
        self.amp.restore(training["loss_scale"])


class _Outcome:
    """What a pass gave: images, and the values to log, collected part by part."""

    def __init__(self):
        self._images: list[paddle.Tensor] = []
        self._terms: dict[str, list[np.ndarray]] = {}
        self._captions: dict[str, list[np.ndarray]] = {}

    def add(self, images: paddle.Tensor, judgement) -> None:
        self._images.append(images.detach().astype("float32"))
        for store, values in (
            (self._terms, {**judgement.terms, "loss": judgement.total.detach()}),
            (self._captions, judgement.captions),
        ):
            for name, value in values.items():
                store.setdefault(name, []).append(value.astype("float32").numpy())

    @property
    def images(self) -> paddle.Tensor:
        return self._images[0] if len(self._images) == 1 else paddle.concat(self._images)

    @property
    def total(self) -> float:
        return float(np.concatenate(self._terms["loss"]).mean())

    def logged(self, stage: str) -> dict[str, float]:
        """Mean of every value, named for the pass: `loss_l2_real`."""
        return {f"{n}_{stage}": float(np.concatenate(v).mean()) for n, v in self._terms.items()}

    def caption(self, row: int) -> str:
        """Similarities and ages of one image, as far as they are known, in two lines."""
        values = {name: float(np.concatenate(v)[row]) for name, v in self._captions.items()}
        lines = []
        if "target_age" in values:
            ages = (values[f"{name}_age"] for name in ("input", "target", "output"))
            lines.append("age {:.0f}, target {:.0f}, found {:.0f}".format(*ages))
        if "diff_target" in values:
            same = (values[f"diff_{name}"] for name in ("target", "input", "views"))
            lines.append("id {:.2f}, input {:.2f}, views {:.2f}".format(*same))
        return "\n".join(lines)


def _make_optimizer(network, config: SAMOptions):
    trainable = [p for p in network.parameters() if not p.stop_gradient]
    if config.optim_name == "adam":
        return paddle.optimizer.Adam(config.learning_rate, parameters=trainable)
    return Ranger(config.learning_rate, groups_by_layout(trainable))


def _split(
    batch: Batch, ages: np.ndarray | None, mine: slice, parts: int
) -> Iterator[tuple[Batch, np.ndarray | None]]:
    """Cut this process's share into `parts`; `ages` are those of the whole batch."""
    ages = None if ages is None else ages[mine]
    for start, stop in _ranges(len(batch), -(-len(batch) // parts)):
        yield batch[start:stop], None if ages is None else ages[start:stop]


def _ranges(total: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, total)) for start in range(0, total, size))


def _check_finite(values: Mapping[str, float], step: int) -> None:
    bad: Sequence[str] = [name for name, value in values.items() if not np.isfinite(value)]
    if bad:
        raise TrainingError(
            f"step {step + 1}: {bad[0]} is {values[bad[0]]}"
            f"{f' (and {len(bad) - 1} more)' if len(bad) > 1 else ''}. Resume from the last"
            " checkpoint with a smaller --learning_rate in a new --exp_dir, or without --amp."
        )
