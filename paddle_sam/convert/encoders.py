"""Tell what encoder a checkpoint of pSp's family holds: by `opts` first, by its tensors second.

HyperStyle's network, which predicts changes of weights in place of codes, is told here as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_sam.convert.rules import State, count
from paddle_sam.convert.tables import has_squeeze_excite, published_units
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.face_networks import RESNET34_UNITS

# HyperStyle's `encoder_type` -> whether its offsets of 3x3 layers are products of two vectors.
HYPERNETWORKS = {
    "SharedWeightsHyperNetResNet": False,
    "SharedWeightsHyperNetResNetSeparable": True,
}


@dataclass(frozen=True)
class Layers:
    """What the tensors of an encoder show: where its codes come from, and its body."""

    head: str  # a key of `_HEADS`
    resnet: bool = False

    def __str__(self) -> str:
        return f"{_HEADS[self.head]}, {'ResNet34' if self.resnet else 'IR'}"


_HEADS = {
    "pyramid": "codes from a feature pyramid",
    "map": "codes from one map",
    "w": "one code from the last layer",
    "w_plus": "all codes from the last layer",
}
# `encoder_type` of pSp, e4e and ReStyle -> its layers, and whether the first code is added to all
# others, which no tensor shows. Of types with the same layers the first is what is usual.
ENCODER_TYPES = {
    "GradualStyleEncoder": (Layers("pyramid"), False),
    "Encoder4Editing": (Layers("pyramid"), True),
    "BackboneEncoder": (Layers("map"), False),
    "ProgressiveBackboneEncoder": (Layers("map"), True),
    "ResNetGradualStyleEncoder": (Layers("pyramid", resnet=True), False),
    "ResNetBackboneEncoder": (Layers("map", resnet=True), False),
    "ResNetProgressiveBackboneEncoder": (Layers("map", resnet=True), True),
    "BackboneEncoderUsingLastLayerIntoW": (Layers("w"), False),
    "SingleStyleCodeEncoder": (Layers("w"), False),
    "WEncoder": (Layers("w"), False),
    "BackboneEncoderUsingLastLayerIntoWPlus": (Layers("w_plus"), False),
}


def stated_type(state: State, options: Mapping, notes: list[str], path: Path) -> str:
    """Return the encoder type that `options` state, checked against the tensors of `state`.

    Raises:
        CheckpointError: an unknown type, or one that has other layers.
    """
    found, kind = _layers(state), options.get("encoder_type")
    if kind is None:
        same = [name for name, (layers, _) in ENCODER_TYPES.items() if layers == found]
        notes.append(f"encoder_type is not stated: taken for {same[0]}, of its tensors")
        if len(same) > 1:
            notes[-1] += f" ({' and '.join(same[1:])} would have the same)"
        return same[0]
    if kind not in ENCODER_TYPES:
        raise CheckpointError(
            f"{path}: its encoder_type is {kind}; supported are {', '.join(ENCODER_TYPES)}"
        )
    if (expected := ENCODER_TYPES[kind][0]) != found:
        raise CheckpointError(
            f"{path}: its encoder_type is {kind} ({expected}), and its tensors are of another"
            f" encoder ({found})"
        )
    return kind


def encoder_arch(
    state: State, kind: str, codes: int, given: Mapping | None = None, wide: bool = False
) -> dict:
    """Constructor arguments of the encoder of type `kind` that a torch state dict fits.

    Args:
        state: without the prefix `encoder.`.
        kind: a key of `ENCODER_TYPES`.
        codes: of the decoder; encoders of one code do not tell.
        given: the `arch["encoder"]` entry that checkpoints of unpublished sizes carry; without
            it the number of residual units names the published body.
        wide: it reads pictures of 4 to 3, which no tensor tells.
    """
    layers, progressive = ENCODER_TYPES[kind]
    stem = state["conv1.weight" if layers.resnet else "input_layer.0.weight"]
    given = given or {}
    units = given.get("units") or (RESNET34_UNITS if layers.resnet else published_units(state))
    last = "conv2" if layers.resnet else "res_layer.3"
    widths = [int(state[f"body.{unit}.{last}.weight"].shape[0]) for unit in np.cumsum(units) - 1]
    arch = {
        "in_channels": int(stem.shape[1]),
        "stem": int(stem.shape[0]),
        "widths": widths,
        "units": list(units),
        "squeeze_excite": has_squeeze_excite(state),
    }
    if layers.head in ("w", "w_plus"):
        one_code = layers.head == "w"
        style_dim = int(state["linear.weight" if one_code else "output_layer_2.3.weight"].shape[0])
        codes = codes if one_code else int(state["linear.weight"].shape[0]) // style_dim
        size = int(given.get("input_size", 256))  # any size has the same tensors
        return arch | {
            **{"one_code": one_code, "input_size": size, "n_styles": codes},
            **{"style_dim": style_dim, **({"rows": size * 3 // 4} if wide else {})},
        }
    size = 16 * 2 ** count(state, r"styles\.0\.convs\.(\d+)\.weight")
    return arch | {
        "input_size": size,
        "n_styles": count(state, r"styles\.(\d+)\.linear\.weight"),
        "style_dim": int(state["styles.0.linear.weight"].shape[0]),
        **({} if layers.head == "pyramid" else {"pyramid": False}),
        **({"resnet": True} if layers.resnet else {}),
        **({"progressive": True} if progressive else {}),
        **({"rows": size * 3 // 4} if wide else {}),
    }


def hypernet_arch(
    state: State, options: Mapping, path: Path, given: Mapping | None = None
) -> tuple[dict, list[int]]:
    """Arguments of the `HyperNetwork` that HyperStyle's state dict fits, and the layers it tunes.

    Args:
        state: without the prefix `hypernet.`.
        options: the stored ones; `encoder_type` has to say what the tensors do.
        given: the `arch["hypernet"]` entry that checkpoints of unpublished sizes carry.
    """
    block = r"refinement_blocks\.(\d+)\."
    layers, shared, separable = (
        sorted({int(found[1]) for name in state if (found := re.fullmatch(block + end, name))})
        for end in (r"convs\.0\.weight", r"linear\.weight", r"output\.0\.make_kernel_in\.weight")
    )
    stated = options.get("encoder_type")
    if stated is not None and HYPERNETWORKS.get(str(stated)) != bool(separable):
        tensors = "two vectors" if separable else "one vector"
        raise CheckpointError(
            f"{path}: its encoder_type is {stated}, and its tensors are of a HyperStyle network"
            f" with {tensors} a layer; known are {', '.join(HYPERNETWORKS)}"
        )
    own = [number for number in layers if number not in shared]
    units = list((given or {}).get("units") or RESNET34_UNITS)
    inner = [
        int(state[f"refinement_blocks.{numbers[0]}.convs.0.weight"].shape[0]) if numbers else 1
        for numbers in (shared, own)
    ]
    arch = {
        "shared": shared,
        "separable": bool(separable),
        "in_channels": int(state["conv1.weight"].shape[1]),
        "stem": int(state["conv1.weight"].shape[0]),
        "widths": [int(state[f"body.{k}.conv2.weight"].shape[0]) for k in np.cumsum(units) - 1],
        "units": units,
        "inner": inner,
        "features": int(state["shared_weight_hypernet.w1"].shape[0]),
    }
    for number in shared:
        for name in ("w1", "b1", "w2", "b2"):
            repeated = state.get(f"refinement_blocks.{number}.hypernet.{name}")
            if repeated is not None and not np.array_equal(
                repeated, state[f"shared_weight_hypernet.{name}"]
            ):
                raise CheckpointError(
                    f"{path}: tensor hypernet.refinement_blocks.{number}.hypernet.{name} differs"
                    " from the common layer that it stands for, shared_weight_hypernet"
                )
    return arch, layers


def shared_repeats(state: State) -> dict[str, np.ndarray]:
    """The common layer of HyperStyle's `state` under the names of all blocks that use it."""
    common = "hypernet.shared_weight_hypernet."
    shared = (re.fullmatch(r"(hypernet\.refinement_blocks\.\d+\.)linear\.weight", n) for n in state)
    return {
        f"{found[1]}hypernet.{name.removeprefix(common)}": array
        for found in shared
        if found
        for name, array in state.items()
        if name.startswith(common)
    }


