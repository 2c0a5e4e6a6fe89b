"""Run by test_distributed.py in two processes: what they say to each other, as JSON by rank."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from paddle_sam.training import distributed
from paddle_sam.training.distributed import (
    GradientMeans,
    join_world,
    meet,
    synchronise_batch_norm,
)


def gradients(world, parts: int) -> dict:
    """Gradients of a loss over a batch that is computed in parts, by parameter; None: unused."""
    paddle.seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    unused = nn.Linear(2, 2)
    distributed._BUCKET = 10  # values, so that there are several
    means = GradientMeans([*unused.parameters(), *network.parameters()], world)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    found, sent = {}, []
    for _ in range(2):  # a second step finds everything as the first did
        for index, part in enumerate(np.split(x[world.share(8)], parts)):
            loss = network(paddle.to_tensor(part)).square().mean() / parts
            with means.sending(last=index == parts - 1):
                loss.backward()
        sent.append(len(means._sent))  # while backward still ran
        means.finish()
        found = {name: p.grad.numpy().tolist() for name, p in network.named_parameters()}
        assert all(p.grad is None for p in unused.parameters())
        network.clear_gradients()
    return {"gradients": found, "sent": sent, "buckets": len(means._buckets)}


def batch_norm(world) -> dict:
    """What a batch norm makes of this process's share, its gradients, and its statistics."""
    norm = nn.BatchNorm2D(3)
    norm.weight.set_value(np.array([1, 2, 0.5], "float32"))
    synchronise_batch_norm(norm, world)
    random, mine = np.random.default_rng(1), world.share(8)
    x = paddle.to_tensor(random.normal(2, 3, (8, 3, 4, 4)).astype("float32")[mine])
    x.stop_gradient = False
    factors = paddle.to_tensor(random.normal(size=(8, 3, 4, 4)).astype("float32")[mine])
    y = norm(x)
    (y * factors).sum().backward()
    found = {"y": y, "x_grad": x.grad, "weight_grad": norm.weight.grad, "bias_grad": norm.bias.grad}
    found |= {"mean": norm._mean.clone(), "variance": norm._variance.clone()}
    if world.size > 1:  # a single process has Paddle's own, which has no 16 bits on a CPU
        half = norm(x.detach().astype("bfloat16"))
        assert half.dtype == paddle.bfloat16
        found["in 16 bits"] = half.astype("float32")
    return {name: value.numpy().tolist() for name, value in found.items()}


def main(folder: str) -> None:
    world = join_world("cpu")
    result = {f"parts_{parts}": gradients(world, parts) for parts in (1, 2)}
    result["batch_norm"] = batch_norm(world)
    times = []
    for late in (0, 1, 0):
        time.sleep(0.5 * (world.rank == late))
        meet(world)
        times.append(time.time())
    result["times"] = times
    Path(folder, f"{world.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
