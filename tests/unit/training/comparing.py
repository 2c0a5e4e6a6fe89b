"""Whether two runs are the same: their checkpoints and their records."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from paddle_sam.training.folder import read_records


def assert_equal(left, right, path: str = "") -> None:
    """Weight files or nested dictionaries with the same keys and, bit for bit, the same values."""
    if dataclasses.is_dataclass(left):
        left, right = ({**vars(side), "label": ""} for side in (left, right))
    if isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_equal(left[key], right[key], f"{path}/{key}")
    elif isinstance(left, np.ndarray):
        np.testing.assert_array_equal(left, right, err_msg=path)
    else:
        assert left == right, path


def records(folder: Path, split: str = "train") -> list[dict]:
    """What a run wrote of a split, without the times."""
    found = [record for record in read_records(folder) if record["split"] == split]
    return [{k: v for k, v in record.items() if k != "time"} for record in found]
