"""One step of SAM (or pSp) training, and the same networks judged on test images.

A step of SAM renders every face twice: aged, and from that back to its own age (section 3.2).
Both passes share what is known of the input (`Reference`), and each frees its memory before the
next begins.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import paddle

from paddle_sam.ageing.losses import MAX_AGE, Judgement, Reference, SAMLoss
from paddle_sam.ageing.train.options import SAMOptions, target_ages
from paddle_sam.core.device import seed_of
from paddle_sam.core.images import captioned_grid, to_uint8
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import WeightFile
from paddle_sam.imagesets.loader import Batch
from paddle_sam.networks.sam import SAM, add_age_plane
from paddle_sam.training.distributed import (
    GradientMeans,
    World,
    check_finite,
    meet,
    read_values,
    send_from_first,
    synchronise_batch_norm,
)
from paddle_sam.training.ranger import Ranger, groups_by_layout
from paddle_sam.training.trainers import MixedPrecision, RunState

# The share of steps that keep the input's age (section 3.2).
SAME_AGE_SHARE = 1 / 3
_PANEL_ROWS = 4
_ADVICE = (
    "Resume from the last checkpoint with a smaller --learning_rate in a new --exp_dir, or without"
    " --amp."
)


@dataclasses.dataclass(frozen=True)
class Assembled:
    """A network to train and what its weight files must say about it."""

    network: SAM
    arch: dict[str, Any]  # arguments of `build_sam`
    alignment: dict[str, Any] | None  # the crop it is trained on


class Stream(enum.IntEnum):
    """Streams of random numbers that ages are drawn from."""

    TRAIN = 2
    TEST = 3


def draw_ages(
    options: SAMOptions, step: int, size: int, stream: Stream = Stream.TRAIN
) -> np.ndarray | None:
    """Draw a step's target ages [size] as fractions of a century; None for the input's own.

    They are a function of the seed and the step alone. pSp training has no ages at all.
    """
    rng = np.random.default_rng((options.seed, stream, step))
    if options.task == "psp" or rng.random() <= SAME_AGE_SHARE:
        return None
    years = rng.choice(target_ages(options.target_age), size)
    return (years / MAX_AGE).astype("float32")


@dataclasses.dataclass(frozen=True)
class Pass:
    """Faces to render and judge.

    Attributes:
        images: [N, 3, S, S] in [-1, 1].
        target_age: [N], fractions of a century; None for pSp.
        reference: what is known of the batch's inputs.
        age_changes: whether the target age is not the input's.
        last: whether no other pass of these images follows.
    """

    images: paddle.Tensor
    target_age: paddle.Tensor | None
    reference: Reference
    age_changes: bool
    last: bool


class SAMTrainer:
    """Trains the encoder (and the decoder, if asked) of a `SAM` network.

    Args:
        assembled: the network.
        loss: its losses, from `build_loss`.
        options: of the run.
        world: the processes of the run.
    """

    def __init__(
        self, assembled: Assembled, loss: SAMLoss, options: SAMOptions, world: World | None = None
    ):
        self.network = assembled.network
        self.loss = loss
        self.options = options
        self.world = world or World()
        self.learning_rate = options.learning_rate
        self.optimizer = (
            paddle.optimizer.Adam(options.learning_rate, parameters=self._trainable())
            if options.optim_name == "adam"
            else Ranger(options.learning_rate, groups_by_layout(self._trainable()))
        )
        self.amp = MixedPrecision(options.amp)
        self.last_batch: Batch | None = None
        self.last_outcomes: list[Outcome] = []
        synchronise_batch_norm(self.network, self.world)
        trained = self._trainable()  # the decoder first: its gradients come before the last pass
        of_decoder = {id(parameter) for parameter in self.network.decoder.parameters()}
        trained.sort(key=lambda parameter: id(parameter) not in of_decoder)
        self.means = GradientMeans(trained, self.world)
        send_from_first(self.network.state_dict().values(), self.world)
        alignment, given = assembled.alignment, dataclasses.asdict(options)
        self.state = RunState(lambda: WeightFile(options.task, alignment=alignment, options=given))
        self.state.network(options.task, self.network, "sam", assembled.arch)
        self.state.optimizer("optimizer", self.optimizer, self.network)
        scaler = self.amp.scaler
        self.state.add("loss_scale", scaler.state_dict, scaler.load_state_dict)

    # Training

    def train_step(self, batch: Batch, step: int) -> dict[str, float]:
        """Do step number `step` (0 is the first) on this process's share of its batch.

        Returns:
            every loss and similarity by name, averaged over the batch.

        Raises:
            TrainingError: a loss is not a finite number. No parameter has changed then.
        """
        paddle.seed(seed_of(self.options.seed, step, self.world.rank))
        logged = self.accumulate(batch, draw_ages(self.options, step, self.options.batch_size))
        check_finite(logged, step, _ADVICE)
        self.update()
        return logged

    def accumulate(self, batch: Batch, ages: np.ndarray | None) -> dict[str, float]:
        """Add the gradients of this process's share of a batch; returns the values to log.

        `ages` are those that `draw_ages` drew for the batch of all processes.
        """
        self._training_mode()
        logged: dict[str, paddle.Tensor] = {}
        size = -(-len(batch) // self.options.accumulate)
        parts = list(batches(batch, size))
        mine = [None] * len(parts)
        if ages is not None:
            mine = batches(ages[self.world.share(self.options.batch_size)], size)
        for part, own in zip(parts, mine, strict=True):
            share = len(part) / len(batch)
            backward = functools.partial(self._backward, last_part=part is parts[-1])
            for name, value in self._run_passes(part, own, backward, share).items():
                logged[name] = logged.get(name, 0.0) + share * value
        return read_values(logged, self.world)

    def update(self) -> None:
        """Step the optimizer with the accumulated gradients of all processes."""
        self.means.finish()
        self.amp.step(self.optimizer)
        self.optimizer.clear_grad(set_to_zero=False)

    def _run_passes(
        self,
        batch: Batch,
        ages: np.ndarray | None,
        run: Callable[[Pass, float], Outcome],
        share: float = 1.0,
    ) -> dict[str, paddle.Tensor]:
        """Have `run` do the aged pass and the way back; returns means over the batch by name.

        `run` takes a pass and the factor of its mean loss, of which `share` is a part.
        """
        images, target = batch.tensors()
        reference = self.loss.reference(images, target)
        age = None
        if self.options.task == "sam":
            age = reference.age if ages is None else paddle.to_tensor(ages)
        cycles = self.options.task == "sam" and self.options.cycle_lambda > 0
        real = run(Pass(images, age, reference, ages is not None, last=not cycles), share)
        logged, loss, outcomes = real.means("real"), real.loss(), [real]
        if cycles:
            factor = share * self.options.cycle_lambda
            cycle = run(Pass(real.images, reference.age, reference, False, last=True), factor)
            logged, loss = logged | cycle.means("cycle"), loss + cycle.loss()
            outcomes.append(cycle)
        self.last_batch, self.last_outcomes = batch, outcomes
        return logged | {"loss": loss}

    def _backward(self, one: Pass, factor: float, last_part: bool) -> Outcome:
        """Encode, render and judge; add the gradients of the mean loss times `factor`.

        The encoder runs on the whole batch, on which its batch norm depends. Each part that is
        rendered sends its gradient back to the codes at once, and the codes send the sum on to the
        encoder. The gradients are those of the whole; the memory is that of one part.
        """
        codes = self._encode(one)
        leaf = codes.detach()
        leaf.stop_gradient = False
        outcome = Outcome()
        for output, judgement in self._judge(one, leaf):
            mean = judgement.total.sum() * (factor / len(codes))
            self.amp.scale(mean).backward()
            outcome.add(output, judgement)
        meet(self.world)  # rendering may take longer elsewhere
        with self.means.sending(last_part and one.last):
            codes.backward(leaf.grad)
        return outcome

    def _forward(self, one: Pass, factor: float) -> Outcome:
        """Encode, render and judge."""
        outcome = Outcome()
        for output, judgement in self._judge(one, self._encode(one)):
            outcome.add(output, judgement)
        return outcome

    def _encode(self, one: Pass) -> paddle.Tensor:
        x = one.images
        if one.target_age is not None:
            x = add_age_plane(x, one.target_age * MAX_AGE)
        with self.amp.arithmetic():
            return self.network.encode(x)

    def _judge(self, one: Pass, codes: paddle.Tensor) -> Iterator[tuple[paddle.Tensor, Judgement]]:
        """Render and judge codes [N, L, D] in parts of `--decoder_batch`."""
        size = self.options.decoder_batch or len(codes)
        for start in range(0, len(codes), size):
            stop = start + size
            with self.amp.arithmetic():
                output, w_plus = self.network.decode(codes[start:stop])
                judgement = self.loss(
                    output,
                    w_plus,
                    one.reference.part(start, stop),
                    None if one.target_age is None else one.target_age[start:stop],
                    one.age_changes,
                )
            yield output, judgement

    def _training_mode(self) -> None:
        """Train mode as the published training has it: the frozen pSp encoder's batch norm too."""
        self.network.train()
        if self.options.freeze_pretrained_bn and self.network.pretrained_encoder is not None:
            self.network.pretrained_encoder.eval()

    def _trainable(self) -> list[paddle.Tensor]:
        return [p for p in self.network.parameters() if not p.stop_gradient]

    # Judging

    @paddle.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return mean losses over test batches. The ages are the same at every call."""
        self.network.eval()
        paddle.seed(seed_of(self.options.seed, 0, self.world.rank))
        total: dict[str, float] = {}
        count = 0
        for index, batch in enumerate(batches):
            ages = draw_ages(self.options, index, self.options.test_batch_size, Stream.TEST)
            ages = None if ages is None else ages[: len(batch)]
            for name, value in read_values(self._run_passes(batch, ages, self._forward)).items():
                total[name] = total.get(name, 0.0) + value * len(batch)
            count += len(batch)
        return {name: value / count for name, value in total.items()}

    def panel(self) -> np.ndarray:
        """Return the last batch's inputs, targets, outputs and recovered faces as one picture."""
        batch, outcomes = self.last_batch, self.last_outcomes
        rows = min(_PANEL_ROWS, len(batch))
        source, target = batch[:rows].tensors()
        target = source if target is None else target
        sides = [source, target, *(outcome.images[:rows] for outcome in outcomes)]
        tiles = [to_uint8(side) for side in sides]
        return captioned_grid(
            [
                [(tiles[0][row], "input"), (tiles[1][row], "target")]
                + [(tiles[2 + i][row], o.caption(row)) for i, o in enumerate(outcomes)]
                for row in range(rows)
            ]
        )


