"""Tell which published checkpoint a torch file is: by what it states first, by its keys second."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from paddle_sam.convert import encoders, stargan2_tables, tables
from paddle_sam.convert.nvidia_pickle import LEFT_OUT
from paddle_sam.convert.rules import to_paddle
from paddle_sam.core.weights import load_strict
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.face_heatmaps import LANDMARKS
from paddle_sam.networks.load import build_empty
from paddle_sam.networks.stylegan2_ops import noise_resolutions

# What StarGAN v2's networks are called, in one file or as files of a folder.
STARGAN2_PARTS = ("generator", "mapping_network", "style_encoder")
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
    held, which only the way back needs; `notes` say what was concluded without being stated.
    """

    kind: str
    networks: dict[str, Network]
    facts: dict = field(default_factory=dict)
    extras: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def recognise(content: Mapping, path: Path) -> Checkpoint:
    """Recognise a torch file's `content`.

    Raises:
        CheckpointError: no known kind, or a tensor that its architecture is read from is missing.
    """
    wrapped = isinstance(content.get("state_dict"), Mapping)
    key = "state_dict" if wrapped else None
    state, prefix = _bare(content["state_dict"] if wrapped else content)
    extras = {name: value for name, value in content.items() if name != key} if wrapped else {}
    if _has(state, "encoder_q.layer4."):  # MoCo: beside it a second encoder and a queue
        state, prefix = _Below(state, "encoder_q."), f"{prefix}encoder_q."
    try:
        if parts := [part for part in ("g_ema", "g", "d") if part in content]:
            places = {part: (*_bare(content[part]), part) for part in parts}
            rest = {name: value for name, value in content.items() if name not in parts}
            return _stylegan2(places, rest, path)
        if set(STARGAN2_PARTS) <= content.keys():
            return _stargan2(content)
        if content.keys() == {"mean"} and np.shape(content["mean"]) == (LANDMARKS, 2):
            network = Network("mean_face", "mean_face", None, content, {})
            return Checkpoint("mean_face", {"mean_face": network})
        if _has(state, "hypernet.", "decoder.style."):
            return _hyperstyle(state, prefix, key, extras, path)
        if _has(state, "encoder.", "decoder.style."):
            return _sam_or_psp(state, prefix, key, extras, path)
        for part, marks in (("g_ema", ("style.1.", "to_rgb1.")), ("d", ("convs.0.0.weight",))):
            if _has(state, *marks):
                return _stylegan2({part: (state, prefix, key)}, extras, path)
        for marks, kind, builder, table, arch in tables.SINGLE_NETWORKS:
            if _has(state, *marks):
                network = Network(builder, table, key, state, arch(state), prefix=prefix)
                return Checkpoint(kind, {kind: network}, {}, extras)
    except CheckpointError as error:  # of the tables, which do not know the file
        text = error.args[0]
        raise CheckpointError(text if str(path) in text else f"{path}: {text}") from error
    except KeyError as error:
        raise CheckpointError(
            f"{path}: tensor {error.args[0]} is missing; the file is incomplete or its"
            " architecture is not a published one"
        ) from error
    raise CheckpointError(f"{path}: {_stranger(content)}")


def _has(state: Mapping, *marks: str) -> bool:
    return all(any(str(name).startswith(mark) for name in state) for mark in marks)


def _stranger(content: Mapping) -> str:
    """Say what an unknown file is, as far as it is known."""
    nested = [(key, value) for key, value in content.items() if isinstance(value, Mapping)]
    names = {str(name): None for name in content}
    names |= {f"{key}.{name}": None for key, value in nested for name in value}
    for mark, words in _STRANGERS:
        if any(re.search(mark, name) for name in names):
            return words
    if not names:
        return "holds nothing: neither tensors nor options"
    keys = ", ".join(list(names)[:4])
    return (
        f"a checkpoint of another project (its keys begin with {keys}). Known are SAM, pSp, e4e,"
        " ReStyle, HyperStyle, StyleGAN2 (rosinality layout or NVIDIA pickle), StarGAN v2, its face"
        " alignment network and mean face, IR-SE50, CurricularFace, DEX VGG, AlexNet or VGG16"
        " features, LPIPS, the Inception-v3 of FID and of torchvision, and ResNet-50 of MoCo or"
        " DINO"
    )


