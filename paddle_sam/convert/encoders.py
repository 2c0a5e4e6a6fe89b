"""Tell what encoder a checkpoint of pSp's family holds: by `opts` first, by its tensors second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_sam.convert.rules import State, count
from paddle_sam.convert.tables import has_squeeze_excite, published_units
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.encoders import RESNET34_UNITS


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


def encoder_arch(state: State, kind: str, codes: int, given: Mapping | None = None) -> dict:
    """Constructor arguments of the encoder of type `kind` that a torch state dict fits.

    Args:
        state: without the prefix `encoder.`.
        kind: a key of `ENCODER_TYPES`.
        codes: of the decoder; encoders of one code do not tell.
        given: the `arch["encoder"]` entry that checkpoints of unpublished sizes carry; without
            it the number of residual units names the published body.
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
            "style_dim": style_dim,
        }
    return arch | {
        "input_size": 16 * 2 ** count(state, r"styles\.0\.convs\.(\d+)\.weight"),
        "n_styles": count(state, r"styles\.(\d+)\.linear\.weight"),
        "style_dim": int(state["styles.0.linear.weight"].shape[0]),
        **({} if layers.head == "pyramid" else {"pyramid": False}),
        **({"resnet": True} if layers.resnet else {}),
        **({"progressive": True} if progressive else {}),
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


def input_of(options: Mapping, channels: int) -> str:
    """Return in words what an encoder of so many channels reads, of what its options state."""
    classes = options.get("label_nc")
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
