"""An age strip at the published size by the engine, by eager Paddle, and by the reference's way.

    OMP_NUM_THREADS=2 python -m benchmarks.inference --checkpoint_path sam_ffhq_aging.pdparams
    OMP_NUM_THREADS=2 python -m benchmarks.inference --name inference_default

The second is of the embedded default. Without the variable Paddle's import leaves torch one thread;
Paddle's layers and the engine use all CPUs in any case.
Each subject has a process of its own, which also gives its peak memory. The naive subjects do the
reference's arithmetic (benchmarks/naive.py), `naive_torch-bf16` under PyTorch's autocast. It costs
the same for every age: they and eager Paddle are timed for one age, and their strip is that times
the number of ages. The engine is timed for whole strips.
Beside each time stands what the image at one age differs from eager Paddle's by.
Writes benchmarks/results/NAME.json.
"""

import argparse
import contextlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import timing

SUBJECTS = (
    *("eager", "naive_paddle", "naive_torch", "naive_torch-bf16"),
    *("onednn", "onednn-bf16"),
)
CHECKED_AGE = 40.0


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint_path", default="", help="default: the embedded model")
    parser.add_argument("--name", default="inference", help="of the record")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ages", type=int, default=11)
    parser.add_argument("--subjects", nargs="+", default=SUBJECTS[1:], choices=SUBJECTS[1:])
    parser.add_argument("--child", choices=SUBJECTS, help=argparse.SUPPRESS)
    parser.add_argument("--image", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        print(json.dumps(measured(args)))
        return
    record = {"machine": timing.machine(), "file": Path(args.checkpoint_path).name or "default"}
    threads = os.environ.get("OMP_NUM_THREADS", "all CPUs; torch: 1")
    record |= {"threads": threads, "ages": args.ages, "subjects": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in (SUBJECTS[0], *args.subjects):
            record["subjects"][name] = row = in_own_process(name, args, Path(folder))
            print(name, {k: v for k, v in row.items() if k != "runs_s"}, flush=True)
    print("written:", timing.write(args.name, record))


def in_own_process(name: str, args, folder: Path) -> dict:
    """A subject's row, with what its image differs from eager Paddle's by."""
    arguments = ["--child", name, "--image", str(folder / f"{name}.npy")]
    arguments += ["--repeats", str(args.repeats), "--ages", str(args.ages)]
    arguments += ["--checkpoint_path", args.checkpoint_path]
    row = timing.in_own_process("benchmarks.inference", arguments)
    if "failed" in row:
        return row
    image, eager = (np.load(folder / f"{each}.npy") for each in (name, SUBJECTS[0]))
    error = float(((image - eager) ** 2).mean())
    difference = {"largest_difference": float(np.abs(image - eager).max())}
    return row | difference | {"psnr_db": 10 * np.log10(4 / error) if error else None}


def measured(args) -> dict:
    """The row of the subject `args.child`, or why it cannot run here, which is a result, too."""
    from paddle_sam.errors import ConfigError

    try:
        row, image = measure(args)
    except ConfigError as error:
        return {"failed": str(error).rpartition("/")[2]}  # without the cache's place
    np.save(args.image, image)
    return row


def measure(args) -> tuple[dict, np.ndarray]:
    """The times of the subject `args.child`, and its image [1, 3, R, R] at `CHECKED_AGE`."""
    import paddle

    from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT
    from paddle_sam.core.weights import find_weight

    paddle.set_device("cpu")
    path = Path(args.checkpoint_path or find_weight(EMBEDDED_DEFAULT))
    of_one_age = naive if args.child.startswith("naive") else by_pipeline
    one_age, strip = of_one_age(args.child, path, args.ages)
    if args.child.startswith("onednn"):
        row = timing.measure(strip, args.repeats)
        row |= {"measured": "strip", "strip_s": row["median_s"]}
    else:
        row = timing.measure(one_age, args.repeats)
        row |= {"measured": "one age", "strip_s": row["median_s"] * args.ages}
    return row | {"peak_memory_gb": timing.peak_memory_gb()}, one_age()


def naive(name: str, path: Path, _ages: int):
    """The reference's arithmetic, in Paddle or torch, for one age."""
    from benchmarks.naive import NaiveSAM, paddle_ops, torch_ops
    from paddle_sam.ageing.pipeline import read_sam
    from paddle_sam.core.images import to_network

    network, crop, _ = read_sam(path)
    torch = name.startswith("naive_torch")
    ops = torch_ops() if torch else paddle_ops()
    subject = NaiveSAM(network, ops)
    face = ops.tensor(to_network(photograph(crop.size)))

    def one_age() -> np.ndarray:
        with no_gradients(torch), half_precision(name.endswith("bf16")):
            image = subject(face, CHECKED_AGE)
            return (image.float() if torch else image).numpy()

    return one_age, None


def half_precision(wanted: bool):
    """PyTorch's own choice of what to compute in bfloat16."""
    if not wanted:
        return contextlib.nullcontext()
    import torch

    return torch.autocast("cpu", torch.bfloat16)


def by_pipeline(name: str, path: Path, ages: int):
    """The pipeline by one engine, for one age and for the whole strip."""
    import paddle

    from paddle_sam.ageing.pipeline import AgePipeline, ageing_network
    from paddle_sam.core.images import to_network

    pipeline = AgePipeline(*ageing_network(path, "cpu", name)[:2])
    crops = photograph(pipeline.crop.size)
    face, age = paddle.to_tensor(to_network(crops)), paddle.to_tensor([CHECKED_AGE])

    def one_age() -> np.ndarray:
        codes = pipeline.aged_codes(face, pipeline.invert(face), age)
        return pipeline.decode(codes).numpy()

    return one_age, lambda: pipeline.age(crops, np.linspace(0, 100, ages), batch_size=16)


def photograph(size: int) -> np.ndarray:
    """The public-domain portrait's face: uint8 [1, S, S, 3], cut without the landmark file."""
    from PIL import Image
    from skimage import data

    face = Image.fromarray(data.astronaut()[0:240, 110:350])
    return np.asarray(face.resize((size, size), Image.Resampling.LANCZOS))[None]


def no_gradients(torch: bool):
    if torch:
        import torch

        return torch.inference_mode()
    import paddle

    return paddle.no_grad()


if __name__ == "__main__":
    main()
