"""Options of the inference scripts, under the published names where there are any."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from paddle_sam.core.weights import way_to
from paddle_sam.errors import CheckpointError, ConfigError, quoted
from paddle_sam.options import (
    MOST_AGES,
    Options,
    device_option,
    engine_option,
    option,
    parse_codes,
    parse_formats,
    tile_size_option,
)

# Codes of the published example, which carry hair and skin colour, and how many its model has.
PUBLISHED_LATENT_MASK = (8, 9)
PUBLISHED_CODES = 18
Ages = float | str | Iterable[float]


@dataclasses.dataclass(frozen=True)
class PhotoOptions(Options):
    """Which photographs to work on, with what, and where to."""

    data_path: str = option("", "photograph, or folder of them (default: a portrait to try it on)")
    checkpoint_path: str = option("", "SAM weight file (default: the small embedded model)")
    exp_dir: str = option("", "folder for the results (default: results; examples without data)")
    n_images: int = option(0, "use only the first N images; 0 for all", minimum=0)
    test_batch_size: int = option(
        0, "images rendered together; 0 for as many as memory allows", minimum=0
    )
    test_workers: int = option(2, "threads that read and align ahead; 0 for none", minimum=0)
    face: str = option(
        "best",
        "which faces of a photograph: the most confident, the largest, or each",
        choices=("best", "largest", "all"),
    )
    no_align: bool = option(False, "the images are aligned crops already")
    skip_existing: bool = option(False, "leave out photographs whose results exist already")
    device: str = device_option()

    FILES: ClassVar[tuple[str, ...]] = ("checkpoint_path",)  # options that name a file

    @property
    def sources(self) -> tuple[str, ...]:
        """The photographs, and folders of them, that the user named."""
        return (self.data_path,) if self.data_path else ()

    @property
    def has_input(self) -> bool:
        """Whether the user named something to work on."""
        return bool(self.sources)

    @property
    def results(self) -> Path:
        """Where results go: `exp_dir`, or what stands for it."""
        return Path(self.exp_dir or ("results" if self.has_input else "examples"))

    def check_files(self) -> None:
        """Raise `CheckpointError` if an option names a file that does not exist."""
        for name in self.FILES:
            path = getattr(self, name)
            if path and not Path(path).is_file():
                way = f". {way_to(path)}" if name == "checkpoint_path" else ""
                raise CheckpointError(f"--{name}: {path}: there is no such file{way}")


@dataclasses.dataclass(frozen=True)
class AgeingOptions(PhotoOptions):
    """Photographs, and how their faces are aged."""

    engine: str = engine_option()
    strength: float = option(
        1.0, "factor on what ageing changes: 0 keeps the inverted face, above 1 exaggerates"
    )
    refine: int = option(
        0, "steps of projection that bring the inverted face closer to the photograph", minimum=0
    )
    latent: str = option(
        "", "projected face, or folder of them, instead of inverting (files of scripts/project.py)"
    )
    generator: str = option(
        "", "StyleGAN2 weight file to render with, tuned for the face by scripts/project.py --tune"
    )
    edit: str = option("", "directions to move along and how far: smile=2,sefa0=-1")
    directions: str = option("", ".npz file of named directions (sefa0, sefa1, ... need none)")
    edit_level: str = option("", "codes that directions change, such as 0-3 (default: all)")

    keep: str = option(
        "auto",
        "share of the photograph kept where the model cannot reproduce it, 0 to 1; 0: the model's"
        " picture as it is (published); auto: less the more years the face is aged",
    )
    raw_age: bool = option(
        False, "ask the model for the target age itself, not for the age that looks like it"
    )

    FILES = (*PhotoOptions.FILES, "directions", "generator")

    def check(self):
        parse_keep(self.keep)

    @property
    def has_input(self) -> bool:
        return bool(self.data_path or self.latent)

    @property
    def needs_layers(self) -> bool:
        """Whether an option needs the network itself, not its exported form.

        Refining follows gradients, directions are found in the weights, and a tuned generator has
        other weights.
        """
        return bool(self.refine or self.edit or self.directions or self.generator)

    @property
    def needs_inversion(self) -> str:
        """An option that needs the face's own code, at no age; empty without one."""
        used = {"strength": self.strength != 1, "refine": self.refine, "latent": self.latent}
        used["keep"] = parse_keep(self.keep)
        return next((name for name, given in used.items() if given), "")


@dataclasses.dataclass(frozen=True)
class InferenceOptions(AgeingOptions):
    """Photographs, and the ages to render them at."""

    target_age: str = option(
        "0,10,20,30,40,50,60,70,80,90,100", "ages in years, also as ranges: 0-100:10 or 20,40-60"
    )
    resize_outputs: bool = option(False, "pool the results to the network's input size")
    paste_back: bool = option(False, "also write each photograph with its faces aged")
    feather: float = option(
        0.15,
        "border over which a pasted face fades in, as a share of its side: up to 0.5",
        above=0,
        maximum=0.5,
    )
    report: bool = option(False, "measure every result and write report.json")
    identity_path: str = option(
        "", "face recognition weights, to measure whether results show the same person"
    )
    age_regressor_path: str = option(
        "", "age regressor weights (default: the embedded one, for the embedded model)"
    )

    FILES = (*AgeingOptions.FILES, "identity_path", "age_regressor_path")

    def check(self):
        super().check()
        if self.paste_back and self.latent and not self.data_path:
            raise ConfigError(
                "--paste_back: needs the photograph; give --data_path beside --latent"
            )

    @property
    def measured(self) -> bool:
        """Whether an option asks for measures of the results."""
        return bool(self.report or self.identity_path or self.age_regressor_path)


