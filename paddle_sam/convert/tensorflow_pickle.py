"""NVIDIA's TensorFlow pickles of StyleGAN2 and StyleGAN2-ADA, under the names of the torch ones.

Such a file is a tuple (G, D, Gs) of network objects, Gs being the averaged generator. Each carries
its variables, those of its components, static arguments, and Python source that is not looked at.
TensorFlow keeps convolution weights as [K, K, I, O], linear ones as [in, out], a style's bias
without the 1 that is added to it, and transposed convolutions flipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paddle_sam.errors import CheckpointError
from paddle_sam.networks.stylegan2_ops import fir_kernel

NETWORK = ("dnnlib.tflib.network", "Network")


class TensorFlowNetwork(dict):
    """Stands for `dnnlib.tflib.network.Network`: the dict of its state, of which nothing is run."""

    def __setstate__(self, state):
        self.update(state)


def is_tensorflow(content: Any) -> bool:
    """Whether the content of a pickle is what NVIDIA's TensorFlow code saves."""
    return (
        isinstance(content, tuple | list)
        and len(content) == 3
        and all(isinstance(network, TensorFlowNetwork) for network in content)
    )


def torch_networks(content: tuple, path: Path) -> dict[str, tuple[dict, Any]]:
    """Return G, D and G_ema: tensors under the names of stylegan2-ada-pytorch, and a multiplier.

    By the latter the weights of the mapping network are multiplied when it runs.

    Raises:
        CheckpointError: another architecture than StyleGAN2's, or a tensor is missing or too many.
    """
    found = {}
    for key, network in zip(("G", "D", "G_ema"), content, strict=True):
        names = _Names(network, f"{path}: {key}")
        multiplier = names.options.get("mapping_lrmul") or (0.1 if key == "D" else 0.01)
        found[key] = names.convert(discriminator=key == "D"), multiplier
    return found


class Taker:
    """Hands out the tensors of one network by name, each once; `left` are the others."""

    def __init__(self, tensors: Mapping[str, np.ndarray], where: str):
        self.left, self.where = dict(tensors), where

    def __call__(self, name: str) -> np.ndarray:
        if name not in self.left:
            raise CheckpointError(
                f"{self.where}: tensor {name} is missing; supported are StyleGAN2 networks with a"
                " skip generator and a residual discriminator, not StyleGAN3"
            )
        return self.left.pop(name)

    def sizes(self, pattern: str) -> list[int]:
        """Return 4, 8, ...: the resolutions that names state, as `pattern` reads them."""
        sizes = sorted({int(found[1]) for name in self.left if (found := re.search(pattern, name))})
        if len(sizes) < 2 or sizes != [4 << level for level in range(len(sizes))]:
            raise CheckpointError(
                f"{self.where}: expected blocks of 4, 8, ... pixels, found {sizes or 'none'}: not a"
                " StyleGAN2 network"
            )
        return sizes

    def finish(self) -> None:
        """Raise `CheckpointError` if a tensor is left."""
        for name in self.left:
            raise CheckpointError(f"{self.where}: tensor {name} has no place in StyleGAN2")


