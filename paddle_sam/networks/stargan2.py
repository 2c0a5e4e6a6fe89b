"""StarGAN v2 (Choi et al. 2020, arXiv 1912.01865): one generator for every pair of K domains.

Shapes: images [N, 3, S, S] in [-1, 1], latent z [N, Z], style s [N, D], domain y [N] integers in
0..K-1. Parameter names follow the published PyTorch checkpoints, so that a key of one can be read
in the other. Weights start as He et al. (2015) propose, biases at zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.load import freeze
from paddle_sam.networks.stylegan2_ops import log2

# Where the high-pass skip is added: by feature size, which of the two masks limits it.
MASK_OF_SIZE = {32: 0, 64: 1, 128: 1}
HIGH_PASS = ((-1.0, -1.0, -1.0), (-1.0, 8.0, -1.0), (-1.0, -1.0, -1.0))
_SLOPE = 0.2
_MAPPING_WIDTH = 512


def published_width(img_size: int) -> int:
    """Channels after the first convolution of the published networks (64 at 256 pixels)."""
    return 2**14 // img_size


class ResidualBlock(nn.Layer):
    """Two 3x3 convolutions before activation, and a shortcut, summed / sqrt(2).

    Args:
        in_channels, out_channels: a 1x1 convolution adapts the shortcut where they differ.
        normalize: instance norm before each activation (in the generator).
        downsample: halve the resolution.
    """

    def __init__(self, in_channels, out_channels, normalize=False, downsample=False):
        super().__init__()
        self.downsample = downsample
        self.conv1 = conv(in_channels, in_channels, 3)
        self.conv2 = conv(in_channels, out_channels, 3)
        self.norm1 = nn.InstanceNorm2D(in_channels) if normalize else nn.Identity()
        self.norm2 = nn.InstanceNorm2D(in_channels) if normalize else nn.Identity()
        self.conv1x1 = shortcut(in_channels, out_channels)

    def forward(self, x):
        h = self._resize(self.conv1(leaky_relu(self.norm1(x))))
        h = self.conv2(leaky_relu(self.norm2(h)))
        return (self._resize(self.conv1x1(x)) + h) / math.sqrt(2)

    def _resize(self, x):
        return F.avg_pool2d(x, 2) if self.downsample else x


class AdaIN(nn.Layer):
    """Adaptive instance norm: (1 + gamma(s)) * norm(x) + beta(s)."""

    def __init__(self, style_dim, channels):
        super().__init__()
        self.norm = nn.InstanceNorm2D(channels, weight_attr=False, bias_attr=False)
        self.fc = linear(style_dim, 2 * channels)

    def forward(self, x, s):
        gamma, beta = self.fc(s).reshape([s.shape[0], 2, -1, 1, 1]).unbind(axis=1)
        return (1 + gamma) * self.norm(x) + beta


class StyledBlock(nn.Layer):
    """Two 3x3 convolutions with AdaIN before activation.

    Args:
        in_channels, out_channels, style_dim: widths.
        upsample: double the resolution (nearest neighbour).
        residual: add a shortcut, summed / sqrt(2). Generators with a high-pass skip leave it out,
            so that what they keep of the source passes the mask.
    """

    def __init__(self, in_channels, out_channels, style_dim, upsample=False, residual=True):
        super().__init__()
        self.upsample = upsample
        self.residual = residual
        self.conv1 = conv(in_channels, out_channels, 3)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.norm1 = AdaIN(style_dim, in_channels)
        self.norm2 = AdaIN(style_dim, out_channels)
        # Published files hold the shortcut's weights even where it is not used.
        self.conv1x1 = shortcut(in_channels, out_channels)
        if not residual:
            freeze(self.conv1x1)

    def forward(self, x, s):
        h = self.conv1(self._resize(leaky_relu(self.norm1(x, s))))
        h = self.conv2(leaky_relu(self.norm2(h, s)))
        return (h + self.conv1x1(self._resize(x))) / math.sqrt(2) if self.residual else h

    def _resize(self, x):
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.upsample else x


class HighPass(nn.Layer):
    """Filter every channel with the 3x3 Laplacian `HIGH_PASS` / w_hpf."""

    def __init__(self, w_hpf: float):
        super().__init__()
        self.register_buffer("filter", paddle.to_tensor(HIGH_PASS, "float32") / w_hpf)

    def forward(self, x):
        channels = x.shape[1]
        return F.conv2d(x, self.filter.expand([channels, 1, 3, 3]), padding=1, groups=channels)


class Generator(nn.Layer):
    """Image and style to the same content in that style.

    Args:
        img_size: S, height and width, a power of two of at least 32.
        style_dim: D.
        max_conv_dim: most channels of any layer.
        w_hpf: weight of the high-pass skip, larger keeps less of the source; 0 for none. Above 0
            there is one more down- and up-sampling and no shortcut in the decoder (published:
            1 for faces, 0 for animals).
        base_dim: channels at full resolution; None takes the published ones.
    """

    def __init__(
        self,
        img_size: int = 256,
        style_dim: int = 64,
        max_conv_dim: int = 512,
        w_hpf: float = 1.0,
        base_dim: int | None = None,
    ):
        super().__init__()
        widths = _widths(img_size, 8 if w_hpf > 0 else 16, max_conv_dim, base_dim)
        self.img_size = img_size
        self.style_dim = style_dim
        self.from_rgb = conv(3, widths[0], 3)
        self.to_rgb = nn.Sequential(
            nn.InstanceNorm2D(widths[0]), nn.LeakyReLU(_SLOPE), conv(widths[0], 3, 1)
        )
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        residual = w_hpf == 0
        self.encode = nn.LayerList(
            [ResidualBlock(high, low, normalize=True, downsample=True) for high, low in steps]
            + [ResidualBlock(widths[-1], widths[-1], normalize=True) for _ in range(2)]
        )
        self.decode = nn.LayerList(
            [StyledBlock(widths[-1], widths[-1], style_dim, residual=residual) for _ in range(2)]
            + [StyledBlock(low, high, style_dim, True, residual) for high, low in reversed(steps)]
        )
        self.w_hpf = w_hpf
        if w_hpf > 0:
            self.hpf = HighPass(w_hpf)

    def forward(
        self,
        images: paddle.Tensor,
        s: paddle.Tensor,
        masks: Sequence[paddle.Tensor] | None = None,
    ) -> paddle.Tensor:
        """images [N, 3, S, S] and s [N, D] -> images [N, 3, S, S], about in [-1, 1].

        Args:
            images: the source.
            s: the style to take on.
            masks: two [N, 1, h, w] of any size (`FaceHeatmaps.masks`): where the source's high
                frequencies are kept, at 32 pixels and at 64 and 128. None keeps none.
        """
        check_shape("images", images, (None, 3, self.img_size, self.img_size))
        check_shape("s", s, (images.shape[0], self.style_dim))
        if masks is not None and not hasattr(self, "hpf"):
            raise ConfigError("masks: this generator was built with w_hpf 0, without a skip")
        x = self.from_rgb(images)
        skips = {}
        for block in self.encode:
            if masks is not None and x.shape[2] in MASK_OF_SIZE:
                skips[x.shape[2]] = x
            x = block(x)
        for block in self.decode:
            x = block(x, s)
            if (size := x.shape[2]) in skips:
                mask = F.interpolate(masks[MASK_OF_SIZE[size]], size=[size, size], mode="bilinear")
                x = x + self.hpf(mask * skips[size])
        return self.to_rgb(x)


class MappingNetwork(nn.Layer):
    """Latent to style: four shared layers, then three and an output layer for each domain.

    Args:
        latent_dim: Z.
        style_dim: D.
        num_domains: K.
        width: of the hidden layers.
    """

    def __init__(
        self,
        latent_dim: int = 16,
        style_dim: int = 64,
        num_domains: int = 2,
        width: int = _MAPPING_WIDTH,
    ):
        super().__init__()
        self.latent_dim = latent_dim
        self.shared = nn.Sequential(*_linear_relu([latent_dim, *[width] * 4]))
        self.unshared = nn.LayerList(
            [
                nn.Sequential(*_linear_relu([width] * 4), linear(width, style_dim))
                for _ in range(num_domains)
            ]
        )

    def forward(self, z: paddle.Tensor, y: paddle.Tensor) -> paddle.Tensor:
        """z [N, Z] from the standard normal distribution, y [N] -> s [N, D]."""
        check_shape("z", z, (None, self.latent_dim))
        h = self.shared(z)
        return of_domain(paddle.stack([head(h) for head in self.unshared], axis=1), y)


class StyleEncoder(nn.Layer):
    """Reference image to its style in a domain. For the arguments see `Generator`."""

    def __init__(
        self,
        img_size: int = 256,
        style_dim: int = 64,
        num_domains: int = 2,
        max_conv_dim: int = 512,
        base_dim: int | None = None,
    ):
        super().__init__()
        layers, width = _image_trunk(img_size, max_conv_dim, base_dim)
        self.img_size = img_size
        self.shared = nn.Sequential(*layers)
        self.unshared = nn.LayerList([linear(width, style_dim) for _ in range(num_domains)])

    def forward(self, images: paddle.Tensor, y: paddle.Tensor) -> paddle.Tensor:
        """images [N, 3, S, S], y [N] -> s [N, D]."""
        check_shape("images", images, (None, 3, self.img_size, self.img_size))
        h = self.shared(images).squeeze([2, 3])
        return of_domain(paddle.stack([head(h) for head in self.unshared], axis=1), y)


class Discriminator(nn.Layer):
    """Real or generated, with one answer for each domain. For the arguments see `Generator`."""

    def __init__(
        self,
        img_size: int = 256,
        num_domains: int = 2,
        max_conv_dim: int = 512,
        base_dim: int | None = None,
    ):
        super().__init__()
        layers, width = _image_trunk(img_size, max_conv_dim, base_dim)
        self.img_size = img_size
        self.main = nn.Sequential(*layers, conv(width, num_domains, 1))

    def forward(self, images: paddle.Tensor, y: paddle.Tensor) -> paddle.Tensor:
        """images [N, 3, S, S], y [N] -> logits [N] of being a real image of domain y."""
        check_shape("images", images, (None, 3, self.img_size, self.img_size))
        # Not flatten(), which has no second derivative.
        return of_domain(self.main(images).squeeze([2, 3]), y)


def of_domain(heads: paddle.Tensor, y: paddle.Tensor) -> paddle.Tensor:
    """Pick from [N, K, ...] what belongs to domain y [N]: [N, ...].

    By a product, not by an index: it has a second derivative, which R1 needs, in every Paddle.
    """
    check_shape("y", y, (heads.shape[0],))
    chosen = F.one_hot(y, heads.shape[1]).astype(heads.dtype)
    return (heads * chosen.reshape([*chosen.shape, *[1] * (heads.ndim - 2)])).sum(axis=1)


def leaky_relu(x):
    return F.leaky_relu(x, _SLOPE)


def conv(in_channels, out_channels, kernel_size, bias=None):
    """Build a convolution that keeps height and width; `bias` False for none."""
    start = nn.initializer.KaimingNormal()
    padding = kernel_size // 2
    return nn.Conv2D(
        in_channels, out_channels, kernel_size, 1, padding, weight_attr=start, bias_attr=bias
    )


def linear(in_features, out_features):
    return nn.Linear(in_features, out_features, weight_attr=nn.initializer.KaimingNormal())


def shortcut(in_channels, out_channels):
    same = in_channels == out_channels
    return nn.Identity() if same else conv(in_channels, out_channels, 1, bias=False)


def _linear_relu(widths: Sequence[int]) -> list[nn.Layer]:
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return [layer for pair in pairs for layer in (linear(*pair), nn.ReLU())]


def _image_trunk(img_size, max_conv_dim, base_dim) -> tuple[list[nn.Layer], int]:
    """Layers from an image to [N, C, 1, 1], and C."""
    widths = _widths(img_size, 4, max_conv_dim, base_dim)
    blocks = [
        ResidualBlock(high, low, downsample=True)
        for high, low in zip(widths[:-1], widths[1:], strict=True)
    ]
    start = nn.initializer.KaimingNormal()
    last = nn.Conv2D(widths[-1], widths[-1], 4, weight_attr=start)
    return [
        conv(3, widths[0], 3),
        *blocks,
        nn.LeakyReLU(_SLOPE),
        last,
        nn.LeakyReLU(_SLOPE),
    ], widths[-1]


def _widths(img_size: int, smallest: int, max_conv_dim: int, base_dim: int | None) -> list[int]:
    """Channels at full resolution and after each halving down to `smallest` pixels."""
    steps = log2("img_size", img_size, 32) - log2("smallest", smallest, 4)
    first = base_dim or published_width(img_size)
    return [first, *[min(first << step, max_conv_dim) for step in range(1, steps + 1)]]
