"""How many images go through the networks together, where no option says it."""

from __future__ import annotations

from paddle_sam.core.runtime import free_memory

MOST = 16  # more at once gains nothing, on processors or GPUs

# Feature maps of the decoder's last resolution that one image needs at a time, as multiples of the
# largest: rendering by Paddle's layers, whose convolutions unfold their input ninefold, and
# following gradients through them.
_RENDERING, _WITH_GRADIENTS = 16, 32
_SHARE = 0.5  # of the free memory


def fitting_batch(output_size: int, gradients: bool = False) -> int:
    """Images of `output_size` pixels that fit into memory together, 1 to `MOST`.

    The largest feature map is taken to be that of the published StyleGAN2, which has
    32768 / output_size channels, at most 512.
    """
    channels = min(32768 // output_size, 512)
    largest = 4 * channels * output_size**2
    maps = _WITH_GRADIENTS if gradients else _RENDERING
    return max(1, min(MOST, int(_SHARE * free_memory()) // (maps * largest)))
