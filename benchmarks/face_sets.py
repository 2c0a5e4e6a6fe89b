"""Two domains of generated faces with groups, for the run of docs/stargan2.md.

The faces are those of the embedded StyleGAN2, so they may be passed on. An open judge tells
female from male ones; unclear ones, and those in which no face is found, are left out. Groups are
measured, not seen by people: the lightness of the cheeks (skin), that of the strip above the
forehead (hair), each in thirds of all faces, and where the nose points (pose).

    python -m benchmarks.face_sets --output data/generated

About half a second of one core a face, most of it the judges'.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from skimage.color import rgb2lab
from tqdm import tqdm

from paddle_sam.core.images import save_image
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import find_weight
from paddle_sam.metrics.judges import Judges, as_judged
from paddle_sam.stylegan2.generator import EMBEDDED_GENERATOR, StyleGenerator

CLEAR = 0.8  # probability of female or male from which a face belongs to that domain
TURNED = 0.12  # the nose's distance from the middle of the eyes, in distances between them
PATCH = 8  # half the side of the patches whose lightness is measured, of 256 pixels


def lightness(picture: np.ndarray, centres: np.ndarray) -> float:
    """Mean L* of CIELAB, 0 to 100, of square patches around points [N, 2] of a picture."""
    height, width, _ = picture.shape
    patches = []
    for x, y in centres.round().astype(int):
        left, top = np.clip([x - PATCH, y - PATCH], 0, [width - 2 * PATCH, height - 2 * PATCH])
        patches.append(picture[top : top + 2 * PATCH, left : left + 2 * PATCH])
    return float(rgb2lab(np.stack(patches))[..., 0].mean())


def skin(picture: np.ndarray, landmarks: np.ndarray) -> float:
    """Lightness of both cheeks: halfway between the nose and the edge of the face."""
    cheeks = (landmarks[[2, 14]] + landmarks[[31, 35]]) / 2
    return lightness(picture, cheeks)


def hair(picture: np.ndarray, landmarks: np.ndarray) -> float:
    """Lightness of the upper edge of the picture, above both eyes and between them."""
    across = [landmarks[36, 0], landmarks[27, 0], landmarks[45, 0]]
    return lightness(picture, np.array([[x, 0] for x in across]))


def pose(landmarks: np.ndarray) -> str:
    """Where the nose points, as the viewer sees it."""
    eyes = landmarks[[36, 45]]
    turn = (landmarks[30, 0] - eyes[:, 0].mean()) / np.ptp(eyes[:, 0])
    return "ahead" if abs(turn) < TURNED else "left" if turn < 0 else "right"


def thirds(values: list[float], names: tuple[str, str, str]) -> list[str]:
    """Name each value by the third of all values that it lies in."""
    borders = np.quantile(values, [1 / 3, 2 / 3])
    return [names[index] for index in np.searchsorted(borders, values)]


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="data/generated")
    parser.add_argument("--faces", type=int, default=2000, help="seeds 0, 1, ... to look at")
    parser.add_argument("--truncation", type=float, default=0.8)
    parser.add_argument("--validation", type=int, default=100, help="of each domain, the first")
    args = parser.parse_args(argv)
    generator = StyleGenerator.open(find_weight(EMBEDDED_GENERATOR), device="cpu")
    judges, found = Judges(), []
    for seeds in tqdm(list(batches(range(args.faces), 16)), unit="16 faces"):
        pictures = generator.render(generator.seed_codes(seeds, args.truncation))
        for seed, picture in zip(seeds, pictures, strict=True):
            seen = as_judged(picture)
            read = judges(seen)
            if read is None or abs(read.male - 0.5) < CLEAR - 0.5:
                continue
            measured = (skin(seen, read.landmarks), hair(seen, read.landmarks))
            domain = "male" if read.male > 0.5 else "female"
            found.append((domain, seed, picture, *measured, pose(read.landmarks)))
    of_skin = thirds([row[3] for row in found], ("dark skin", "medium skin", "light skin"))
    of_hair = thirds([row[4] for row in found], ("dark hair", "medium hair", "light hair"))
    rows, count = [], {"female": 0, "male": 0}
    for (domain, seed, picture, _, _, turned), *groups in zip(found, of_skin, of_hair, strict=True):
        split = "val" if count[domain] < args.validation else "train"
        count[domain] += 1
        save_image(Path(args.output) / split / domain / f"{seed:05}.png", picture)
        if split == "val":
            rows.append([f"{domain}/{seed:05}.png", *groups, turned])
    with (Path(args.output) / "groups.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    print(f"{args.output}: {count['female']} female and {count['male']} male faces")


if __name__ == "__main__":
    main()