class _Names(Taker):
    """The variables of one TensorFlow network, for those of PyTorch."""

    def __init__(self, network: TensorFlowNetwork, where: str):
        super().__init__(dict(_variables(network, where)), where)
        options = network.get("static_kwargs")
        self.options = options if isinstance(options, Mapping) else {}
        if any("StyleMod" in name or "AdaIN" in name for name in self.left):
            raise CheckpointError(f"{where}: a network of StyleGAN, not of StyleGAN2")
        if any("ToRGB_lod" in name or "FromRGB_lod" in name for name in self.left):
            raise CheckpointError(f"{where}: a network that grows (architecture `orig`)")

    def convert(self, discriminator: bool) -> dict[str, np.ndarray]:
        sizes = self.sizes(r"(\d+)x\1/")
        tensors = self._discriminator(sizes) if discriminator else self._generator(sizes)
        self.left = {n: a for n, a in self.left.items() if n.rpartition("/")[2] != "lod"}
        self.finish()
        taps = self.options.get("resample_kernel") or [1, 3, 3, 1]
        block = f"b{sizes[-1]}" if discriminator else f"synthesis.b{sizes[-1]}"
        tensors[f"{block}.resample_filter"] = fir_kernel(taps)
        return tensors

    def _generator(self, sizes: list[int]) -> dict[str, np.ndarray]:
        result = {"mapping.w_avg": self("dlatent_avg")}
        result |= self._mapping("mapping/LabelEmbed", "mapping/Dense")
        result["synthesis.b4.const"] = self("synthesis/4x4/Const/const")[0]
        layers = [("synthesis.b4.conv1", "synthesis/4x4/Conv", False)]
        for size in sizes[1:]:
            block, theirs = f"synthesis.b{size}", f"synthesis/{size}x{size}"
            layers.append((f"{block}.conv0", f"{theirs}/Conv0_up", True))
            layers.append((f"{block}.conv1", f"{theirs}/Conv1", False))
        for index, (name, theirs, flipped) in enumerate(layers):
            result |= self._styled(name, theirs, flipped)
            result[f"{name}.noise_strength"] = self(f"{theirs}/noise_strength").reshape(())
            result[f"{name}.noise_const"] = self(f"synthesis/noise{index}")[0, 0]
        for size in sizes:
            result |= self._styled(f"synthesis.b{size}.torgb", f"synthesis/{size}x{size}/ToRGB")
        return result

    def _discriminator(self, sizes: list[int]) -> dict[str, np.ndarray]:
        top = sizes[-1]
        result = self._convolution(f"b{top}.fromrgb", f"{top}x{top}/FromRGB")
        for size in sizes[1:]:
            for ours, theirs in (("conv0", "Conv0"), ("conv1", "Conv1_down")):
                result |= self._convolution(f"b{size}.{ours}", f"{size}x{size}/{theirs}")
            if any("/Skip/" in name for name in self.left):  # else it is left out later
                skip = self(f"{size}x{size}/Skip/weight")
                result[f"b{size}.skip.weight"] = skip.transpose(3, 2, 0, 1)
        result |= self._mapping("LabelEmbed", "Mapping")
        result |= self._convolution("b4.conv", "4x4/Conv")
        return result | self._linear("b4.fc", "4x4/Dense0") | self._linear("b4.out", "Output")

    def _mapping(self, embed: str, layer: str) -> dict[str, np.ndarray]:
        """Take a mapping network, and of a conditional one the layer that reads labels."""
        result = {}
        if f"{embed}/weight" in self.left:
            result |= self._linear("mapping.embed", embed)
        count = sum(name.startswith(layer) and name.endswith("/weight") for name in self.left)
        for index in range(count):
            result |= self._linear(f"mapping.fc{index}", f"{layer}{index}")
        return result

    def _styled(self, name: str, theirs: str, flipped: bool = False) -> dict[str, np.ndarray]:
        return {
            **self._convolution(name, theirs, flipped),
            f"{name}.affine.weight": self(f"{theirs}/mod_weight").T,
            f"{name}.affine.bias": self(f"{theirs}/mod_bias") + 1,
        }

    def _convolution(self, name: str, theirs: str, flipped: bool = False) -> dict[str, np.ndarray]:
        weight = self(f"{theirs}/weight")
        weight = weight[::-1, ::-1] if flipped else weight
        bias = self(f"{theirs}/bias")
        return {f"{name}.weight": weight.transpose(3, 2, 0, 1), f"{name}.bias": bias}

    def _linear(self, name: str, theirs: str) -> dict[str, np.ndarray]:
        weight, bias = self(f"{theirs}/weight"), self(f"{theirs}/bias")
        return {f"{name}.weight": weight.T, f"{name}.bias": bias}


def _variables(
    network: TensorFlowNetwork, where: str, prefix: str = ""
) -> Iterator[tuple[str, np.ndarray]]:
    for name, array in network.get("variables") or ():
        if not isinstance(array, np.ndarray | np.number):
            raise CheckpointError(f"{where}: expected a tensor as {prefix}{name}")
        yield f"{prefix}{name}", np.asarray(array)
    for name, component in (network.get("components") or {}).items():
        if isinstance(component, TensorFlowNetwork) and prefix.count("/") < 4:
            yield from _variables(component, where, f"{prefix}{name}/")
