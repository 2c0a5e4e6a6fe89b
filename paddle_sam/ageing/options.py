"""Options of the inference scripts, under the published names where there are any."""

from __future__ import annotations

import dataclasses
import re

from paddle_sam.errors import ConfigError
from paddle_sam.metrics.options import LPIPS
from paddle_sam.options import Options, device_option, engine_option, option, tile_size_option

_IDENTITY = "face recognition weights that judge the crop's face region, such as IR-SE50"
_ALIGNED_IDENTITY = (
    "face recognition weights that judge faces aligned by five points, such as CurricularFace"
)


@dataclasses.dataclass(frozen=True)
class PhotoOptions(Options):
    """Which photographs to work on, with what, and where to."""

    data_path: str = option("", "photograph, or folder of them (default: a portrait to try it on)")
    checkpoint_path: str = option("", "SAM weight file (default: the small embedded model)")
    exp_dir: str = option("", "folder for the results (default: results; examples without data)")
    n_images: int = option(0, "use only the first so many images; 0 for all", minimum=0)
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
    device: str = device_option()


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
    edit: str = option("", "directions to move along and how far: smile=2,sefa0=-1")
    directions: str = option("", ".npz file of named directions (sefa0, sefa1, ... need none)")
    edit_level: str = option("", "codes that directions change, such as 0-3 (default: all)")


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
class AgeingEvaluationOptions(AgeingOptions):
    """How well faces are aged: age errors, identity, reconstruction; JSON and an HTML report."""

    exp_dir: str = option("log/ageing", "folder for the results; resumes what it finds there")
    target_age: str = option("0-100:10", "ages in years, also as ranges: 0-100:10 or 20,40-60")
    age_regressor_path: str = option(
        "", "age regressor weights (default: the embedded one, for the embedded model)"
    )
    identity_path: str = option("", _IDENTITY)
    aligned_identity_path: str = option("", _ALIGNED_IDENTITY)
    lpips_path: str = option(LPIPS, "LPIPS weights")
    no_pictures: bool = option(False, "a report without pictures, for faces that are private")


@dataclasses.dataclass(frozen=True)
class ReconstructionOptions(PhotoOptions):
    """How well SAM or pSp gives faces back: L2, LPIPS, SSIM and identity, as JSON."""

    exp_dir: str = option("log/reconstruction", "folder for the results")
    identity_path: str = option("", _IDENTITY)
    aligned_identity_path: str = option("", _ALIGNED_IDENTITY)
    lpips_path: str = option(LPIPS, "LPIPS weights")

    def check(self):
        if self.test_batch_size:
            raise ConfigError("--test_batch_size: faces are inverted one at a time")


def parse_ages(text: str) -> list[float]:
    """Ages of `--target_age`, each once, in the order given.

    >>> parse_ages("0,10,50-70:10,65-67")
    [0.0, 10.0, 50.0, 60.0, 70.0, 65.0, 66.0, 67.0]

    Raises:
        ConfigError: a part is neither an age nor a range, or lies outside 0 to 100.
    """
    ages: list[float] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)(?:-(\d+)(?::(\d+))?)?\s*", part)
        if found is None:
            raise ConfigError(
                f"--target_age: expected ages such as 0,30,60 or ranges such as 0-100:10, found"
                f" {part.strip()!r}"
            )
        first, last, step = found.groups()
        if last is None:
            ages.append(float(first))
        elif "." in first or int(step or 1) == 0 or int(last) < int(first):
            raise ConfigError(
                f"--target_age: expected a range FROM-TO or FROM-TO:STEP of whole, rising years,"
                f" found {part.strip()!r}"
            )
        else:
            years = range(int(first), int(last) + 1, int(step or 1))
            ages += map(float, years[:102])  # more would hold one beyond 100 anyway
    if wrong := [age for age in ages if age > 100]:
        raise ConfigError(f"--target_age: expected ages from 0 to 100, found {wrong[0]:g}")
    return list(dict.fromkeys(ages))
