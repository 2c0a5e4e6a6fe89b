"""Options of `scripts/train.py`, under the published names if any, and `scripts/train_age.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from paddle_sam.core.files import read_json
from paddle_sam.errors import ConfigError
from paddle_sam.options import LPIPS, RunOptions, option

UNIFORM = "uniform_random"
# Of an age regressor: widths of its five convolution stages and two linear layers, by its size.
AGE_SIZES = {"published": ((64, 128, 256, 512, 512), 4096), "mini": ((16, 32, 64, 128, 128), 256)}


@dataclasses.dataclass(frozen=True)
class SAMOptions(RunOptions):
    """One training run. `opt.json` in the run's folder keeps it."""

    changeable: ClassVar = (
        "target_age max_test_images batch_size test_batch_size accumulate learning_rate amp "
        "id_lambda moco_lambda use_weighted_id_loss l2_lambda l2_lambda_aging l2_lambda_crop "
        "lpips_lambda lpips_lambda_aging lpips_lambda_crop w_norm_lambda aging_lambda "
        "cycle_lambda freeze_pretrained_bn"
    )

    presets: ClassVar = ("mini", "paper")

    # What to train, from what
    task: str = option("sam", "sam (ageing) or psp (inversion encoder)", choices=("sam", "psp"))
    exp_dir: str = option(
        "log/sam", "folder of the run; a run found there is resumed", resumable=True
    )
    checkpoint_path: str = option("", "start from this SAM or pSp weight file", resumable=True)
    pretrained_psp_path: str = option(
        "pretrained_models/psp_ffhq_encode.pdparams",
        "frozen pSp encoder and its mean latent",
        resumable=True,
    )
    stylegan_weights: str = option(
        "pretrained_models/stylegan2-ffhq-config-f.pdparams",
        "StyleGAN2 generator to render with",
        resumable=True,
    )
    ir_se50_path: str = option(
        "pretrained_models/model_ir_se50.pdparams",
        "identity network, and start of the encoder",
        resumable=True,
    )
    moco_path: str = option(
        "pretrained_models/moco_v2_800ep_pretrain.pdparams",
        "self-supervised features (MoCo v2 or DINO, ResNet-50), for --moco_lambda",
        resumable=True,
    )
    age_regressor_path: str = option(
        "pretrained_models/dex_age_classifier.pdparams", "age regressor", resumable=True
    )
    lpips_path: str = option(LPIPS, "LPIPS weights", resumable=True)
    lpips_lin_path: str = option(
        "", "converted channel weights, where --lpips_path has none", resumable=True
    )
    encoder_start: str = option(
        "ir_se50",
        "body of a new encoder: from the identity network, the pSp encoder, or random",
        choices=("ir_se50", "psp", "random"),
    )

    # Network
    input_nc: int = option(4, "encoder input channels: 3, or 4 with the age plane")
    label_nc: int = option(0, "published option without effect here: must be 0", minimum=0)
    output_size: int = option(1024, "size of the generator", minimum=8)
    start_from_encoded_w_plus: bool = option(False, "add the code of the frozen pSp encoder")
    start_from_latent_avg: bool = option(False, "add the mean latent")
    train_decoder: bool = option(False, "train the generator too")
    freeze_pretrained_bn: bool = option(
        False, "keep the frozen pSp encoder's batch norm in evaluation mode"
    )

    # Data
    dataset_type: str = option("ffhq_aging", "entry of the --datasets file", resumable=True)
    datasets: str = option(
        "datasets.json", "JSON file that says where data sets are", resumable=True
    )
    train_data: str = option(
        "", "folder or zip archive of training images; instead of --dataset_type", resumable=True
    )
    test_data: str = option(
        "", "folder or zip archive of test images; instead of --dataset_type", resumable=True
    )
    train_target: str = option(
        "", "targets, by the same relative paths as --train_data", resumable=True
    )
    test_target: str = option(
        "", "targets, by the same relative paths as --test_data", resumable=True
    )
    target_age: str = option(UNIFORM, f"{UNIFORM}, or ages to draw from: 30 or 0,50,100")
    max_test_images: int = option(0, "use only so many test images; 0 for all", minimum=0)
    cache_images: bool = option(False, "keep decoded images in memory", resumable=True)
    workers: int = option(4, "processes that read training images", minimum=0, resumable=True)
    test_workers: int = option(2, "processes that read test images", minimum=0, resumable=True)

    # Optimisation
    batch_size: int = option(6, "images per step, over all devices", minimum=1)
    test_batch_size: int = option(6, "images per test step", minimum=1)
    accumulate: int = option(1, "parts that a device's batch is computed in", minimum=1)
    decoder_batch: int = option(
        0,
        "images rendered and judged at a time; 0 for all: less memory, same result",
        minimum=0,
        resumable=True,
    )
    learning_rate: float = option(1e-4, "learning rate", minimum=0)
    optim_name: str = option("ranger", "optimizer", choices=("ranger", "adam"))
    max_steps: int = option(500_000, "steps to train", minimum=1, resumable=True)
    amp: bool = option(False, "16-bit arithmetic where it is safe")

    # Loss factors (the published values)
    id_lambda: float = option(0.1, "identity loss", minimum=0)
    moco_lambda: float = option(
        0.0,
        "self-supervised features, in the place of identity where there are no faces",
        minimum=0,
    )
    use_weighted_id_loss: bool = option(False, "identity counts less the more the age changes")
    l2_lambda: float = option(0.25, "pixels", minimum=0)
    l2_lambda_aging: float = option(0.25, "pixels, where the age changes", minimum=0)
    l2_lambda_crop: float = option(1.0, "pixels of the face region", minimum=0)
    lpips_lambda: float = option(0.1, "perception", minimum=0)
    lpips_lambda_aging: float = option(0.1, "perception, where the age changes", minimum=0)
    lpips_lambda_crop: float = option(0.6, "perception of the face region", minimum=0)
    w_norm_lambda: float = option(0.005, "distance of codes from the mean latent", minimum=0)
    aging_lambda: float = option(5.0, "age", minimum=0)
    cycle_lambda: float = option(1.0, "the way back to the input's age", minimum=0)

    # Events, in steps
    image_interval: int = option(100, "steps between image panels", minimum=1, resumable=True)
    board_interval: int = option(50, "steps between logged losses", minimum=1, resumable=True)
    val_interval: int = option(2500, "steps between validations", minimum=1, resumable=True)
    save_interval: int = option(5000, "steps between checkpoints", minimum=1, resumable=True)
    keep_checkpoints: int = option(
        0, "keep the newest N checkpoints; 0 keeps all", minimum=0, resumable=True
    )

    def check(self):
        if self.label_nc:
            raise ConfigError("--label_nc: label maps are not part of SAM; leave it at 0")
        if self.id_lambda and self.moco_lambda:
            raise ConfigError(
                f"--id_lambda, --moco_lambda: found {self.id_lambda:g} and {self.moco_lambda:g};"
                " one of them has to be 0: identity for faces, features for anything else"
            )
        if self.task == "psp" and self.start_from_encoded_w_plus:
            raise ConfigError(
                "--start_from_encoded_w_plus: pSp starts from the mean latent or zero"
            )
        if self.start_from_encoded_w_plus and self.start_from_latent_avg:
            raise ConfigError(
                "--start_from_encoded_w_plus, --start_from_latent_avg: these exclude each other"
            )
        channels, what = {"sam": (4, "RGB and the target age"), "psp": (3, "RGB")}[self.task]
        if self.input_nc != channels:
            raise ConfigError(
                f"--input_nc: {self.task} takes {channels} channels, {what}, found"
                f" {self.input_nc}; leave it out: grey pictures are read as RGB"
            )
        target_ages(self.target_age)

    @classmethod
    def implied(cls, preset: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values by the task, then by its preset."""
        task = given.get("task", "sam")
        return {**_TASK[task], **_PRESETS.get((task, preset), {})}

    @property
    def start(self) -> str:
        """What the encoder's offset is added to, as `paddle_sam.networks.sam.SAM` names it."""
        if self.start_from_encoded_w_plus:
            return "encoded_w_plus"
        return "latent_avg" if self.start_from_latent_avg else "zero"


# What a task takes where neither the command line nor a preset says otherwise.
_TASK = {
    "sam": {},
    "psp": {
        "exp_dir": "log/psp",
        "input_nc": 3,
        "start_from_latent_avg": True,
        "l2_lambda": 1.0,
        "l2_lambda_crop": 0.0,
        "lpips_lambda": 0.8,
        "lpips_lambda_crop": 0.0,
        "w_norm_lambda": 0.0,
        "aging_lambda": 0.0,
        "cycle_lambda": 0.0,
    },
}
# The embedded default's small networks on a processor. No identity network of that size exists,
# so identity is left to the perceptual losses.
_MINI = {
    "output_size": 64,
    "pretrained_psp_path": "pretrained_models/sam_mini.pdparams",
    "stylegan_weights": "pretrained_models/stylegan2_mini.pdparams",
    "age_regressor_path": "pretrained_models/age_mini.pdparams",
    "encoder_start": "psp",
    "id_lambda": 0.0,
    "batch_size": 4,
    "test_batch_size": 16,
    "learning_rate": 1e-3,
    "workers": 0,
    "test_workers": 0,
    "cache_images": True,
    "max_steps": 900,
    "image_interval": 150,
    "board_interval": 20,
    "val_interval": 150,
    "save_interval": 150,
    "keep_checkpoints": 2,
}
_PRESETS = {
    ("sam", "paper"): {"start_from_encoded_w_plus": True, "use_weighted_id_loss": True},
    ("sam", "mini"): {**_MINI, "start_from_encoded_w_plus": True},
    ("psp", "paper"): {"batch_size": 8, "test_batch_size": 8},
    ("psp", "mini"): {**_MINI, "encoder_start": "random"},
}


def target_ages(text: str) -> tuple[int, ...]:
    """Ages in years that `--target_age` allows.

    >>> target_ages("0,50,100")
    (0, 50, 100)
    >>> len(target_ages("uniform_random"))
    101
    """
    if text == UNIFORM:
        return tuple(range(101))
    try:
        ages = tuple(int(age) for age in text.split(","))
    except ValueError:
        ages = (-1,)
    if not all(0 <= age <= 100 for age in ages):
        raise ConfigError(
            f"--target_age: expected {UNIFORM} or ages from 0 to 100 such as 0,50,100; found"
            f" {text[:40]!r}"
        )
    return ages


def data_folders(config: SAMOptions, split: str) -> tuple[str, str]:
    """Folders (source, target) of the `train` or `test` split; the target may be empty.

    `--train_data` and `--test_data` come first. Otherwise the `--datasets` file is asked, JSON of
    the form `{"ffhq_aging": {"train": FOLDER, "test": FOLDER}}`, where a FOLDER may also be
    `{"source": FOLDER, "target": FOLDER}`. Relative folders there start from the file's own.

    Raises:
        ConfigError: neither says where the data is.
    """
    source, target = (getattr(config, f"{split}_{side}") for side in ("data", "target"))
    if source:
        return source, target
    path = Path(config.datasets)
    example = f'{{"{config.dataset_type}": {{"train": "FOLDER", "test": "FOLDER"}}}}'
    advice = f"Give --{split}_data FOLDER, or write {path} with {example}."
    if not path.exists():
        raise ConfigError(f"--{split}_data: not given, and there is no file {path}. {advice}")
    try:
        content = read_json(path, "--datasets")
    except ConfigError as error:
        raise ConfigError(f"{error}. {advice}") from error
    try:
        entry = content[config.dataset_type][split]
        pair = entry if isinstance(entry, dict) else {"source": entry}
        source = str(path.parent / pair["source"])
        return source, target or (str(path.parent / pair["target"]) if "target" in pair else "")
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: has no folder for {config.dataset_type}/{split}. {advice}"
        ) from error


