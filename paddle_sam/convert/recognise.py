"""Tell from its keys which published checkpoint a torch file is, and what is in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from paddle_sam.convert import tables
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.face_heatmaps import LANDMARKS

# What torch's data-parallel wrapper puts before every name.
PARALLEL_PREFIX = "module."
# The crop of the published networks (pSp's alignment script samples FFHQ's square directly), and
# what networks trained here add to the scale and offset that their `arch` entry states.
PUBLISHED_CROP = {"scale": 1.0, "offset": 0.1, "oversample": 1}
OWN_CROP = {"oversample": 4}


@dataclass(frozen=True)
class Network:
    """One network inside a checkpoint.

    `key` is where its state dict sits in the file (None: the file is the state dict), `table` the
    name of its rules, `added` Paddle tensors that are not in it, and `prefix` what stood before
    every name of `state` in the file.
    """

    builder: str
    table: str
    key: str | None
    state: Mapping[str, np.ndarray]
    arch: dict
    added: dict[str, np.ndarray] = field(default_factory=dict)
    prefix: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A recognised torch checkpoint.

    `facts` go into the converted file beside the networks; `extras` is what else the torch file
    held, which only the way back needs.
    """

    kind: str
    networks: dict[str, Network]
    facts: dict = field(default_factory=dict)
    extras: dict = field(default_factory=dict)


def recognise(content: Mapping, path: Path) -> Checkpoint:
    """Recognise a torch file's `content`.

    Raises:
        CheckpointError: no known kind, or a tensor that its architecture is read from is missing.
    """
    wrapped = isinstance(content.get("state_dict"), Mapping)
    state = content["state_dict"] if wrapped else content
    extras = {name: value for name, value in content.items() if name != "state_dict"}
    try:
        if {"g_ema", "g", "d"} & content.keys():
            return _stylegan2(content)
        if {"generator", "mapping_network", "style_encoder"} <= content.keys():
            return _stargan2(content)
        if content.keys() == {"mean"} and np.shape(content["mean"]) == (LANDMARKS, 2):
            network = Network("mean_face", "mean_face", None, content, {})
            return Checkpoint("mean_face", {"mean_face": network})
        if _has(state, "encoder.input_layer.", "decoder.style."):
            return _sam_or_psp(state, extras, path)
        for marks, kind, builder, table, arch in _SINGLE_NETWORKS:
            if _has(state, *marks):
                key = "state_dict" if wrapped else None
                network = Network(builder, table, key, state, arch(state))
                return Checkpoint(
                    kind(state), {kind(state): network}, {}, extras if wrapped else {}
                )
    except KeyError as error:
        raise CheckpointError(
            f"{path}: tensor {error.args[0]} is missing; the file is incomplete or its"
            " architecture is not a published one"
        ) from error
    raise CheckpointError(f"{path}: {_stranger(state)}")


def _has(state: Mapping, *marks: str) -> bool:
    return all(any(str(name).startswith(mark) for name in state) for mark in marks)


def _stranger(state: Mapping) -> str:
    if _has(state, "encoder.input_layer."):
        return (
            "an incomplete checkpoint: it has encoder.* but no decoder.* tensors; fetch the whole"
            " SAM or pSp file"
        )
    keys = ", ".join(str(name) for name in list(state)[:4])
    return (
        f"a checkpoint of another project (its keys begin with {keys}). Known are SAM, pSp,"
        " StyleGAN2 (rosinality layout or NVIDIA pickle), StarGAN v2, its face alignment network"
        " and mean face, IR-SE50, CurricularFace, DEX VGG, AlexNet or VGG16 features, LPIPS lin"
        " layers and FID's Inception-v3"
    )


def _sam_or_psp(state: Mapping, extras: dict, path: Path) -> Checkpoint:
    given = extras.get("arch") or {}
    encoder = tables.encoder_arch(_Below(state, "encoder."), given.get("encoder"))
    decoder = tables.generator_arch(_Below(state, "decoder."))
    frozen = _Below(state, "pretrained_encoder.")
    options = extras.pop("opts", None) or {}
    arch = {"encoder": encoder, "decoder": decoder, "start": _start(options, frozen, path)}
    if frozen:
        arch["pretrained_encoder"] = tables.encoder_arch(frozen, given.get("encoder"))
    if "latent_avg" not in extras:
        raise CheckpointError(f"{path}: latent_avg is missing, without which no face is right")
    # Files made from a raw StyleGAN2 checkpoint hold the one mean w; every code starts from it.
    shape = (encoder["n_styles"], encoder["style_dim"])
    added = {"latent_avg": np.broadcast_to(extras["latent_avg"], shape)}
    kind = "sam" if frozen else "psp"
    crop = {"size": encoder["input_size"], **PUBLISHED_CROP}
    if "alignment" in given:
        crop |= OWN_CROP | given["alignment"]
    network = Network("sam", "sam", "state_dict", state, arch, added)
    return Checkpoint(kind, {kind: network}, {"alignment": crop, "options": options}, extras)


