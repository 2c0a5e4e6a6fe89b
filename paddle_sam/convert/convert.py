"""Convert published checkpoints to weight files of this package, and back."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from paddle import nn

from paddle_sam.convert.encoders import input_of, shared_repeats
from paddle_sam.convert.nvidia_pickle import is_pickle, read_pickle
from paddle_sam.convert.options import ConvertOptions
from paddle_sam.convert.recognise import STARGAN2_PARTS, Checkpoint, Network, recognise
from paddle_sam.convert.rules import to_paddle, to_torch
from paddle_sam.convert.safetensors_file import SUFFIX, read_safetensors, write_safetensors
from paddle_sam.convert.tables import TABLES
from paddle_sam.convert.torch_file import read_torch, write_torch
from paddle_sam.core.command import exit_status, for_each
from paddle_sam.core.files import read_arrays, sha256, write_arrays
from paddle_sam.core.weights import NetworkEntry, WeightFile, check_fit
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.networks.load import build_empty
from paddle_sam.networks.stylegan2 import ModulatedConv2D, ToRGB
from paddle_sam.networks.stylegan2_ops import EqualConv2D

# Training state that a converted file has no use for.
NOT_CARRIED = (
    *("g_optim", "d_optim", "optimizer", "optim"),
    *("discriminator_state_dict", "discriminator_optimizer_state_dict"),
)
# What training options state that decides what a network is, or what it is fed.
DECISIVE = (
    *("encoder_type", "start_from_latent_avg", "start_from_encoded_w_plus", "learn_in_w"),
    *("n_iters_per_batch", "dataset_type", "input_nc", "label_nc", "resize_factors"),
    *("output_size", "stylegan_size"),
)
COLUMNS = ("read", "transposed", "renamed", "dropped", "written")


@dataclass(frozen=True)
class Report:
    """What a conversion did: one row of the table that the command prints."""

    source: Path
    output: Path
    kind: str
    counts: Counter
    bytes: int
    sha256: str
    not_carried: list[str]
    notes: list[str]


@dataclass
class Origin:
    """Where a network stood in its torch checkpoint; a weight file keeps it for the way back.

    table: name of the rules that converted it.
    key: of its state dict in the checkpoint; None if the checkpoint is the state dict.
    tensors: torch tensors that the Paddle network has no use for.
    prefix: what stood before every name.
    added: names of Paddle tensors that were not in the checkpoint.
    """

    table: str
    key: str | None
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    prefix: str = ""
    added: Sequence[str] = ()

    @classmethod
    def of(cls, file: WeightFile, name: str) -> Origin:
        """Return the origin of a network of `file`, or its place in the published layout."""
        stored = (file.source or {}).get("networks", {}).get(name)
        if stored:
            return cls(**{"added": ["latent_avg"], **stored})
        if (file.kind, name) not in _PUBLISHED_PLACES:
            raise CheckpointError(
                f"{file.label}: no published PyTorch layout is known for {file.kind}: {name}"
            )
        return cls(*_PUBLISHED_PLACES[file.kind, name], added=["latent_avg"])

    def convert(self, network: Network, counts: Counter, where: str) -> NetworkEntry:
        """Apply the rules to the tensors of `network`, adding up in `counts` what was done."""
        converted = to_paddle(network.state, TABLES[self.table], where)
        state = converted.state | network.added
        targets = build_empty(network.builder, network.arch).state_dict()
        check_fit(targets, state, f"{where}: does not fit the network it describes")
        self.tensors, self.added = converted.dropped, sorted(network.added)
        counts.update(converted.counts)
        return NetworkEntry(network.builder, network.arch, state)

    def revert(self, entry: NetworkEntry, counts: Counter) -> dict[str, np.ndarray]:
        """Return the torch tensors of `entry`: `convert` read from right to left."""
        state = {name: array for name, array in entry.state.items() if name not in self.added}
        network = build_empty(entry.network, entry.arch)
        dropped = self.tensors or dict(_absent_in_paddle(network))
        tensors = to_torch(state, TABLES[self.table]) | dropped
        if entry.network == "hyperstyle":
            tensors |= shared_repeats(tensors)
        counts.update(read=len(state), written=len(tensors))
        return {self.prefix + name: array for name, array in tensors.items()}


# Kind and name of a network that was trained here -> its table and its key when published.
_PUBLISHED_PLACES = {
    ("sam", "sam"): ("sam", "state_dict"),
    ("psp", "psp"): ("sam", "state_dict"),
    ("stylegan2", "g_ema"): ("generator", "g_ema"),
    ("stylegan2", "g"): ("generator", "g"),
    ("stylegan2", "d"): ("discriminator", "d"),
    ("dex_vgg", "dex_vgg"): ("age_regressor", "state_dict"),
    ("stargan2", "fan"): ("face_heatmaps", "fan"),
    **{
        ("stargan2", part): (f"stargan2_{part}", part)
        for part in ("generator", "mapping_network", "style_encoder", "discriminator")
    },
}


def convert_file(path: str | os.PathLike, output: str | os.PathLike) -> Report:
    """Convert one published checkpoint to the weight file `output`.

    Raises:
        CheckpointError: the file is missing, damaged, foreign or incomplete; the message names
            the file and the tensor.
        OutputError: `output` cannot be written.
    """
    path, output = Path(path), Path(output)
    _, not_carried, checkpoint, file, counts = _conversion(path)
    file.write(output)
    facts = (output.stat().st_size, sha256(output), not_carried, checkpoint.notes)
    return Report(path, output, file.kind, counts, *facts)


def _conversion(path: Path) -> tuple[list, list[str], Checkpoint, WeightFile, Counter]:
    """Convert a file in memory: its keys, those left out, what it is, the result, the counts."""
    with _explained(path):
        content = read_checkpoint(path)
        keys = list(content)
        not_carried = [key for key in NOT_CARRIED if content.pop(key, None) is not None]
        checkpoint = recognise(content, path)
        return keys, not_carried, checkpoint, *_converted(checkpoint, path)


def revert_file(path: str | os.PathLike, output: str | os.PathLike) -> Report:
    """Write the torch checkpoint that a converted (or trained) weight file stands for.

    A converted file gives back exactly the tensors that it was made from.

    Raises:
        CheckpointError: the file is missing, damaged, or not one of this package.
        OutputError: `output` cannot be written.
    """
    path, output = Path(path), Path(output)
    file = WeightFile.read(path)
    with _explained(path):
        content, counts = _reverted(file)
    writers = {".npz": write_arrays, SUFFIX: write_safetensors}
    writers.get(output.suffix, write_torch)(output, content)
    return Report(path, output, file.kind, counts, output.stat().st_size, sha256(output), [], [])


def explain(path: str | os.PathLike) -> str:
    """Return in words what a checkpoint is taken for, and what a conversion would do.

    Raises:
        CheckpointError: as for `convert_file`.
    """
    path = Path(path)
    keys, dropped, checkpoint, file, counts = _conversion(path)
    shown = ", ".join(map(str, keys[:8])) + ", ..." * (len(keys) > 8)
    lines = [f"{path}: {checkpoint.kind}", f"  keys: {shown}"]
    for name, entry in file.networks.items():
        values = sum(array.size for array in entry.state.values())
        lines += [f"  {name}: {entry.network}, {len(entry.state)} tensors, {values:,} values"]
        lines += [f"    {key}: {value}" for key, value in entry.arch.items()]
        if entry.network == "sam":
            channels = entry.arch["encoder"]["in_channels"]
            lines.append(f"  reads: {input_of(file.options, channels)}")
    lines += [f"  {name}: {value}" for name, value in (file.alignment or {}).items()]
    stated = file.options or {}
    lines += [f"  states {key}: {stated[key]}" for key in DECISIVE if key in stated]
    if rest := sorted(map(str, stated.keys() - set(DECISIVE))):
        lines.append(f"  states as well: {', '.join(rest)}")
    lines += [f"  concluded: {note}" for note in checkpoint.notes]
    lines += [f"  not carried over: {name} (training state)" for name in dropped]
    done = ", ".join(f"{counts[column]} {column}" for column in COLUMNS)
    return "\n".join([*lines, f"  tensors: {done}"])


def convert_weights(options: ConvertOptions) -> int:
    """Convert files, or explain them; returns the exit status."""
    if options.explain:
        done = for_each(options.files, lambda path: print(explain(path)))
    else:
        to = options.output or None
        done = convert_files(options.files, to, options.reverse, options.force, options.safetensors)
    return exit_status(len(done), len(options.files) - len(done))


def convert_files(
    paths: Sequence[str],
    output: str | None = None,
    reverse: bool = False,
    force: bool = False,
    safetensors: bool = False,
) -> list[Report]:
    """Convert every file in `paths` and print a table; failures are printed as they happen.

    Args:
        paths: torch files, or with `reverse` weight files of this package.
        output: folder for the results; None puts each beside its source.
        reverse: write torch files.
        force: replace results that exist.
        safetensors: with `reverse`, write safetensors files instead.

    Returns:
        one report per converted file; fewer than `paths` means that some failed.
    """
    suffix = SUFFIX if safetensors else None
    targets = [_target(Path(path), output, reverse, suffix) for path in paths]

    def convert(job: tuple[str, Path]) -> Report:
        path, target = job
        if targets.count(target) > 1:
            raise ConfigError(f"{path}: two files would become {target}; use two --output")
        if target.exists() and not force:
            raise ConfigError(f"{path}: {target} exists already; --force replaces it")
        return (revert_file if reverse else convert_file)(path, target)

    if reports := for_each(zip(paths, targets, strict=True), convert):
        print(as_table(reports))
    return reports


def as_table(reports: Sequence[Report]) -> str:
    """A text table of reports: tensors by what happened to them, bytes, sha256, where."""
    rows = [("file", "kind", *COLUMNS, "bytes", "sha256", "written to")]
    for report in reports:
        counts = [str(report.counts[column]) for column in COLUMNS]
        facts = (f"{report.bytes:,}", report.sha256, str(report.output))
        rows.append((report.source.name, report.kind, *counts, *facts))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [
        f"{report.source.name}: not carried over: {', '.join(report.not_carried)} (training state)"
        for report in reports
        if report.not_carried
    ]
    lines += [f"{report.source.name}: {note}" for report in reports for note in report.notes]
    return "\n".join(lines)


def published_suffix(path: Path) -> str:
    """What the published file of a weight file is called: `.npz` for the mean face, else `.pt`."""
    try:
        mean_face = path.stat().st_size < 1 << 16 and WeightFile.read(path).kind == "mean_face"
    except (OSError, CheckpointError):  # `revert_file` will say what is wrong
        return ".pt"
    return ".npz" if mean_face else ".pt"


def _target(path: Path, output: str | None, reverse: bool, suffix: str | None) -> Path:
    suffix = (suffix or published_suffix(path)) if reverse else ".pdparams"
    return (path.parent if output is None else Path(output)) / f"{path.stem}{suffix}"


def read_checkpoint(path: str | os.PathLike) -> dict:
    """Return the content of a published checkpoint of any format, its tensors as arrays.

    Raises:
        CheckpointError: the file is missing, damaged or foreign, or holds more than data.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if path.is_file() and path.suffix == ".npz":
        return read_arrays(path, "fetch it again")
    if path.suffix == SUFFIX:
        return read_safetensors(path)
    if is_pickle(path):
        return read_pickle(path)
    return read_torch(path)


