"""Options of the commands that edit, animate and invert faces."""

from __future__ import annotations

import dataclasses

from paddle_sam.common.checks import ConfigError
from paddle_sam.configs.base import option
from paddle_sam.configs.inference import AgeingConfig


@dataclasses.dataclass(frozen=True)
class AnimationConfig(AgeingConfig):
    """Options of `scripts/animate.py`."""

    target_age: str = option("0-100:10", "ages to pass through; codes between are interpolated")
    back: bool = option(True, "return to the first age, so that the video can loop")
    fps: int = option(25, "frames per second", minimum=1)
    duration: float = option(6.0, "seconds, the way back included", minimum=0.1)
    formats: str = option("mp4", "kinds of files to write: mp4, gif, webp")
    labels: bool = option(True, "write the age below the face")
    couple_outputs: bool = option(False, "show the input beside the face")
    frame_size: int = option(
        0, "side of the face in the video; 0 for the model's own, but at least 256", minimum=0
    )

    @property
    def suffixes(self) -> list[str]:
        """File suffixes of `formats`, each once.

        Raises:
            ConfigError: one is unknown.
        """
        names = [name.strip().lower().removeprefix(".") for name in self.formats.split(",")]
        if wrong := [name for name in names if name not in ("mp4", "gif", "webp")]:
            raise ConfigError(f"--formats: expected mp4, gif or webp, found {wrong[0]!r}")
        return [f".{name}" for name in dict.fromkeys(names)]
