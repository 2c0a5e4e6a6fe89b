"""Options of `scripts/evaluate.py ageing` and `reconstruction`."""

from __future__ import annotations

import dataclasses

from paddle_sam.ageing.options import AgeingOptions, PhotoOptions
from paddle_sam.errors import ConfigError
from paddle_sam.metrics.options import LPIPS
from paddle_sam.options import option

_IDENTITY = "face recognition weights that judge the crop's face region, such as IR-SE50"
_ALIGNED_IDENTITY = (
    "face recognition weights that judge faces aligned by five points, such as CurricularFace"
)


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
