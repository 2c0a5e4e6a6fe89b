"""An age strip at the published size by the engine, by eager Paddle, and by the reference's way.

The naive subjects do the reference's arithmetic (benchmarks/naive.py), which costs the same for
every age: they are timed for one age, and their strip is that times the number of ages. All
others are timed for the whole strip. Each subject's largest difference from the naive Paddle image
stands beside its time. Writes benchmarks/results/inference.json.

    python -m benchmarks.inference --checkpoint_path sam_ffhq_aging.pdparams
    python -m benchmarks.inference --name inference_default     # the embedded default
"""

import argparse
from pathlib import Path

import numpy as np
import paddle

from benchmarks import timing
from benchmarks.naive import NaiveSAM, paddle_ops, torch_ops
from paddle_sam.common.images import to_network
from paddle_sam.common.weights import find_weight
from paddle_sam.data.alignment import CropSettings
from paddle_sam.inference.networks import ageing_network, read_sam
from paddle_sam.inference.pipeline import EMBEDDED_DEFAULT, AgePipeline
from paddle_sam.models.sam import add_age_plane

CHECKED_AGE = 40.0


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint_path", default="", help="default: the embedded model")
    parser.add_argument("--name", default="inference", help="of the record")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ages", type=int, default=11)
    subjects = ["naive_paddle", "naive_torch", "onednn", "onednn-bf16", "eager"]
    parser.add_argument("--subjects", nargs="+", default=subjects, choices=subjects)
    args = parser.parse_args(argv)
    paddle.set_device("cpu")
    path = Path(args.checkpoint_path or find_weight(EMBEDDED_DEFAULT))
    record = {"machine": timing.machine(), "file": path.name, "ages": args.ages, "subjects": {}}
    reference = None
    for name in ["naive_paddle", *(name for name in args.subjects if name != "naive_paddle")]:
        time_naive = naive if name.startswith("naive") else fast
        try:
            row, image = time_naive(name, path, args)
        except Exception as error:  # a subject that cannot run here is a result, too
            row, image = {"failed": str(error).splitlines()[0]}, None
        if name == "naive_paddle":
            reference = image
        if image is not None:
            row["largest_difference"] = float(np.abs(image - reference).max())
            error = float(((image - reference) ** 2).mean())
            row["psnr_db"] = 10 * np.log10(4 / error) if error else None
        record["subjects"][name] = row
        print(name, {k: v for k, v in row.items() if k != "runs_s"}, flush=True)
    print("written:", timing.write(args.name, record))


def naive(name: str, path: Path, args) -> tuple[dict, np.ndarray]:
    """The reference's arithmetic, in Paddle or torch, for one age."""
    network, crop = read_sam(path)
    torch = name.endswith("torch")
    ops = torch_ops() if torch else paddle_ops()
    subject = NaiveSAM(network, ops)
    face = ops.tensor(to_network(photograph(crop)))

    def one_age() -> np.ndarray:
        with no_gradients(torch):
            return subject(face, CHECKED_AGE).numpy()

    row = timing.measure(one_age, args.repeats)
    return row | {"strip_s": row["median_s"] * args.ages, "measured": "one age"}, one_age()


def fast(name: str, path: Path, args) -> tuple[dict, np.ndarray]:
    """The pipeline by one engine, for the whole strip."""
    pipeline = AgePipeline(*ageing_network(path, "cpu", name))
    crops = photograph(pipeline.crop)
    ages = np.linspace(0, 100, args.ages)
    row = timing.measure(lambda: pipeline.age(crops, ages, batch_size=4), args.repeats)
    face = paddle.to_tensor(to_network(crops))
    age = paddle.to_tensor([CHECKED_AGE])
    with paddle.no_grad():
        codes = pipeline.network.encode(add_age_plane(face, age), pipeline.invert(face))
        image = pipeline.decode(codes).numpy()
    return row | {"strip_s": row["median_s"], "measured": "strip"}, image


def photograph(crop: CropSettings) -> np.ndarray:
    """The public-domain portrait's face: uint8 [1, S, S, 3], cut without the landmark file."""
    from PIL import Image
    from skimage import data

    face = Image.fromarray(data.astronaut()[0:240, 110:350])
    return np.asarray(face.resize((crop.size, crop.size), Image.Resampling.LANCZOS))[None]


def no_gradients(torch: bool):
    if torch:
        import torch

        return torch.inference_mode()
    return paddle.no_grad()


if __name__ == "__main__":
    main()