def _read_folder(path: Path) -> dict:
    """Read the networks of StarGAN v2 that a folder has as files of their own."""
    known = (*STARGAN2_PARTS, "discriminator", "fan")
    files = {f.stem: f for f in sorted(path.iterdir()) if f.stem in known and f.is_file()}
    if not set(STARGAN2_PARTS) <= files.keys():
        raise CheckpointError(
            f"{path}: is a folder; name the checkpoint files in it, or one that has"
            f" {', '.join(STARGAN2_PARTS)} of a StarGAN v2"
        )
    contents = {part: read_checkpoint(file) for part, file in files.items()}
    return {part: content.get("state_dict", content) for part, content in contents.items()}


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of a file whose entries are not what their names promise that it is another's."""
    try:
        yield
    except (CheckpointError, ConfigError) as error:  # of the networks, which know no file
        text = str(error)
        raise CheckpointError(text if str(path) in text else f"{path}: {text}") from error
    except (
        *(ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError),
        RecursionError,
    ) as error:
        raise CheckpointError(
            f"{path}: a checkpoint of another project, or a damaged one: its entries are not what"
            f" their names say ({type(error).__name__}: {error})"
        ) from error


def _converted(checkpoint: Checkpoint, path: Path) -> tuple[WeightFile, Counter]:
    """Return the weight file for a recognised checkpoint, and what was done to its tensors."""
    file = WeightFile(checkpoint.kind, **checkpoint.facts)
    origins, counts = {}, Counter()
    for name, network in checkpoint.networks.items():
        origin = Origin(network.table, network.key, prefix=network.prefix)
        file.networks[name] = origin.convert(network, counts, f"{path}: {name}")
        origins[name] = vars(origin)
    file.source = {"file": path.name, "networks": origins, "extras": checkpoint.extras}
    return file, counts