# What a name has in it, and what the file is then.
_STRANGERS = [
    (
        r"^((state_dict|module)\.)*encoder\.input_layer\.",
        "an incomplete checkpoint: it has encoder.* but no decoder.* tensors; fetch the whole SAM"
        " or pSp file",
    ),
    (
        r"(^|\.)hypernet\.",
        "an incomplete checkpoint of HyperStyle: it has hypernet.* but no decoder.* tensors; fetch"
        " the whole file",
    ),
    (
        r"(^|\.)progression\.0\.|g_synthesis\.|StyleMod|AdaIN",
        "a network of StyleGAN, the first version, which is not supported; expected StyleGAN2",
    ),
    (
        r"synthesis\.(L\d+_|input\.freqs)",
        "a network of StyleGAN3, which is not supported; expected StyleGAN2",
    ),
    (
        r"(^|\.)(S|GAN|SE)\.net\.0\.|^GAN\.",
        "a network of lucidrains' stylegan2-pytorch, which has another architecture; expected"
        " rosinality's or NVIDIA's StyleGAN2",
    ),
    (
        r"(^|\.)(style_mlp|stylegan_decoder)\.",
        "a network of BasicSR or GFPGAN, which is not supported; expected rosinality's or NVIDIA's"
        " StyleGAN2",
    ),
    (
        r"^((state_dict|module)\.)*(from_rgb|shared\.0|main\.0)\.",
        "one network of StarGAN v2 alone; put its files into a folder under the names"
        f" {', '.join(STARGAN2_PARTS)} and convert the folder",
    ),
]


class _Family:
    """What the files of pSp's family have in common: options, a decoder, its average code.

    Attributes: the stored `options`, the `given` entry of files of unpublished sizes, `notes` on
    what was concluded, the architecture of the `decoder` and how many `codes` it takes.
    """

    def __init__(self, state: Mapping, extras: dict, path: Path):
        self.given = extras.get("arch") or {}
        self.options = extras.pop("opts", None) or {}
        stated = f"{path.name} states no options (`opts`); read from its tensors"
        self.notes = [] if self.options else [stated]
        self._decoder_state = _Below(state, "decoder.")
        self.decoder = tables.generator_arch(self._decoder_state)
        self.codes = len(noise_resolutions(self.decoder["size"])) + 1
        self._extras, self._path = extras, path
        self._inside = state if "latent_avg" in state else None

    def added(self, codes: int, starts_from_average: bool = True) -> dict[str, np.ndarray]:
        """Return the Paddle tensors that the file does not hold: average code and noise maps."""
        noises = _absent_noises(self._decoder_state, self.decoder, self.notes)
        dim = self.decoder["style_dim"]
        average = _stated_average(self._inside or self._extras, dim, codes, self._path)
        if average is None:
            self._extras.pop("latent_avg", None)
            average = np.zeros(dim, np.float32)
            if starts_from_average:
                average = _estimated_average(self._decoder_state, self.decoder, noises)
                self.notes.append("no latent_avg: estimated from the decoder's mapping network")
        added = {f"decoder.{name}": noise for name, noise in noises.items()}
        # Files made from a raw StyleGAN2 checkpoint hold the one mean w; every code starts from it.
        repeated = {"latent_avg": np.broadcast_to(average, (codes, dim))}
        return added if self._inside else repeated | added


def _sam_or_psp(
    state: Mapping, prefix: str, key: str | None, extras: dict, path: Path
) -> Checkpoint:
    file, frozen = _Family(state, extras, path), _Below(state, "pretrained_encoder.")
    options, notes, given = file.options, file.notes, file.given
    encoder_state = _Below(state, "encoder.")
    encoder_type = encoders.stated_type(encoder_state, options, notes, path)
    wide = encoders.reads_wide(options)
    encoder = encoders.encoder_arch(
        encoder_state, encoder_type, file.codes, given.get("encoder"), wide
    )
    arch = {"encoder": encoder, "decoder": file.decoder}
    if encoder["in_channels"] == 6:  # ReStyle, which begins with the average and its image
        arch |= {"start": "latent_avg", "iterations": encoders.iterations(options, notes, path)}
    else:
        arch["start"] = encoders.start(options, frozen, notes, path)
    if frozen:
        if encoder_type != "GradualStyleEncoder":
            raise CheckpointError(
                f"{path}: a SAM whose encoder is of type {encoder_type}; supported is"
                " GradualStyleEncoder"
            )
        arch["pretrained_encoder"] = encoders.encoder_arch(
            frozen, "GradualStyleEncoder", file.codes, given.get("encoder")
        )
    added = file.added(encoder["n_styles"], arch["start"] != "zero")
    kind = "sam" if frozen else "psp"
    crop = {"size": encoder["input_size"], **PUBLISHED_CROP}
    if "alignment" in given:
        crop |= OWN_CROP | given["alignment"]
    table = "resnet_psp" if "resnet" in encoder else "sam"
    network = Network("sam", table, key, state, arch, added, prefix)
    facts = {"alignment": crop, "options": options}
    return Checkpoint(kind, {kind: network}, facts, extras, notes)


def _hyperstyle(
    state: Mapping, prefix: str, key: str | None, extras: dict, path: Path
) -> Checkpoint:
    file = _Family(state, extras, path)
    given = file.given.get("hypernet") or {}
    hypernet, layers = encoders.hypernet_arch(_Below(state, "hypernet."), file.options, path, given)
    arch = {"hypernet": hypernet, "decoder": file.decoder, "layers": layers}
    arch["iterations"] = encoders.iterations(file.options, file.notes, path)
    arch["input_size"] = int(given.get("input_size", 256))
    added = file.added(file.codes)
    file.notes.append(
        "the encoder that it starts from is a file of its own, a W encoder; convert both"
    )
    network = Network("hyperstyle", "hyperstyle", key, state, arch, added, prefix)
    facts = {"alignment": {"size": arch["input_size"], **PUBLISHED_CROP}, "options": file.options}
    return Checkpoint("hyperstyle", {"hyperstyle": network}, facts, extras, file.notes)


