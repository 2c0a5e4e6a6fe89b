"""StyleGAN2's networks for training: new, from a weight file, or grown from smaller ones.

Layers that work at one resolution mean the same in networks of every size, so a network of
another size takes over all layers of the resolutions that both have.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_sam.core.device import seed_of
from paddle_sam.core.weights import NetworkEntry, WeightFile, check_fit, load_strict
from paddle_sam.errors import ConfigError
from paddle_sam.networks.load import build_empty, freeze
from paddle_sam.networks.stylegan2 import Discriminator, Generator, published_channels
from paddle_sam.networks.stylegan2_ops import ACTIVATION_GAIN, LEAKY_SLOPE
from paddle_sam.stylegan2.train.options import StyleGAN2Options
from paddle_sam.training.distributed import World, send_from_first
from paddle_sam.training.trainers import averaged_copy

_BUILD = 20  # stream of random numbers
GENERATOR = "stylegan2_generator"
# What weight files call the networks of a run.
KINDS = {"g_ema": GENERATOR, "g": GENERATOR, "d": "stylegan2_discriminator"}
Entries = Mapping[str, NetworkEntry]


@dataclasses.dataclass(frozen=True)
class Archs:
    """Constructor arguments of the two networks at the run's full resolution."""

    generator: Mapping[str, Any]
    discriminator: Mapping[str, Any]

    @classmethod
    def of(cls, known: Entries, options: StyleGAN2Options, classes: int = 0) -> Archs:
        """Return those of the networks to start from, if there are `known` ones, or new ones.

        Raises:
            ConfigError: they are for another number of classes than the data has.
        """
        if not known:
            return cls.of_options(options, classes)
        archs = cls.of_entries(known, options)
        if (found := archs.generator.get("classes", 0)) != classes:
            raise ConfigError(
                f"--cond: the data has {classes} classes, the networks to start from {found}"
            )
        return archs

    @classmethod
    def of_options(cls, options: StyleGAN2Options, classes: int = 0) -> Archs:
        """Return what the options say, for images of `classes` classes (0: not conditional)."""
        sizes = [1 << power for power in range(2, options.resolution.bit_length())]
        channels = {size: min(options.channel_base // size, options.channel_max) for size in sizes}
        shared = {"size": options.resolution, "channels": channels}
        generator = {"style_dim": options.latent_dim, "mapping_layers": options.mapping_layers}
        if classes:
            shared["classes"] = classes
        return cls(shared | generator, shared | {"group_size": options.mbstd_group})

    @classmethod
    def of_entries(cls, entries: Entries, options: StyleGAN2Options) -> Archs:
        """Return those of networks in a file, at the size of `options`.

        Channels of resolutions that the file lacks halve at each step, as the published do. A
        file without a discriminator gets one with the generator's channels.
        """
        arch = dict((entries.get("g") or entries["g_ema"]).arch)
        size = options.resolution
        channels = dict(arch.get("channels") or published_channels(arch["size"]))
        while max(channels) < size:
            top = max(channels)
            channels[2 * top] = max(channels[top] // 2, 1)
        generator = {**arch, "size": size, "channels": channels}
        judge = {"group_size": options.mbstd_group}
        judge |= {name: arch[name] for name in ("classes", "image_channels") if arch.get(name)}
        if "d" in entries:
            judge = dict(entries["d"].arch)
        widths = {**channels, **(judge.get("channels") or {})}
        return cls(generator, {**judge, "size": size, "channels": widths})

    def at(self, name: str, size: int) -> dict[str, Any]:
        """Return those of a network of a run at another size; widths of larger ones stay known."""
        return {**(self.discriminator if name == "d" else self.generator), "size": size}


def networks_at(
    size: int, archs: Archs, options: StyleGAN2Options, entries: Entries, world: World
) -> tuple[Generator, Discriminator, Generator]:
    """Build generator, discriminator and averaged generator for images of `size` pixels.

    They are filled from `entries`, as far as these go, and are the same in all processes.

    Raises:
        CheckpointError: layers of the same resolution have other shapes.
        ConfigError: the discriminator has fewer stages than `--freeze_d` freezes.
    """
    paddle.seed(seed_of(options.seed, _BUILD, size))
    generator = Generator(**archs.at("g", size))
    discriminator = Discriminator(**archs.at("d", size))
    entries = {name: _doubled(entry, name, archs, size) for name, entry in entries.items()}
    source = options.init_from or "checkpoint"
    if live := entries.get("g") or entries.get("g_ema"):
        take_over(generator, live, source)
    if "d" in entries:
        take_over(discriminator, entries["d"], source)
    for network in (generator, discriminator):
        send_from_first(network.state_dict().values(), world)
    stages = list(discriminator.convs)  # the layer that reads RGB, then the residual blocks
    if options.freeze_d > len(stages):
        raise ConfigError(
            f"--freeze_d: the discriminator has {len(stages)} stages at {size} px, found"
            f" {options.freeze_d}"
        )
    freeze(*stages[: options.freeze_d])  # FreezeD, Mo et al. 2020, arXiv 2002.10964
    average = averaged_copy(generator)
    if "g_ema" in entries:
        take_over(average, entries["g_ema"], source)
        send_from_first(average.state_dict().values(), world)
    return generator, discriminator, average


def read_start(options: StyleGAN2Options) -> tuple[dict[str, NetworkEntry], str]:
    """Read the networks that `--init_from` names, `g_ema` and perhaps `g` and `d`.

    Returns:
        the networks, and what is newly initialised in them, in words; empty if nothing is.

    Raises:
        ConfigError: it holds another kind of network, or `--freeze_d` would freeze new layers.
        CheckpointError: it is missing or damaged, or a network lacks layers.
    """
    path, size = options.init_from, options.size_at(0)
    file = WeightFile.read(path, "--init_from")
    entries = {
        name: entry for name, entry in file.networks.items() if entry.network == KINDS.get(name)
    }
    if not {"g_ema", "g"} & set(entries):
        raise ConfigError(
            f"{file.label}: holds no StyleGAN2 generator, it is a {file.kind!r} file. Name a"
            " converted StyleGAN2, or a checkpoint of such a run."
        )
    for name, entry in entries.items():
        whole = build_empty(entry.network, entry.arch).state_dict()
        check_fit(whole, entry.state, f"{file.label}: {name} is not complete")
    theirs = (entries.get("g") or entries["g_ema"]).arch["size"]
    new = f"size-dependent layers (file {theirs} px, run {size} px)" * (theirs != size)
    if "d" not in entries:
        new = "the discriminator, which the file does not hold"
    if new and options.freeze_d:
        raise ConfigError(f"--freeze_d: would freeze newly initialised layers: {new}")
    return entries, new


def take_over(network: nn.Layer, entry: NetworkEntry, source: str) -> None:
    """Copy into `network` the layers that it shares with `entry` of perhaps another size.

    The rest keeps its random start, except that a network grown by one doubling continues where the
    smaller one was: RGB outputs of resolutions that the entry lacks start at zero, so that a
    generator first renders what the smaller one did, enlarged; for discriminators see `_pass_on`.

    Raises:
        CheckpointError: layers of the same resolution have other shapes.
    """
    grown = network.size.bit_length() - entry.arch["size"].bit_length()
    state, targets = entry.state, network.state_dict()
    if not grown:
        load_strict(network, state, source)
        return
    if isinstance(network, Discriminator):
        state = dict(filter(None, (_shifted(item, grown) for item in state.items())))
    state = {name: value for name, value in state.items() if name in targets}
    new = set(targets) - set(state)
    load_strict(network, state, source, missing=new)
    for name in new:
        if name.startswith("to_rgbs.") and name.endswith("conv.weight"):
            targets[name].set_value(np.zeros(targets[name].shape, "float32"))
    if isinstance(network, Discriminator) and grown == 1:
        _pass_on(network, entry.state)


def _doubled(entry: NetworkEntry, name: str, archs: Archs, size: int) -> NetworkEntry:
    """Double a network's resolution until one more doubling reaches `size`."""
    while 2 * entry.arch["size"] < size:
        arch = archs.at(name, 2 * entry.arch["size"])
        network = (Discriminator if name == "d" else Generator)(**arch)
        take_over(network, entry, "start")
        entry = NetworkEntry.of(entry.network, arch, network)
    return entry


def _pass_on(network: Discriminator, smaller: Mapping[str, np.ndarray]) -> None:
    """Let the new block of a grown discriminator begin with what the smaller one saw.

    Otherwise random features meet blocks that were trained on others, and what the discriminator
    has learned is lost. Six channels carry the three colours and their negatives, of which leaky
    ReLUs keep the differences linear: l(l(x)) - l(l(-x)) = (1 + 0.2^2) x. The block's second
    convolution, which halves the resolution, computes with them what the smaller network's RGB
    layer did. Narrower blocks start at random.
    """
    reader, block = network.convs[0], network.convs[1]
    first, second = block.conv1.conv, block.conv2.conv
    if first.weight.shape[0] < 6:
        return
    signed = np.concatenate([np.eye(3), -np.eye(3)]).astype("float32")  # [6, RGB]
    weight = reader.conv.weight.numpy()
    weight[:6] = signed[:, :, None, None] / reader.conv.weight_gain
    reader.conv.weight.set_value(weight)

    weight = first.weight.numpy()
    weight[:6] = 0
    weight[range(6), range(6), 1, 1] = 1 / first.weight_gain
    first.weight.set_value(weight)

    # Both activations and the block's own sum scale by sqrt(2); the sum divides by it.
    gain = math.sqrt(2) / (ACTIVATION_GAIN**2 * (1 + LEAKY_SLOPE**2))
    rgb = smaller["convs.0.conv.weight"][:, :, 0, 0] / math.sqrt(3)  # [O, RGB], as it is used
    weight = np.zeros(second.weight.shape, "float32")
    weight[:, :6, 1, 1] = rgb @ signed.T * gain / second.weight_gain
    second.weight.set_value(weight)
    bias = smaller["convs.0.activate.bias"] * math.sqrt(2)
    block.conv2.activate.bias.set_value(bias.astype("float32"))
    block.skip.conv.weight.set_value(np.zeros(block.skip.conv.weight.shape, "float32"))


def _shifted(item: tuple[str, Any], grown: int) -> tuple[str, Any] | None:
    """Rename a discriminator's tensor for a network that begins `grown` doublings above it.

    Its blocks are numbered from the image, after the layer that reads RGB, which belongs to one
    size alone.
    """
    name, value = item
    first, number, *rest = name.split(".")
    if first != "convs":
        return item
    moved = int(number) + grown
    if number == "0" or moved < 1:
        return None
    return ".".join((first, str(moved), *rest)), value
