"""The networks of a SAM or pSp training run, from the files that its options name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import paddle

from paddle_sam.ageing.losses import LossWeights, SAMLoss
from paddle_sam.ageing.train.options import SAMOptions
from paddle_sam.core.weight_file import load_strict, read_file
from paddle_sam.core.weights import manifest, weights_dir
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.networks.age_regressor import AgeRegressor
from paddle_sam.networks.face_recognition import FaceEmbedder
from paddle_sam.networks.frozen import freeze
from paddle_sam.networks.load import build_sam, load
from paddle_sam.networks.lpips_weights import load_lpips
from paddle_sam.networks.residual_body import PUBLISHED_UNITS, PUBLISHED_WIDTHS
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import code_count

_SMALL_UNITS = (2, 2, 3, 2)
_PUBLISHED = (".pt", ".pth")


@dataclasses.dataclass(frozen=True)
class Assembled:
    """A network to train and what its weight files must say about it."""

    network: SAM
    arch: dict  # arguments of `build_sam`
    alignment: dict | None  # the crop it is trained on, where the source files say


def assemble(config: SAMOptions, resumed: dict | None = None) -> Assembled:
    """Build the network to train; frozen parts take no gradient.

    Args:
        config: the run's options.
        resumed: content of the checkpoint that the run goes on from. It says what to build, and
            none of the files that the run started from is needed again.

    Raises:
        CheckpointError: a weight file is missing or does not fit.
        ConfigError: options and files contradict each other.
    """
    if resumed is not None:
        arch = resumed["networks"][config.task]["arch"]
        assembled = Assembled(build_sam(**arch), arch, resumed.get("alignment"))
    elif config.checkpoint_path:
        assembled = _from_checkpoint(config)
    else:
        assembled = _from_parts(config)
    network = assembled.network
    if network.decoder.size != config.output_size:
        raise ConfigError(
            f"output_size: is {config.output_size}, but the generator renders"
            f" {network.decoder.size} pixels; give --output_size {network.decoder.size}"
        )
    if network.encoder.in_channels != config.input_nc:
        raise ConfigError(
            f"input_nc: is {config.input_nc}, but the encoder of --checkpoint_path takes"
            f" {network.encoder.in_channels} channels"
        )
    frozen = [] if config.train_decoder else [network.decoder]
    if network.pretrained_encoder is not None:
        frozen.append(network.pretrained_encoder)
    freeze(*frozen)
    return assembled


def build_loss(config: SAMOptions, latent_avg: paddle.Tensor) -> SAMLoss:
    """The losses that the options ask for, with their frozen networks."""
    factors = {
        field.name: getattr(config, _option_of(field.name))
        for field in dataclasses.fields(LossWeights)
    }
    weights = LossWeights(**factors)
    lpips = embedder = age_regressor = None
    if max(weights.lpips, weights.lpips_crop) > 0:
        lin = weight_path(config, "lpips_lin_path") if config.lpips_lin_path else None
        lpips = load_lpips(weight_path(config, "lpips_path"), lin)
    if weights.id > 0:
        embedder = _load(config, "ir_se50_path", FaceEmbedder)
    if config.task == "sam":
        age_regressor = _load(config, "age_regressor_path", AgeRegressor)
    return SAMLoss(
        weights,
        lpips,
        embedder,
        age_regressor,
        latent_avg=None if config.start == "zero" else latent_avg,
        weigh_identity=config.use_weighted_id_loss and config.task == "sam",
    )


def weight_path(config: SAMOptions, name: str) -> Path:
    """The file that option `name` means.

    A published file name (`.pt`, `.pth`) stands for the converted file beside it, and a file that
    is not where the option says is looked for in the weights folder.

    Raises:
        CheckpointError: there is no such file.
    """
    given = Path(getattr(config, name))
    for folder in (given.parent, weights_dir()):
        for file in (folder / given.name, folder / f"{given.stem}.pdparams"):
            if file.is_file() and file.suffix not in _PUBLISHED:
                return file
    missing = given.with_suffix(".pdparams") if given.suffix in ("", *_PUBLISHED) else given
    raise CheckpointError(f"--{name}: {missing} is missing. {_way_to(given)}")


def _way_to(file: Path) -> str:
    """How to get a weight file that is not there, or is there as published."""
    if file.is_file():
        return f"Convert the PyTorch file first: python convert/convert_weights.py {file}"
    for weight in manifest().values():
        if Path(weight.file).stem == file.stem:
            get = f"Get it with: python scripts/download_weights.py {weight.name}"
            if Path(weight.file).suffix in _PUBLISHED:
                get += f", then python convert/convert_weights.py pretrained_models/{weight.file}"
            return get
    return (
        "python scripts/download_weights.py --list says how to get each file, and"
        " python convert/convert_weights.py FILE converts a published one."
    )


def _load(config: SAMOptions, option: str, kind: type) -> paddle.nn.Layer:
    return load(weight_path(config, option), expect=kind, option=f"--{option}")


def _option_of(loss: str) -> str:
    """Option that holds the factor of a loss: `l2_aging` -> `l2_lambda_aging`."""
    name, _, variant = loss.rpartition("_")
    return f"{name}_lambda_{variant}" if variant in ("aging", "crop") and name else f"{loss}_lambda"


def _from_checkpoint(config: SAMOptions) -> Assembled:
    path = weight_path(config, "checkpoint_path")
    content = read_file(path)
    if content["kind"] != config.task:
        raise CheckpointError(
            f"--checkpoint_path: {path} holds {content['kind']}, --task {config.task} needs"
            f" {config.task}"
        )
    entry = content["networks"][config.task]
    arch = {**entry["arch"], "start": config.start}
    if config.start == "encoded_w_plus" and not arch.get("pretrained_encoder"):
        raise CheckpointError(f"--checkpoint_path: {path} holds no pretrained pSp encoder")
    network = build_sam(**arch)
    load_strict(network, entry["state"], str(path), consume=True)
    return Assembled(network, arch, content.get("alignment"))


def _from_parts(config: SAMOptions) -> Assembled:
    generator_path = weight_path(config, "stylegan_weights")
    generator_file = read_file(generator_path)
    if "g_ema" not in generator_file["networks"]:
        raise CheckpointError(
            f"--stylegan_weights: {generator_path} holds {generator_file['kind']}, expected a"
            " StyleGAN2 generator (g_ema)"
        )
    needs_psp = config.start == "encoded_w_plus" or config.encoder_start == "psp"
    psp = _PspFile(config) if needs_psp else None
    decoder_arch = generator_file["networks"]["g_ema"]["arch"]
    encoder_arch = dict(psp.arch) if psp else new_encoder(decoder_arch)
    keep_psp = config.start == "encoded_w_plus"
    arch = {
        "encoder": {**encoder_arch, "in_channels": config.input_nc},
        "decoder": dict(decoder_arch),
        "pretrained_encoder": dict(psp.arch) if keep_psp else None,
        "start": config.start,
    }
    network = build_sam(**arch)
    generator_state = generator_file["networks"]["g_ema"]["state"]
    load_strict(network.decoder, generator_state, str(generator_path), consume=True)
    network.latent_avg.set_value(_latent_avg(generator_file, network, psp))
    if keep_psp:
        load_strict(network.pretrained_encoder, dict(psp.state), str(psp.path))
    _start_encoder(network.encoder, config, psp)
    return Assembled(network, arch, psp.alignment if psp else generator_file.get("alignment"))


class _PspFile:
    """The inversion encoder in a pSp file, or in a SAM file as its frozen part."""

    def __init__(self, config: SAMOptions):
        self.path = weight_path(config, "pretrained_psp_path")
        content = read_file(self.path)
        if content["kind"] not in ("psp", "sam"):
            raise CheckpointError(
                f"--pretrained_psp_path: {self.path} holds {content['kind']}, not a pSp encoder"
            )
        part = {"psp": "encoder", "sam": "pretrained_encoder"}[content["kind"]]
        entry = content["networks"][content["kind"]]
        self.arch = entry["arch"][part]
        self.state = {
            name.removeprefix(f"{part}."): array
            for name, array in entry["state"].items()
            if name.startswith(f"{part}.")
        }
        self.latent_avg = entry["state"].get("latent_avg")
        self.alignment = content.get("alignment")


def new_encoder(decoder_arch: dict) -> dict:
    """Arguments of an encoder for a generator: the published IR-SE50 for its 512 style values.

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


