"""The rule table of every published network, and its architecture read from its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from paddle_sam.convert.rules import DISCARD, DROP, TRANSPOSE, UNBATCH, Rule, under
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.face_networks import PUBLISHED_UNITS
from paddle_sam.networks.stargan2 import HIGH_PASS
from paddle_sam.networks.stylegan2_ops import fir_kernel

State = Mapping[str, np.ndarray]

RESIDUAL_BODY = [
    Rule("*.num_batches_tracked", action=DROP),
    Rule("*.running_mean", "*._mean"),
    Rule("*.running_var", "*._variance"),
    Rule("input_layer.2.weight", "input_layer.2._weight"),
    Rule("*.res_layer.2.weight", "*.res_layer.2._weight"),
]

PSP_ENCODER = [
    *RESIDUAL_BODY,
    Rule("styles.*.linear.weight", action=TRANSPOSE),
    Rule("input_layer.*"),
    Rule("body.*"),
    Rule("styles.*"),
    Rule("latlayer*"),
]

LAST_LAYER = [
    Rule("output_layer_2.3.weight", action=TRANSPOSE),
    Rule("output_layer_2.*"),
    Rule("linear.weight", action=TRANSPOSE),
    Rule("linear.bias"),
]

# Encoders with the body of ResNet34, whose first layers have names of their own.
RESNET_ENCODER = [
    Rule("conv1.weight", "input_layer.0.weight"),
    Rule("relu.weight", "input_layer.2._weight"),
    Rule("bn1.running_mean", "input_layer.1._mean"),
    Rule("bn1.running_var", "input_layer.1._variance"),
    Rule("bn1.num_batches_tracked", action=DROP),
    Rule("bn1.*", "input_layer.1.*"),
    *[rule for rule in PSP_ENCODER if rule.source.split(".")[0] != "input_layer"],
]

GENERATOR = [
    Rule("*.kernel", action=DROP),
    Rule("style.*.weight", action=TRANSPOSE),
    Rule("*.modulation.weight", action=TRANSPOSE),
    Rule("*.conv.weight", action=UNBATCH),
    Rule("style.*.bias"),
    Rule("embed.weight", action=TRANSPOSE),
    Rule("embed.bias"),
    Rule("input.input"),
    Rule("conv1.*"),
    Rule("to_rgb1.*"),
    Rule("convs.*"),
    Rule("to_rgbs.*"),
    Rule("noises.noise_*"),
]

DISCRIMINATOR = [
    Rule("*.kernel", action=DROP),
    Rule("convs.0.0.weight", "convs.0.conv.weight"),
    Rule("convs.0.1.bias", "convs.0.activate.bias"),
    Rule("convs.*.conv1.0.weight", "convs.*.conv1.conv.weight"),
    Rule("convs.*.conv1.1.bias", "convs.*.conv1.activate.bias"),
    Rule("convs.*.conv2.1.weight", "convs.*.conv2.conv.weight"),
    Rule("convs.*.conv2.2.bias", "convs.*.conv2.activate.bias"),
    Rule("convs.*.skip.1.weight", "convs.*.skip.conv.weight"),
    Rule("final_conv.0.weight", "final_conv.conv.weight"),
    Rule("final_conv.1.bias", "final_conv.activate.bias"),
    Rule("final_linear.*.weight", action=TRANSPOSE),
    Rule("final_linear.*.bias"),
    Rule("embed.weight", action=TRANSPOSE),
    Rule("embed.bias"),
    Rule("mapping.*.weight", action=TRANSPOSE),
    Rule("mapping.*.bias"),
]

FACE_EMBEDDER = [
    *RESIDUAL_BODY,
    Rule("output_layer.3.weight", action=TRANSPOSE),
    Rule("input_layer.*"),
    Rule("body.*"),
    Rule("output_layer.*"),
]

AGE_REGRESSOR = [
    Rule("fc8-101.weight", "fc8_101.weight", TRANSPOSE),
    Rule("fc8-101.bias", "fc8_101.bias"),
    Rule("fc6.weight", action=TRANSPOSE),
    Rule("fc7.weight", action=TRANSPOSE),
    Rule("fc*.bias"),
    Rule("conv*"),
]

# The classifier of a torchvision file is not part of LPIPS.
LPIPS_FEATURES = [Rule("classifier.*", action=DISCARD), Rule("features.*")]
LPIPS_BARE_FEATURES = [Rule("*", "features.*")]
LPIPS_LIN = [Rule("lin*.model.1.weight")]

# The classifier plays no part in FID, but the way back needs it.
INCEPTION = [
    Rule("fc.*", action=DROP),
    Rule("*.num_batches_tracked", action=DROP),
    Rule("*.bn.running_mean", "*.bn._mean"),
    Rule("*.bn.running_var", "*.bn._variance"),
    Rule("Conv2d_*"),
    Rule("Mixed_*"),
]

SAM = [
    *under("encoder.", [*PSP_ENCODER, *LAST_LAYER]),
    *under("pretrained_encoder.", PSP_ENCODER),
    *under("decoder.", GENERATOR),
    Rule("latent_avg"),
]
RESNET_PSP = [
    *under("encoder.", RESNET_ENCODER),
    *under("decoder.", GENERATOR),
    Rule("latent_avg"),
]


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

TABLES = {
    "sam": SAM,
    "resnet_psp": RESNET_PSP,
    "generator": GENERATOR,
    "discriminator": DISCRIMINATOR,
    "face_embedder": FACE_EMBEDDER,
    "age_regressor": AGE_REGRESSOR,
    "lpips_features": LPIPS_FEATURES,
    "lpips_bare_features": LPIPS_BARE_FEATURES,
    "lpips_lin": LPIPS_LIN,
    "inception": INCEPTION,
    "stargan2_generator": STARGAN2_GENERATOR,
    "stargan2_mapping_network": STARGAN2_MAPPING_NETWORK,
    "stargan2_style_encoder": STARGAN2_STYLE_ENCODER,
    "stargan2_discriminator": STARGAN2_DISCRIMINATOR,
    "face_heatmaps": FACE_HEATMAPS,
    "mean_face": MEAN_FACE,
}


def generator_arch(state: State) -> dict:
    """Constructor arguments of the `Generator` that a rosinality-layout state dict fits."""
    levels = count(state, r"to_rgbs\.(\d+)\.bias")
    channels = {4: int(state["input.input"].shape[1])}
    for level in range(levels):
        channels[8 << level] = int(state[f"convs.{2 * level + 1}.conv.weight"].shape[1])
    return {
        "size": 4 << levels,
        "style_dim": int(state["style.1.weight"].shape[0]),
        "mapping_layers": count(state, r"style\.(\d+)\.weight"),
        "channels": channels,
        "fir": _fir(state),
        **_unusual(state, int(state["to_rgb1.bias"].shape[1])),
    }


def discriminator_arch(state: State) -> dict:
    """Constructor arguments of the `Discriminator` that a rosinality-layout state dict fits."""
    blocks = count(state, r"convs\.(\d+)\.skip\.1\.weight")
    size = 4 << blocks
    channels = {size: int(state["convs.0.0.weight"].shape[0])}
    for block in range(1, blocks + 1):
        channels[size >> block] = int(state[f"convs.{block}.skip.1.weight"].shape[0])
    arch = {"size": size, "channels": channels, "fir": _fir(state)}
    if "embed.weight" in state:
        arch["mapping_layers"] = count(state, r"mapping\.(\d+)\.weight")
    return arch | _unusual(state, int(state["convs.0.0.weight"].shape[1]))


def face_embedder_arch(state: State) -> dict:
    """Constructor arguments of the `FaceEmbedder` that a torch state dict fits."""
    linear = state["output_layer.3.weight"]
    squeeze_excite = has_squeeze_excite(state)
    return {
        "input_size": 16 * int((linear.shape[1] // 512) ** 0.5),
        "units": list(published_units(state)),
        "squeeze_excite": squeeze_excite,
        "head_affine": "output_layer.4.weight" in state,
        "dropout": 0.6 if squeeze_excite else 0.4,
        "embedding_dim": int(linear.shape[0]),
    }


def age_regressor_arch(state: State) -> dict:
    """Constructor arguments of the `AgeRegressor` that a torch state dict fits."""
    widths = [int(state[f"conv{stage}_1.weight"].shape[0]) for stage in range(1, 6)]
    fc6 = state["fc6.weight"]
    return {
        "input_size": 32 * int((fc6.shape[1] // widths[-1]) ** 0.5),
        "widths": widths,
        "fc": int(fc6.shape[0]),
    }


def lpips_features_arch(state: State) -> dict:
    """Constructor arguments of the `LpipsFeatures` that torchvision's state dict fits."""
    first = state["features.0.weight" if "features.0.weight" in state else "0.weight"]
    return {"backbone": "alex" if first.shape[-1] == 11 else "vgg"}


