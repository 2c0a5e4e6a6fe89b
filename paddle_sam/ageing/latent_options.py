"""Options of the commands that find codes and move them: invert, project, edit."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddle_sam.ageing.options import AgeingOptions, PhotoOptions
from paddle_sam.errors import ConfigError, quoted
from paddle_sam.options import option, parse_numbers, tile_size_option

JUDGED = ("age", "judge_age", "judge_gender")
FEWEST_SEEDS = 50


@dataclasses.dataclass(frozen=True)
class FilesOptions(PhotoOptions):
    """Photographs that may be named without an option."""

    files: tuple = option((), "pictures or folders; words without an option are taken as these")

    words = "files"

    @property
    def sources(self) -> tuple[str, ...]:
        return (*self.files, *super().sources)


@dataclasses.dataclass(frozen=True)
class InvertOptions(FilesOptions):
    """Options of `scripts/invert.py`."""

    data_path: str = option("", "picture, or folder of them (default: a portrait to try it on)")
    checkpoint_path: str = option(
        "", "pSp, e4e, ReStyle, HyperStyle or SAM weight file (default: the small embedded model)"
    )
    w_encoder_checkpoint_path: str = option(
        "", "pSp file of one code (W), or e4e, that HyperStyle starts from"
    )
    steps: int = option(
        0,
        "steps of ReStyle or HyperStyle; 0 for as many as it was trained for",
        minimum=0,
        maximum=100,
    )
    resize_factors: int = option(
        1, "shrink photographs by this factor first, to see what super-resolution makes", minimum=1
    )

    latent_mask: str = option(
        "",
        "codes to take from random faces, such as 8-17: several images of one sketch or label map",
    )
    n_outputs_to_generate: int = option(5, "random faces of --latent_mask", minimum=1)
    mix_alpha: float = option(1.0, "their share in these codes", minimum=0)
    seed: int = option(0, "seed of the first; the others have the next", minimum=0)

    FILES = (*PhotoOptions.FILES, "w_encoder_checkpoint_path")
    aliases = {"images_dir": "data_path", "n_iters_per_batch": "steps", "ckpt": "checkpoint_path"}
    replaced = {"load_w_encoder": "not needed, --w_encoder_checkpoint_path says it; leave it out"}


def model_file(model_type: str) -> str:
    """Where the converted file of a published StyleGAN2 belongs, by its type in PaddleGAN.

    >>> model_file("ffhq-config-f")
    'pretrained_models/stylegan2-ffhq-config-f.pdparams'
    """
    return f"pretrained_models/stylegan2-{model_type}.pdparams"


@dataclasses.dataclass(frozen=True)
class ProjectOptions(FilesOptions):
    """Options of `scripts/project.py`."""

    checkpoint_path: str = option(
        "", "SAM, pSp or StyleGAN2 weight file (default: the small embedded model)"
    )
    model_type: str = option(
        "",
        "instead: the type of a published StyleGAN2 whose converted file is in pretrained_models",
    )
    size: int = option(0, "side of the images it has to make; 0 for any", minimum=0)
    style_dim: int = option(0, "length of the codes it has to have; 0 for any", minimum=0)
    n_mlp: int = option(0, "layers its mapping network has to have; 0 for any", minimum=0)
    channel_multiplier: int = option(
        0, "channels it has to have, in those of config E from 64 px on; 0 for any", minimum=0
    )
    output: str = option(
        "", "folder for the files themselves, where EXP_DIR/projection is not wanted"
    )
    start: str = option(
        "encoder", "start from the encoder's code or the mean latent", choices=("encoder", "mean")
    )
    space: str = option("w+", "a code for each level, or one for all", choices=("w+", "w"))
    latent_level: tuple = option(
        (), "codes that may change, such as 0-9 or 0 1 2 (default: all); name photographs before it"
    )
    step: int = option(100, "steps of the optimisation; 0 keeps what it starts from", minimum=0)
    start_lr: float = option(0.1, "learning rate of the first step", above=0)
    final_lr: float = option(0.025, "learning rate at the end, reached geometrically", above=0)
    lpips: str = option("vgg", "network of the perceptual distance", choices=("vgg", "alex"))
    lpips_path: str = option("", "its weights (default: lpips_vgg or lpips_alex)")
    mse_weight: float = option(1.0, "factor of the squared error beside LPIPS", minimum=0)
    mse_mean: str = option(
        "batch",
        "the squared error is the mean over all photographs of the command, or over each image, as"
        " if it were alone",
        choices=("batch", "image"),
    )
    noise_regularize: float = option(
        0.0,
        "optimise the noise maps too, kept noise by this factor (1e5); the image shows them,"
        " ageing by --latent does not",
        minimum=0,
    )
    returned: str = option(
        "best",
        "which step's code is written: of the lowest loss, or last",
        choices=("best", "last"),
    )
    tune: int = option(
        0,
        "then tune the generator itself for each face by N steps (published: 350); other commands"
        " take it as --generator",
        minimum=0,
    )
    tune_lr: float = option(3e-4, "learning rate of the tuning", above=0)
    locality: float = option(
        0.1, "factor of what keeps a tuned generator as it was near the face's code", minimum=0
    )
    report: bool = option(
        False, "measure LPIPS, squared error and identity before and after, and write report.json"
    )
    save_mp4: bool = option(True, "write the pictures of all steps as a video")
    couple_outputs: bool = option(False, "show the target beside them, and the step below")
    fps: int = option(30, "frames per second of the video", minimum=1)
    duration: float = option(5.0, "seconds of the video; 0 for a frame a step", minimum=0)

    FILES = (*PhotoOptions.FILES, "lpips_path")
    aliases = {
        "ckpt": "checkpoint_path",
        "no_crop": "no_align",
        "no_encoder": "start=mean",
        "return": "returned",
    }

    @property
    def results(self) -> Path:
        return Path(self.output) if self.output else super().results

    @classmethod
    def implied(cls, preset: str | None, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The file of `model_type`."""
        kind = given.get("model_type")
        return {"checkpoint_path": model_file(kind)} if kind else {}

    def check(self):
        super().check()
        if self.output and self.exp_dir:
            raise ConfigError(
                f"--output, --exp_dir: found {quoted(self.output)} and {quoted(self.exp_dir)};"
                " expected one of them"
            )
        if self.model_type and self.checkpoint_path != model_file(self.model_type):
            raise ConfigError(
                f"--model_type, --checkpoint_path: found {quoted(self.model_type)} and"
                f" {quoted(self.checkpoint_path)}; expected one of them"
            )
        if self.tune and self.noise_regularize:
            raise ConfigError(
                "--tune, --noise_regularize: a generator is tuned with the noise that it has; leave"
                " one of them out"
            )


