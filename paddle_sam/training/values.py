"""Values to log: from the device to Python's numbers in one copy a step, checked to be numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import paddle
import paddle.distributed as dist

from paddle_sam.errors import TrainingError
from paddle_sam.training.distributed import World


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
