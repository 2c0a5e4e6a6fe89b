"""Options of StarGAN v2's sampling and alignment scripts, under the published names.

The published code is one command with a `--mode`; here each mode has its script. `elsewhere` says
of every published option that a script does not have where it went, so none is passed over.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.options import option

_SCRIPTS = {
    "train": "scripts/train_stargan2.py",
    "sample": "scripts/sample_stargan2.py",
    "eval": "scripts/evaluate.py stargan2",
    "align": "scripts/align_stargan2.py",
}
_NETWORKS = ("img_size", "num_domains", "latent_dim", "hidden_dim", "style_dim", "w_hpf")
_OF_MODE = {
    "train": (
        *("lambda_reg", "lambda_cyc", "lambda_sty", "lambda_ds", "ds_iter", "randcrop_prob"),
        *("total_iters", "batch_size", "lr", "f_lr", "beta1", "beta2", "weight_decay"),
        *("print_every", "sample_every", "save_every", "eval_every", "num_workers"),
    ),
    "sample": ("result_dir", "src_dir", "ref_dir"),
    "eval": ("train_img_dir", "val_img_dir", "val_batch_size", "num_outs_per_domain"),
    "align": ("inp_dir", "out_dir", "lm_path"),
}


def mode_option(own: str):
    """`--mode`, of which a script knows one value; for published command lines."""
    return option(own, f"as in the published command line; this script does {own}")


def check_mode(mode: str, own: str) -> None:
    """Raise `ConfigError`, naming the right script, unless `mode` is the script's own."""
    if mode != own:
        there = f"use python {_SCRIPTS[mode]}" if mode in _SCRIPTS else "there is no such mode"
        raise ConfigError(f"--mode: this script does {own}, found {mode!r}; {there}")


def elsewhere(config_type: type, own: str) -> dict[str, str]:
    """Published options that the script of mode `own` does not take: why, by name."""
    reasons = {
        name: f"belongs to python {_SCRIPTS[mode]}"
        for mode, names in _OF_MODE.items()
        for name in names
        if mode != own
    }
    reasons |= {
        "sample_dir": "pictures of a training run are kept in its --exp_dir",
        "checkpoint_dir": "checkpoints of a run are kept in its --exp_dir",
        "eval_dir": "what a run's validations find is kept in its --exp_dir",
        "resume_iter": "there is nothing to resume",
        "wing_path": "no face alignment is needed",
        "seed": "nothing is drawn at random",
    }
    reasons |= dict.fromkeys(_NETWORKS, "the weight file says it; leave the option out")
    known = {field.name for field in dataclasses.fields(config_type)}
    return {name: reason for name, reason in reasons.items() if name not in known}


@dataclasses.dataclass(frozen=True)
class WeightsOptions:
    """Which StarGAN v2 to use: a file, or a folder and a step as the published code has it."""

    checkpoint_path: str = option("", "StarGAN v2 weight file or training checkpoint")
    checkpoint_dir: str = option("", "instead: folder of checkpoints, with --resume_iter")
    resume_iter: int = option(0, "the step whose checkpoint to take from there", minimum=0)
    wing_path: str = option(
        "", "face alignment network, where the checkpoint has none but needs it"
    )
    num_domains: int = option(0, "domains the weights have to have; 0 for any", minimum=0)
    w_hpf: float = option(-1.0, "high-pass skip they have to have; -1 for any", minimum=-1)

    def weight_file(self) -> Path:
        """The weight file.

        Raises:
            ConfigError: none is named.
            CheckpointError: the folder has none of that step.
        """
        if self.checkpoint_path:
            return Path(self.checkpoint_path)
        if not (self.checkpoint_dir and self.resume_iter):
            raise ConfigError(
                "--checkpoint_path: name a StarGAN v2 weight file (or --checkpoint_dir and"
                " --resume_iter)"
            )
        step, folder = self.resume_iter, Path(self.checkpoint_dir)
        names = [f"iteration_{step}", f"{step:06d}_nets_ema", f"{step}_nets_ema"]
        for name in names:
            if (path := folder / f"{name}.pdparams").is_file():
                return path
        raise CheckpointError(
            f"--resume_iter: {folder} has no {' or '.join(names)}.pdparams; a published .ckpt is"
            " converted first, by convert/convert_weights.py"
        )

    def expect(self, num_domains: int, w_hpf: float) -> None:
        """Raise `ConfigError` where the weights' own numbers are not those asked for."""
        for name, found, any_value in (("num_domains", num_domains, 0), ("w_hpf", w_hpf, -1)):
            wanted = getattr(self, name)
            if wanted not in (any_value, found):
                raise ConfigError(
                    f"--{name}: {self.weight_file()} has {found:g}, not {wanted:g}; leave the"
                    " option out or name another file"
                )


@dataclasses.dataclass(frozen=True)
class SampleOptions(WeightsOptions):
    """Options of `scripts/sample_stargan2.py`."""

    mode: str = mode_option("sample")
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

    def __post_init__(self):
        check_mode(self.mode, "sample")


@dataclasses.dataclass(frozen=True)
class AlignOptions:
    """Options of `scripts/align_stargan2.py`."""

    mode: str = mode_option("align")
    inp_dir: str = option("", "photograph, or folder of them")
    out_dir: str = option("results/aligned", "folder for the crops")
    wing_path: str = option("pretrained_models/wing.pdparams", "converted wing.ckpt")
    lm_path: str = option(
        "pretrained_models/celeba_lm_mean.npz", "mean face, as published (.npz) or converted"
    )
    img_size: int = option(256, "height and width of the crops", minimum=16)
    device: str = option("auto", "auto, cpu, gpu or gpu:N")

    def __post_init__(self):
        check_mode(self.mode, "align")
