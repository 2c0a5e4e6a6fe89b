"""Options of what measures sets of images."""

from __future__ import annotations

import dataclasses

from paddle_sam.errors import ConfigError
from paddle_sam.options import INCEPTION, LPIPS, Options, device_option, option


@dataclasses.dataclass(frozen=True)
class FeatureOptions(Options):
    """What FID, KID, precision and recall are computed with."""

    features: str = option(
        "inception",
        "what images are compared by: inception, as everywhere; torchvision, its Inception as in"
        " StarGAN v2's published figures; or alexnet, whose weights are easier to get and whose"
        " figures compare with each other only",
        choices=("inception", "torchvision", "alexnet"),
    )
    inception_path: str = option(INCEPTION, "converted Inception-v3 of FID")
    torchvision_path: str = option(
        "pretrained_models/inception_v3_google-0cc3c7bd.pdparams",
        "converted Inception-v3 of torchvision, for --features torchvision",
    )
    lpips_path: str = option(LPIPS, "LPIPS weights, which hold AlexNet")
    resizing: str = option(
        "clean",
        "how images get to 299 pixels: clean (antialiased), or legacy to compare with old figures",
        choices=("clean", "legacy"),
    )
    cache_dir: str = option("log/features", "where features are kept between runs")
    batch_size: int = option(32, "images at a time; changes speed and memory only", minimum=1)
    output: str = option("", "JSON file for the results (default: printed only)")
    device: str = device_option()

    def check(self):
        if self.features != "inception" and self.resizing == "legacy":
            raise ConfigError("--resizing legacy: is for --features inception only")


@dataclasses.dataclass(frozen=True)
class RealOptions(FeatureOptions):
    """Real images that others are compared with."""

    real: str = option("", "folder or archive of real images")

    def check(self):
        super().check()
        if not self.real:
            raise ConfigError("--real: name a folder or archive of real images")


@dataclasses.dataclass(frozen=True)
class SetsOptions(RealOptions):
    """FID, KID, precision and recall of one set of images against another."""

    made: str = option("", "folder or archive of generated images")

    def check(self):
        super().check()
        if not self.made:
            raise ConfigError("--made: name a folder or archive of generated images")
