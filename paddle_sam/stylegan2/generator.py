"""A StyleGAN2 generator with NumPy in and out: seeds to codes to images.

A seed is a face: its z comes from a NumPy `RandomState` of its own, as in the published StyleGAN
tools, and is mapped alone, so its code is independent of the other seeds. Its image is also
independent when rendered alone. In a batch the sums behind a pixel may be added in another order,
which moves one pixel in some 10,000 by one grey level.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.core.device import cpu_threads, fitting_batch
from paddle_sam.core.images import SMALLEST_TILE, to_uint8
from paddle_sam.core.weights import WeightFile, find_weight
from paddle_sam.errors import ConfigError, EngineError, check_shape
from paddle_sam.export.cache import open_exported
from paddle_sam.export.engine import EngineGenerator
from paddle_sam.networks.load import build
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.networks.stylegan2_ops import (
    MEAN_SAMPLES,
    average_code,
    mix_latents,
    seed_latents,
)
from paddle_sam.stylegan2.options import GeneratorOptions
from paddle_sam.stylegan2.parsing import parse_label

EMBEDDED_GENERATOR = "stylegan2_mini"


class StyleGenerator:
    """Seeds, codes and images of one network.

    Attributes: `size` of the images, `n_codes` (L) of `dim` (D) numbers, the average code `w_avg`,
    float32 [1 or L, D], `batch_size`, how many images are rendered together, and `source`.

    Args:
        network: in eval mode, or its exported form, which knows no noise but the stored one.
        mean_samples: average N random codes; 0 takes the network's `latent_avg`, or where it
            has none the mean of `MEAN_SAMPLES`.
        source: the weight file, for messages.
        batch_size: 0 takes what fits into memory.
        label: of a conditional network: shares of its classes, [classes].
    """

    def __init__(
        self,
        network: Generator | EngineGenerator,
        mean_samples: int = 0,
        source: str = "network",
        batch_size: int = 0,
        label: np.ndarray | None = None,
    ):
        self.network = network
        self.classes: int = getattr(network, "classes", 0)  # exported ones are not conditional
        self.label = label
        self.source = source
        self.size: int = network.output_size
        self.n_codes: int = network.n_codes
        self.dim: int = network.style_dim
        self.batch_size = batch_size or fitting_batch(self.size)
        if network.latent_avg is None and not mean_samples:
            mean_samples = MEAN_SAMPLES
            print(
                f"note: {source} states no average code; using the mean of {mean_samples} random"
                " ones (--mean_samples)",
                file=sys.stderr,
            )
        if mean_samples and label is None and self.classes:
            self.w_avg = network.mean_latent(mean_samples).numpy()
        elif mean_samples:
            self.w_avg = average_code(self._mapped, self.dim, mean_samples)[None]
        else:
            self.w_avg = network.latent_avg.numpy().reshape(-1, self.dim)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike,
        device: str = "auto",
        engine: str = "auto",
        any_noise: bool = False,
        mean_samples: int = 0,
        batch_size: int = 0,
    ) -> StyleGenerator:
        """The generator of a StyleGAN2, SAM or pSp weight file.

        Args:
            path: the weight file.
            device: `auto`, `cpu`, `gpu` or `gpu:N`.
            engine: `auto`, `eager`, `onednn` or `onednn-bf16`.
            any_noise: whether it is to render other noise than the stored one, which takes `eager`.
            mean_samples, batch_size: as above.

        Raises:
            CheckpointError: the weight file cannot be used.
            ConfigError: the device or engine cannot be used, or the engine has only stored noise.
        """
        if any_noise:
            if engine not in ("auto", "eager"):
                raise ConfigError(
                    f"--engine {engine}: has the stored noise only; use --engine eager"
                )
            engine = "eager"
        network = rendering_network(Path(path), device, engine)
        return cls(network, mean_samples, str(path), batch_size)

    def map(self, z: np.ndarray) -> np.ndarray:
        """The mapping network: z [N, D] -> w float32 [N, D]."""
        check_shape("z", z, (None, self.dim))
        with paddle.no_grad():
            return self._mapped(paddle.to_tensor(z, "float32")).numpy()

    def _mapped(self, z: paddle.Tensor) -> paddle.Tensor:
        if not self.classes:
            return self.network.map_latents(z)
        if self.label is None:
            raise ConfigError(
                f"--label: {self.source} has the classes 0 to {self.classes - 1}; name one, or a"
                " mix such as 0:0.5,1:0.5"
            )
        label = paddle.to_tensor(self.label[None], place=z.place)
        return self.network.map_latents(z, label.tile([len(z), 1]))

    def of_class(self, label: np.ndarray) -> StyleGenerator:
        """The same generator for another label."""
        other = copy.copy(self)
        other.label = label
        return other

    def codes(self, w: np.ndarray, psi: float = 1.0, cutoff: int = 0) -> np.ndarray:
        """Truncated codes w_plus float32 [N, L, D] of w [N, D]; see `truncate`."""
        return truncate(np.repeat(w[:, None], self.n_codes, axis=1), self.w_avg, psi, cutoff)

    def seed_codes(self, seeds: Sequence[int], psi: float = 1.0, cutoff: int = 0) -> np.ndarray:
        """Truncated codes w_plus float32 [N, L, D] of seeds, each as if it were alone.

        They are mapped one at a time, because the last bits of a matrix product depend on its
        number of rows: of 16 codes of the published mapping network, mapped together on a CPU,
        only 3% of the numbers are the same.
        """
        z = paddle.to_tensor(seed_latents(seeds, self.dim))
        with paddle.no_grad():
            w = paddle.concat([self._mapped(one) for one in z.split(len(z))])
        return self.codes(w.numpy(), psi, cutoff)

    def render(self, w_plus: np.ndarray, noise: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """Images uint8 RGB [N, R, R, 3] of codes [N, L, D]; grey ones have three equal channels.

        Args:
            noise: a map float32 [N or 1, 1, R, R] for each layer; None for the stored ones.
        """
        codes = paddle.to_tensor(w_plus, "float32")
        with paddle.no_grad():
            if noise is None:
                images = self.network.render(codes)
            else:
                images, _ = self.network.synthesis(codes, [paddle.to_tensor(n) for n in noise])
        return to_uint8(images if images.shape[1] == 3 else as_rgb(images.numpy()))

    def render_all(
        self, codes: Iterable[np.ndarray], count: int, progress: bool = True
    ) -> Iterator[np.ndarray]:
        """Images uint8 [R, R, 3] of `count` codes [L, D], one after the other.

        Renders `batch_size` at a time, and shows a progress bar if wanted.
        """
        codes = iter(codes)
        with tqdm(total=count, unit="image", disable=not progress) as bar:
            while batch := list(islice(codes, self.batch_size)):
                for image in self.render(np.stack(batch)):
                    bar.update()
                    yield image

    def tile_size(self, wanted: int, smallest: int = SMALLEST_TILE) -> int:
        """Side at which images are shown: `wanted`, or if that is 0 their own or `smallest`."""
        return wanted or max(self.size, smallest)

    def stored_noise(self) -> list[np.ndarray]:
        """The model's own noise maps, float32 [1, 1, R, R] for each layer; eager networks only."""
        return [noise.numpy() for noise in self.network.noises.as_list()]


