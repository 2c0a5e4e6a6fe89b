"""What a run is made from, known by its content: folders may move, what is in them may not change.

`inputs.json` in the run's folder keeps it. Data and weight files that a run goes on needing are
compared with it when the run is resumed, whatever they are called by then.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from paddle_sam.core.files import sha256, write_json
from paddle_sam.errors import ConfigError

INPUTS = "inputs.json"
Identity = Mapping[str, Any]


def identify_file(path: Path) -> Identity:
    """Describe a file by its content; nothing if there is none, which is said where it is read."""
    if not path.is_file():
        return {}
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def check_inputs(
    folder: Path, inputs: Mapping[str, Identity], allowed: Collection[str]
) -> dict[str, str]:
    """Compare inputs, by the options that name them, with those the run in `folder` was made from.

    Returns:
        the changes that are `allowed`, in words by option.

    Raises:
        ConfigError: others have changed, or the note of them is damaged.
    """
    note = folder / INPUTS
    if not note.exists():
        return {}
    try:
        before = dict(json.loads(note.read_text(encoding="utf-8")))
        changed = {
            name: f"{_words(before[name])} -> {_words(identity)}"
            for name, identity in inputs.items()
            if identity and before.get(name, identity) != identity
        }
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{note}: cannot be read ({error}). Delete it to resume the run without comparing its"
            " data with what it was started with."
        ) from error
    for name, words in changed.items():
        if name not in allowed:
            raise ConfigError(
                f"--{name}: not what the run in {folder} was started with ({words}). Give that, or"
                f" --allow_changed {name} to continue with the other on purpose."
            )
    return changed


def keep_inputs(folder: Path, inputs: Mapping[str, Identity]) -> None:
    """Note in the run's folder what it is made from."""
    write_json(folder / INPUTS, dict(inputs))


def _words(identity: Identity) -> str:
    what = "images" if "images" in identity else "bytes"
    return f"{identity.get(what)} {what}, {str(identity.get('sha256'))[:8]}"