def iterations(options: Mapping, notes: list[str], path: Path) -> int:
    """Return how many steps ReStyle takes, from the stored training options."""
    steps = options.get("n_iters_per_batch")
    if steps is None:
        notes.append("n_iters_per_batch is not stated: taken for 5, as published")
        return 5
    if not isinstance(steps, int) or not 1 <= steps <= 100:
        raise CheckpointError(f"{path}: n_iters_per_batch: expected 1 to 100, found {steps!r}")
    return steps


def start(options: Mapping, frozen: Mapping, notes: list[str], path: Path) -> str:
    """What the encoder's offset is added to, from the stored training options."""
    stated = [options.get(f"start_from_{name}") for name in ("latent_avg", "encoded_w_plus")]
    if stated == [None, None]:
        concluded = "encoded_w_plus" if frozen else "latent_avg"
        notes.append(f"the start of codes is not stated: taken for {concluded}")
        return concluded
    if stated[0]:
        return "latent_avg"
    if stated[1] and not frozen:
        raise CheckpointError(
            f"{path}: an incomplete SAM checkpoint: it starts from the frozen encoder's code,"
            " but holds no pretrained_encoder.* tensors"
        )
    return "encoded_w_plus" if stated[1] else "zero"


def reads_wide(options: Mapping) -> bool:
    """Whether stored options are of wide pictures: those of cars, which e4e and ReStyle squeeze to
    192 rows of 256, and whose generators pad 384 rows of 512 to a square."""
    return "cars" in str(options.get("dataset_type", ""))


def input_of(options: Mapping, channels: int) -> str:
    """Return in words what an encoder of `channels` channels reads, by what its options state."""
    classes = options.get("label_nc")
    if reads_wide(options) and channels in (3, 6):
        return "a picture of a car, 4 to 3" + " and what its last code renders" * (channels == 6)
    if channels == 6:
        return "a photograph and what its last code renders"
    if channels == 4:
        return "a photograph and a target age"
    if channels == 3:
        factors = options.get("resize_factors")
        return f"a photograph, made smaller by {factors}" if factors else "a photograph"
    if channels == 1:
        return "a grey drawing"
    stated = " (label_nc)" if classes == channels else ""
    return f"a map of {channels} classes{stated}"


def _layers(state: State) -> Layers:
    resnet = "conv1.weight" in state
    if "output_layer_2.3.weight" in state:
        return Layers("w_plus", resnet)
    if "linear.weight" in state:
        return Layers("w", resnet)
    return Layers("pyramid" if "latlayer1.weight" in state else "map", resnet)