class Outcome:
    """Images of a pass and what was found of each, collected part by part."""

    def __init__(self):
        self._images: list[paddle.Tensor] = []
        self._terms: dict[str, list[paddle.Tensor]] = {}
        self._captions: dict[str, list[paddle.Tensor]] = {}

    def add(self, images: paddle.Tensor, judgement: Judgement) -> None:
        """Add images [N, 3, S, S] and their judgement."""
        self._images.append(images.detach().astype("float32"))
        for store, values in (
            (self._terms, {**judgement.terms, "loss": judgement.total}),
            (self._captions, judgement.captions),
        ):
            for name, value in values.items():
                store.setdefault(name, []).append(value.detach().astype("float32"))

    @property
    def images(self) -> paddle.Tensor:
        """All images, [N, 3, S, S]."""
        return self._images[0] if len(self._images) == 1 else paddle.concat(self._images)

    def loss(self) -> paddle.Tensor:
        """Return the mean loss."""
        return paddle.concat(self._terms["loss"]).mean()

    def means(self, stage: str) -> dict[str, paddle.Tensor]:
        """Return the mean of every value, named for the pass: `loss_l2_real`."""
        return {f"{name}_{stage}": paddle.concat(v).mean() for name, v in self._terms.items()}

    def caption(self, row: int) -> str:
        """Return similarities and ages of one image, as far as they are known, in two lines."""
        values = {name: float(paddle.concat(v)[row]) for name, v in self._captions.items()}
        lines = []
        if "target_age" in values:
            ages = (values[f"{name}_age"] for name in ("input", "target", "output"))
            lines.append("age {:.0f}, target {:.0f}, found {:.0f}".format(*ages))
        if "diff_target" in values:
            same = (values[f"diff_{name}"] for name in ("target", "input", "views"))
            lines.append("id {:.2f}, input {:.2f}, views {:.2f}".format(*same))
        return "\n".join(lines)