def lpips_lin_arch(state: State) -> dict:
    """Constructor arguments of the `LpipsWeights` that the published file fits."""
    return {"backbone": "alex" if state["lin1.model.1.weight"].shape[1] == 192 else "vgg"}


def no_arch(state: State) -> dict:
    """Of a network that is published in one size only."""
    return {}


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


def stargan2_discriminator_arch(state: State) -> dict:
    """Constructor arguments of the `Discriminator` that a torch state dict fits."""
    blocks = count(state, r"main\.\d+\.conv1\.weight")
    heads = state[f"main.{blocks + 4}.weight"]
    return _trunk_arch(state, "main") | {"num_domains": int(heads.shape[0])}


def stargan2_generator_arch(state: State, img_size: int) -> dict:
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


def _unusual(state: State, image_channels: int) -> dict:
    """Arguments of networks that are conditional or not made for RGB."""
    arch = {} if image_channels == 3 else {"image_channels": image_channels}
    if "embed.weight" in state:
        arch["classes"] = int(state["embed.weight"].shape[1])
    return arch


def _fir(state: State) -> list[float]:
    """Taps of the FIR filter that every `kernel` tensor holds; raises where they differ."""
    kernels = {name: np.asarray(a, np.float32) for name, a in state.items() if "kernel" in name}
    if not kernels:
        return [1.0, 3.0, 3.0, 1.0]
    first = next(iter(kernels.values()))
    rows = first.sum(axis=1)
    taps = [float(tap) for tap in rows / rows.min()]
    for name, kernel in kernels.items():
        gain = 4.0 if _doubles(name) else 1.0
        if not np.array_equal(fir_kernel(taps, gain), kernel):
            raise CheckpointError(
                f"tensor {name}: expected the separable filter of taps {taps} with sum {gain:g},"
                f" found {kernel.tolist()}"
            )
    return taps


def _doubles(name: str) -> bool:
    """Whether the FIR tensor `name` belongs to an up-sampling layer (whose filter sums to 4)."""
    return name.endswith(("upsample.kernel", "conv.blur.kernel"))


def published_units(state: State) -> tuple[int, ...]:
    found = count(state, r"body\.(\d+)\.res_layer\.1\.weight")
    for units in PUBLISHED_UNITS.values():
        if sum(units) == found:
            return units
    raise CheckpointError(
        f"a body of {found} residual units is none of the published ones"
        f" ({', '.join(str(sum(u)) for u in PUBLISHED_UNITS.values())}); a checkpoint of another"
        " size needs an `arch` entry"
    )


def has_squeeze_excite(state: State) -> bool:
    return "body.0.res_layer.5.fc1.weight" in state


def count(state: State, pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)
