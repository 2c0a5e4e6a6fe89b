"""Options of `scripts/evaluate.py ageing` and `reconstruction`."""

from __future__ import annotations

import dataclasses

from paddle_sam.ageing.options import AgeingOptions, PhotoOptions
from paddle_sam.errors import ConfigError
from paddle_sam.options import LPIPS, option

_IDENTITY = "face recognition weights that judge the crop's face region, such as IR-SE50"
_ALIGNED_IDENTITY = (
    "face recognition weights that judge faces aligned by five points, such as CurricularFace"
)


@dataclasses.dataclass(frozen=True)
class AgeingEvaluationOptions(AgeingOptions):
    """How well a model ages faces: ages, identity, reconstruction; JSON and an HTML report.

    What is measured are the model's own pictures, without the dial `--keep`.
    """

    exp_dir: str = option("log/ageing", "folder for the results; resumes what it finds there")
    target_age: str = option("0-100:10", "ages in years, also as ranges: 0-100:10 or 20,40-60")
    age_regressor_path: str = option(
        "", "age regressor weights (default: the embedded one, for the embedded model)"
    )
    identity_path: str = option("", _IDENTITY)
    aligned_identity_path: str = option("", _ALIGNED_IDENTITY)
    lpips_path: str = option(LPIPS, "LPIPS weights")
    no_pictures: bool = option(False, "a report without pictures, for faces that are private")

    def check(self):
        super().check()
        if self.keep not in ("auto", "0"):
            raise ConfigError(
                "--keep: this report measures the model's own pictures; evaluate.py benchmark"
                f" measures results with the dial, found {self.keep}"
            )


@dataclasses.dataclass(frozen=True)
class CalibrationOptions(PhotoOptions):
    """Which age to ask a model for: the ages that its faces look, and a weight file with them."""

    output: str = option("", "weight file to write, with the curve (default: it is printed only)")


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


PROTOCOLS = ("strip", "young60", "lifespan", "cycle", "reference")


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions(AgeingOptions):
    """How well faces are aged, by open judges and published protocols; JSON and an HTML page.

    strip: to 20 years younger and older than the person, and to 20, 40, 60 and 80. young60: faces
    below 40 years to 60. lifespan: to the middles of FFHQ-Aging's ten classes. cycle: as strip,
    and back to the person's own age. reference: the first photograph of a person to the ages of
    true later ones (FG-NET's names, a folder per person with images AGE_NUMBER, or a table).
    """

    exp_dir: str = option("log/benchmark", "folder for the results; resumes what it finds there")
    protocol: str = option("strip", "which faces are aged to which ages", choices=PROTOCOLS)
    labels: str = option(
        "names",
        "age, person, gender and group: names (UTKFace's, FG-NET's, folders of people), or a .csv"
        " file with the columns image and any of age, person, gender, group",
    )
    real_path: str = option(
        "", "folder of real faces, for KID and (with ages in their names) the judge's own error"
    )
    age_regressor_path: str = option(
        "", "the model's own age regressor, shown beside the judge (default: the embedded one's)"
    )
    lpips_path: str = option(LPIPS, "LPIPS weights")


# Rows of the table of dials: what each is called, `--keep` and `--raw_age`.
DIALS = (
    *((f"--keep {keep} --raw_age", keep, True) for keep in ("0", "0.25", "0.5", "0.75")),
    ("--keep 0, calibrated", "0", False),
    ("the default", "auto", False),
)


@dataclasses.dataclass(frozen=True)
class DialOptions(BenchmarkOptions):
    """What the dial costs and brings: a benchmark for each of several settings, and their table.

    The settings are --keep 0, 0.25, 0.5 and 0.75 with --raw_age, --keep 0, and the default. For the
    protocols see `evaluate.py benchmark`.
    """

    exp_dir: str = option("log/dial", "folder for the results; resumes what it finds there")

    def check(self):
        super().check()
        if self.keep != "auto" or self.raw_age:
            given = f"--keep {self.keep}" if self.keep != "auto" else "--raw_age"
            raise ConfigError(f"{given}: this table varies it; see evaluate.py benchmark")
