"""Options of the commands that show what a StyleGAN2 generator has learned."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from paddle_sam.errors import ConfigError, quoted
from paddle_sam.metrics.options import RealOptions
from paddle_sam.options import (
    Options,
    device_option,
    engine_option,
    option,
    parse_names,
    parse_numbers,
    tile_size_option,
)


@dataclasses.dataclass(frozen=True)
class GeneratorOptions(Options):
    """Which generator, how far from its average, and where the results go."""

    checkpoint_path: str = option(
        "", "StyleGAN2, SAM or pSp weight file, or a snapshot (default: the small embedded model)"
    )
    exp_dir: str = option("results", "folder for the results")
    truncation: float = option(
        0.7, "psi: 1 is what was trained, less is tamer, 0 the average face, below 0 its opposites"
    )
    truncation_cutoff: int = option(
        0, "truncate only the first N codes, the coarse ones; 0 for all", minimum=0
    )
    label: str = option(
        "", "class of a conditional model: its number, or a mix such as 0:0.5,3:0.5"
    )
    mean_samples: int = option(
        0, "truncate towards the mean of N random codes; 0 takes the file's average", minimum=0
    )
    batch_size: int = option(
        0, "images rendered together; 0 for as many as fit into memory, at most 16", minimum=0
    )
    device: str = device_option()
    engine: str = engine_option()


@dataclasses.dataclass(frozen=True)
class SamplingOptions(GeneratorOptions):
    """Options of `scripts/sample.py`."""

    batch_size: int = option(
        1,
        "images rendered together: more is faster where the model is small, but may move single"
        " pixels by one grey level of 255",
        minimum=1,
    )
    seeds: str = option("0-31", "a seed for each image, also as ranges: 0-999,2005")
    noise: str = option(
        "stored",
        "fine detail: the model's stored noise, noise drawn from each seed, or none",
        choices=("stored", "random", "none"),
    )
    rows: int = option(
        0,
        "keep the middle rows of images only, such as 384 of 512 px of cars, which are padded to a"
        " square",
        minimum=0,
    )
    format: str = option("png", "kind of file", choices=("png", "jpg", "webp"))
    names: str = option(
        "seed",
        "what files are called: seed0007.png, or example-7.png",
        choices=("seed", "example"),
    )
    skip_existing: bool = option(True, "leave images that exist as they are")
    grid: str = option("", "also write sheets of COLUMNSxROWS images, such as 8x4")
    labels: bool = option(True, "write the seed below each image of a sheet")
    tile_size: int = tile_size_option()


@dataclasses.dataclass(frozen=True)
class FiguresOptions(GeneratorOptions):
    """Options of `scripts/figures.py`."""

    figures: str = option(
        "uncurated,mixing,noise,components,truncation",
        "which figures to make, of these and `classes` (of a conditional model)",
    )
    format: str = option("png", "kind of file", choices=("png", "jpg", "webp"))
    uncurated_seed: int = option(5, "first of the consecutive seeds of `uncurated`", minimum=0)
    uncurated_rows: int = option(3, "rows of the largest images", minimum=1)
    uncurated_levels: str = option("0,1,2,2,3,3", "halvings of the size in each column")
    mix_columns: str = option("639,701,687,615,2268", "seeds of `mixing` along the top: sources")
    mix_rows: str = option("888,829,1898,1733,1614,845", "seeds of `mixing` at the left")
    mix_styles: str = option(
        "coarse,coarse,coarse,middle,middle,fine",
        "what each row takes from the sources: coarse, middle, fine, or codes such as 0-3",
    )
    noise_seeds: str = option("1157,1012", "seeds of `noise`")
    noise_draws: int = option(100, "noise draws behind the deviation in `noise`", minimum=2)
    component_seeds: str = option("1967,1555", "seeds of `components`")
    component_flips: str = option(
        "1", "which of these faces to mirror, counted from 0: 0,1", may_be_empty=True
    )
    noise_ranges: str = option(
        "all,none,fine,coarse",
        "noise of each column of `components`: all, none, fine, coarse (all but fine), or numbers"
        " of layers such as 0-7 or 8-",
    )
    class_seeds: str = option("0-4", "seeds of `classes`")
    truncation_seeds: str = option("91,388-396", "seeds of `truncation`")
    psis: str = option("1,0.7,0.5,0.25,0,-0.25,-0.5,-1", "truncation psi of each column")
    tile_size: int = option(
        0,
        "side of the images; 0 for the model's own, but at least 128, or 256 where noise is shown"
        " and in `uncurated`",
        minimum=0,
    )

    @property
    def names(self) -> list[str]:
        """The figures asked for, each once."""
        known = [*type(self).figures.split(","), "classes"]
        return parse_names(self.figures, known, "--figures")


# The published videos are 60 seconds of 20 frames, whose latents are smoothed over one second.
_PUBLISHED_VIDEO = {
    "duration": 60.0,
    "fps": 20,
    "smoothing": 1.0,
    "truncation": 0.7,
    "bitrate": "5M",
    "labels": False,
}
_VIDEO_PRESETS = {
    "random_grid_404": {"videos": "walk", "seed": 404, "grid": "2x2", "name": "random_grid_SEED"},
    "interpolate": {
        "videos": "mix",
        "seed": 500,
        "destinations": "700",
        "style_ranges": "0",
        "name": "interpolate",
    },
    "fine_503": {
        "videos": "face",
        "seed": 503,
        "destinations": "503",
        "style_ranges": "6-",
        "name": "fine_SEED",
    },
}
_SOURCES = {"snapshots": "training", "grids": "training", "latents": "morph"}
# A clip of grids: what ffmpeg made of them in the published recipe.
_GRIDS = {"videos": "training", "fps": 25, "crf": 33}


@dataclasses.dataclass(frozen=True)
class VideosOptions(GeneratorOptions):
    """Options of `scripts/video.py`."""

    presets: ClassVar = tuple(_VIDEO_PRESETS)
    kinds: ClassVar = ("walk", "coarse", "middle", "fine", "mix", "face", "morph", "training")

    videos: str = option("walk,coarse,fine", f"which: {', '.join(kinds)}")
    name: str = option("", "file name of a single video; SEED stands for it (default: KIND_SEED)")
    fps: int = option(30, "frames per second", minimum=1)
    duration: float = option(10.0, "seconds of each video", minimum=0.1)
    codec: str = option("h264", "how MP4 files are encoded", choices=("h264", "hevc", "av1"))
    bitrate: str = option("", "such as 5M or 800k (default: a constant good quality)")
    crf: int = option(
        0, "constant quality of h264: 17 looks lossless, 33 is small; 0 for the codec's good one",
        minimum=0, maximum=51,
    )  # fmt: skip
    formats: str = option("mp4", "kinds of files to write: mp4, gif, webp")
    seed: int = option(0, "seed of the walk", minimum=0, maximum=2**32 - 1)
    smoothing: float = option(
        0.0,
        "seconds over which a walk's latents are smoothed; 0 for one, in short videos a quarter",
        minimum=0,
    )
    grid: str = option("3x2", "COLUMNSxROWS of faces in `walk` and `training`")
    destinations: str = option("700-702", "seeds of the faces that take on the walk's styles")
    style_ranges: str = option(
        "fine",
        "styles that `mix` and `face` take from the walk, one entry for each destination or one"
        " for all: coarse, middle, fine, or codes such as 0, 0-3 or 6- (to the last)",
    )
    latents: str = option("", "files of scripts/project.py, for `morph`: a.npz,b.npz")
    snapshots: str = option("", "folder of network_KIMG.pdparams files, for `training`")
    grids: str = option("", "instead: folder of a run's sample grids, fakes*.png")
    grid_rate: float = option(10.0, "grids a second", above=0)
    grid_scale: float = option(0.5, "size of the clip in that of the grids", above=0, maximum=1)
    fade: bool = option(True, "cross-fade from snapshot to snapshot")
    labels: bool = option(True, "name the parts of the picture; in `training` thousands of images")
    tile_size: int = tile_size_option("each face")

    @classmethod
    def implied(cls, preset: str | None, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Values of a preset, or those of a clip of grids."""
        if preset:
            return _PUBLISHED_VIDEO | _VIDEO_PRESETS[preset]
        return _GRIDS if given.get("grids") else {}

    @property
    def names(self) -> list[str]:
        """The videos asked for, each once."""
        names = parse_names(self.videos, self.kinds, "--videos")
        for source, kind in _SOURCES.items():
            if getattr(self, source) and kind not in names:
                raise ConfigError(f"--{source}: is used by --videos {kind}, which is not asked for")
        if "training" in names and bool(self.snapshots) == bool(self.grids):
            raise ConfigError(
                "--snapshots: name the folder of snapshots for the training video, or that of"
                " sample grids with --grids; found both or neither"
            )
        if self.name and len(names) > 1:
            raise ConfigError(f"--name: is for a single video, found {len(names)} (--videos)")
        return names

    def path(self, kind: str, suffix: str) -> Path:
        """Where a video goes, `exp_dir/videos/NAME.SUFFIX`."""
        seedless = kind == "morph" or (kind == "training" and self.grids)
        name = self.name or (kind if seedless else f"{kind}_SEED")
        return Path(self.exp_dir) / "videos" / f"{name.replace('SEED', str(self.seed))}{suffix}"

    @property
    def encoding(self) -> dict[str, Any]:
        """How MP4 files are encoded: `codec`, `bitrate` and `crf` of `core.video.open_video`."""
        return {"codec": self.codec, "bitrate": self.bits_per_second, "crf": self.crf or None}

    @property
    def bits_per_second(self) -> int | None:
        """`bitrate` as a number; None where it is left open.

        >>> VideosOptions(bitrate="1.5M").bits_per_second
        1500000
        """
        found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)([kM]?)", self.bitrate.strip())
        if not self.bitrate:
            return None
        rate = float(found[1]) * {"": 1, "k": 10**3, "M": 10**6}[found[2]] if found else 0
        if not 1000 <= rate <= 10**9:
            raise ConfigError(
                "--bitrate: expected bits per second such as 5M or 800k, found"
                f" {quoted(self.bitrate)}"
            )
        return round(rate)

    @property
    def frames(self) -> int:
        """Number of frames of each video, at least two."""
        return max(round(self.fps * self.duration), 2)

    @property
    def smoothing_frames(self) -> float:
        """Deviation of the Gaussian that smooths a walk."""
        return self.fps * (self.smoothing or min(1.0, self.duration / 4))

    def check(self):
        if self.crf and (self.bitrate or self.codec != "h264"):
            raise ConfigError("--crf: is for h264 without --bitrate")
        if self.smoothing > self.duration / 4:
            raise ConfigError(
                f"--smoothing: expected at most a quarter of --duration ({self.duration:g} s), or"
                f" nothing would move; found {self.smoothing:g}"
            )


