"""Options of measures of images, and where their weights are by default."""

from __future__ import annotations

import dataclasses

from paddle_sam.errors import ConfigError
from paddle_sam.options import Options, device_option, option

INCEPTION = "pretrained_models/pt_inception-2015-12-05-6726825d.pdparams"
TORCHVISION_INCEPTION = "pretrained_models/inception_v3_google-0cc3c7bd.pdparams"
LPIPS = "pretrained_models/lpips_alex.npz"
CLEAN, LEGACY = RESIZINGS = ("clean", "legacy")
INCEPTION_V3, TORCHVISION, ALEXNET = FEATURES = ("inception", "torchvision", "alexnet")


@dataclasses.dataclass(frozen=True)
class FeatureOptions(Options):
    """What FID, KID, precision and recall are computed with."""

    features: str = option(
        INCEPTION_V3,
        "what images are compared by: inception, as everywhere; torchvision, its Inception as in"
        " StarGAN v2's published figures; or alexnet, whose weights are easier to get and whose"
        " figures compare with each other only",
        choices=FEATURES,
    )
    inception_path: str = option(INCEPTION, "converted Inception-v3 of FID")
    torchvision_path: str = option(
        TORCHVISION_INCEPTION, "converted Inception-v3 of torchvision, for --features torchvision"
    )
    lpips_path: str = option(LPIPS, "LPIPS weights, which hold AlexNet")
    resizing: str = option(
        CLEAN,
        "how images get to 299 pixels: clean (antialiased), or legacy to compare with old figures",
        choices=RESIZINGS,
    )
    cache_dir: str = option("log/features", "where features are kept between runs")
    batch_size: int = option(32, "images at a time; changes speed and memory only", minimum=1)
    output: str = option("", "JSON file for the results (default: printed only)")
    device: str = device_option()

    def check(self):
        if self.features != INCEPTION_V3 and self.resizing == LEGACY:
            raise ConfigError(f"--resizing {LEGACY}: is for --features {INCEPTION_V3} only")


@dataclasses.dataclass(frozen=True)
class SetsOptions(FeatureOptions):
    """FID, KID, precision and recall of one set of images against another."""

    real: str = option("", "folder or archive of real images")
    made: str = option("", "folder or archive of generated images")