def _stated_average(content: Mapping, style_dim: int, codes: int, path: Path) -> np.ndarray | None:
    """Return `latent_avg` of a file's content, checked; None if it holds none."""
    average = content.get("latent_avg")
    if average is None:
        return None
    shapes = ((style_dim,), (1, style_dim), (codes, style_dim))
    numbers = isinstance(average, np.ndarray) and average.dtype.kind == "f"
    if not numbers or average.shape not in shapes or not np.isfinite(average).all():
        found = f"{average.dtype} {list(average.shape)}" if numbers else type(average).__name__
        raise CheckpointError(
            f"{path}: latent_avg: expected finite numbers [{style_dim}] or [{codes}, {style_dim}],"
            f" found {found}"
        )
    return average


def _estimated_average(state: Mapping, arch: Mapping, noises: Mapping) -> np.ndarray:
    """Return the mean code [D] of a decoder, from its mapping network."""
    network = build_empty("stylegan2_generator", arch)
    tensors = to_paddle(state, tables.GENERATOR, "decoder").state | dict(noises)
    load_strict(network, tensors, "decoder")
    return network.mean_latent()[0].numpy()


def _absent_noises(state: Mapping, arch: Mapping, notes: list[str]) -> dict[str, np.ndarray]:
    """Draw the stored noise maps that files of early versions lack, always the same."""
    if _has(state, "noises."):
        return {}
    notes.append("no noises.*: drawn from seed 0, their weights are in the file")
    draw = np.random.RandomState(0).standard_normal
    return {
        f"noises.noise_{index}": draw((1, 1, side, side)).astype(np.float32)
        for index, side in enumerate(noise_resolutions(arch["size"]))
    }


def _stylegan2(places: Mapping[str, tuple], rest: Mapping, path: Path) -> Checkpoint:
    """Recognise generators and a discriminator: by name their state, its prefix and its key."""
    networks, facts, notes = {}, {}, list(rest.get(LEFT_OUT) or ())
    for part, (state, prefix, key) in places.items():
        if part == "d":
            arch, added = tables.discriminator_arch(state), {}
            builder, table = "stylegan2_discriminator", "discriminator"
        else:
            arch = tables.generator_arch(state)
            added = _absent_noises(state, arch, notes)
            builder, table = "stylegan2_generator", "generator"
            codes = len(noise_resolutions(arch["size"])) + 1
            average = _stated_average(rest, arch["style_dim"], codes, path)
            if average is not None:
                facts["latent_avg"] = np.array(average)
        networks[part] = Network(builder, table, key, state, arch, added, prefix)
    extras = {name: value for name, value in rest.items() if name not in ("latent_avg", LEFT_OUT)}
    return Checkpoint("stylegan2", networks, facts, extras, notes)


def _stargan2(content: Mapping) -> Checkpoint:
    readers = {
        "generator": lambda state: stargan2_tables.generator_arch(state, img_size),
        "mapping_network": stargan2_tables.mapping_network_arch,
        "style_encoder": stargan2_tables.style_encoder_arch,
        "discriminator": stargan2_tables.discriminator_arch,
        "fan": stargan2_tables.face_heatmaps_arch,
    }
    parts = {key: _bare(content[key], f"{key}.") for key in readers if key in content}
    img_size = stargan2_tables.style_encoder_arch(parts["style_encoder"][0])["img_size"]
    networks = {}
    for key, (state, prefix) in parts.items():
        arch = readers[key](state)
        added = stargan2_tables.absent_filter(state, arch) if key == "generator" else {}
        table = "face_heatmaps" if key == "fan" else f"stargan2_{key}"
        networks[key] = Network(table, table, key, state, arch, added, prefix)
    extras = {key: value for key, value in content.items() if key not in readers}
    return Checkpoint("stargan2", networks, {}, extras)


def _bare(state: Mapping, within: str = "") -> tuple[Mapping, str]:
    """Return a state dict under the names of the bare network, and the prefix that they had.

    Errors call a missing tensor by its full name, below `within`.
    """
    parallel = state and all(str(name).startswith(PARALLEL_PREFIX) for name in state)
    prefix = PARALLEL_PREFIX if parallel else ""
    in_full = {f"{within}{name}": value for name, value in state.items()}
    return _Below(in_full, within + prefix), prefix


class _Below(dict):
    """The tensors below a prefix, without it; a missing one is reported under its full name."""

    def __init__(self, state: Mapping, prefix: str):
        super().__init__((n[len(prefix) :], v) for n, v in state.items() if n.startswith(prefix))
        self.prefix = prefix

    def __missing__(self, name: str):
        raise KeyError(self.prefix + name)