@dataclasses.dataclass(frozen=True)
class InspectionOptions(GeneratorOptions):
    """Options of `scripts/inspect_generator.py`."""

    seeds: str = option("0-7", "samples whose nearest neighbours are looked for")
    data_path: str = option("", "data set to look in: folder or archive of images")
    n_images: int = option(0, "look only at the first N images; 0 for all", minimum=0)
    neighbours: int = option(5, "neighbours to show of each sample", minimum=1)
    features: str = option(
        "lpips",
        "what distance means: LPIPS, or root mean square of pixels",
        choices=("lpips", "pixels"),
    )
    lpips_path: str = option("", "LPIPS weights (default: lpips_alex)")
    compare_size: int = option(
        0, "side at which images are compared; 0 for the model's own, but at most 256", minimum=0
    )
    mirror: bool = option(True, "also compare with mirrored samples, as training may mirror")
    references: int = option(
        8, "images of the data set whose own neighbours tell what is near; 0 for none", minimum=0
    )
    num_threads: int = option(2, "processes that read images; 0 for none", minimum=0)
    layers: bool = option(False, "also print a table of the layers")
    latents: str = option("", "two files of scripts/project.py to interpolate between: a.npz,b.npz")
    steps: int = option(7, "images of the interpolation, its ends included", minimum=2)
    video: bool = option(False, "also write the interpolation as a video")
    fps: int = option(25, "frames per second of the video", minimum=1)
    duration: float = option(4.0, "seconds of the video, there and back", minimum=0.1)
    tile_size: int = tile_size_option()


