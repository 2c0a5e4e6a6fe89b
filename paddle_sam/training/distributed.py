"""Data parallel training: who this process is, and gradients averaged over all of them.

Every process holds the whole network and a share of each batch. Training with several processes
equals training with one on the same batch: gradients are averaged before each step, and batch
norm takes its statistics over the whole batch (`synchronise_batch_norm`). Values to log are means
over all, brought from the device in one copy a step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn

from paddle_sam.core.device import resolve_device
from paddle_sam.errors import ConfigError, TrainingError

# Gradients travel in pieces of about this many values.
_BUCKET = 1 << 24
_PATIENCE = 10.0  # seconds for whoever connects to say that it belongs to the run


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


def join_world(device: str = "auto", allow_tf32: bool = False, autotune: bool = False) -> World:
    """Take this process's device and find out about the others (`paddle.distributed.launch`).

    Args:
        device: `auto`, `cpu`, `gpu` or `gpu:N`; with several processes on GPUs each takes the one
            that it was assigned.
        allow_tf32, autotune: see `resolve_device`.

    Raises:
        ConfigError: there is no such device.
    """
    resolve_device(device, allow_tf32, autotune)
    if dist.get_world_size() > 1 and not dist.is_initialized():
        dist.init_parallel_env()
    return World(dist.get_rank(), dist.get_world_size())


def meet(world: World) -> None:
    """Wait until all processes are here, however long the others take.

    To be called where one may be late, as after validation: on CPUs Paddle's collectives give up
    after 30 s. Those of GPUs wait, so nothing is done there.

    Raises:
        TrainingError: another process has ended.
    """
    if world.size == 1 or paddle.device.get_device().startswith("gpu"):
        return
    try:
        lines = _lines(world)
        if world.rank == 0:
            for line in lines:
                line.recv_bytes(1)
        for line in lines:
            line.send_bytes(b".")
        if world.rank:
            lines[0].recv_bytes(1)
    except (EOFError, OSError, ValueError):  # the last is what Paddle raises for a lost connection
        raise TrainingError("another process of this run has ended; its messages say why") from None


@functools.cache
def _lines(world: World) -> list[Connection]:
    """Connections of the first process to every other one, and of each of these to the first."""
    store = paddle.base.core.create_or_get_global_tcp_store()
    if world.rank:
        host, port, key = bytes(store.get("meeting")).decode().split()
        line = Client((host, int(port)))
        line.send_bytes(bytes.fromhex(key))
        return [line]
    host = os.environ.get("PADDLE_CURRENT_ENDPOINT", "").rpartition(":")[0] or "127.0.0.1"
    key, lines = secrets.token_bytes(16), []
    with Listener((host, 0), backlog=world.size) as listener:
        store.set("meeting", f"{host} {listener.address[1]} {key.hex()}")
        while len(lines) < world.size - 1:
            with contextlib.suppress(OSError, EOFError):  # somebody else, who may say anything
                line = listener.accept()
                if line.poll(_PATIENCE) and line.recv_bytes(len(key)) == key:
                    lines.append(line)
    return lines


class GradientMeans:
    """Replaces gradients by their means over all processes, sent while backward computes others.

    They travel in buckets, the last layers' first, as backward finishes them. A bucket is sent when
    its last gradient has come and the one before it was sent: all processes send in one order.

    Args:
        parameters: in the order of the forward pass, if that is known.
        world: the processes of the run. With one nothing is done.
    """

    def __init__(self, parameters: Iterable[paddle.Tensor], world: World):
        self._world, self._open = world, False
        trained = [p for p in parameters if not p.stop_gradient] if world.size > 1 else []
        self._buckets = list(_buckets(trained[::-1]))
        self._sent: list[tuple[list[paddle.Tensor], paddle.Tensor, Any]] = []
        self._missing: list[set[int]] = []
        self._start()
        for number, bucket in enumerate(self._buckets):
            for place, parameter in enumerate(bucket):
                come = functools.partial(self._come, number, place)
                parameter._register_backward_hook(come)

    def _start(self) -> None:
        self._sent, self._missing = [], [set(range(len(bucket))) for bucket in self._buckets]

    @contextlib.contextmanager
    def sending(self, last: bool = True) -> Iterator[None]:
        """Return the context of a `backward`: the `last` one that adds to these gradients sends."""
        self._open = last
        try:
            yield
        finally:
            self._open = False

    def _come(self, number: int, place: int) -> None:
        if not self._open:
            return
        if number < len(self._sent):
            raise RuntimeError("a gradient was added to after it had been sent")
        self._missing[number].discard(place)
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._send()

    @paddle.no_grad()
    def _send(self) -> None:
        bucket = self._buckets[len(self._sent)]
        gradients = [p.grad for p in bucket if p.grad is not None]
        if not gradients:
            self._sent.append(([], None, None))
            return
        flat = paddle.concat([gradient.flatten() for gradient in gradients])
        self._sent.append((gradients, flat, dist.all_reduce(flat, sync_op=False)))

    @paddle.no_grad()
    def finish(self) -> None:
        """Send what is left, wait for all, and replace the gradients."""
        while len(self._sent) < len(self._buckets):
            self._send()
        for gradients, flat, task in self._sent:
            if not gradients:
                continue
            task.wait()
            pieces = (flat / self._world.size).split([gradient.size for gradient in gradients])
            for gradient, piece in zip(gradients, pieces, strict=True):
                gradient.copy_(piece.reshape(gradient.shape), False)
        self._start()


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

    Paddle's `SyncBatchNorm` exists for GPUs only; this one runs on any device, and is tested with
    two processes on CPUs.
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
        channel, kind = [1, -1, 1, 1], x.dtype
        if kind != paddle.float32:  # 16 bits under `--amp` are too coarse for statistics
            x = x.astype("float32")
        mean = _MeanOverProcesses.apply(x.mean([0, 2, 3]), self.world.size)
        centred = x - mean.reshape(channel)
        variance = _MeanOverProcesses.apply(centred.square().mean([0, 2, 3]), self.world.size)
        with paddle.no_grad():
            keep = self._momentum
            self._mean.copy_(keep * self._mean + (1 - keep) * mean, False)
            self._variance.copy_(keep * self._variance + (1 - keep) * variance, False)
        scale = self.weight * paddle.rsqrt(variance + self._epsilon)
        y = centred * scale.reshape(channel) + self.bias.reshape(channel)
        return y if kind == paddle.float32 else y.astype(kind)


class _MeanOverProcesses(paddle.autograd.PyLayer):
    """Mean over all processes. All losses depend on it, so its gradient is a mean too."""

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


def _buckets(parameters: Sequence[paddle.Tensor]) -> Iterable[list[paddle.Tensor]]:
    bucket, size = [], 0
    for parameter in parameters:
        bucket.append(parameter)
        size += parameter.size
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
