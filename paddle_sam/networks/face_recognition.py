"""Face recognition embeddings: IR-SE50 (ArcFace, the training loss) and CurricularFace IR-101.

Both are residual bodies with the same head. IR-SE50 supervises training, so it must carry
gradients to its input; CurricularFace (Huang et al. 2020) judges results independently of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn

from paddle_sam.errors import ConfigError, check_shape
from paddle_sam.networks.residual_body import (
    PUBLISHED_UNITS,
    PUBLISHED_WIDTHS,
    input_layer,
    residual_body,
)


class FaceEmbedder(nn.Layer):
    """Face crop to an identity embedding of unit length.

    Args:
        input_size: height and width of the crop, 112 in the published networks.
        units: residual units of the four stages.
        squeeze_excite: IR-SE body (IR-SE50) instead of IR (CurricularFace).
        head_affine: whether the last batch norm has a scale and an offset.
        dropout: drop probability before the linear layer; inactive in eval mode.
        embedding_dim: length of the embedding.
    """

    def __init__(
        self,
        input_size: int = 112,
        units: Sequence[int] = PUBLISHED_UNITS[50],
        squeeze_excite: bool = True,
        head_affine: bool = True,
        dropout: float = 0.6,
        embedding_dim: int = 512,
    ):
        super().__init__()
        if input_size < 16 or input_size % 16:
            raise ConfigError(f"input_size: expected a multiple of 16, found {input_size}")
        self.input_size = input_size
        width = PUBLISHED_WIDTHS[0]
        channels = PUBLISHED_WIDTHS[-1]
        self.input_layer = input_layer(3, width)
        self.body = residual_body(width, PUBLISHED_WIDTHS, units, squeeze_excite)
        affine = None if head_affine else False
        self.output_layer = nn.Sequential(
            nn.BatchNorm2D(channels),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(channels * (input_size // 16) ** 2, embedding_dim),
            nn.BatchNorm1D(embedding_dim, weight_attr=affine, bias_attr=affine),
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """x [N, 3, input_size, input_size] RGB in [-1, 1] -> embeddings [N, E], unit L2 norm.

        The cosine similarity of two faces is the dot product of their embeddings.
        """
        check_shape("x", x, (None, 3, self.input_size, self.input_size))
        x = self.output_layer(self.body(self.input_layer(x)))
        x = x.astype(self.output_layer[3].weight.dtype)  # also under mixed precision
        return x / paddle.sqrt((x * x).sum(axis=1, keepdim=True))
