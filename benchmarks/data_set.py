"""What it costs to prepare a data set, to search it for near duplicates, and to read it.

On scikit-image's portrait at 1024 px, one process and one thread at a time. Writes
benchmarks/results/data_set.json; `processor_s` is what other work on the machine disturbs least.

    OMP_NUM_THREADS=1 python -m benchmarks.data_set
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import skimage.data

from benchmarks import timing
from paddle_sam.core.images import resize, save_image
from paddle_sam.imagesets.archive import open_image_set, write_archive
from paddle_sam.imagesets.loader import read_sample
from paddle_sam.imagesets.prepare.defects import near_pairs
from paddle_sam.imagesets.prepare.examine import Examiner
from paddle_sam.imagesets.prepare.inputs import list_tasks
from paddle_sam.imagesets.prepare.options import PrepareOptions

IMAGES, SIZE = 256, 128


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hashes", type=int, default=40_000, help="images to compare")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    record = {"machine": timing.machine()}
    with tempfile.TemporaryDirectory() as folder:
        record |= preparing(Path(folder), args.repeats)
        record |= reading(Path(folder), args.repeats)
    hashes = np.random.default_rng(0).integers(0, 2**63, args.hashes, np.uint64)
    record["hashes"] = args.hashes
    record["compare_all"] = timing.measure(lambda: list(near_pairs(hashes, 10)), 1, warmups=0)
    print(json.dumps(record, indent=2))
    print("written:", timing.write("data_set", record))


def preparing(folder: Path, repeats: int) -> dict:
    """A 1024 px JPEG to a 256 px PNG: its middle, and its face."""
    path = folder / "portrait.jpg"
    save_image(path, resize(skimage.data.astronaut(), 1024))
    (task,), _ = list_tasks([path], folder)
    record = {}
    for crop in ("centre", "face"):
        examiner = Examiner(PrepareOptions(data_path="-", output="-.zip", crop=crop))
        record[f"prepare_{crop}"] = timing.measure(lambda e=examiner: e(task), repeats)
    return record


def reading(folder: Path, repeats: int) -> dict:
    """So many PNG files of 128 px, read one after the other in another order than they lie."""
    random = np.random.default_rng(0)
    portrait = resize(skimage.data.astronaut(), 2 * SIZE)
    for index in range(IMAGES):
        top, left = random.integers(0, SIZE, 2)
        cut = np.ascontiguousarray(portrait[top : top + SIZE, left : left + SIZE])
        save_image(folder / "set" / f"{index:04d}.png", cut)
    files = sorted((folder / "set").iterdir())
    write_archive(folder / "set.zip", ((path.name, path.read_bytes()) for path in files), {})
    record = {"images_read": IMAGES}
    for name in ("set", "set.zip"):
        images = open_image_set(folder / name).images
        order = random.permutation(IMAGES)

        def read(images=images, order=order):
            for index in order:
                read_sample((images[index],), SIZE)

        record["read_archive" if name == "set.zip" else "read_folder"] = timing.measure(
            read, repeats
        )
    return record


if __name__ == "__main__":
    main()
