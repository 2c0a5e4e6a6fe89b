"""Options of the commands that cut faces out of photographs."""

from __future__ import annotations

import dataclasses

from paddle_sam.errors import ConfigError
from paddle_sam.options import Options, option


@dataclasses.dataclass(frozen=True)
class AlignFolderOptions(Options):
    """Options of `scripts/align_all_parallel.py`."""

    root_path: str = option("", "folder of photographs, at any depth")
    output_path: str = option("", "folder for the crops (default: ROOT_PATH_aligned)")
    num_threads: int = option(0, "processes to use; 0 for one per CPU core", minimum=0)
    size: int = option(256, "side of the crops in pixels; sam_mini takes 64", minimum=1)
    scale: float = option(1.0, "size of the square: FFHQ's is 1, sam_mini's 0.6", above=0)
    offset: float = option(0.1, "its centre, from eyes (0) to mouth (1): sam_mini's is 0.5")
    oversample: int = option(
        1, "cut the crop out N times larger, then reduce it; sam_mini takes 4", minimum=1
    )
    face: str = option(
        "best",
        "which faces of a photograph: the most confident, the largest, or each",
        choices=("best", "largest", "all"),
    )
    format: str = option("png", "of the crops", choices=("png", "jpg"))

    def check(self):
        if not self.root_path:
            raise ConfigError("--root_path: name a folder of photographs")