def _start(options: Mapping, frozen: Mapping, path: Path) -> str:
    """What the encoder's offset is added to, from the stored training options."""
    if options.get("start_from_latent_avg", not options.get("start_from_encoded_w_plus")):
        return "latent_avg"
    if options.get("start_from_encoded_w_plus"):
        if not frozen:
            raise CheckpointError(
                f"{path}: an incomplete SAM checkpoint: it starts from the frozen encoder's code,"
                " but holds no pretrained_encoder.* tensors"
            )
        return "encoded_w_plus"
    return "zero"


def _stylegan2(content: Mapping) -> Checkpoint:
    readers = {
        "g_ema": ("stylegan2_generator", "generator", tables.generator_arch),
        "g": ("stylegan2_generator", "generator", tables.generator_arch),
        "d": ("stylegan2_discriminator", "discriminator", tables.discriminator_arch),
    }
    networks = {
        key: Network(builder, table, key, content[key], arch(content[key]))
        for key, (builder, table, arch) in readers.items()
        if key in content
    }
    extras = {k: v for k, v in content.items() if k not in (*readers, "latent_avg")}
    facts = {"latent_avg": np.array(content["latent_avg"])} if "latent_avg" in content else {}
    return Checkpoint("stylegan2", networks, facts, extras)


def _stargan2(content: Mapping) -> Checkpoint:
    readers = {
        "generator": lambda state: tables.stargan2_generator_arch(state, img_size),
        "mapping_network": tables.mapping_network_arch,
        "style_encoder": tables.style_encoder_arch,
        "discriminator": tables.stargan2_discriminator_arch,
        "fan": tables.face_heatmaps_arch,
    }
    parts = {key: _bare(content[key], key) for key in readers if key in content}
    img_size = tables.style_encoder_arch(parts["style_encoder"][0])["img_size"]
    networks = {}
    for key, (state, prefix) in parts.items():
        arch = readers[key](state)
        added = tables.absent_filter(state, arch) if key == "generator" else {}
        table = "face_heatmaps" if key == "fan" else f"stargan2_{key}"
        networks[key] = Network(table, table, key, state, arch, added, prefix)
    extras = {key: value for key, value in content.items() if key not in readers}
    return Checkpoint("stargan2", networks, {}, extras)


def _bare(state: Mapping, key: str) -> tuple[Mapping, str]:
    """A state dict under the names of the bare network, and the prefix that they had."""
    parallel = all(name.startswith(PARALLEL_PREFIX) for name in state)
    prefix = PARALLEL_PREFIX if parallel else ""
    in_full = {f"{key}.{name}": value for name, value in state.items()}
    return _Below(in_full, f"{key}.{prefix}"), prefix


class _Below(dict):
    """The tensors below a prefix, without it; a missing one is reported under its full name."""

    def __init__(self, state: Mapping, prefix: str):
        super().__init__((n[len(prefix) :], v) for n, v in state.items() if n.startswith(prefix))
        self.prefix = prefix

    def __missing__(self, name: str):
        raise KeyError(self.prefix + name)


def _constant(kind: str) -> Callable[[Mapping], str]:
    return lambda state: kind


def _embedder_kind(state: Mapping) -> str:
    return "ir_se50" if tables.face_embedder_arch(state)["squeeze_excite"] else "curricularface"


# Keys that give it away, kind, builder, table, architecture.
_SINGLE_NETWORKS = [
    (
        ("input_layer.", "body.", "output_layer."),
        _embedder_kind,
        "face_embedder",
        "face_embedder",
        tables.face_embedder_arch,
    ),
    (
        ("conv1_1.", "fc8-101."),
        _constant("dex_vgg"),
        "age_regressor",
        "age_regressor",
        tables.age_regressor_arch,
    ),
    (
        ("features.0.weight", "features.10."),
        _constant("lpips_features"),
        "lpips_features",
        "lpips_features",
        tables.lpips_features_arch,
    ),
    (
        ("0.weight", "10.weight"),
        _constant("lpips_features"),
        "lpips_features",
        "lpips_bare_features",
        tables.lpips_features_arch,
    ),
    (
        ("lin0.model.1.", "lin4.model.1."),
        _constant("lpips_lin"),
        "lpips_lin",
        "lpips_lin",
        tables.lpips_lin_arch,
    ),
    (
        ("Conv2d_1a_3x3.conv.", "Mixed_7c."),
        _constant("inception"),
        "inception_v3",
        "inception",
        tables.no_arch,
    ),
    (
        ("conv1.conv.", "m0.b1_4.", "l0."),
        _constant("face_heatmaps"),
        "face_heatmaps",
        "face_heatmaps",
        tables.face_heatmaps_arch,
    ),
]
