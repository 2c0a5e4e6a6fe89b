"""Weight files: the one owner of what is in them.

A `.pdparams` file of this package is a pickled dict of plain Python values and NumPy arrays
(`paddle.load` opens it too). Reading it admits those types and nothing else, so a file from an
unknown source can do no harm. It is written whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_sam.core.pickles import diagnosis, read_pickle, write_pickle
from paddle_sam.core.weights import locate, way_to
from paddle_sam.errors import CheckpointError, ConfigError

FORMAT = "paddle_sam"
FORMAT_VERSION = 1


@dataclass
class NetworkEntry:
    """One network in a weight file.

    network: its class, a key of `paddle_sam.networks.load.BUILDERS`.
    arch: the arguments of its constructor.
    state: arrays by the names of its `state_dict()`.
    """

    network: str
    arch: dict[str, Any]
    state: dict[str, np.ndarray]

    @classmethod
    def of(cls, network: str, arch: Mapping[str, Any], layer: paddle.nn.Layer) -> NetworkEntry:
        """Describe `layer`, which was built from `arch`; its arrays are copies."""
        return cls(network, dict(arch), state_of(layer))

    def below(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays whose names begin with `prefix`, without it."""
        return {
            name.removeprefix(prefix): array
            for name, array in self.state.items()
            if name.startswith(prefix)
        }


@dataclass
class WeightFile:
    """Content of a weight file or of a checkpoint of a run.

    kind: what was converted or trained (`sam`, `psp`, `stylegan2`, ...).
    networks: by name; the first is what `paddle_sam.load` returns.
    latent_avg: mean code of a StyleGAN2 generator, float32 [D] or [L, D].
    alignment: the crop that the network was trained on, as arguments of `CropSettings`.
    calibration: of a SAM network, the ages its faces look; see `ageing.engines`.
    options: those of the training run.
    source: where a converted file came from, for the way back.
    training: in checkpoints, what resuming needs beside the networks.
    label: how messages name the file, such as `--checkpoint_path: sam.pdparams`; not written.
    """

    kind: str
    networks: dict[str, NetworkEntry] = field(default_factory=dict)
    latent_avg: np.ndarray | None = None
    alignment: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    label: str = field(default="weight file", compare=False)

    @classmethod
    def read(
        cls,
        path: str | os.PathLike,
        option: str = "",
        kinds: Collection[str] = (),
        usual: str = "",
    ) -> WeightFile:
        """Read what `write` wrote.

        Args:
            path: the file; see `paddle_sam.core.weights.locate`.
            option: the option or argument that named it, for messages.
            kinds: accept these kinds only.
            usual: name of the published weights that are meant, if the file is missing.

        Raises:
            CheckpointError: the file is missing, truncated, foreign, of another kind, or holds
                more than data.
        """
        path = locate(path)
        label = f"{option}: {path}" if option else str(path)
        file = cls._from_content(_read_content(path, label, usual), label)
        if kinds and file.kind not in kinds:
            raise CheckpointError(
                f"{label}: holds {file.kind}, expected {' or '.join(kinds)} weights"
            )
        return file

    def write(self, path: str | os.PathLike) -> None:
        """Write to `path`, atomically.

        Raises:
            OutputError: the disk is full or the folder cannot be written.
        """
        networks = {name: vars(entry) for name, entry in self.networks.items()}
        facts = {name: getattr(self, name) for name in _FACTS}
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "networks": networks,
            **{name: value for name, value in facts.items() if value is not None},
        }
        write_pickle(path, content)

    def entry(self, name: str | None = None) -> NetworkEntry:
        """Return the network called `name`, or the first.

        Raises:
            CheckpointError: the file holds no network at all.
            ConfigError: none of that name.
        """
        if not self.networks:
            raise CheckpointError(f"{self.label}: holds no network; it is a {self.kind!r} file")
        name = name or next(iter(self.networks))
        if name not in self.networks:
            raise ConfigError(f"{self.label}: holds {', '.join(self.networks)}, not {name!r}")
        return self.networks[name]

    def not_finite(self) -> str | None:
        """Return the path of the first array that holds NaN or infinity, if there is one."""
        states = {name: entry.state for name, entry in self.networks.items()}
        return _not_finite({**states, "training": self.training or {}})

    @classmethod
    def _from_content(cls, content: dict, label: str) -> WeightFile:
        """Check every entry's type; what a file of another version adds is left out."""
        kind = _typed(content, "kind", str, "unknown", label)
        networks = {}
        for name, described in _typed(content, "networks", dict, {}, label).items():
            where = f"{label}: {name}"
            if not isinstance(name, str) or not isinstance(described, dict):
                raise CheckpointError(f"{where}: expected the description of a network")
            state = _typed(described, "state", dict, {}, where)
            for key, array in state.items():
                if not isinstance(key, str) or not isinstance(array, np.ndarray):
                    raise CheckpointError(
                        f"{where}: expected an array as {key}, found {type(array).__name__}"
                    )
            arch = _typed(described, "arch", dict, {}, where)
            networks[name] = NetworkEntry(_typed(described, "network", str, "", where), arch, state)
        facts = {key: _typed(content, key, of, None, label) for key, of in _FACTS.items()}
        return cls(kind, networks, **facts, label=label)