@dataclasses.dataclass(frozen=True)
class FolderPerAgeOptions(InferenceOptions):
    """Options of `scripts/inference.py`."""

    couple_outputs: bool = option(False, "also write each result beside its input")


@dataclasses.dataclass(frozen=True)
class SideBySideOptions(InferenceOptions):
    """Options of `scripts/inference_side_by_side.py`."""

    labels: bool = option(True, "write the age under each image")
    tile_size: int = tile_size_option("each image in a strip")
    contact_sheet: bool = option(True, "also write a sheet of all strips")


@dataclasses.dataclass(frozen=True)
class ExportOptions(Options):
    """Options of `scripts/export.py`."""

    checkpoint_path: str = option("", "SAM weight file (default: the small embedded model)")
    exp_dir: str = option("exported", "folder for the models")
    onnx: bool = option(False, "also write ONNX files and compare them in onnxruntime")


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
        """File suffixes of `formats`, each once."""
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
        super().check()
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


_AGES = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)(?:-(\d{1,18})(?::(\d{1,18}))?)?\s*")


def parse_ages(text: str, name: str = "--target_age") -> list[float]:
    """Ages that the option `name` lists, each once, in the order given.

    >>> parse_ages("0,10,50-70:10,65-67")
    [0.0, 10.0, 50.0, 60.0, 70.0, 65.0, 66.0, 67.0]

    Raises:
        ConfigError: a part is neither an age nor a range, or lies outside 0 to 100.
    """
    ages: list[float] = []
    for part in text.split(","):
        found = _AGES.fullmatch(part)
        if found is None:
            raise ConfigError(
                f"{name}: expected ages such as 0,30,60 or ranges such as 0-100:10, found"
                f" {quoted(part.strip())}"
            )
        first, last, step = found.groups()
        if last is None:
            ages.append(float(first))
        elif "." in first or int(step or 1) == 0 or int(last) < int(first):
            raise ConfigError(
                f"{name}: expected a range FROM-TO or FROM-TO:STEP of whole, rising years,"
                f" found {quoted(part.strip())}"
            )
        else:
            years = range(int(first), int(last) + 1, int(step or 1))
            ages += map(float, years[:102])  # more would hold one beyond 100 anyway
        if len(ages) > MOST_AGES:
            raise ConfigError(f"{name}: expected at most {MOST_AGES} ages, found more")
    if wrong := [age for age in ages if age > 100]:
        raise ConfigError(f"{name}: expected ages from 0 to 100, found {wrong[0]:g}")
    return list(dict.fromkeys(ages))


def parse_keep(text: str) -> float | None:
    """Return the number of `--keep`, or None for `auto`.

    >>> parse_keep("auto"), parse_keep("0.5")
    (None, 0.5)

    Raises:
        ConfigError: it is neither `auto` nor a number from 0 to 1.
    """
    if text == "auto":
        return None
    found = float(text) if re.fullmatch(r"\d*\.?\d+|\d+\.", text) else 2.0
    if found > 1:
        raise ConfigError(f"--keep: expected auto or a number from 0 to 1, found {text!r}")
    return found


def parse_latent_mask(text: str, codes: int) -> list[int]:
    """Numbers of `--latent_mask` for a model with `codes` W+ codes.

    >>> parse_latent_mask("", 18)
    [8, 9]
    >>> parse_latent_mask("", 10)
    [5, 6, 7, 8, 9]
    """
    if text:
        return parse_codes(text, codes, "--latent_mask")
    published = codes == PUBLISHED_CODES
    return list(PUBLISHED_LATENT_MASK) if published else list(range(codes // 2, codes))


def list_ages(ages: Ages) -> list[float]:
    """Return ages, given as a number, several, or text (see `parse_ages`), as a list.

    >>> list_ages(40), list_ages("20,50-70:10")
    ([40.0], [20.0, 50.0, 60.0, 70.0])

    Raises:
        ConfigError: there is none, or one is not a number from 0 to 100.
    """
    if isinstance(ages, str):
        return parse_ages(ages, "ages")
    with contextlib.suppress(TypeError):  # a number
        ages = list(ages)
    try:
        ages = [float(age) for age in (ages if isinstance(ages, list) else [ages])]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"ages: expected numbers of years, found {ages!r}") from error
    if not ages:
        raise ConfigError("ages: expected at least one age, found none")
    if wrong := [age for age in ages if not 0 <= age <= 100]:
        raise ConfigError(f"ages: expected 0 to 100 years, found {wrong[0]:g}")
    return ages
