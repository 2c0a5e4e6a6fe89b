"""SAM: a face and a target age to a W+ code, and the code to an image.

Alaluf et al., "Only a Matter of Style: Age Transformation Using a Style-Based Regression Model"
(2021), section 3.1: w_plus = E_age(image, age) + E_pSp(image) + w_avg, image' = G(w_plus).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.errors import ConfigError
from paddle_sam.networks.face_networks import GradualStyleEncoder
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.networks.stylegan2_ops import mix_latents

if TYPE_CHECKING:
    from paddle_sam.networks.encoders import LastLayerEncoder

STARTS = ("encoded_w_plus", "latent_avg", "zero")


class SAM(nn.Layer):
    """Encoder, generator and, for ageing, the frozen pSp encoder whose code is the start.

    With `start="latent_avg"` and no pretrained encoder this is pSp itself, and ReStyle if the
    encoder takes 6 channels: a photograph and what its code renders, which is refined in steps.

    Args:
        encoder: predicts an offset in W+.
        decoder: renders W+.
        pretrained_encoder: the frozen pSp encoder; needed for `start="encoded_w_plus"`.
        start: what the encoder's offset is added to: `encoded_w_plus` (the frozen encoder's code
            plus `latent_avg`), `latent_avg`, or `zero`.
        iterations: steps of an encoder of 6 channels.

    Shapes: x [N, C, S, S] with S the encoder's input size; C is 4, RGB in [-1, 1] and one plane of
    age / 100, or 3 for pSp; an encoder of wide pictures has fewer rows. W+ codes are [N, L, D].
    """

    title = "a SAM or pSp network"

    def __init__(
        self,
        encoder: GradualStyleEncoder | LastLayerEncoder,
        decoder: Generator,
        pretrained_encoder: GradualStyleEncoder | None = None,
        start: str = "encoded_w_plus",
        iterations: int = 5,
    ):
        super().__init__()
        self.iterations = iterations
        if start not in STARTS:
            raise ConfigError(f"start: expected one of {', '.join(STARTS)}, found {start!r}")
        if start == "encoded_w_plus" and pretrained_encoder is None:
            raise ConfigError("start: encoded_w_plus needs a pretrained_encoder")
        if encoder.n_codes != decoder.n_codes:
            raise ConfigError(
                f"encoder: returns {encoder.n_codes} codes where the decoder of size {decoder.size}"
                f" takes {decoder.n_codes}"
            )
        self.encoder = encoder
        self.pretrained_encoder = pretrained_encoder
        self.decoder = decoder
        self.start = start
        self.input_size = encoder.input_size
        self.register_buffer("latent_avg", paddle.zeros([decoder.n_codes, decoder.style_dim]))

    @property
    def output_size(self) -> int:
        """Height and width of the images that the decoder renders."""
        return self.decoder.size

    @property
    def n_codes(self) -> int:
        """Number of W+ codes, L, that make up an image."""
        return self.decoder.n_codes

    @property
    def style_dim(self) -> int:
        """Size of one code, D."""
        return self.decoder.style_dim

    def map_latents(self, z: paddle.Tensor) -> paddle.Tensor:
        """Codes w [N, D] of random z [N, D], by the decoder's mapping network."""
        return self.decoder.style(z)

    def invert(self, images: paddle.Tensor) -> paddle.Tensor:
        """What the encoder's offset is added to, for images [N, 3, S, S]: [N, L, D], no gradient.

        That is the frozen pSp code plus `latent_avg`, or what `start` says instead. It does not
        depend on the age, so a caller with many ages for one face needs it once.
        """
        with paddle.no_grad():
            if self.start == "encoded_w_plus":
                return self.pretrained_encoder(images) + self.latent_avg
            average = self.start == "latent_avg"
            start = self.latent_avg if average else paddle.zeros_like(self.latent_avg)
            return start.expand([images.shape[0], -1, -1])

    @property
    def encodes_photographs(self) -> bool:
        """Whether the encoder itself inverts a photograph [N, 3, S, S]: pSp, e4e or ReStyle."""
        return self.encoder.in_channels in (3, 6)

    def encode(self, x: paddle.Tensor, inverted: paddle.Tensor | None = None) -> paddle.Tensor:
        """W+ code [N, L, D] of x, before any latent is masked.

        Args:
            x: [N, C, S, S].
            inverted: `invert(x[:, :3])` where it is known already.
        """
        *_, codes = self.encode_in_steps(x, inverted)
        return codes

    def encode_in_steps(
        self, x: paddle.Tensor, inverted: paddle.Tensor | None = None, steps: int = 0
    ) -> Iterator[paddle.Tensor]:
        """Yield what `encode` returns after each step of ReStyle's encoder; of others it alone.

        `steps` takes the place of `iterations`, if given.
        """
        codes = self.invert(x[:, :3]) if inverted is None else inverted
        if self.encoder.in_channels != 6:
            yield self.encoder(x) + codes
            return
        for _ in range(steps or self.iterations):
            images, _ = self.decode(codes, randomize_noise=False)
            images = without_margins(images, self.encoder.rows, self.input_size)
            codes = codes + self.encoder(paddle.concat([x, images], axis=1))
            yield codes

    def decode(
        self,
        codes: paddle.Tensor,
        input_is_latent: bool = True,
        resize: bool = True,
        randomize_noise: bool = True,
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Render codes: (images [N, 3, R, R], w_plus [N, L, D]).

        `resize` average-pools the image to the encoder's input size, S, which is the size the
        losses are computed at; otherwise R is the decoder's size.
        """
        images, w_plus = self.decoder(
            [codes],
            input_is_latent=input_is_latent,
            randomize_noise=randomize_noise,
            return_latents=True,
        )
        return pool(images, self.input_size) if resize else images, w_plus

    def forward(
        self,
        x: paddle.Tensor,
        resize: bool = True,
        latent_mask: Sequence[int] | None = None,
        input_code: bool = False,
        randomize_noise: bool = True,
        inject_latent: paddle.Tensor | None = None,
        return_latents: bool = False,
        alpha: float | None = None,
    ):
        """Transform x.

        Args:
            x: [N, C, S, S]; with `input_code` a latent z [N, D] that is rendered as it is.
            resize: pool the result to S (see `decode`).
            latent_mask: indices of W+ codes to replace.
            input_code: x is a latent.
            randomize_noise: fresh noise instead of the generator's stored buffers.
            inject_latent: [N or 1, L, D], what masked codes become; zero when None.
            return_latents: also return the final W+ code.
            alpha: blend: code = alpha * injected + (1 - alpha) * code; None replaces entirely.

        Returns:
            images [N, 3, R, R], or (images, w_plus [N, L, D]).
        """
        codes = x if input_code else self.encode(x)
        if latent_mask is not None:
            codes = mix_latents(codes, latent_mask, inject_latent, alpha)
        images, w_plus = self.decode(codes, not input_code, resize, randomize_noise)
        return (images, w_plus) if return_latents else images


def build_sam(
    encoder: Mapping,
    decoder: Mapping,
    pretrained_encoder: Mapping | None = None,
    start: str = "encoded_w_plus",
    iterations: int = 5,
) -> SAM:
    """SAM (or pSp) from the constructor arguments of its parts."""
    return SAM(
        _build_encoder(encoder),
        Generator(**decoder),
        None if pretrained_encoder is None else _build_encoder(pretrained_encoder),
        start,
        iterations,
    )


def _build_encoder(arch: Mapping) -> GradualStyleEncoder | LastLayerEncoder:
    if "one_code" not in arch and not arch.get("resnet"):
        return GradualStyleEncoder(**{name: arch[name] for name in arch if name != "resnet"})
    from paddle_sam.networks.encoders import build_other

    return build_other(arch)


def pool(images: paddle.Tensor, size: int) -> paddle.Tensor:
    """Average-pool images [N, 3, R, R] to [N, 3, size, size]."""
    return images if images.shape[-1] == size else F.adaptive_avg_pool2d(images, size)


def without_margins(images: paddle.Tensor, rows: int, size: int) -> paddle.Tensor:
    """Cut from images [N, 3, R, R] what lies above and below the middle `rows` of `size`.

    Generators of wide pictures, such as cars, pad them so to a square.
    """
    side = images.shape[2]
    margin = side * (size - rows) // (2 * size)
    return images[:, :, margin : side - margin]


def add_age_plane(images: paddle.Tensor, ages: paddle.Tensor) -> paddle.Tensor:
    """Images [N, 3, S, S] and ages [N] in years -> encoder input [N, 4, S, S]."""
    n, _, height, width = images.shape
    plane = (ages.astype(images.dtype) / 100.0).reshape([n, 1, 1, 1])
    return paddle.concat([images, plane.expand([n, 1, height, width])], axis=1)
