"""A whole SAM or pSp training run from its options (`scripts/train.py`), and its networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.ageing.losses import LossWeights, SAMLoss
from paddle_sam.ageing.train.options import SAMOptions, data_folders
from paddle_sam.ageing.train.trainer import Assembled, SAMTrainer
from paddle_sam.core.files import check_outside
from paddle_sam.core.weights import (
    PUBLISHED,
    NetworkEntry,
    WeightFile,
    load_strict,
    way_to,
    weights_dir,
)
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.imagesets.loader import BatchLoader, ImagePairs, identify_images
from paddle_sam.networks.face_networks import (
    PUBLISHED_UNITS,
    PUBLISHED_WIDTHS,
    AgeRegressor,
    FaceEmbedder,
)
from paddle_sam.networks.image_features import SelfSupervisedFeatures, load_lpips
from paddle_sam.networks.load import freeze, load
from paddle_sam.networks.sam import build_sam
from paddle_sam.networks.stylegan2_ops import code_count
from paddle_sam.training.distributed import World
from paddle_sam.training.folder import Identity, identify_file, numbered
from paddle_sam.training.run import Intervals, Job, start_run

_SMALL_UNITS = (2, 2, 3, 2)


def train_sam(options: SAMOptions) -> Path:
    """Train, or resume training, in `options.exp_dir`; returns that folder. See `start_run`."""
    options = numbered(options)
    train = ImagePairs(*data_folders(options, "train"))
    test = ImagePairs(*data_folders(options, "test"), options.max_test_images)

    def build(world: World, resumed: WeightFile | None) -> Job:
        assembled = assemble(options, resumed)
        loss = build_loss(options, assembled.network.latent_avg)
        training, testing = (
            BatchLoader(
                data,
                assembled.network.input_size,
                workers,
                options.max_bad_images,
                options.cache_images,
                report=tqdm.write,
            )
            for data, workers in ((train, options.workers), (test, options.test_workers))
        )
        return Job(
            SAMTrainer(assembled, loss, options, world),
            Intervals.of(options),
            training,
            lambda: testing.once(options.test_batch_size),
        )

    return start_run(options, build, _inputs(options, train, test))


def _inputs(options: SAMOptions, train: ImagePairs, test: ImagePairs) -> dict[str, Identity]:
    """Identify the data of both splits, and the networks that judge."""
    found = {}
    for split, data in (("train", train), ("test", test)):
        source, target = data_folders(options, split)
        found[f"{split}_data"] = identify_images(source, data.sources)
        if target:
            found[f"{split}_target"] = identify_images(target, data.targets)
        for place in filter(None, (source, target)):
            check_outside("--exp_dir", Path(options.exp_dir), Path(place))
    return found | {name: identify_file(weight_path(options, name)) for name in judges(options)}


def assemble(options: SAMOptions, resumed: WeightFile | None = None) -> Assembled:
    """Build the network to train; frozen parts take no gradient.

    Args:
        options: of the run.
        resumed: the checkpoint that the run resumes from. It says what to build, and none of the
            files that the run started from is needed again.

    Raises:
        CheckpointError: a weight file is missing or does not fit.
        ConfigError: options and files contradict each other.
    """
    if resumed is not None:
        arch = resumed.entry(options.task).arch
        assembled = Assembled(build_sam(**arch), arch, resumed.alignment)
    elif options.checkpoint_path:
        assembled = _from_checkpoint(options)
    else:
        assembled = _from_parts(options)
    network = assembled.network
    if network.decoder.size != options.output_size:
        raise ConfigError(
            f"--output_size: is {options.output_size}, but the generator renders"
            f" {network.decoder.size} pixels; give --output_size {network.decoder.size}"
        )
    if network.encoder.in_channels != options.input_nc:
        raise ConfigError(
            f"--input_nc: is {options.input_nc}, but the encoder of --checkpoint_path takes"
            f" {network.encoder.in_channels} channels"
        )
    if not options.train_decoder:
        freeze(network.decoder)
    if network.pretrained_encoder is not None:
        freeze(network.pretrained_encoder)
    # Files that say nothing are of FFHQ's crop; its size is what the encoder takes, always.
    crop = {**(assembled.alignment or {}), "size": network.input_size}
    return dataclasses.replace(assembled, alignment=crop)


def build_loss(options: SAMOptions, latent_avg: paddle.Tensor) -> SAMLoss:
    """Build the losses that the options ask for, with their frozen networks."""
    factors = {
        field.name: getattr(options, _option_of(field.name))
        for field in dataclasses.fields(LossWeights)
    }
    weights = LossWeights(**factors)
    lpips = embedder = age_regressor = features = None
    needed = judges(options)
    if "lpips_path" in needed:
        lin = weight_path(options, "lpips_lin_path") if "lpips_lin_path" in needed else None
        lpips = load_lpips(weight_path(options, "lpips_path"), lin)
    if "ir_se50_path" in needed:
        embedder = _load(options, "ir_se50_path", FaceEmbedder)
    if "moco_path" in needed:
        features = _load(options, "moco_path", SelfSupervisedFeatures)
    if "age_regressor_path" in needed:
        age_regressor = _load(options, "age_regressor_path", AgeRegressor)
    return SAMLoss(
        weights,
        lpips,
        embedder,
        age_regressor,
        latent_avg=None if options.start == "zero" else latent_avg,
        weigh_identity=options.use_weighted_id_loss and options.task == "sam",
        features=features,
    )


def judges(options: SAMOptions) -> list[str]:
    """Return the options that name the networks of the losses, as far as these are asked for."""
    lpips = max(options.lpips_lambda, options.lpips_lambda_crop) > 0
    needed = {
        "lpips_path": lpips,
        "lpips_lin_path": lpips and options.lpips_lin_path,
        "ir_se50_path": options.id_lambda > 0,
        "moco_path": options.moco_lambda > 0,
        "age_regressor_path": options.task == "sam",
    }
    return [name for name, need in needed.items() if need]


def weight_path(options: SAMOptions, name: str) -> Path:
    """Return the file that option `name` means.

    A published file name (`.pt`, `.pth`) stands for the converted file beside it. A file that is
    not where the option says is looked for in the weights folder.
    """
    given = Path(getattr(options, name))
    if given.suffix in ("", *PUBLISHED):
        given = given.with_suffix(".pdparams")
    for file in (given, weights_dir() / given.name):
        if file.is_file():
            return file
    raise CheckpointError(f"--{name}: {given} is missing. {way_to(given)}")


def _read(options: SAMOptions, name: str, *kinds: str) -> WeightFile:
    return WeightFile.read(weight_path(options, name), f"--{name}", kinds)


def _load(options: SAMOptions, name: str, kind: type) -> paddle.nn.Layer:
    path = weight_path(options, name)
    return load(path, device=options.device, expect=kind, option=f"--{name}")


def _option_of(loss: str) -> str:
    """Name the option that holds the factor of a loss: `l2_aging` -> `l2_lambda_aging`."""
    name, _, variant = loss.rpartition("_")
    return f"{name}_lambda_{variant}" if variant in ("aging", "crop") and name else f"{loss}_lambda"


def _from_checkpoint(options: SAMOptions) -> Assembled:
    file = _read(options, "checkpoint_path", options.task)
    entry = file.entry()
    arch = {**entry.arch, "start": options.start}
    if options.start == "encoded_w_plus" and not arch.get("pretrained_encoder"):
        raise CheckpointError(f"{file.label}: holds no pretrained pSp encoder")
    network = build_sam(**arch)
    load_strict(network, entry.state, file.label, consume=True)
    return Assembled(network, arch, file.alignment)


def _from_parts(options: SAMOptions) -> Assembled:
    file = _read(options, "stylegan_weights", "stylegan2")
    generator = file.entry("g_ema")
    keep_psp = options.start == "encoded_w_plus"
    psp = mean = None
    alignment, encoder_arch = file.alignment, new_encoder(generator.arch)
    if keep_psp or options.encoder_start == "psp":
        inverter = _read(options, "pretrained_psp_path", "psp", "sam")
        psp, mean = _inverter_of(inverter), inverter.entry().state.get("latent_avg")
        alignment, encoder_arch = inverter.alignment, psp.arch
    arch = {
        "encoder": {**encoder_arch, "in_channels": options.input_nc},
        "decoder": dict(generator.arch),
        "pretrained_encoder": dict(psp.arch) if keep_psp else None,
        "start": options.start,
    }
    network = build_sam(**arch)
    load_strict(network.decoder, generator.state, file.label, consume=True)
    mean = mean if file.latent_avg is None else file.latent_avg
    mean = network.decoder.mean_latent().numpy() if mean is None else mean
    network.latent_avg.set_value(np.broadcast_to(mean, network.latent_avg.shape).astype("float32"))
    if keep_psp:
        load_strict(network.pretrained_encoder, dict(psp.state), inverter.label)
    if options.encoder_start == "psp":
        start_encoder(network.encoder, psp, inverter.label)
    elif options.encoder_start == "ir_se50":
        identity = _read(options, "ir_se50_path")
        start_encoder(network.encoder, identity.entry(), identity.label)
    return Assembled(network, arch, alignment)


def _inverter_of(file: WeightFile) -> NetworkEntry:
    """Return the inversion encoder of a pSp file, or that of a SAM file, its frozen part."""
    part = {"psp": "encoder", "sam": "pretrained_encoder"}[file.kind]
    entry = file.entry()
    arch = entry.arch[part]
    if "one_code" in arch or arch.get("resnet") or not arch.get("pyramid", True):
        raise CheckpointError(
            f"{file.label}: --pretrained_psp_path: its encoder has no feature pyramid, which SAM's"
            " has; expected a pSp or e4e encoder"
        )
    return NetworkEntry("", entry.arch[part], entry.below(f"{part}."))


def new_encoder(decoder_arch: dict) -> dict:
    """Return the arguments of an encoder for a generator: IR-SE50 for 512 style values.

    A generator with fewer gets an encoder that is narrower in proportion, and shallower; the
    input is as large as the images, within what the published encoder and LPIPS take.
    """
    style_dim = decoder_arch["style_dim"]
    published = style_dim == PUBLISHED_WIDTHS[-1]
    widths = [max(16, width * style_dim // PUBLISHED_WIDTHS[-1]) for width in PUBLISHED_WIDTHS]
    return {
        "input_size": min(256, max(64, decoder_arch["size"])),
        "n_styles": code_count(decoder_arch["size"]),
        "style_dim": style_dim,
        "stem": widths[0],
        "widths": widths,
        "units": PUBLISHED_UNITS[50] if published else _SMALL_UNITS,
    }


def start_encoder(encoder: paddle.nn.Layer, trained: NetworkEntry, label: str) -> None:
    """Copy the body of a trained network into a new encoder; its age channel stays random.

    The filters of further input channels are drawn from N(0, 1), as the published training does.
    `label` names the file of the trained network in messages.
    """
    for part in ("input_layer", "body"):
        weights = trained.below(f"{part}.")
        if part == "input_layer" and "0.weight" in weights:
            rgb = weights["0.weight"]
            extra = (rgb.shape[0], encoder.in_channels - 3, *rgb.shape[2:])
            weights["0.weight"] = np.concatenate([rgb, paddle.randn(extra).numpy()], axis=1)
        load_strict(getattr(encoder, part), weights, f"{label} (--encoder_start)")
