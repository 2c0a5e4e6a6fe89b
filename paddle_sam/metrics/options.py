"""Options of `scripts/evaluate.py`, one set for each thing that can be evaluated."""

from __future__ import annotations

import dataclasses

from paddle_sam.ageing.options import AgeingOptions, PhotoOptions
from paddle_sam.errors import ConfigError
from paddle_sam.options import option
from paddle_sam.stargan2.translate_options import WeightsOptions, check_mode, mode_option

INCEPTION = "pretrained_models/pt_inception-2015-12-05-6726825d.pdparams"
LPIPS = "pretrained_models/lpips_alex.npz"
CLEAN, LEGACY = RESIZINGS = ("clean", "legacy")
INCEPTION_V3, ALEXNET = FEATURES = ("inception", "alexnet")
_IDENTITY = "face recognition weights that judge the crop's face region, such as IR-SE50"
_ALIGNED_IDENTITY = (
    "face recognition weights that judge faces aligned by five points, such as CurricularFace"
)


@dataclasses.dataclass(frozen=True)
class FeatureOptions:
    """What FID, KID, precision and recall are computed with."""

    features: str = option(
        INCEPTION_V3,
        "what images are compared by: inception, as everywhere, or alexnet, whose weights are"
        " easier to get and whose figures compare with each other only",
        choices=FEATURES,
    )
    inception_path: str = option(INCEPTION, "converted Inception-v3 of FID")
    lpips_path: str = option(LPIPS, "LPIPS weights, which hold AlexNet")
    resizing: str = option(
        CLEAN,
        "how images get to 299 pixels: clean (antialiased), or legacy to compare with old figures",
        choices=RESIZINGS,
    )
    cache_dir: str = option("log/features", "where features are kept between runs")
    batch_size: int = option(32, "images at a time; changes speed and memory only", minimum=1)
    output: str = option("", "JSON file for the results (default: printed only)")
    device: str = option("auto", "auto, cpu, gpu or gpu:N")

    def __post_init__(self):
        if self.features == ALEXNET and self.resizing == LEGACY:
            raise ConfigError(f"--resizing {LEGACY}: is for --features {INCEPTION_V3} only")


@dataclasses.dataclass(frozen=True)
class SetsOptions(FeatureOptions):
    """FID, KID, precision and recall of one set of images against another."""

    real: str = option("", "folder or archive of real images")
    made: str = option("", "folder or archive of generated images")


@dataclasses.dataclass(frozen=True)
class GeneratorOptions(FeatureOptions):
    """FID, KID, precision and recall of what a StyleGAN2 generator makes."""

    checkpoint_path: str = option(
        "", "StyleGAN2, SAM or pSp weight file, or a snapshot (default: the small embedded model)"
    )
    real: str = option("", "folder or archive of real images")
    num_images: int = option(50_000, "images to make, of the seeds 0, 1, 2, ...", minimum=4)
    truncation: float = option(1.0, "psi; below 1 trades variety for quality")
    noise: str = option(
        "random",
        "fine detail: noise drawn from each seed, the model's stored noise, or none",
        choices=("random", "stored", "none"),
    )


@dataclasses.dataclass(frozen=True)
class StarGAN2EvaluationOptions(WeightsOptions, FeatureOptions):
    """StarGAN v2's protocol: translations between all domains, how real and how varied."""

    mode: str = mode_option("eval")
    train_img_dir: str = option("data/celeba_hq/train", "training images, a folder per domain")
    val_img_dir: str = option("data/celeba_hq/val", "validation images, a folder per domain")
    eval_dir: str = option("log/stargan2_eval", "where translations are kept")
    num_outs_per_domain: int = option(10, "translations of each image", minimum=2)
    max_images: int = option(0, "validation images of each domain; 0 for all", minimum=0)
    val_batch_size: int = option(32, "images translated at a time", minimum=1)
    no_fid: bool = option(False, "leave out FID, KID, precision and recall")
    seed: int = option(0, "seed of latents and references", minimum=0)

    def __post_init__(self):
        super().__post_init__()
        check_mode(self.mode, "eval")


@dataclasses.dataclass(frozen=True)
class AgeingEvaluationOptions(AgeingOptions):
    """How well faces are aged: age errors, identity, reconstruction; JSON and an HTML report."""

    exp_dir: str = option("log/ageing", "folder for the results; an evaluation there goes on")
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

    def __post_init__(self):
        if self.test_batch_size:
            raise ConfigError("--test_batch_size: faces are inverted one at a time")


KINDS = {
    "sets": SetsOptions,
    "stylegan2": GeneratorOptions,
    "stargan2": StarGAN2EvaluationOptions,
    "ageing": AgeingEvaluationOptions,
    "reconstruction": ReconstructionOptions,
}
