"""Options of the commands that get and convert weight files."""

from __future__ import annotations

import dataclasses

from paddle_sam.errors import ConfigError
from paddle_sam.options import Options, option


@dataclasses.dataclass(frozen=True)
class DownloadOptions(Options):
    """Options of `scripts/download_weights.py`."""

    names: tuple = option(
        (),
        "what to download, also as words: names of the first column of --list, such as landmarks,"
        " or judges, the networks that measure results",
    )
    list: bool = option(False, "print all names and what is here")
    output: str = option(
        "", "folder for the files (default: $PADDLE_SAM_WEIGHTS if set, else pretrained_models)"
    )

    words = "names"

    def check(self):
        if not (self.names or self.list):
            raise ConfigError("--names: name what to download, or give --list")


@dataclasses.dataclass(frozen=True)
class ConvertOptions(Options):
    """Options of `convert/convert_weights.py`."""

    files: tuple = option((), "checkpoints to convert, also as words")
    output: str = option("", "folder for the results (default: beside each file)")
    reverse: bool = option(
        False, "files are .pdparams; write the .pt (.npz) that the reference code loads"
    )
    safetensors: bool = option(False, "with --reverse: write .safetensors")
    explain: bool = option(False, "say what each file is taken for and why, and write nothing")
    force: bool = option(False, "replace results that exist")

    words = "files"

    def check(self):
        if not self.files:
            raise ConfigError("--files: name a checkpoint to convert")
