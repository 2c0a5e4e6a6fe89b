"""The rule table of every published network, and its architecture read from its tensors."""

from __future__ import annotations

import numpy as np

from paddle_sam.convert.rules import DISCARD, DROP, TRANSPOSE, UNBATCH, Rule, State, count, under
from paddle_sam.convert.stargan2_tables import STARGAN2_TABLES, face_heatmaps_arch
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.face_networks import PUBLISHED_UNITS
from paddle_sam.networks.stylegan2_ops import fir_kernel

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
# The same weights as PaddleGAN, SAM and stargan-v2 call them.
LPIPS_LIN_NAMES = {
    "lpips_lin_numbered": "*.model.1.weight",
    "lpips_lin_bare": "*.1.weight",
    "lpips_lin_models": "model.*.weight",
    "lpips_lin_main": "lpips_weights.*.main.1.weight",
}
# Positions of the convolutions in each slice of the `lpips` package's networks.
_SLICES = {
    "alex": ((0,), (3,), (6,), (8,), (10,)),
    "vgg": ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
}


def _whole_lpips(backbone: str) -> list[Rule]:
    """Features and weights in one file, as the `lpips` package and PaddleGAN keep them.

    The weights are in it twice.
    """
    slices = enumerate(_SLICES[backbone], start=1)
    return [
        *(Rule("scaling_layer.*", action=DROP), Rule("lins.*", action=DROP)),
        Rule("lin*.model.1.weight"),
        *[
            Rule(f"net.slice{number}.{place}.*", f"features.{place}.*")
            for number, places in slices
            for place in places
        ],
    ]


LPIPS_PADDLEGAN = [*_whole_lpips("vgg")[:3], Rule("net.vgg16.vgg_layers.*", "features.*")]

# The classifier plays no part in FID, but the way back needs it.
INCEPTION = [
    *(Rule(f"{part}.*", action=DROP) for part in ("fc", "AuxLogits")),
    Rule("*.num_batches_tracked", action=DROP),
    *(Rule("*.bn.running_mean", "*.bn._mean"), Rule("*.bn.running_var", "*.bn._variance")),
    *(Rule("Conv2d_*"), Rule("Mixed_*")),
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

HYPERSTYLE = [
    # The common layer of offsets stands below every block that uses it.
    Rule("hypernet.refinement_blocks.*.hypernet.*", action=DISCARD),
    *[
        Rule(f"hypernet.refinement_blocks.*.{linear}.weight", action=TRANSPOSE)
        for linear in ("linear", "make_kernel_in", "make_kernel_out", "kernel_linear_*")
    ],
    Rule("hypernet.refinement_blocks.*"),
    Rule("hypernet.shared_weight_hypernet.*"),
    *under("hypernet.", RESNET_ENCODER),
    *under("decoder.", GENERATOR),
    Rule("latent_avg"),
]

RESNET50 = [  # without the projection that self-supervised training puts behind it
    *(Rule("fc.*", action=DISCARD), Rule("*.num_batches_tracked", action=DROP)),
    *(Rule("*.running_mean", "body.*._mean"), Rule("*.running_var", "body.*._variance")),
    *(Rule(f"{part}*", f"body.{part}*") for part in ("conv1.", "bn1.", "layer")),
]

TABLES = {
    **STARGAN2_TABLES,
    "sam": SAM,
    "resnet_psp": RESNET_PSP,
    "hyperstyle": HYPERSTYLE,
    "generator": GENERATOR,
    "discriminator": DISCRIMINATOR,
    "face_embedder": FACE_EMBEDDER,
    "age_regressor": AGE_REGRESSOR,
    "lpips_features": LPIPS_FEATURES,
    "lpips_bare_features": LPIPS_BARE_FEATURES,
    "lpips_lin": LPIPS_LIN,
    **{table: [Rule(names, "lin*.model.1.weight")] for table, names in LPIPS_LIN_NAMES.items()},
    "lpips_alex": _whole_lpips("alex"),
    "lpips_vgg": _whole_lpips("vgg"),
    "lpips_paddlegan": LPIPS_PADDLEGAN,
    "inception": INCEPTION,
    "resnet50": RESNET50,
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
    """Constructor arguments of the `LpipsWeights` that a published file fits."""
    channels = [int(np.shape(state[name])[1]) for name in sorted(state) if "lins" not in name]
    return {"backbone": "alex" if 192 in channels else "vgg"}


def whole_lpips_arch(state: State) -> dict:
    """Constructor arguments of the `LPIPS` that a published file fits."""
    return lpips_lin_arch({name: state[name] for name in state if name.startswith("lin")})


def inception_arch(state: State) -> dict:
    """Constructor arguments of the `InceptionV3` that a torch state dict fits.

    torchvision's classifier has ImageNet's 1000 classes, the TensorFlow graph's 1008.
    """
    return {"torchvision": True} if len(state["fc.weight"]) == 1000 else {}


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


# Keys that give it away, kind, builder, table, architecture.
SINGLE_NETWORKS = [
    *[
        ((mark, "lin0.model.1.", "lin4.model.1."), "lpips", "lpips", table, whole_lpips_arch)
        for table, mark in {
            "lpips_paddlegan": "net.vgg16.vgg_layers.",
            "lpips_vgg": "net.slice5.28.",
            "lpips_alex": "net.slice5.10.",
        }.items()
    ],
    *[
        ((*marks, "output_layer."), kind, "face_embedder", "face_embedder", face_embedder_arch)
        for kind, marks in {
            "ir_se50": ("input_layer.", "body.0.res_layer.5."),
            "curricularface": ("input_layer.", "body."),
        }.items()
    ],
    (("conv1_1.", "fc8-101."), "dex_vgg", *["age_regressor"] * 2, age_regressor_arch),
    *[
        ((first, last), "lpips_features", "lpips_features", table, lpips_features_arch)
        for table, first, last in (
            ("lpips_features", "features.0.weight", "features.10."),
            ("lpips_bare_features", "0.weight", "10.weight"),
        )
    ],
    (("lin0.model.1.", "lin4.model.1."), *["lpips_lin"] * 3, lpips_lin_arch),
    *[
        (
            tuple(names.replace("*", str(layer)) for layer in range(5)),
            *("lpips_lin", "lpips_lin", table, lpips_lin_arch),
        )
        for table, names in LPIPS_LIN_NAMES.items()
    ],
    (
        ("Conv2d_1a_3x3.conv.", "Mixed_7c."),
        *("inception", "inception_v3", "inception", inception_arch),
    ),
    (("conv1.conv.", "m0.b1_4.", "l0."), *["face_heatmaps"] * 3, face_heatmaps_arch),
    (
        ("bn1.", "layer1.0.conv3.", "layer4.2."),
        *("self_supervised", "self_supervised", "resnet50", lambda state: {}),
    ),
]
