"""Options of `scripts/prepare_dataset.py`."""

from __future__ import annotations

import dataclasses

from paddle_sam.errors import ConfigError
from paddle_sam.options import Options, option, parse_names

AUGMENTATIONS = ("mirror", "colour", "sharpness", "blur", "contrast", "crop")


@dataclasses.dataclass(frozen=True)
class PrepareOptions(Options):
    """From any pictures to a data set of squares of one size."""

    data_path: str = option("", "folders and archives (zip, tar, tar.gz) of images, by commas")
    output: str = option("", "the archive to make; ends in .zip")
    size: int = option(256, "height and width of the images, a power of two", minimum=8)
    format: str = option("png", "of the images in the archive", choices=("png", "jpg"))
    labels: str = option(
        "none",
        "classes of the images: the folders they are in, or those that each input states in a"
        " dataset.json",
        choices=("none", "folders", "inputs"),
    )

    crop: str = option(
        "centre",
        "the square to cut out: the middle, faces as in FFHQ (dlib), or what a cascade finds",
        choices=("centre", "face", "cascade"),
    )
    face: str = option(
        "best",
        "of several faces: the most confident (of a cascade: the largest), the largest, or each",
        choices=("best", "largest", "all"),
    )
    face_scale: float = option(
        1.0, "size of the square, relative to FFHQ's or the cascade's", above=0
    )
    face_offset: float = option(0.1, "centre of an FFHQ square, from eyes (0) to mouth (1)")
    cascade: str = option(
        "haarcascade_frontalface_default.xml",
        "OpenCV cascade: a file, or the name of one that comes with OpenCV",
    )
    cascade_scale_factor: float = option(
        1.1, "step from one searched face size to the next", above=1
    )
    cascade_neighbours: int = option(
        5, "detections that have to agree; more finds less that is no face", minimum=0
    )
    cascade_min_size: int = option(50, "smallest face searched for, in pixels", minimum=1)

    min_size: int = option(
        0,
        "smallest square to keep, in its own pixels (default: --size; with --upscale half of it)",
        minimum=0,
    )
    upscale: str = option(
        "", "enlarge squares that are smaller: lanczos, or a super-resolution model (.onnx, .pb)"
    )
    max_aspect: float = option(
        3.0, "longest picture to cut the middle out of, length to width", minimum=1
    )
    min_contrast: float = option(
        8.0, "smallest deviation of the brightness, of 255 levels; 0 keeps monochrome images"
    )
    min_colour: float = option(
        2.0, "smallest deviation of the colours from shades of one; 0 keeps grey and tinted images"
    )
    duplicate_bits: int = option(
        10,
        "bits of 64 by which the hashes of near duplicates may differ; -1 finds equal ones only",
        minimum=-1,
    )

    augment: int = option(0, "altered copies to add of each image, for tiny sets", minimum=0)
    augmentations: str = option(
        ",".join(AUGMENTATIONS), "what alters the copies, each at random and by a little"
    )
    seed: int = option(0, "seed of the augmentation", minimum=0)

    sheet_images: int = option(200, "images on each contact sheet", minimum=1)
    num_threads: int = option(0, "processes to use; 0 for one per CPU core", minimum=0)

    def check(self):
        if not self.data_path:
            raise ConfigError("--data_path: name folders or archives of images")
        if not self.output.endswith(".zip"):
            raise ConfigError(
                f"--output: expected the name of an archive, such as data/faces.zip, found"
                f" {self.output!r}"
            )
        if self.size & (self.size - 1):
            raise ConfigError(f"--size: expected a power of two, such as 256, found {self.size}")
        if 0 < self.min_size < self.size and not self.upscale:
            raise ConfigError(
                f"--min_size: {self.min_size} is less than --size {self.size}; say how to enlarge"
                " what is smaller, such as with --upscale lanczos"
            )
        parse_names(self.augmentations, AUGMENTATIONS, "--augmentations")
