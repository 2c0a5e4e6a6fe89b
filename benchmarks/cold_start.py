"""Time from command to first strip: without the engine's cache, and with it.

    python -m benchmarks.cold_start
    python -m benchmarks.cold_start --checkpoint_path sam.pdparams --name cold_start_published

Also of `--help`. Each is a fresh process; the cache is a new folder. Writes
benchmarks/results/NAME.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import timing

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "inference_side_by_side.py"


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint_path", default="", help="default: the embedded model")
    parser.add_argument("--name", default="cold_start", help="of the record")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    record = {"machine": timing.machine(), "file": Path(args.checkpoint_path).name or "default"}
    with tempfile.TemporaryDirectory() as folder:
        strip = ["--exp_dir", f"{folder}/results"]
        if args.checkpoint_path:
            strip += ["--checkpoint_path", args.checkpoint_path]
        record["first_strip_s"] = seconds(strip, folder)
        for name, arguments in (("cached_strip_s", strip), ("help_s", ["--help"])):
            record[name] = statistics.median(
                seconds(arguments, folder) for _ in range(args.repeats)
            )
    print({name: value for name, value in record.items() if name.endswith("_s")})
    print("written:", timing.write(args.name, record))


def seconds(arguments: list[str], cache: str) -> float:
    start = time.perf_counter()
    environment = {**os.environ, "PADDLE_SAM_CACHE": cache}
    command = [sys.executable, str(SCRIPT), *arguments]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
