"""Options of StarGAN v2's sampling and alignment scripts, under the published names."""

from __future__ import annotations

import dataclasses

from paddle_sam.configs.base import option


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """Options of `scripts/sample_stargan2.py`."""

    checkpoint_path: str = option("", "StarGAN v2 weight file or training checkpoint")
    wing_path: str = option(
        "", "face alignment network, where the checkpoint has none but needs it"
    )
    src_dir: str = option("data/celeba_hq/val", "images to translate, a folder per domain")
    ref_dir: str = option("data/celeba_hq/val", "images whose style to take, a folder per domain")
    result_dir: str = option("results/stargan2", "folder for the pictures")
    max_images: int = option(6, "images of each domain; 0 for all", minimum=0)
    num_outs_per_domain: int = option(8, "latents for each domain", minimum=1)
    psi: float = option(1.0, "below 1: latents' styles closer to the mean", minimum=0)
    video: bool = option(True, "also write a video that goes from reference to reference")
    video_steps: int = option(30, "frames from one reference to the next", minimum=1)
    fps: float = option(30.0, "frames per second", minimum=1)
    seed: int = option(777, "seed of the latents", minimum=0)
    device: str = option("auto", "auto, cpu, gpu or gpu:N")


@dataclasses.dataclass(frozen=True)
class AlignConfig:
    """Options of `scripts/align_stargan2.py`."""

    inp_dir: str = option("", "photograph, or folder of them")
    out_dir: str = option("results/aligned", "folder for the crops")
    wing_path: str = option("pretrained_models/wing.pdparams", "converted wing.ckpt")
    lm_path: str = option(
        "pretrained_models/celeba_lm_mean.pdparams", "mean face, converted or as published (.npz)"
    )
    img_size: int = option(256, "height and width of the crops", minimum=16)
    device: str = option("auto", "auto, cpu, gpu or gpu:N")
