"""SAM: a face and a target age to a W+ code, and the code to an image; and its encoders.

Alaluf et al., "Only a Matter of Style: Age Transformation Using a Style-Based Regression Model"
(2021), section 3.1: w_plus = E_age(image, age) + E_pSp(image) + w_avg, image' = G(w_plus).

The encoders are those of pSp (Richardson et al., "Encoding in Style: a StyleGAN Encoder for
Image-to-Image Translation", 2021, section 3): an image to W+ offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.face_networks import (
    PUBLISHED_UNITS,
    PUBLISHED_WIDTHS,
    input_layer,
    residual_body,
    resnet_layers,
)
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.networks.stylegan2_ops import EqualLinear, log2, mix_latents

STARTS = ("encoded_w_plus", "latent_avg", "zero")
COARSE_STYLES = 3
MIDDLE_STYLES = 4


class MapToStyle(nn.Layer):
    """A feature map [N, C, S, S] to one code [N, D]: stride-2 convolutions down to one pixel."""

    def __init__(self, in_channels: int, style_dim: int, spatial: int):
        super().__init__()
        layers, channels = [], in_channels
        while spatial > 1:
            layers += [nn.Conv2D(channels, style_dim, 3, 2, padding=1), nn.LeakyReLU(0.01)]
            channels, spatial = style_dim, spatial // 2
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(style_dim, style_dim)

    def forward(self, x):
        return self.linear(self.convs(x).flatten(1))


class GradualStyleEncoder(nn.Layer):
    """Feature pyramid encoder with one map-to-style block per W+ code.

    The pyramid is tapped after the last unit of the second, third and fourth stage of the body;
    the coarse codes come from the last, the middle ones from the third, the fine ones from the
    second.

    Args:
        input_size: height and width of the input, a power of two of at least 32.
        in_channels: 3 for an image, 4 for an image and a target age plane.
        n_styles: number of W+ codes, L (attribute `n_codes`).
        style_dim: D, also the width of the pyramid.
        stem: channels of the first convolution.
        widths: channels of the four stages, of the last one D.
        units: residual units of the four stages (`PUBLISHED_UNITS` names the published depths).
        squeeze_excite: IR-SE body instead of IR.
        progressive: the first code is added to all others, as e4e does (Tov et al. 2021, sec. 5).
        pyramid: codes read three maps; otherwise all read the smallest, as in ReStyle (Alaluf et
            al. 2021, sec. 4).
        rows: height of the input, where it is not `input_size`.
        resnet: the body is that of a ResNet, as in ReStyle's encoders of other things than faces.
    """

    def __init__(
        self,
        input_size: int = 256,
        in_channels: int = 3,
        n_styles: int = 18,
        style_dim: int = 512,
        stem: int = 64,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        units: Sequence[int] = PUBLISHED_UNITS[50],
        squeeze_excite: bool = True,
        progressive: bool = False,
        pyramid: bool = True,
        rows: int | None = None,
        resnet: bool = False,
    ):
        super().__init__()
        self.progressive, self.pyramid = progressive, pyramid
        if len(widths) != 4 or len(units) != 4:
            raise ConfigError(f"widths, units: expected 4 stages, found {widths}, {units}")
        if widths[-1] != style_dim:
            raise ConfigError(
                f"widths: the pyramid adds the last stage to maps of style_dim channels, found"
                f" {widths[-1]} and {style_dim}"
            )
        log2("input_size", input_size, 32)
        self.input_size, self.rows = input_size, _rows(rows, input_size)
        self.in_channels, self.n_codes = in_channels, n_styles
        self.taps = [total - 1 for total in accumulate(units)][1:]
        if resnet:
            self.input_layer, self.body = resnet_layers(in_channels, stem, widths, units)
        else:
            self.input_layer = input_layer(in_channels, stem)
            self.body = residual_body(stem, widths, units, squeeze_excite)
        self.styles = nn.LayerList()
        for index in range(n_styles):
            spatial = input_size // 16 * self.pyramid_scale(index)
            self.styles.append(MapToStyle(style_dim, style_dim, spatial))
        if pyramid:
            self.latlayer1 = nn.Conv2D(widths[2], style_dim, 1)
            self.latlayer2 = nn.Conv2D(widths[1], style_dim, 1)

    def pyramid_scale(self, index: int) -> int:
        """Size of the feature map that code `index` reads, in units of the smallest map."""
        if not self.pyramid or index < COARSE_STYLES:
            return 1
        return 2 if index < COARSE_STYLES + MIDDLE_STYLES else 4

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x [N, in_channels, rows, input_size] in [-1, 1] -> codes [N, L, D]."""
        check_shape("x", x, (None, self.in_channels, self.rows, self.input_size))
        x = self.input_layer(x)
        tapped = []
        for index, unit in enumerate(self.body):
            x = unit(x)
            if index in self.taps:
                tapped.append(x)
        fine, middle, coarse = tapped
        if self.pyramid:
            middle = upsample_add(coarse, self.latlayer1(middle))
            fine = upsample_add(middle, self.latlayer2(fine))
        pyramid = {1: coarse, 2: middle, 4: fine}
        codes = [
            block(pyramid[self.pyramid_scale(index)]) for index, block in enumerate(self.styles)
        ]
        if self.progressive:
            codes[1:] = [codes[0] + offset for offset in codes[1:]]
        return paddle.stack(codes, axis=1)


