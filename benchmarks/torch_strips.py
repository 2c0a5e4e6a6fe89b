"""Age strips of the same faces and weights, in PyTorch and here: NAME_torch.jpg, NAME_paddle.jpg.

The PyTorch side is the reference's arithmetic (`benchmarks.naive`), one age at a time; this side
is what the commands run, with `--keep 0 --raw_age`. Prints the largest difference of a pixel
before the strips are saved as JPEG.

    python -m benchmarks.torch_strips --data_path CelebA_test --exp_dir examples/torch_and_paddle
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.naive import NaiveSAM, torch_ops
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.folders import list_images
from paddle_sam.core.images import read_image, save_image, strip, to_network, to_uint8
from paddle_sam.core.weights import find_weight
from paddle_sam.networks.load import load

AGES = range(0, 101, 10)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", default="CelebA_test", help="folder of faces")
    parser.add_argument("--exp_dir", default="results/torch_and_paddle")
    parser.add_argument("--checkpoint_path", default=str(find_weight("sam_mini")))
    parser.add_argument("--tile_size", type=int, default=96)
    args = parser.parse_args(argv)
    pipeline = AgePipeline.from_checkpoint(args.checkpoint_path, device="cpu", raw_age=True)
    in_torch = NaiveSAM(load(args.checkpoint_path, device="cpu"), torch_ops())
    captions, worst = ["input", *map(str, AGES)], 0
    for path in list_images(args.data_path):
        (face,) = pipeline.faces(read_image(path))
        here = pipeline.age(face.image[None], AGES)[0]
        image = torch.from_numpy(to_network(face.image[None]))
        with torch.no_grad():
            there = np.concatenate([to_uint8(in_torch(image, age).numpy()) for age in AGES])
        difference = np.abs(here.astype(int) - there)
        worst = max(worst, int(difference.max()))
        print(
            f"{path.stem}: at most {difference.max()} of 255, {(difference > 0).mean():.1e} differ"
        )
        for library, images in (("torch", there), ("paddle", here)):
            sheet = strip([face.image, *images], args.tile_size, captions)
            save_image(Path(args.exp_dir) / f"{path.stem}_{library}.jpg", sheet)
    print(f"largest difference: {worst} of 255; strips: {args.exp_dir}")


if __name__ == "__main__":
    main()
