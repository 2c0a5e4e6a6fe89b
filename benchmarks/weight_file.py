"""CPU time to write and read a weight file of the published SAM's size, with and without checksum.

python benchmarks/weight_file.py [GIGABYTES]
"""

import json
import os
import pickle
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

from paddle_sam.core.weights import NetworkEntry, WeightFile

REPEATS = 3


def main() -> None:
    """Print medians in seconds as JSON."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    tensor = np.random.default_rng(0).standard_normal((512, 512, 3, 3), np.float32)
    count = max(int(gigabytes * 1e9 / tensor.nbytes), 1)
    file = WeightFile("test", {"net": NetworkEntry("net", {}, {})})
    file.networks["net"].state = {f"w{index}": tensor + index for index in range(count)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pdparams"
        found = {
            "write": timed(lambda: file.write(path)),
            "read": timed(lambda: WeightFile.read(path)),
            "read_by_plain_pickle": timed(lambda: pickle.loads(path.read_bytes())),
            "checksum_alone": timed(lambda: zlib.crc32(path.read_bytes())),
        }
        size = path.stat().st_size / 1e9
    print(json.dumps({"gigabytes": round(size, 2), "cores": os.cpu_count(), **found}))


def timed(action) -> float:
    """Return the median CPU time of `REPEATS` calls, after one to warm up."""
    action()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return round(sorted(times)[REPEATS // 2], 2)


if __name__ == "__main__":
    main()