def open_generator(options: GeneratorOptions, any_noise: bool = False) -> StyleGenerator:
    """The generator that the options of a command name, or the embedded one with a note.

    Raises:
        CheckpointError: the weight file cannot be used.
        ConfigError: an option cannot work with it.
    """
    path = options.checkpoint_path
    if not path:
        print(
            "No --checkpoint_path: using the small embedded StyleGAN2 (trained on UTKFace, research"
            " use)."
        )
        path = find_weight(EMBEDDED_GENERATOR)
    names = ("device", "engine", "mean_samples", "batch_size")
    plain = {name: getattr(options, name) for name in names}
    generator = StyleGenerator.open(path, any_noise=any_noise, **plain)
    if options.label:
        generator.label = parse_label(options.label, generator.classes)
    if options.truncation_cutoff > generator.n_codes:
        raise ConfigError(
            f"--truncation_cutoff: this model has {generator.n_codes} codes, found"
            f" {options.truncation_cutoff}"
        )
    return generator


def as_rgb(images: np.ndarray) -> np.ndarray:
    """Network images [N, C, H, W] in [-1, 1] as RGB [N, 3, H, W].

    Grey is repeated, RGBA is laid on white, as a viewer shows it.

    Raises:
        ConfigError: they have another number of channels.
    """
    channels = images.shape[1]
    if channels == 1:
        return images.repeat(3, axis=1)
    if channels == 4:
        opacity = (images[:, 3:].clip(-1, 1) + 1) / 2
        return images[:, :3].clip(-1, 1) * opacity + (1 - opacity)
    if channels != 3:
        raise ConfigError(f"images: expected 1, 3 or 4 channels to show, found {channels}")
    return images