def _reverted(file: WeightFile) -> tuple[dict, Counter]:
    """Return the content of the checkpoint for a weight file, and how many tensors there are."""
    content = dict((file.source or {}).get("extras") or _own_description(file))
    counts = Counter()
    for name, entry in file.networks.items():
        if "latent_avg" in entry.state:
            content["latent_avg"] = _latent_avg(entry.state["latent_avg"], content)
        origin = Origin.of(file, name)
        state = origin.revert(entry, counts)
        content = state if origin.key is None else content | {origin.key: state}
    facts = {"opts": file.options or None, "latent_avg": file.latent_avg}
    return content | {name: fact for name, fact in facts.items() if fact is not None}, counts


def _own_description(file: WeightFile) -> dict:
    """Return the `arch` entry of a SAM or pSp trained here: what its tensors do not tell."""
    if file.kind not in ("sam", "psp"):
        return {}
    encoder = file.entry().arch["encoder"]
    arch = {"encoder": {key: encoder[key] for key in ("units", "input_size")}}
    return {"arch": arch | ({"alignment": file.alignment} if file.alignment else {})}


def _latent_avg(saved: np.ndarray, extras: dict) -> np.ndarray:
    """`latent_avg` as the torch file had it: one row, where all rows repeat it."""
    before = extras.get("latent_avg")
    if before is not None and np.array_equal(np.broadcast_to(before, saved.shape), saved):
        return before
    return saved


def _absent_in_paddle(network: nn.Layer) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors that a torch checkpoint has and `network` does not: counters and FIR filters."""
    for name, layer in network.named_sublayers():
        if isinstance(layer, (nn.BatchNorm1D, nn.BatchNorm2D)):
            yield f"{name}.num_batches_tracked", np.zeros([], np.int64)
        elif isinstance(layer, ModulatedConv2D) and layer.resamples:
            yield f"{name}.blur.kernel", layer.kernel.numpy()
        elif isinstance(layer, ToRGB) and hasattr(layer, "kernel"):
            yield f"{name}.upsample.kernel", layer.kernel.numpy()
        elif isinstance(layer, EqualConv2D) and layer.resamples:
            yield f"{name.removesuffix('.conv')}.0.kernel", layer.kernel.numpy()
