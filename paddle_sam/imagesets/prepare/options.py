"""Options of `scripts/prepare_dataset.py`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, ClassVar

from paddle_sam.errors import ConfigError
from paddle_sam.options import Options, option, parse_names

# Parameters of the cascade for anime faces, as it was published.
_PRESETS = {
    "anime": {
        "crop": "cascade",
        "cascade": "lbpcascade_animeface.xml",
        "cascade_scale_factor": 1.1,
        "cascade_neighbours": 5,
        "cascade_min_size": 50,
        "face": "all",
        "face_scale": 1.5,
    }
}
AUGMENTATIONS = ("mirror", "colour", "sharpness", "blur", "contrast", "crop")


@dataclasses.dataclass(frozen=True)
class PrepareOptions(Options):
    """From any pictures to a data set of squares of one size."""

    presets: ClassVar = tuple(_PRESETS)

    data_path: str = option(
        "", "folders and archives (zip, tar, tar.gz, tfrecords) of images, by commas"
    )
    output: str = option("", "the archive to make, ending in .zip; or a new folder for the images")
    size: int = option(
        256, "height and width of the images, a power of two; 0 keeps each at its own", minimum=0
    )
    format: str = option("png", "of the images in the archive", choices=("png", "jpg"))
    labels: str = option(
        "none",
        "classes of the images: the folders they are in, or those that each input states in a"
        " dataset.json",
        choices=("none", "folders", "inputs"),
    )

    ids: str = option("", "file of numbers, one a line: use images of these names only")
    metadata: str = option(
        "", "Danbooru's JSON lines, files or folders by commas: use images that they choose only"
    )
    tags: str = option("", "choose by --metadata: all of these tags, and none that begins with -")
    ratings: str = option("", "choose by --metadata: these ratings, such as s or s,q")
    score: str = option("", "choose by --metadata: this score or more")

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
        5,
        "detections that have to agree; a larger number finds fewer things that are not faces",
        minimum=0,
    )
    cascade_min_size: int = option(50, "smallest face searched for, in pixels", minimum=1)

    min_size: int = option(
        0,
        "smallest square to keep, in its own pixels (default: --size; with --upscale half of it)",
        minimum=0,
    )
    upscale: str = option(
        "",
        "enlarge smaller squares: lanczos, or a super-resolution model (.onnx, .pb, .param)",
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

    @classmethod
    def implied(cls, preset: str | None, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Values of the preset."""
        return _PRESETS.get(preset, {})

    def check(self):
        if not self.data_path:
            raise ConfigError("--data_path: name folders or archives of images")
        if not self.output or PurePath(self.output).suffix not in ("", ".zip"):
            raise ConfigError(
                f"--output: expected the name of an archive, such as data/faces.zip, or of a"
                f" folder, found {self.output!r}"
            )
        if self.size and (self.size < 8 or self.size & (self.size - 1)):
            raise ConfigError(
                f"--size: expected a power of two from 8 on, such as 256, or 0, found {self.size}"
            )
        chooses = [name for name in ("tags", "ratings", "score") if getattr(self, name)]
        if chooses and not self.metadata:
            raise ConfigError(f"--{chooses[0]}: chooses by --metadata, which is not given")
        if self.score and not re.fullmatch(r"[+-]?[0-9]{1,9}", self.score):
            raise ConfigError(f"--score: expected a whole number, found {self.score!r}")
        if 0 < self.min_size < self.size and not self.upscale:
            raise ConfigError(
                f"--min_size: {self.min_size} is less than --size {self.size}; say how to enlarge"
                " what is smaller, such as with --upscale lanczos"
            )
        parse_names(self.augmentations, AUGMENTATIONS, "--augmentations")
