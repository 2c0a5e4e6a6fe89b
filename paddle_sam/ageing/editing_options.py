"""Options of the commands that edit, animate and invert faces."""

from __future__ import annotations

import dataclasses
import re

from paddle_sam.ageing.options import AgeingOptions, PhotoOptions, parse_ages
from paddle_sam.errors import ConfigError
from paddle_sam.options import option, parse_codes, parse_formats, parse_numbers, tile_size_option

# Codes of the published example, which carry hair and skin colour, and how many its model has.
PUBLISHED_LATENT_MASK = (8, 9)
PUBLISHED_CODES = 18


@dataclasses.dataclass(frozen=True)
class AnimationOptions(AgeingOptions):
    """Options of `scripts/animate.py`."""

    target_age: str = option("0-100:10", "ages to pass through; codes between are interpolated")
    back: bool = option(True, "return to the first age, so that the video can loop")
    fps: int = option(25, "frames per second", minimum=1)
    duration: float = option(6.0, "seconds, the way back included", minimum=0.1)
    formats: str = option("mp4", "kinds of files to write: mp4, gif, webp")
    labels: bool = option(True, "write the age below the face")
    couple_outputs: bool = option(False, "show the input beside the face")
    frame_size: int = option(
        0, "side of the face in the video; 0 for the model's own, but at least 256", minimum=0
    )

    @property
    def suffixes(self) -> list[str]:
        """File suffixes of `formats`, each once.

        Raises:
            ConfigError: one is unknown.
        """
        return parse_formats(self.formats)


@dataclasses.dataclass(frozen=True)
class MixingOptions(AgeingOptions):
    """What both style mixing commands need."""

    target_age: str = option("20,50,80", "ages in years, also as ranges: 0-100:10 or 20,40-60")
    latent_mask: str = option(
        "",
        "codes to take from the other face: 8,9 or 5-9 (default: the published 8,9 of 18; of fewer"
        " the finer half)",
    )
    mix_alpha: float = option(1.0, "share of the other face in these codes", minimum=0)
    tile_size: int = tile_size_option()

    def check(self):
        parse_ages(self.target_age)


@dataclasses.dataclass(frozen=True)
class StyleMixingOptions(MixingOptions):
    """Options of `scripts/style_mixing.py`."""

    n_outputs_to_generate: int = option(5, "random faces to mix each input with", minimum=1)
    seed: int = option(0, "seed of the random faces", minimum=0)
    truncation: float = option(
        0.7, "how far random faces may be from the average: 1 as published, less is tamer"
    )
    keep_age: bool = option(
        True, "add what ageing changes to the codes mixed in, which have no age (not published)"
    )


@dataclasses.dataclass(frozen=True)
class ReferenceOptions(MixingOptions):
    """Options of `scripts/reference_guided_inference.py`."""

    ref_images_paths_file: str = option("", "text file that names a reference image on each line")


@dataclasses.dataclass(frozen=True)
class ProjectOptions(PhotoOptions):
    """Options of `scripts/project.py`."""

    checkpoint_path: str = option(
        "", "SAM, pSp or StyleGAN2 weight file (default: the small embedded model)"
    )
    start: str = option(
        "encoder", "start from the encoder's code or the mean latent", choices=("encoder", "mean")
    )
    space: str = option("w+", "a code for each level, or one for all", choices=("w+", "w"))
    latent_level: str = option("", "codes that may change, such as 0-9 (default: all)")
    step: int = option(100, "steps of the optimisation", minimum=1)
    start_lr: float = option(0.1, "learning rate of the first step", above=0)
    final_lr: float = option(0.025, "learning rate at the end, reached geometrically", above=0)
    lpips: str = option("vgg", "network of the perceptual distance", choices=("vgg", "alex"))
    lpips_path: str = option("", "its weights (default: lpips_vgg or lpips_alex)")
    mse_weight: float = option(1.0, "factor of the squared error beside LPIPS", minimum=0)
    noise_regularize: float = option(
        0.0,
        "optimise the noise maps too, kept noise by this factor (1e5); the image shows them,"
        " ageing by --latent does not",
        minimum=0,
    )
    save_mp4: bool = option(True, "write the optimisation as a video")
    fps: int = option(20, "frames per second of the video", minimum=1)


@dataclasses.dataclass(frozen=True)
class EditOptions(AgeingOptions):
    """Options of `scripts/edit.py`."""

    explore: str = option("sefa0-4", "directions to show, by name; sefa0-4 is a range")
    amounts: str = option("-3,-1.5,0,1.5,3", "how far to move along each, in units of W")
    target_age: str = option("", "also age the face, to these ages (default: as it is)")
    save_directions: str = option("", "write the directions shown to this .npz file")
    tile_size: int = tile_size_option()

    @property
    def names(self) -> list[str]:
        """The directions of `explore`, ranges spelt out.

        >>> EditOptions(explore="smile,sefa2-4").names
        ['smile', 'sefa2', 'sefa3', 'sefa4']
        """
        names = []
        for part in filter(None, (part.strip() for part in self.explore.split(","))):
            if found := re.fullmatch(r"sefa(\d+)-(\d+)", part):
                numbers = range(int(found[1]), int(found[2]) + 1)
                names += [f"sefa{k}" for k in numbers[:10_000]]  # more than any model has
            else:
                names.append(part)
        if not names:
            raise ConfigError(f"--explore: expected names of directions, found {self.explore!r}")
        return names

    @property
    def steps(self) -> list[float]:
        """The numbers of `amounts`; raises `ConfigError` where one is none."""
        return parse_numbers(self.amounts, "--amounts")


def parse_latent_mask(text: str, codes: int) -> list[int]:
    """Numbers of `--latent_mask` for a model with so many W+ codes.

    >>> parse_latent_mask("", 18)
    [8, 9]
    >>> parse_latent_mask("", 10)
    [5, 6, 7, 8, 9]

    Raises:
        ConfigError: see `parse_codes`.
    """
    if text:
        return parse_codes(text, codes, "--latent_mask")
    published = codes == PUBLISHED_CODES
    return list(PUBLISHED_LATENT_MASK) if published else list(range(codes // 2, codes))
