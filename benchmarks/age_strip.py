"""An age strip of one face at the published size, eager float32, against the naive way.

The naive way runs the whole network for every age, as the published scripts do; the frozen pSp
code of the face, the same for every age, is computed again each time. `AgePipeline` computes it
once. Writes benchmarks/results/age_strip.json.

    python -m benchmarks.age_strip

With `--dial` it times the embedded model instead, as a user calls it: an aligned face of 256 px,
eleven ages, by the engine, blended into the photograph. Writes benchmarks/results/dial_strip.json.

    python -m benchmarks.age_strip --dial --repeats 20
"""

import argparse
import statistics

import numpy as np
import paddle
import skimage.data

from benchmarks import timing
from benchmarks.published import published_sam
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.images import to_network, to_uint8
from paddle_sam.faces.alignment import CropSettings, cut_out
from paddle_sam.networks.sam import add_age_plane


def naive(network, crop: np.ndarray, ages: list[int]) -> np.ndarray:
    """Every age by a whole forward pass: uint8 [A, 1024, 1024, 3]."""
    face = paddle.to_tensor(to_network(crop))
    results = []
    with paddle.no_grad():
        for age in ages:
            x = add_age_plane(face, paddle.to_tensor([float(age)]))
            results.append(to_uint8(network(x, resize=False, randomize_noise=False).numpy())[0])
    return np.stack(results)


def dial_strip(ages: list[int], repeats: int) -> dict:
    """Time of a warm strip of the embedded model with the dial, at 256 px."""
    pipeline = AgePipeline.from_checkpoint(device="cpu")
    face = cut_out(skimage.data.astronaut(), pipeline.faces(skimage.data.astronaut())[0].quad, 256)
    strip = pipeline(face.image, ages, align=False)
    assert strip[0].shape == (len(ages), 256, 256, 3)
    return timing.measure(lambda: pipeline(face.image, ages, align=False), repeats)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ages", type=int, default=11, help="ages from 0 to 100, evenly spaced")
    parser.add_argument("--dial", action="store_true", help="the embedded model with the dial")
    args = parser.parse_args(argv)
    paddle.set_device("cpu")
    machine = timing.machine()
    if args.dial:
        ages = [round(age) for age in np.linspace(0, 100, args.ages)]
        record = {"machine": machine, **dial_strip(ages, args.repeats)}
        record["peak_memory_gb"] = timing.peak_memory_gb()
        print({name: value for name, value in record.items() if name not in ("machine", "runs_s")})
        print(f"written: {timing.write('dial_strip', record)}")
        return
    network = published_sam()
    pipeline = AgePipeline(network, CropSettings())
    ages = [round(age) for age in np.linspace(0, 100, args.ages)]
    crop = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    fast, slow = pipeline.age(crop[None], ages[:1], batch_size=1)[0], naive(network, crop, ages[:1])
    difference = int(np.abs(fast.astype(int) - slow).max())
    ways = {
        "pipeline": lambda: pipeline.age(crop[None], ages, batch_size=1),
        "naive": lambda: naive(network, crop, ages),
    }
    # In turns, so that whatever else the machine does meets both.
    rounds = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, work in ways.items():
            rounds[name].append(timing.measure(work, repeats=1, warmups=0))
    record = {
        "machine": machine,
        "what": f"one face x {len(ages)} ages, 1024 px, eager float32, weights of the recipe",
        "largest_difference_in_grey_levels": difference,
    }
    for name, found in rounds.items():
        record[name] = {
            key: statistics.median(one[key] for one in found) for key in ("median_s", "processor_s")
        }
        print(f"{name}: {record[name]}")
    for key, label in (("median_s", "wall"), ("processor_s", "processor")):
        ratio = record["naive"][key] / record["pipeline"][key]
        record[f"naive_over_pipeline_{label}"] = ratio
        print(f"naive takes {ratio:.2f} times the {label} time")
    print(f"written: {timing.write('age_strip', record)}")


if __name__ == "__main__":
    main()