@dataclasses.dataclass(frozen=True)
class AgeOptions(RunOptions):
    """One training run of the age regressor. `opt.json` in the run's folder keeps it."""

    changeable: ClassVar = "batch_size test_batch_size learning_rate mae_lambda"

    exp_dir: str = option(
        "log/age", "folder of the run; a run found there is resumed", resumable=True
    )
    train_data: str = option(
        "", "folder (at any depth) or zip archive of face images", resumable=True
    )
    test_data: str = option(
        "", "the same of test images; without it, --holdout of the others", resumable=True
    )
    labels: str = option(
        "utkface",
        "where ages come from: utkface (file names AGE_...), a CSV file, a JSON file",
        resumable=True,
    )
    holdout: float = option(0.1, "share of images kept for testing without --test_data", minimum=0)
    network: str = option("published", "size of the network", choices=tuple(AGE_SIZES))
    input_size: int = option(224, "height and width of the network's input", minimum=32)
    vgg_path: str = option(
        "", "VGG16 features to start from, such as pretrained_models/lpips_vgg.npz", resumable=True
    )
    checkpoint_path: str = option(
        "",
        "fine-tune this age regressor, such as a converted DEX; its size takes the place of"
        " --network and --input_size",
        resumable=True,
    )
    cache_images: bool = option(False, "keep decoded images in memory", resumable=True)
    workers: int = option(4, "processes that read images", minimum=0, resumable=True)
    batch_size: int = option(32, "images per step, over all devices", minimum=1)
    test_batch_size: int = option(32, "images per test step", minimum=1)
    learning_rate: float = option(1e-4, "learning rate", minimum=0)
    mae_lambda: float = option(0.1, "factor of the mean absolute error in years", minimum=0)
    max_steps: int = option(20_000, "steps to train", minimum=1, resumable=True)
    image_interval: int = option(1000, "steps between image panels", minimum=1, resumable=True)
    board_interval: int = option(50, "steps between logged losses", minimum=1, resumable=True)
    val_interval: int = option(1000, "steps between validations", minimum=1, resumable=True)
    save_interval: int = option(1000, "steps between checkpoints", minimum=1, resumable=True)

    def check(self):
        if self.checkpoint_path and self.vgg_path:
            raise ConfigError(
                "--checkpoint_path, --vgg_path: both say what to start from; expected one of them"
            )
