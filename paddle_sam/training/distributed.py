"""Data parallel training: who this process is, and gradients averaged over all of them.

Every process holds the whole network and a share of each batch. Training with several processes
equals training with one on the same batch: gradients are averaged before each step, and batch
norm takes its statistics over the whole batch (`synchronise_batch_norm`). Values to log are means
over all, brought from the device in one copy a step.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn

from paddle_sam.core.device import resolve_device
from paddle_sam.errors import ConfigError, TrainingError

# Gradients travel in pieces of about this many values.
_BUCKET = 1 << 24


@dataclasses.dataclass(frozen=True)
class World:
    """The processes of a run: this one is `rank` of 0..size-1."""

    rank: int = 0
    size: int = 1

    def share(self, batch_size: int) -> slice:
        """Which samples of each batch this process computes.

        Raises:
            ConfigError: the batch cannot be shared equally.
        """
        if batch_size % self.size:
            raise ConfigError(
                f"batch_size: {batch_size} cannot be shared by {self.size} processes;"
                " it counts the images of a step over all devices"
            )
        each = batch_size // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


def join_world(device: str = "auto", allow_tf32: bool = False) -> World:
    """Take this process's device and find out about the others (`paddle.distributed.launch`).

    Args:
        device: `auto`, `cpu`, `gpu` or `gpu:N`; with several processes on GPUs each takes the one
            that it was assigned.
        allow_tf32: see `resolve_device`.

    Raises:
        ConfigError: there is no such device.
    """
    resolve_device(device, allow_tf32)
    if dist.get_world_size() > 1 and not dist.is_initialized():
        dist.init_parallel_env()
    return World(dist.get_rank(), dist.get_world_size())


def meet(world: World) -> None:
    """Wait until all processes are here, however long the others take.

    To be called where one may be late, as after validation: on CPUs Paddle's collectives give up
    after 30 s.
    """
    if world.size == 1:
        return
    if paddle.device.get_device().startswith("gpu"):
        dist.barrier()
        return
    store = paddle.base.core.create_or_get_global_tcp_store()
    place = store.add("meet", 1)
    complete = -(-place // world.size) * world.size
    pause = 1e-3
    while store.add("meet", 0) < complete:
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def average_gradients(parameters: Iterable[paddle.Tensor], world: World) -> None:
    """Replace each gradient by its mean over all processes."""
    if world.size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for bucket in _buckets(gradients):
        flat = paddle.concat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        pieces = (flat / world.size).split([gradient.size for gradient in bucket])
        for gradient, piece in zip(bucket, pieces, strict=True):
            gradient.copy_(piece.reshape(gradient.shape), True)


def agree(flag: int, world: World) -> int:
    """Return the highest `flag` of all processes."""
    if world.size == 1:
        return flag
    found = paddle.to_tensor([flag])
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found.item())


def send_from_first(tensors: Iterable[paddle.Tensor], world: World) -> None:
    """Give every process the values that process 0 has. Waits for the last one."""
    if world.size > 1:
        meet(world)
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def synchronise_batch_norm(network: nn.Layer, world: World) -> None:
    """Let every batch norm below `network` see the batches of all processes.

    Paddle's `SyncBatchNorm` exists for GPUs only; this one runs on any device.
    """
    if world.size == 1:
        return
    for layer in network.sublayers(include_self=True):
        if type(layer) is nn.BatchNorm2D:
            layer.__class__ = _WholeBatchNorm2D
            layer.world = world


class _WholeBatchNorm2D(nn.BatchNorm2D):
    """Batch norm over the equal batches of all processes; same parameters and statistics."""

    world: World

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        channel = [1, -1, 1, 1]
        mean = _MeanOverProcesses.apply(x.mean([0, 2, 3]), self.world.size)
        centred = x - mean.reshape(channel)
        variance = _MeanOverProcesses.apply(centred.square().mean([0, 2, 3]), self.world.size)
        with paddle.no_grad():
            keep = self._momentum
            self._mean.copy_(keep * self._mean + (1 - keep) * mean, True)
            self._variance.copy_(keep * self._variance + (1 - keep) * variance, True)
        scale = self.weight * paddle.rsqrt(variance + self._epsilon)
        return centred * scale.reshape(channel) + self.bias.reshape(channel)


class _MeanOverProcesses(paddle.autograd.PyLayer):
    """Mean over all processes. Its gradient is the mean of theirs: each loss depends on it."""

    @staticmethod
    def forward(ctx, x, size):
        ctx.size = size
        total = x.clone()
        dist.all_reduce(total)
        return total / size

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.clone()
        dist.all_reduce(total)
        return total / ctx.size


def _buckets(gradients: Sequence[paddle.Tensor]) -> Iterable[list[paddle.Tensor]]:
    bucket, size = [], 0
    for gradient in gradients:
        bucket.append(gradient)
        size += gradient.size
        if size >= _BUCKET:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


def read_values(
    values: Mapping[str, paddle.Tensor], world: World | None = None
) -> dict[str, float]:
    """Return scalar tensors as numbers: means over all processes, which must give the same names.

    They travel together, because every copy from a GPU waits for all its work.
    """
    names = sorted(values)
    packed = paddle.stack([values[name].detach().astype("float32").reshape([]) for name in names])
    if world is not None and world.size > 1:
        dist.all_reduce(packed)
        packed = packed / world.size
    found = dict(zip(names, packed.tolist(), strict=True))
    return {name: found[name] for name in values}


def check_finite(values: Mapping[str, float], step: int, advice: str) -> None:
    """Raise `TrainingError` with `advice` if a value of step number `step` is not finite."""
    bad = [name for name, value in values.items() if not np.isfinite(value)]
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise TrainingError(f"step {step + 1}: {bad[0]} is {values[bad[0]]}{more}. {advice}")
