"""What a weight file's encoder takes, and what it and HyperStyle make of it.

What an encoder takes is told by its channels. 3 are a photograph, also a small or shrunk one
(super-resolution), or one to be turned or drawn (frontalisation, cartoons), in [-1, 1]; 6 the same
with the image so far (ReStyle); 1 a sketch, in [0, 1]; any other number the classes of a label
map, one plane each. So Richardson et al., "Encoding in Style" (2021), section 4, prepare them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import paddle
from PIL import Image

from paddle_sam.ageing.latent_options import InvertOptions
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT, read_inverter
from paddle_sam.core.images import (
    crop_square,
    crop_to_ratio,
    read_image,
    read_labels,
    resize,
    to_network,
    to_uint8,
)
from paddle_sam.core.weights import WeightFile, find_weight
from paddle_sam.errors import CheckpointError, ConfigError, ImageError
from paddle_sam.faces.alignment import CropSettings
from paddle_sam.networks.hyperstyle import HyperStyle
from paddle_sam.networks.load import build
from paddle_sam.networks.sam import SAM, without_margins
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.networks.stylegan2_ops import mix_latents, seed_latents
from paddle_sam.options import parse_codes


class PictureEncoder:
    """A network that turns pictures into codes, and how it takes them.

    Args:
        network: pSp, e4e, ReStyle or SAM (whose frozen pSp encoder is meant), in eval mode.
        crop: how faces are cut from photographs.
        steps: of ReStyle or HyperStyle; 0 takes as many as it was trained for.
        factor: how many times photographs are shrunk before they are encoded.
        source: what the weights are called, for messages.
        tuner: HyperStyle, which tunes its generator for each photograph; its codes begin at its own
            mean code. It takes one picture at a time.

    `kind` is `photo`, `sketch`, `labels` or `car`: a wide picture without a face, to whose shape
    images are cut. `size` is the width, `rows` the height of what the encoder takes.

    Raises:
        CheckpointError: the network has no encoder of pictures.
        ConfigError: an option that this network does not have.
    """

    def __init__(
        self,
        network: SAM,
        crop: CropSettings,
        steps: int = 0,
        factor: int = 1,
        source: str = "network",
        tuner: HyperStyle | None = None,
    ):
        self.network, self.crop, self.factor = network, crop, factor
        self.size = crop.size
        channels = network.encoder.in_channels
        self._frozen = network.start == "encoded_w_plus"
        if channels == 4 and not self._frozen:
            raise CheckpointError(
                f"{source}: its encoder takes a photograph and an age, and there is no frozen one"
                " beside it; expected SAM, pSp, e4e or ReStyle"
            )
        self.tuner, self.decoder_arch = tuner, None
        if tuner is not None:
            codes, expected = network.n_codes, tuner.decoder.n_codes
            if (channels, codes, network.start) != (3, expected, "latent_avg"):
                raise ConfigError(
                    f"--w_encoder_checkpoint_path: expected pSp or e4e with {expected} codes of a"
                    f" photograph, found an encoder of {channels} channels with {codes}"
                )
            network.latent_avg.set_value(tuner.latent_avg)
        elif steps and channels != 6:
            raise ConfigError(
                f"--steps: {source} encodes in one step; ReStyle and HyperStyle take several"
            )
        self._steps = steps
        self.channels = 3 if self._frozen or channels == 6 else channels
        self.rows = self.size if self._frozen else network.encoder.rows
        self.kind = {1: "sketch", 3: "photo"}.get(self.channels, "labels")
        if self.kind == "photo" and self.rows < self.size:
            self.kind = "car"
        if factor > 1 and self.kind != "photo":
            raise ConfigError(f"--resize_factors: {source} takes a {self.kind}, not a photograph")

    @classmethod
    def open(
        cls,
        path: str | os.PathLike | None = None,
        steps: int = 0,
        factor: int = 1,
        w_encoder: str | os.PathLike = "",
    ) -> PictureEncoder:
        """Build from a converted or trained weight file; None takes the embedded model.

        `w_encoder` is the weight file of the encoder that HyperStyle starts from.
        """
        path = Path(path) if path else find_weight(EMBEDDED_DEFAULT)
        file = WeightFile.read(path)
        tunes = file.kind == "hyperstyle"
        if tunes and not w_encoder:
            raise ConfigError(
                f"--w_encoder_checkpoint_path: {path} is HyperStyle, which starts from the code of"
                " another file; name its W encoder"
            )
        if w_encoder and not tunes:
            raise ConfigError(
                f"--w_encoder_checkpoint_path: is for HyperStyle, found {path} of {file.kind}"
            )
        opened = read_inverter(Path(w_encoder) if tunes else file)
        found = cls(
            opened.network,
            opened.crop,
            steps,
            factor,
            str(path),
            build(file, expect=HyperStyle) if tunes else None,
        )
        found.decoder_arch = file.entry().arch.get("decoder") if tunes else None
        return found

    def read(self, path: Path) -> np.ndarray:
        """A sketch, uint8 [S, S, 3], or a label map, uint8 [S, S], of a file."""
        if self.kind == "labels":
            return self.fit(read_labels(path), str(path))
        return self.fit(read_image(path), str(path))

    def fit(self, picture: np.ndarray, name: str = "picture") -> np.ndarray:
        """A picture as large as the encoder takes it; of one of another shape the centre.

        Args:
            picture: uint8 [H, W, 3], or a label map [H, W].
            name: what messages call it.
        """
        if self.kind != "labels":
            return resize(crop_to_ratio(picture, self.rows, self.size), (self.rows, self.size))
        if picture.ndim != 2 or picture.dtype != np.uint8:
            raise ImageError(
                f"{name}: expected a label map, uint8 [H, W], found {picture.dtype}"
                f" {list(picture.shape)}"
            )
        square = crop_square(picture)
        if (found := int(square.max())) >= self.channels:
            raise ImageError(
                f"{name}: found the label {found}, this encoder knows 0 to {self.channels - 1}"
            )
        nearest = Image.fromarray(square).resize((self.size, self.size), Image.Resampling.NEAREST)
        return np.asarray(nearest)

    def prepare(self, pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Fitted pictures as the encoder takes them: float32 [N, C, S, S], and as one sees them."""
        if self.kind == "labels":
            known = np.arange(self.channels, dtype=np.uint8)[:, None, None]
            planes = (np.stack(pictures)[:, None] == known).astype(np.float32)
            return planes, [_coloured(one, self.channels) for one in pictures]
        if self.kind == "sketch":
            grey = [np.asarray(Image.fromarray(one).convert("L")) for one in pictures]
            shown = [np.repeat(one[..., None], 3, axis=2) for one in grey]
            return np.stack(grey)[:, None].astype(np.float32) / 255, shown
        shown = [shrink(one, self.factor) for one in pictures]
        return to_network(shown), shown

    def codes(self, planes: np.ndarray) -> Iterator[paddle.Tensor]:
        """Codes [N, L, D] of prepared pictures [N, C, S, S] after each step of the encoder."""
        images = paddle.to_tensor(planes)
        with paddle.no_grad():
            if self._frozen:
                yield self.network.invert(images)
            else:
                steps = 0 if self.tuner else self._steps
                yield from self.network.encode_in_steps(images, steps=steps)

    def inversions(
        self, planes: np.ndarray
    ) -> Iterator[tuple[paddle.Tensor, np.ndarray, Generator | None]]:
        """Yield codes [N, L, D] and images uint8 [N, R, R, 3] after each step.

        With them comes the generator that HyperStyle has tuned, of which N is 1.
        """
        for codes in self.codes(planes):
            if self.tuner is None:
                yield codes, self.render(codes), None
                continue
            for image, generator in self.tuner.tune(paddle.to_tensor(planes), codes, self._steps):
                yield codes, self._cut(image), generator

    def styled(self, code: paddle.Tensor, options: InvertOptions) -> paddle.Tensor:
        """Variants [M, L, D] of a code [1, L, D] with codes of random faces, by `--latent_mask`."""
        levels = parse_codes(options.latent_mask, self.network.n_codes, "--latent_mask")
        seeds = range(options.seed, options.seed + options.n_outputs_to_generate)
        with paddle.no_grad():
            z = seed_latents(seeds, self.network.style_dim)
            z = paddle.to_tensor(z, place=code.place)
            faces = self.network.map_latents(z).unsqueeze(1).expand([-1, code.shape[1], -1])
            return mix_latents(code.expand_as(faces), levels, faces, options.mix_alpha)

    def render(self, codes: paddle.Tensor) -> np.ndarray:
        """Images uint8 [N, R, R, 3] of codes [N, L, D], without random noise and margins."""
        with paddle.no_grad():
            images, _ = self.network.decode(codes, resize=False, randomize_noise=False)
        return self._cut(images)

    def _cut(self, images: paddle.Tensor) -> np.ndarray:
        return to_uint8(without_margins(images, self.rows, self.size))


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """An image [S, S, 3] made `factor` times smaller (bicubic) and as large again (bilinear)."""
    if factor == 1:
        return image
    side = max(len(image) // factor, 1)
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(small.resize(image.shape[1::-1], Image.Resampling.BILINEAR))


def _coloured(labels: np.ndarray, count: int) -> np.ndarray:
    """A label map [S, S] with a colour for each label: uint8 [S, S, 3]."""
    shares = np.arange(count)[:, None] * np.array([0.618, 0.381, 0.236])  # far apart, black first
    return np.rint(255 * (shares % 1.0)).astype(np.uint8)[labels]