@dataclasses.dataclass(frozen=True)
class EditOptions(AgeingOptions):
    """Options of `scripts/edit.py`."""

    explore: str = option(
        "", "directions to show, by name; sefa0-4 is a range (default: that, or what is learned)"
    )
    amounts: str = option("-3,-1.5,0,1.5,3", "how far to move along each, in units of W")
    target_age: str = option("", "also age the face, to these ages (default: as it is)")
    save_directions: str = option("", "write the directions shown to this .npz file")
    learn: str = option(
        "",
        "learn a direction from random faces first: age (the model's own regressor), judge_age,"
        " judge_gender (1: male), or a table of seed and label",
    )
    learn_seeds: int = option(1000, "random faces that a judge labels", minimum=FEWEST_SEEDS)
    learn_truncation: float = option(0.7, "psi of these faces", above=0)
    age_regressor_path: str = option(
        "", "age regressor weights, for --learn age (default: the embedded one)"
    )
    tile_size: int = tile_size_option()

    FILES = (*AgeingOptions.FILES, "age_regressor_path")
    needs_layers = True

    def check(self):
        super().check()
        if self.learn and self.learn not in JUDGED and not Path(self.learn).is_file():
            raise ConfigError(
                f"--learn: expected {', '.join(JUDGED)} or a table, found {quoted(self.learn)}"
            )

    @property
    def needs_inversion(self) -> str:
        return super().needs_inversion or ("" if self.target_age else "explore")

    @property
    def names(self) -> list[str]:
        """The directions of `explore`, ranges spelled out.

        >>> EditOptions(explore="smile,sefa2-4").names
        ['smile', 'sefa2', 'sefa3', 'sefa4']
        """
        names = []
        explore = self.explore or "sefa0-4"
        for part in filter(None, (part.strip() for part in explore.split(","))):
            if found := re.fullmatch(r"sefa(\d{1,6})-(\d{1,6})", part):
                numbers = range(int(found[1]), int(found[2]) + 1)
                names += [f"sefa{k}" for k in numbers[:10_000]]  # more than any model has
            else:
                names.append(part)
        if not names:
            raise ConfigError(
                f"--explore: expected names of directions, found {quoted(self.explore)}"
            )
        return names

    @property
    def steps(self) -> list[float]:
        """The numbers of `amounts`; raises `ConfigError` if one is not a number."""
        return parse_numbers(self.amounts, "--amounts")
