"""Pictures of any kind to codes and images: `scripts/invert.py`.

What an encoder takes is told by its channels. 3 are a photograph, also a small or shrunk one
(super-resolution), or one to be turned or drawn (frontalisation, cartoons), in [-1, 1]; 6 the same
with the image so far (ReStyle); 1 a sketch, in [0, 1]; any other number the classes of a label
map, one plane each. So Richardson et al., "Encoding in Style" (2021), section 4, prepare them.
HyperStyle tunes the generator for a photograph as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from PIL import Image

from paddle_sam.ageing.latent_options import InvertOptions
from paddle_sam.ageing.photos import (
    Failure,
    Input,
    Photo,
    Summary,
    counted,
    find_inputs,
    grouped,
    read_photos,
    without_done,
)
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT, EMBEDDED_NOTE, read_inverter
from paddle_sam.ageing.tuning import write_tuned
from paddle_sam.core.device import fitting_batch, resolve_device
from paddle_sam.core.files import check_name
from paddle_sam.core.images import (
    LARGE_TILE,
    ImageLike,
    as_image,
    crop_square,
    crop_to_ratio,
    read_image,
    read_labels,
    resize,
    save_image,
    stack,
    strip,
    to_network,
    to_uint8,
)
from paddle_sam.core.latents import Latent, picture_beside, save_latent
from paddle_sam.core.processes import batches
from paddle_sam.core.weights import WeightFile, find_weight
from paddle_sam.errors import CheckpointError, ConfigError, ImageError
from paddle_sam.faces.alignment import CropSettings, FaceCutter
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


@dataclass(frozen=True, eq=False)
class Pictures:
    """What is encoded of one input: of a photograph each face, of another picture itself.

    names: of the results, without suffix. fitted: see `PictureEncoder.fit`.
    """

    names: list[Path]
    fitted: list[np.ndarray]

    @property
    def faces(self) -> list[np.ndarray]:
        """What `counted` counts."""
        return self.fitted


def invert_pictures(options: InvertOptions) -> Summary:
    """Codes, image and sheet of every picture, under `exp_dir/inversion/`."""
    summary, root = Summary(), options.results / "inversion"
    inputs = find_inputs(options)
    inputs = without_done(options, inputs, summary, lambda one: root / one.result(".npz"))
    options.check_files()
    if not options.checkpoint_path:
        print(EMBEDDED_NOTE)
    resolve_device(options.device)
    encoder = PictureEncoder.open(
        options.checkpoint_path,
        options.steps,
        options.resize_factors,
        options.w_encoder_checkpoint_path,
    )
    together = options.test_batch_size or fitting_batch(encoder.network.output_size)
    if encoder.tuner is not None:
        if options.latent_mask:
            raise ConfigError(
                "--latent_mask: HyperStyle tunes its generator for one code; leave it"
            )
        together = 1

    def inverted() -> Iterator[Pictures | Failure]:
        for group in grouped(_read(options, inputs, encoder), together):
            pictures = [one for one in group if isinstance(one, Pictures)]
            _write(options, encoder, pictures, root, together)
            yield from group

    for _ in counted(inverted(), summary, len(inputs), root):
        pass
    return summary


def _read(
    options: InvertOptions, inputs: list[Input], encoder: PictureEncoder
) -> Iterator[Pictures | Failure]:
    """Each input as the encoder takes it, or why it cannot be used."""
    if encoder.kind == "photo":
        cutter = FaceCutter(encoder.crop, centre=True)
        for photo in read_photos(options, inputs, cutter):
            if isinstance(photo, Photo):
                photo = Pictures(photo.face_names(".npz"), list(photo.crops))
            yield photo
        return
    if any(one.path is None for one in inputs):
        raise ConfigError(
            f"--data_path: expected {encoder.kind} images, which this encoder takes; found none"
        )
    for one in inputs:
        try:
            check_name(one.result(".npz"))
            yield Pictures([one.result(".npz")], [encoder.read(one.path)])
        except ImageError as error:
            yield Failure(str(one.name), str(error))


def _write(
    options: InvertOptions,
    encoder: PictureEncoder,
    inputs: list[Pictures],
    root: Path,
    together: int,
) -> None:
    """Encode pictures, at most `together` at once, and write what comes out."""
    pairs = [pair for one in inputs for pair in zip(one.names, one.fitted, strict=True)]
    for part in batches(pairs, together):
        names, fitted = zip(*part, strict=True)
        planes, shown = encoder.prepare(fitted)
        steps, images, (*_, tuned) = zip(*encoder.inversions(planes), strict=True)
        tile = max(encoder.network.output_size, LARGE_TILE)
        tile = (tile * encoder.rows // encoder.size, tile)
        captions = ["input", *[f"step {k}" for k in range(1, len(steps))], "inversion"]
        for index, name in enumerate(names):
            image = images[-1][index]
            fitting = encoder.rows, encoder.size
            stands_for = resize(image, fitting) if encoder.kind != "photo" else shown[index]
            save_latent(root / name, Latent(steps[-1][index].numpy(), stands_for))
            save_image(picture_beside(root / name, "inversion"), image)
            if tuned is not None:
                generator = (root / name).with_name(f"{name.stem}-generator.pdparams")
                average = encoder.tuner.latent_avg
                write_tuned(generator, tuned, encoder.decoder_arch, average, encoder.crop)
            rows = [strip([shown[index], *[each[index] for each in images]], tile, captions)]
            if options.latent_mask:
                styled = encoder.styled(steps[-1][index : index + 1], options)
                variants = [encoder.render(one.unsqueeze(0))[0] for one in styled]
                seeds = range(options.seed, options.seed + len(variants))
                for seed, variant in zip(seeds, variants, strict=True):
                    save_image(picture_beside(root / name, f"style{seed}"), variant)
                rows.append(strip(variants, tile, [f"style {seed}" for seed in seeds]))
            save_image((root / name).with_name(f"{name.stem}-sheet.jpg"), stack(rows))


def invert_images(
    images: Sequence[ImageLike], encoder: PictureEncoder, align: bool = True, batch_size: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `paddle_sam.invert` does: images uint8 [N, R, R, 3], codes float32 [N, L, D]."""
    cutter = FaceCutter(encoder.crop, centre=True)
    fitted = []
    for number, one in enumerate(images):
        name = str(one) if isinstance(one, str | os.PathLike) else f"images[{number}]"
        if encoder.kind == "photo":
            fitted.append(cutter(as_image(one, name), "best", align, name)[0].image)
        elif isinstance(one, str | os.PathLike):
            fitted.append(encoder.read(Path(one)))
        elif encoder.kind == "labels":
            fitted.append(encoder.fit(np.asarray(one), name))
        else:
            fitted.append(encoder.fit(as_image(one, name), name))
    rendered, codes = [], []
    batch_size = 1 if encoder.tuner is not None else batch_size
    for part in batches(fitted, batch_size):
        planes, _ = encoder.prepare(part)
        *_, (last, images, _) = encoder.inversions(planes)
        codes.append(last.numpy())
        rendered.append(images)
    return np.concatenate(rendered), np.concatenate(codes)


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