@dataclasses.dataclass(frozen=True)
class BlendOptions(Options):
    """Options of `scripts/blend.py`."""

    low: str = option("", "weight file whose coarse layers are taken: StyleGAN2, SAM or pSp")
    high: str = option("", "weight file whose fine layers are taken")
    output: str = option("results/blended.pdparams", "weight file to write")
    resolution: int = option(32, "lowest resolution, in pixels, that comes from --high", minimum=8)
    layer: int = option(
        0,
        "first convolution that comes from --high, instead of --resolution: 1 and 2 are those"
        " of 8 px, 3 and 4 those of 16 px",
        minimum=0,
    )
    width: float = option(
        0.0, "octaves of resolution over which layers are mixed; 0 swaps them whole", minimum=0
    )
    mapping: str = option("low", "whose mapping network is taken", choices=("low", "high"))
    seeds: str = option("0-7", "faces of the sheet")
    truncation: float = option(0.7, "psi of the sheet")
    device: str = device_option()


@dataclasses.dataclass(frozen=True)
class EvaluationOptions(RealOptions):
    """FID, KID, precision and recall of what a StyleGAN2 generator makes."""

    checkpoint_path: str = option(
        "", "StyleGAN2, SAM or pSp weight file, or a snapshot (default: the small embedded model)"
    )
    num_images: int = option(50_000, "images to make, of the seeds 0, 1, 2, ...", minimum=4)
    truncation: float = option(1.0, "psi; below 1 trades variety for quality")
    noise: str = option(
        "random",
        "fine detail: noise drawn from each seed, the model's stored noise, or none",
        choices=("random", "stored", "none"),
    )