def upsample_add(x: paddle.Tensor, lateral: paddle.Tensor) -> paddle.Tensor:
    """`lateral` plus x resized to its size (bilinear, corners aligned)."""
    return lateral + F.interpolate(x, lateral.shape[2:], mode="bilinear", align_corners=True)


def _rows(rows: int | None, input_size: int) -> int:
    if rows is not None and not 0 < rows <= input_size:
        raise ConfigError(f"rows: expected 1 to {input_size}, found {rows}")
    return input_size if rows is None else rows


class LastLayerEncoder(nn.Layer):
    """An IR-SE body whose last map gives all codes at once (pSp's ablation, paper section 4.1).

    Args:
        one_code: one code is predicted, from the mean of the map, and repeated: the image is
            inverted into W. Otherwise the map, pooled to 7x7, gives L codes.
        input_size, in_channels, n_styles, style_dim, stem, widths, units, squeeze_excite, rows: as
            of `GradualStyleEncoder`.
    """

    def __init__(
        self,
        one_code: bool,
        input_size: int = 256,
        in_channels: int = 3,
        n_styles: int = 18,
        style_dim: int = 512,
        stem: int = 64,
        widths: Sequence[int] = PUBLISHED_WIDTHS,
        units: Sequence[int] = PUBLISHED_UNITS[50],
        squeeze_excite: bool = True,
        rows: int | None = None,
    ):
        super().__init__()
        if not 32 <= input_size <= 4096:
            raise ConfigError(f"input_size: expected 32 to 4096, found {input_size}")
        self.input_size, self.rows = input_size, _rows(rows, input_size)
        self.in_channels, self.one_code = in_channels, one_code
        self.n_codes, self.style_dim = n_styles, style_dim
        self.input_layer = input_layer(in_channels, stem)
        self.body = residual_body(stem, widths, units, squeeze_excite)
        width = widths[-1]
        if not one_code:
            self.output_layer_2 = nn.Sequential(
                nn.BatchNorm2D(width),
                nn.AdaptiveAvgPool2D(7),
                nn.Flatten(),
                nn.Linear(width * 7**2, style_dim),
            )
        features, codes = (width, 1) if one_code else (style_dim, n_styles)
        self.linear = EqualLinear(features, codes * style_dim)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x [N, in_channels, rows, input_size] in [-1, 1] -> codes [N, L, D]."""
        check_shape("x", x, (None, self.in_channels, self.rows, self.input_size))
        x = self.body(self.input_layer(x))
        x = x.mean(axis=3).mean(axis=2) if self.one_code else self.output_layer_2(x)
        codes = self.linear(x).reshape([x.shape[0], -1, self.style_dim])
        return codes.expand([-1, self.n_codes, -1])


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
        self.input_size, self.output_size = encoder.input_size, decoder.size
        self.n_codes, self.style_dim = decoder.n_codes, decoder.style_dim
        self.register_buffer("latent_avg", paddle.zeros([decoder.n_codes, decoder.style_dim]))

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
    return LastLayerEncoder(**arch) if "one_code" in arch else GradualStyleEncoder(**arch)


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