def _latent_avg(generator_file: dict, network: SAM, psp: _PspFile | None) -> np.ndarray:
    """Mean latent, one row per code: from the generator's file, the pSp file, or estimated."""
    if generator_file.get("latent_avg") is not None:
        mean = generator_file["latent_avg"]
    elif psp is not None and psp.latent_avg is not None:
        mean = psp.latent_avg
    else:
        mean = network.decoder.mean_latent().numpy()
    return np.broadcast_to(mean, network.latent_avg.shape).astype("float32")


def _start_encoder(encoder, config: SAMOptions, psp: _PspFile | None) -> None:
    """Copy the body of a trained network into a new encoder; its age channel stays random.

    The filters of further input channels are drawn from N(0, 1), as the published training does.
    """
    if config.encoder_start == "random":
        return
    if config.encoder_start == "psp":
        path, state = psp.path, psp.state
    else:
        path = weight_path(config, "ir_se50_path")
        state = next(iter(read_file(path)["networks"].values()))["state"]
    for part in ("input_layer", "body"):
        weights = {
            name.removeprefix(f"{part}."): array
            for name, array in state.items()
            if name.startswith(f"{part}.")
        }
        if part == "input_layer":
            rgb = weights["0.weight"]
            extra = (rgb.shape[0], encoder.in_channels - 3, *rgb.shape[2:])
            weights["0.weight"] = np.concatenate([rgb, paddle.randn(extra).numpy()], axis=1)
        load_strict(getattr(encoder, part), weights, f"{path} (--encoder_start)")
