"""Project the faces of photographs: `scripts/project.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.ageing.editing_options import ProjectOptions
from paddle_sam.ageing.engines import stated_crop
from paddle_sam.ageing.latents import Latent, save_latent
from paddle_sam.ageing.photos import (
    OtherFormat,
    Photo,
    Summary,
    check_present,
    face_mask,
    find_inputs,
    read_photos,
    results_folder,
    with_progress,
)
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT, EMBEDDED_NOTE
from paddle_sam.ageing.projection import Best, ProjectionSettings, project
from paddle_sam.core.device import fitting_batch, resolve_device, seed_everything
from paddle_sam.core.images import resize, save_image, to_network, to_uint8
from paddle_sam.core.sheets import LARGE_TILE, strip
from paddle_sam.core.video import VideoWriter, open_video
from paddle_sam.core.weight_file import read_file
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.faces.alignment import CropSettings
from paddle_sam.faces.cutter import FaceCutter
from paddle_sam.networks.load import network_from
from paddle_sam.networks.lpips import LPIPS
from paddle_sam.networks.lpips_weights import load_lpips
from paddle_sam.networks.sam import SAM
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.options import parse_codes


@dataclass(frozen=True, eq=False)
class Inverter:
    """What a weight file offers for projecting.

    generator: renders codes. encode: images [N, 3, S, S] to codes [N, L, D] to start from; None
    where the file has no such encoder. mean: [L, D] or [1, D]. crop: of the photographs.
    """

    generator: Generator
    encode: Callable[[paddle.Tensor], paddle.Tensor] | None
    mean: paddle.Tensor
    crop: CropSettings


@dataclass(frozen=True, eq=False)
class Target:
    """A face to project.

    mask: float32 [S, S] in [0, 1], what of the crop counts. last: of its photograph's faces.
    """

    name: Path
    crop: np.ndarray
    mask: np.ndarray
    last: bool


def project_photos(config: ProjectOptions) -> Summary:
    """Latent, final image and video of every face, under `exp_dir/projection/`."""
    inputs = find_inputs(config)
    check_present(config, "lpips_path")
    inverter = load_inverter(config.checkpoint_path, config.device)
    if config.start == "encoder" and inverter.encode is None:
        raise ConfigError(
            f"--start: {config.checkpoint_path} holds no encoder to start from; use --start mean"
        )
    lpips = load_lpips(config.lpips_path or find_weight(f"lpips_{config.lpips}"))
    codes = inverter.generator.n_codes
    settings = ProjectionSettings(
        steps=config.step,
        start_lr=config.start_lr,
        final_lr=config.final_lr,
        mse_weight=config.mse_weight,
        levels=parse_codes(config.latent_level, codes, "--latent_level")
        if config.latent_level
        else None,
        in_w=config.space == "w",
        noise_weight=config.noise_regularize,
    )
    summary = Summary()
    photos = read_photos(config, inputs, FaceCutter(inverter.crop), summary, targets_of)
    targets = (target for photo in photos for target in photo)
    named = OtherFormat()
    together = config.test_batch_size or fitting_batch(inverter.generator.size, gradients=True)

    def done_photos() -> Iterator[Target]:
        while batch := list(islice(targets, together)):
            project_batch(config, inverter, lpips, settings, batch, named)
            yield from (target for target in batch if target.last)

    for _ in with_progress(done_photos(), summary, len(inputs), results_folder(config)):
        pass
    return summary


def load_inverter(checkpoint_path: str, device: str) -> Inverter:
    """Build from a SAM, pSp or StyleGAN2 file; without a path from the embedded default.

    Raises:
        CheckpointError: the file cannot be used, or holds no generator.
    """
    if not checkpoint_path:
        print(EMBEDDED_NOTE)
    path = checkpoint_path or str(find_weight(EMBEDDED_DEFAULT))
    resolve_device(device)
    content = read_file(path)
    network = network_from(content, path)
    if isinstance(network, Generator):
        mean = network.latent_avg
        if mean is None:
            seed_everything(0)
            mean = network.mean_latent()
        crop = stated_crop(content, path, size=min(network.size, 256))
        return Inverter(network, None, mean.reshape([-1, network.style_dim]), crop)
    if not isinstance(network, SAM):
        raise CheckpointError(
            f"{path}: holds a {type(network).__name__}, which renders nothing; expected a SAM, pSp"
            " or StyleGAN2 weight file"
        )
    encode = network.encode if network.encoder.in_channels == 3 else None  # pSp itself, or
    encode = network.invert if network.start == "encoded_w_plus" else encode  # SAM's frozen one
    return Inverter(network.decoder, encode, network.latent_avg, stated_crop(content, path))


def targets_of(photo: Photo) -> list[Target]:
    """The faces of a photograph with their masks; raises `ImageError` where one cannot be used."""
    return [
        Target(name, face.image, face_mask(photo, face), last=face is photo.faces[-1])
        for name, face in zip(photo.face_names(), photo.faces, strict=True)
    ]


def project_batch(
    config: ProjectOptions,
    inverter: Inverter,
    lpips: LPIPS,
    settings: ProjectionSettings,
    batch: list[Target],
    named: OtherFormat,
) -> None:
    """Project several faces at once and write what comes out."""
    images = paddle.to_tensor(to_network([target.crop for target in batch]))
    masks = paddle.to_tensor(np.stack([target.mask for target in batch])[:, None])
    folder = results_folder(config) / "projection"
    paths = [folder / named(target.name, ".npz") for target in batch]
    best = Best()
    with contextlib.ExitStack() as stack:
        videos = []
        if config.save_mp4:
            videos = [
                stack.enter_context(open_video(path.with_suffix(".mp4"), config.fps))
                for path in paths
            ]
        steps = project(
            inverter.generator,
            lpips,
            images,
            start_codes(config, inverter, images),
            settings,
            masks,
        )
        for step in tqdm(steps, total=settings.steps + 1, unit="step", leave=False):
            best.see(step)
            add_frames(videos, batch, to_uint8(step.images.numpy()), f"step {step.index}")
    write_results(paths, batch, best)


def start_codes(config: ProjectOptions, inverter: Inverter, images: paddle.Tensor) -> paddle.Tensor:
    """Codes [N, L, D] to start from for images [N, 3, S, S]."""
    if config.start == "encoder":
        with paddle.no_grad():
            return inverter.encode(images)
    return inverter.mean.unsqueeze(0).expand([len(images), inverter.generator.n_codes, -1])


def add_frames(
    videos: list[VideoWriter], batch: list[Target], images: Iterable[np.ndarray], caption: str
) -> None:
    """Append to each video its target beside the image so far."""
    for video, target, image in zip(videos, batch, images, strict=False):
        size = max(image.shape[0], LARGE_TILE)
        video.add(strip([target.crop, resize(image, size)], size, ["target", caption]))


def write_results(paths: list[Path], batch: list[Target], best: Best) -> None:
    """Write each face's latent (with its noise maps, if optimised) and image, and say how close."""
    images, codes = to_uint8(best.images.numpy()), best.codes.numpy()
    for index, (path, target) in enumerate(zip(paths, batch, strict=True)):
        noise = {f"noise_{k}": one[index].numpy() for k, one in enumerate(best.noise or [])}
        save_latent(path, Latent(codes[index], target.crop), noise)
        save_image(path.with_suffix(".png"), images[index])
        start, end = best.start.loss[index].item(), best.loss[index].item()
        tqdm.write(f"{path}: LPIPS + MSE {start:.4f} -> {end:.4f}, {start / end:.1f} times closer")
