"""Run by test_distributed.py in two processes: what they say to each other, as JSON by rank."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from paddle_sam.training import distributed
from paddle_sam.training.distributed import GradientMeans, join_world, meet


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


def main(folder: str) -> None:
    world = join_world("cpu")
    result = {f"parts_{parts}": gradients(world, parts) for parts in (1, 2)}
    times = []
    for late in (0, 1, 0):
        time.sleep(0.5 * (world.rank == late))
        meet(world)
        times.append(time.time())
    result["times"] = times
    Path(folder, f"{world.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
