"""Convert a published checkpoint to a weight file of this package, and back."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paddle import nn

from paddle_sam.convert.nvidia_pickle import is_pickle, read_nvidia_pickle
from paddle_sam.convert.recognise import TABLES, recognise
from paddle_sam.convert.rules import to_paddle, to_torch
from paddle_sam.convert.torch_file import read_torch, write_torch
from paddle_sam.core.files import read_arrays, sha256, write_arrays
from paddle_sam.core.weight_file import check_fit, read_file, save_file
from paddle_sam.errors import CheckpointError
from paddle_sam.networks.load import build_empty
from paddle_sam.networks.stylegan2 import ModulatedConv2D, ToRGB
from paddle_sam.networks.stylegan2_ops import EqualConv2D

# Training state that a converted file has no use for.
NOT_CARRIED = ("g_optim", "d_optim")


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


def convert_file(path: str | os.PathLike, output: str | os.PathLike) -> Report:
    """Convert one published checkpoint to the weight file `output`.

    Raises:
        CheckpointError: the file is missing, damaged, foreign or incomplete; the message names
            the file and the tensor.
        OutputError: `output` cannot be written.
    """
    path, output = Path(path), Path(output)
    content = _read(path)
    not_carried = [key for key in NOT_CARRIED if content.pop(key, None) is not None]
    with _explained(path):
        converted, counts = _converted(content, path)
    save_file(output, converted)
    size = output.stat().st_size
    return Report(path, output, converted["kind"], counts, size, sha256(output), not_carried)


def revert_file(path: str | os.PathLike, output: str | os.PathLike) -> Report:
    """Write the torch checkpoint that a converted (or trained) weight file stands for.

    A converted file gives back exactly the tensors that it was made from.

    Raises:
        CheckpointError: the file is missing, damaged, or not one of this package.
        OutputError: `output` cannot be written.
    """
    path, output = Path(path), Path(output)
    saved = read_file(path)
    with _explained(path):
        content, counts = _reverted(saved, path)
    (write_arrays if output.suffix == ".npz" else write_torch)(output, content)
    return Report(path, output, saved["kind"], counts, output.stat().st_size, sha256(output), [])


def published_suffix(path: Path) -> str:
    """What the published file of a weight file is called: `.npz` for the mean face, else `.pt`."""
    try:
        mean_face = path.stat().st_size < 1 << 16 and read_file(path)["kind"] == "mean_face"
    except (OSError, CheckpointError):  # `revert_file` will say what is wrong
        return ".pt"
    return ".npz" if mean_face else ".pt"


def _read(path: Path) -> dict:
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; name the checkpoint files in it")
    if path.is_file() and path.suffix == ".npz":
        return read_arrays(path, "fetch it again")
    if is_pickle(path):
        return read_nvidia_pickle(path)
    return read_torch(path)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of a file whose entries are not what their names promise that it is another's."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: a checkpoint of another project, or a damaged one: its entries are not what"
            f" their names say ({type(error).__name__}: {error})"
        ) from error


def _converted(content: dict, path: Path) -> tuple[dict, Counter]:
    """The content of the weight file for that of a torch file, and what was done to tensors."""
    checkpoint = recognise(content, path)
    networks, origins, counts = {}, {}, Counter()
    for name, network in checkpoint.networks.items():
        where = f"{path}: {name}"
        converted = to_paddle(network.state, TABLES[network.table], where)
        converted.state |= network.added
        targets = build_empty(network.builder, network.arch).state_dict()
        check_fit(targets, converted.state, f"{where}: does not fit the network it describes")
        networks[name] = {
            "network": network.builder,
            "arch": network.arch,
            "state": converted.state,
        }
        origins[name] = {
            "table": network.table,
            "key": network.key,
            "tensors": converted.dropped,
            "prefix": network.prefix,
            "added": sorted(network.added),
        }
        counts += converted.counts
    source = {"file": path.name, "networks": origins, "extras": checkpoint.extras}
    described = {"kind": checkpoint.kind, "networks": networks, "source": source}
    return described | checkpoint.facts, counts


def _reverted(saved: dict, path: Path) -> tuple[dict, Counter]:
    """The content of the torch file for that of a weight file, and how many tensors there are."""
    origin = saved.get("source", {})
    content = dict(origin.get("extras") or _own_description(saved))
    counts = Counter()
    for name, entry in saved["networks"].items():
        state = entry["state"]
        before = origin.get("networks", {}).get(name) or _published_place(saved["kind"], name, path)
        dropped = before["tensors"]
        if not dropped:
            dropped = dict(_absent_in_paddle(build_empty(entry["network"], entry["arch"])))
        if "latent_avg" in state:
            content["latent_avg"] = _latent_avg(state.pop("latent_avg"), content)
        for added in before.get("added", ()):
            state.pop(added, None)
        torch_state = to_torch(state, TABLES[before["table"]]) | dropped
        if prefix := before.get("prefix"):
            torch_state = {prefix + tensor: array for tensor, array in torch_state.items()}
        counts += Counter(read=len(state), written=len(torch_state))
        if before["key"] is None:
            content = torch_state
        else:
            content[before["key"]] = torch_state
    if saved.get("options"):
        content["opts"] = saved["options"]
    if saved.get("latent_avg") is not None:
        content["latent_avg"] = saved["latent_avg"]
    return content, counts


def _own_description(saved: dict) -> dict:
    """The `arch` entry of a SAM or pSp network that was trained here: what tensors do not tell."""
    if saved["kind"] not in ("sam", "psp"):
        return {}
    (entry,) = saved["networks"].values()
    arch = {"encoder": {"units": entry["arch"]["encoder"]["units"]}}
    return {"arch": arch | {"alignment": saved["alignment"]} if saved.get("alignment") else arch}


def _latent_avg(saved: np.ndarray, extras: dict) -> np.ndarray:
    """`latent_avg` as the torch file had it: one row, where all rows repeat it."""
    before = extras.get("latent_avg")
    if before is not None and np.array_equal(np.broadcast_to(before, saved.shape), saved):
        return before
    return saved


def _published_place(kind: str, name: str, path: Path) -> dict:
    """Where a network that was trained here, not converted, sits in a published checkpoint."""
    places = {
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
    if (kind, name) not in places:
        raise CheckpointError(f"{path}: no published PyTorch layout is known for {kind}: {name}")
    table, key = places[kind, name]
    return {"table": table, "key": key, "tensors": {}}


def _absent_in_paddle(network: nn.Layer) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors that a torch checkpoint has and `network` does not: counters and FIR filters."""
    for name, layer in network.named_sublayers():
        if isinstance(layer, (nn.BatchNorm1D, nn.BatchNorm2D)):
            yield f"{name}.num_batches_tracked", np.zeros([], np.int64)
        elif isinstance(layer, ModulatedConv2D) and layer.upsample:
            yield f"{name}.blur.kernel", layer.kernel.numpy()
        elif isinstance(layer, ToRGB) and hasattr(layer, "kernel"):
            yield f"{name}.upsample.kernel", layer.kernel.numpy()
        elif isinstance(layer, EqualConv2D) and layer.downsample:
            yield f"{name.removesuffix('.conv')}.0.kernel", layer.kernel.numpy()
