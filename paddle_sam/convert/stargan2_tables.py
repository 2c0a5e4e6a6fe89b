"""The rule tables of StarGAN v2's networks, and their architectures read from their tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from paddle_sam.convert.rules import DROP, TRANSPOSE, Rule, State, count
from paddle_sam.networks.stargan2 import HIGH_PASS

# `scale` is what Paddle calls the weight of an instance norm.
STARGAN2_GENERATOR = [
    Rule("decode.*.fc.weight", action=TRANSPOSE),
    Rule("encode.*.norm1.weight", "encode.*.norm1.scale"),
    Rule("encode.*.norm2.weight", "encode.*.norm2.scale"),
    Rule("to_rgb.0.weight", "to_rgb.0.scale"),
    Rule("from_rgb.*"),
    Rule("encode.*"),
    Rule("decode.*"),
    Rule("to_rgb.*"),
    Rule("hpf.filter"),
]

STARGAN2_MAPPING_NETWORK = [
    Rule("shared.*.weight", action=TRANSPOSE),
    Rule("shared.*.bias"),
    Rule("unshared.*.weight", action=TRANSPOSE),
    Rule("unshared.*.bias"),
]

STARGAN2_STYLE_ENCODER = [
    Rule("unshared.*.weight", action=TRANSPOSE),
    Rule("unshared.*.bias"),
    Rule("shared.*"),
]

STARGAN2_DISCRIMINATOR = [Rule("main.*")]

_FIRST_STAGE = ("m0", "top_m_0", "conv_last0", "bn_end0", "l0")
_LATER_STAGES = ("m?", "top_m_?", "conv_last?", "bn_end?", "l?", "al?", "bl?")

# Of the published file's four stages only the first is used, there as here.
FACE_HEATMAPS = [
    *[
        Rule(f"{part.replace('?', stage)}.*", action=DROP)
        for part in _LATER_STAGES
        for stage in "0123"
        if part.replace("?", stage) not in _FIRST_STAGE
    ],
    Rule("*.num_batches_tracked", action=DROP),
    Rule("*.running_mean", "*._mean"),
    Rule("*.running_var", "*._variance"),
    *[Rule(f"{part}.*") for part in ("conv1", "bn1", "conv2", "conv3", "conv4", *_FIRST_STAGE)],
]

MEAN_FACE = [Rule("mean")]

STARGAN2_TABLES = {
    "stargan2_generator": STARGAN2_GENERATOR,
    "stargan2_mapping_network": STARGAN2_MAPPING_NETWORK,
    "stargan2_style_encoder": STARGAN2_STYLE_ENCODER,
    "stargan2_discriminator": STARGAN2_DISCRIMINATOR,
    "face_heatmaps": FACE_HEATMAPS,
    "mean_face": MEAN_FACE,
}


def mapping_network_arch(state: State) -> dict:
    """Constructor arguments of the `MappingNetwork` that a torch state dict fits."""
    first = state["shared.0.weight"]
    return {
        "latent_dim": int(first.shape[1]),
        "style_dim": int(state["unshared.0.6.weight"].shape[0]),
        "num_domains": count(state, r"unshared\.\d+\.0\.weight"),
        "width": int(first.shape[0]),
    }


def style_encoder_arch(state: State) -> dict:
    """Constructor arguments of the `StyleEncoder` that a torch state dict fits."""
    return _trunk_arch(state, "shared") | {
        "style_dim": int(state["unshared.0.weight"].shape[0]),
        "num_domains": count(state, r"unshared\.\d+\.weight"),
    }


def discriminator_arch(state: State) -> dict:
    """Constructor arguments of the `Discriminator` that a torch state dict fits."""
    blocks = count(state, r"main\.\d+\.conv1\.weight")
    heads = state[f"main.{blocks + 4}.weight"]
    return _trunk_arch(state, "main") | {"num_domains": int(heads.shape[0])}


def generator_arch(state: State, img_size: int) -> dict:
    """Constructor arguments of the `Generator` that a torch state dict fits.

    The state alone does not tell `img_size`: without a high-pass skip (whose filter files may
    leave out) twice the size has as many blocks.
    """
    halvings = count(state, r"encode\.\d+\.conv1\.weight") - 2
    return {
        "img_size": img_size,
        "style_dim": int(state["decode.0.norm1.fc.weight"].shape[1]),
        "max_conv_dim": int(state["decode.0.conv1.weight"].shape[0]),
        "w_hpf": _high_pass_weight(state) if 8 << halvings == img_size else 0.0,
        "base_dim": int(state["from_rgb.weight"].shape[0]),
    }


def absent_filter(state: State, arch: Mapping) -> dict[str, np.ndarray]:
    """The high-pass filter, where a generator has one and its file leaves it out."""
    if arch["w_hpf"] == 0 or "hpf.filter" in state:
        return {}
    return {"hpf.filter": np.array(HIGH_PASS, np.float32) / np.float32(arch["w_hpf"])}


def face_heatmaps_arch(state: State) -> dict:
    """Constructor arguments of the `FaceHeatmaps` that a torch state dict fits."""
    return {"channels": int(state["conv_last0.weight"].shape[0])}


def _trunk_arch(state: State, name: str) -> dict:
    blocks = count(state, rf"{name}\.\d+\.conv1\.weight")
    return {
        "img_size": 4 << blocks,
        "max_conv_dim": int(state[f"{name}.{blocks + 2}.weight"].shape[0]),
        "base_dim": int(state[f"{name}.0.weight"].shape[0]),
    }


def _high_pass_weight(state: State) -> float:
    """w_hpf of the stored filter; 1, as published, where there is none or it was altered."""
    centre = float(state["hpf.filter"][1, 1]) if "hpf.filter" in state else 0.0
    weight = HIGH_PASS[1][1] / centre if centre > 0 else 1.0
    exact = np.array(HIGH_PASS, np.float32) / np.float32(weight)
    return weight if np.array_equal(exact, state.get("hpf.filter", exact)) else 1.0