def seed_noise(seeds: Sequence[int], resolutions: Sequence[int]) -> list[np.ndarray]:
    """Noise maps float32 [N, 1, R, R] for each resolution, drawn from each seed alone."""

    # Another stream than z's, which begins a `RandomState` of the seed itself.
    def of_seed(seed: int) -> list[np.ndarray]:
        stream = np.random.RandomState([seed, 1])
        return [stream.randn(1, r, r).astype(np.float32) for r in resolutions]

    # In threads: 58 ms a seed at 1024 px, in which NumPy does not hold Python's lock.
    with ThreadPoolExecutor(cpu_threads()) as pool:
        maps = list(pool.map(of_seed, seeds))
    return [np.stack(layer) for layer in zip(*maps, strict=True)]


def truncate(w_plus: np.ndarray, w_avg: np.ndarray, psi: float, cutoff: int = 0) -> np.ndarray:
    """The truncation trick: w' = w_avg + psi (w - w_avg) in the first `cutoff` codes, or in all.

    Args:
        w_plus: [N, L, D].
        w_avg: [1 or L, D].
        psi: 1 changes nothing, 0 is the average, negative values are the opposite of a code.
        cutoff: number of leading codes to truncate; 0 for all.

    "A Style-Based Generator Architecture for GANs", appendix B.
    """
    truncated = w_avg + np.float32(psi) * (w_plus - w_avg)
    if cutoff:
        truncated[:, cutoff:] = w_plus[:, cutoff:]
    return w_plus if psi == 1 else truncated


def mix(w_plus: np.ndarray, source: np.ndarray, codes: Sequence[int]) -> np.ndarray:
    """w_plus [N, L, D] with the numbered codes taken from source [N or 1, L, D]."""
    with paddle.no_grad():
        return mix_latents(paddle.to_tensor(w_plus), codes, paddle.to_tensor(source)).numpy()


def rendering_network(
    path: Path, device: str = "auto", engine: str = "auto"
) -> Generator | EngineGenerator:
    """The generator of a weight file in eval mode: its own, or the decoder of SAM or pSp.

    Args:
        path: a StyleGAN2, pSp or SAM weight file.
        device, engine: see `open_exported`.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or renders nothing.
        ConfigError: the device does not exist, or the engine asked for cannot run.
    """
    loaded = open_exported(path, device, engine, EngineGenerator, _export_generator, ".generator")
    return read_generator(path) if loaded is None else loaded[0]


def read_generator(path: Path) -> Generator:
    """The eager generator of a weight file, with the file's `latent_avg` if it has one.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or renders nothing.
    """
    network = build(WeightFile.read(path), expect=(SAM, Generator))
    if isinstance(network, SAM):
        known = network.latent_avg.numpy().any()  # zero where the file did not state it
        network.decoder.latent_avg = network.latent_avg if known else None
        return network.decoder
    return network


def _export_generator(path: Path, folder: Path, _precision: str) -> None:
    from paddle_sam.export.static_model import export_generator

    generator = read_generator(path)
    if generator.classes or generator.image_channels != 3:
        raise EngineError(f"{path}: conditional generators and those that are not RGB run eagerly")
    export_generator(generator, folder)
