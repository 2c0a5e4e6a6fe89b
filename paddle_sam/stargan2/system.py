"""The networks of a trained StarGAN v2 together: styles from latents or references, translation."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import paddle

from paddle_sam.core.device import on_device
from paddle_sam.core.images import tiled, to_uint8
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import WeightFile
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.loader import to_device
from paddle_sam.networks.face_heatmaps import FaceHeatmaps
from paddle_sam.networks.load import build, load
from paddle_sam.networks.stargan2 import Generator, MappingNetwork, StyleEncoder

PARTS = {
    "generator": Generator,
    "mapping_network": MappingNetwork,
    "style_encoder": StyleEncoder,
}
_BATCH = 32  # images per forward pass


@dataclasses.dataclass(eq=False, repr=False)
class StarGAN2:
    """Translates images into the style of a latent or of a reference image.

    Attributes:
        generator, mapping_network, style_encoder: as trained together.
        fan: finds what of the source is kept; needed where the generator has a high-pass skip.
    """

    generator: Generator
    mapping_network: MappingNetwork
    style_encoder: StyleEncoder
    fan: FaceHeatmaps | None = None

    def __post_init__(self):
        if not hasattr(self.generator, "hpf"):
            self.fan = None
        elif self.fan is None:
            raise ConfigError(
                "--wing_path: this generator has a high-pass skip (w_hpf > 0), which needs the face"
                " alignment network; name the converted wing.ckpt"
            )

    @classmethod
    def from_file(
        cls, path: str | os.PathLike, wing_path: str | os.PathLike = "", device: str = "auto"
    ) -> StarGAN2:
        """Load a converted `nets_ema` file or a checkpoint of training.

        Args:
            path: the weight file.
            wing_path: converted wing.ckpt; may be left out where `path` holds that network itself.
            device: `auto`, `cpu`, `gpu` or `gpu:N`.

        Raises:
            CheckpointError: a file is missing, damaged, or holds something else.
            ConfigError: the face alignment network is needed, but not given.
        """
        file = WeightFile.read(path, kinds=("stargan2",))
        with on_device(device):
            networks = [build(file, part, kind) for part, kind in PARTS.items()]
            fan = None
            if wing_path:
                fan = load_fan(wing_path, device)
            elif "fan" in file.networks:
                fan = build(file, "fan", FaceHeatmaps)
        return cls(*networks, fan)

    @property
    def img_size(self) -> int:
        return self.generator.img_size

    @property
    def num_domains(self) -> int:
        return len(self.mapping_network.unshared)

    @property
    def numbers(self) -> dict[str, float]:
        """What the networks were built with, by the published options."""
        return {
            "img_size": self.img_size,
            "num_domains": self.num_domains,
            "latent_dim": self.mapping_network.latent_dim,
            "style_dim": self.generator.style_dim,
            "w_hpf": self.generator.w_hpf,
        }

    def masks(self, images: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor] | None:
        """What the generator is to keep of images [N, 3, S, S]; None where it has no skip."""
        return None if self.fan is None else self.fan.masks(images)

    def translate(self, images: paddle.Tensor, s: paddle.Tensor) -> paddle.Tensor:
        """images [N, 3, S, S] in [-1, 1] and styles [N, D] -> images."""
        return self.generator(images, s, self.masks(images))

    def latent_styles(self, z: np.ndarray, domain: int) -> paddle.Tensor:
        """Latents [N, Z] -> styles [N, D] of one domain."""
        y = paddle.full([len(z)], domain, "int64")
        return self.mapping_network(paddle.to_tensor(z), y)

    def reference_styles(self, images: np.ndarray, domains: np.ndarray) -> paddle.Tensor:
        """References uint8 [N, S, S, 3] and their domains [N] -> styles [N, D]."""
        pairs = zip(batches(images, _BATCH), batches(domains, _BATCH), strict=True)
        return paddle.concat(
            [
                self.style_encoder(to_device(part), paddle.to_tensor(theirs))
                for part, theirs in pairs
            ]
        )

    @paddle.no_grad()
    def in_styles(
        self, images: np.ndarray, styles: Iterable[paddle.Tensor]
    ) -> Iterator[np.ndarray]:
        """For each of styles [D]: all images uint8 [N, S, S, 3] in it."""
        sources = [to_device(part) for part in batches(images, _BATCH)]
        masks = [self.masks(part) for part in sources]
        for style in styles:
            made = [
                self.generator(part, style.unsqueeze(0).expand([len(part), -1]), mask)
                for part, mask in zip(sources, masks, strict=True)
            ]
            yield to_uint8(paddle.concat(made))


def load_fan(path: str | os.PathLike, device: str = "auto") -> FaceHeatmaps:
    """Load the face alignment network from a converted wing.ckpt.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    return load(path, device=device, expect=FaceHeatmaps, option="--wing_path")


def translation_matrix(
    system: StarGAN2,
    sources: np.ndarray,
    references: np.ndarray,
    domains: np.ndarray,
    shown: Callable[[paddle.Tensor], Iterable[paddle.Tensor]] = iter,
) -> np.ndarray:
    """Every source in the style of every reference, as one uint8 picture.

    Sources uint8 [N, S, S, 3] lie along the top, references uint8 [M, S, S, 3], of `domains` [M],
    down the left side. `shown` may watch the styles go by, as a progress bar does.
    """
    with paddle.no_grad():
        styles = system.reference_styles(references, domains)
    rows = [sources, *system.in_styles(sources, shown(styles))]
    left = [np.full_like(sources[0], 255), *references]
    rows = [np.stack([image, *row]) for image, row in zip(left, rows, strict=True)]
    return tiled(np.concatenate(rows), len(rows[0]))