_FACTS = {
    "latent_avg": np.ndarray,
    "alignment": dict,
    "calibration": dict,
    "options": dict,
    "source": dict,
    "training": dict,
}


def _typed(content: Mapping, key: str, kind: type, default: Any, label: str) -> Any:
    value = content.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise CheckpointError(
            f"{label}: its entry {key!r} is of type {type(value).__name__}, expected"
            f" {kind.__name__}; fetch or convert the file again"
        )
    return value


def _not_finite(values: Mapping[str, Any]) -> str | None:
    for name, value in values.items():
        if isinstance(value, Mapping):
            if (inner := _not_finite(value)) is not None:
                return f"{name}/{inner}"
        elif np.asarray(value).dtype.kind == "f" and not np.isfinite(value).all():
            return name
    return None


def state_of(layer: paddle.nn.Layer) -> dict[str, np.ndarray]:
    """Return copies of a network's parameters and buffers by name."""
    return {name: tensor.numpy() for name, tensor in layer.state_dict().items()}


def _read_content(path: Path, label: str, usual: str) -> dict:
    content = read_pickle(path, label, way_to(path, usual))
    ours = isinstance(content, dict) and content.get("format") == FORMAT
    if not ours or not isinstance(content.get("format_version"), int):
        raise CheckpointError(
            f"{label}: not a weight file of paddle_sam. {diagnosis(path, damaged=False)}"
        )
    if content["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{label}: written in format {content['format_version']}, this version reads"
            f" {FORMAT_VERSION}; update paddle_sam"
        )
    return content


def load_strict(
    layer: paddle.nn.Layer,
    state: MutableMapping[str, np.ndarray | paddle.Tensor],
    source: str,
    missing: Collection[str] = (),
    consume: bool = False,
) -> None:
    """Copy `state` into `layer`; every tensor must find its place with its exact shape.

    Tensors are converted to the type of their target. Works on a layer built under
    `paddle.LazyGuard`, whose parameters have no memory until they are filled here.

    Args:
        layer: the network.
        state: arrays by the names of `layer.state_dict()`.
        source: where the state comes from, for messages.
        missing: names that may be absent; they keep their value.
        consume: empty `state` on the way, so that weights are not held twice.

    Raises:
        CheckpointError: a tensor is missing, unknown, or has another shape. Nothing was copied.
    """
    targets = layer.state_dict()
    check_fit(targets, state, f"{source}: does not fit {type(layer).__name__}", missing)
    for name in list(state):
        value = state.pop(name) if consume else state[name]
        value = value.numpy() if isinstance(value, paddle.Tensor) else value
        kind = str(targets[name].dtype).rpartition(".")[2]
        targets[name].set_value(value.astype(kind, copy=False))


def check_fit(targets: Mapping, state: Mapping, prefix: str, missing: Collection[str] = ()) -> None:
    """Raise `CheckpointError`, its message begun by `prefix`, unless names and shapes agree."""
    problems = {
        "missing": [name for name in targets if name not in state and name not in missing],
        "unknown to the network": [name for name in state if name not in targets],
        "of another shape": [
            f"{name}: file {list(value.shape)}, network {list(targets[name].shape)}"
            for name, value in state.items()
            if name in targets and list(targets[name].shape) != list(value.shape)
        ],
    }
    found = [
        f"{len(names)} {kind} ({'; '.join(names[:3])}{'; ...' if len(names) > 3 else ''})"
        for kind, names in problems.items()
        if names
    ]
    if found:
        raise CheckpointError(f"{prefix}: tensors {', '.join(found)}")