@dataclasses.dataclass(frozen=True)
class RankOptions(Options):
    """Images, and the discriminator that judges them."""

    data_path: str = option("", "folder or archive of images to rank")
    samples: int = option(0, "rank this many generated images instead", minimum=0)
    checkpoint_path: str = option(
        "", "StyleGAN2 file with a discriminator, such as a checkpoint (default: the small model)"
    )
    discriminator: str = option("d", "which network of that file judges")
    truncation: float = option(1.0, "psi of the samples")
    seed: int = option(0, "seed of the first sample; the others follow", minimum=0)
    drop_percent: float = option(
        0.0, "also write an archive without the worst N percent", minimum=0, below=100
    )
    drop_below: str = option("", "also write an archive without scores below this number")
    exp_dir: str = option("results/ranking", "folder for the ranking, the sheets and the archive")
    sheet_images: int = option(100, "images on each contact sheet", minimum=1)
    batch_size: int = option(16, "images at a time; changes speed and memory only", minimum=1)
    num_threads: int = option(2, "processes that read ahead; 0 reads in this one", minimum=0)
    device: str = device_option()
    engine: str = engine_option("renders samples")

    def check(self):
        if bool(self.data_path) == bool(self.samples):
            raise ConfigError("give either --data_path or --samples: what is to be ranked")
        for name in ("drop_percent", "drop_below"):
            if self.samples and getattr(self, name):
                raise ConfigError(f"--{name}: makes an archive of --data_path, not of --samples")
        if self.drop_percent and self.drop_below:
            raise ConfigError("give either --drop_percent or --drop_below: what is left out")
        if self.drop_below and len(parse_numbers(self.drop_below, "--drop_below")) > 1:
            raise ConfigError(f"--drop_below: expected one number, found {self.drop_below}")
