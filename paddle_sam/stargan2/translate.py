"""Pictures from a trained StarGAN v2: sources in the styles of references and of latents."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.core.device import resolve_device
from paddle_sam.core.images import LONGEST_SIDES, SMALLEST_TILE, matrix, save_image, tiled
from paddle_sam.core.video import ease, write_video
from paddle_sam.errors import ConfigError
from paddle_sam.stargan2.domains import Domains, read_domains
from paddle_sam.stargan2.options import SampleOptions
from paddle_sam.stargan2.system import StarGAN2, translation_matrix

# Latents whose styles are averaged to find the middle of a domain.
_MEAN_LATENTS = 4096


def sample(config: SampleOptions) -> list[Path]:
    """Write the pictures that the options ask for to `result_dir`; return their paths.

    Raises:
        PaddleSamError: an option is missing, or a file cannot be used.
    """
    resolve_device(config.device)
    path = config.weight_file()
    system = StarGAN2.from_file(path, config.wing_path, config.device)
    config.expect_numbers(path, system.numbers)
    folder = Path(config.result_dir)
    size, limit = system.img_size, config.max_images
    sources, _ = read_domains(Domains(config.src_dir, "src_dir"), size, limit)
    reference_domains = Domains(config.ref_dir, "ref_dir")
    reference_domains.expect(system.num_domains)
    references, domains = read_domains(reference_domains, size, limit)
    z = latents(system, config.num_outs_per_domain, config.seed)
    tiles = 1 + max(len(sources), len(references), len(z))
    if tiles * size > LONGEST_SIDES[".jpg"]:
        raise ConfigError(
            f"--max_images: found pictures of up to {tiles} images of {size} pixels in a row, JPEG"
            f" holds at most {LONGEST_SIDES['.jpg'] // size}; give fewer images or latents"
        )

    def shown(what: str):
        return functools.partial(tqdm, desc=what, unit="style")

    paths = [folder / "reference.jpg"]
    save_image(
        paths[0], translation_matrix(system, sources, references, domains, shown("references"))
    )
    for domain, name in enumerate(reference_domains.names):
        paths.append(folder / f"latent_{name}.jpg")
        bar = shown(f"latents, {name}")
        save_image(paths[-1], latent_matrix(system, sources, z, domain, config.psi, bar))
    if config.series:
        steps = parse_steps(config.series)
        paths.append(folder / "series.jpg")
        save_image(paths[-1], series(config, steps, sources, z[:1]))
    if config.video and len(references) > 1:
        paths.append(folder / "video_ref.mp4")
        steps = config.video_steps
        frames = reference_frames(system, sources, references, domains, steps)
        number = (len(references) - 1) * steps + 1
        write_video(paths[-1], tqdm(frames, "video", number, unit="frame"), config.fps)
    return paths


def latents(system: StarGAN2, number: int, seed: int) -> np.ndarray:
    """Draw latents, float32 [number, Z]."""
    size = [number, system.mapping_network.latent_dim]
    return np.random.default_rng(seed).standard_normal(size, np.float32)


def latent_matrix(
    system: StarGAN2,
    sources: np.ndarray,
    z: np.ndarray,
    domain: int,
    psi: float = 1.0,
    shown: Callable[[paddle.Tensor], Iterable[paddle.Tensor]] = iter,
) -> np.ndarray:
    """Sources uint8 [N, S, S, 3] along the top, below them a row for each of the latents [M, Z].

    `psi` below 1 moves the styles towards the domain's mean: more alike, with fewer faults. `shown`
    may watch the styles go by, as in `translation_matrix`.
    """
    with paddle.no_grad():
        styles = system.latent_styles(z, domain)
        if psi != 1:
            mean = system.latent_styles(latents(system, _MEAN_LATENTS, 0), domain).mean(axis=0)
            styles = mean + psi * (styles - mean)
    rows = [sources, *system.in_styles(sources, shown(styles))]
    return tiled(np.concatenate(rows), len(sources))


def series(
    config: SampleOptions, steps: Sequence[int], sources: np.ndarray, z: np.ndarray
) -> np.ndarray:
    """What training taught: a row for each checkpoint, the sources in every domain in columns.

    Sources uint8 [N, S, S, 3] lie along the top; `z` [1, Z] is the latent of every translation.
    Small images are enlarged.
    """
    rows = []
    for step in tqdm(steps, "series", unit="checkpoint"):
        path = config.checkpoint_of(step)
        system = StarGAN2.from_file(path, config.wing_path, config.device)
        with paddle.no_grad():
            styles = [system.latent_styles(z, domain)[0] for domain in range(system.num_domains)]
        rows.append([image for images in system.in_styles(sources, styles) for image in images])
    rows.insert(0, list(sources) * (len(rows[0]) // len(sources)))
    size = max(sources.shape[1], SMALLEST_TILE)
    return matrix(rows, size, left=["sources", *map(str, steps)])


def parse_steps(text: str) -> list[int]:
    """Steps of `--series`.

    >>> parse_steps("1000,5000")
    [1000, 5000]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"--series: expected steps such as 1000,5000, found {text!r}")
    return list(map(int, parts))


def reference_frames(
    system: StarGAN2,
    sources: np.ndarray,
    references: np.ndarray,
    domains: np.ndarray,
    steps: int,
) -> Iterator[np.ndarray]:
    """Frames in which the sources uint8 [N, S, S, 3] take on one reference's style after another.

    Each frame shows the sources above and their translations below, uint8 [2 S, N S, 3]. From one
    reference to the next there are `steps` frames, which start and end slowly; the last frame is
    the last reference itself.
    """
    if len(references) < 2:
        raise ConfigError(f"references: expected at least 2, found {len(references)}")
    with paddle.no_grad():
        styles = system.reference_styles(references, domains)
    share = ease(np.arange(steps) / steps)
    path = [
        a + float(t) * (b - a) for a, b in zip(styles[:-1], styles[1:], strict=True) for t in share
    ]
    for images in system.in_styles(sources, paddle.stack([*path, styles[-1]])):
        yield tiled(np.concatenate([sources, images]), len(sources))
