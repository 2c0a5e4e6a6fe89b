"""Mixed precision: bfloat16 where the GPU computes it, else float16 with a loss scale."""

from __future__ import annotations

import contextlib

import paddle

from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2_ops import exact


class MixedPrecision:
    """16-bit arithmetic for one optimizer's losses, or plain arithmetic where it is not enabled.

    Args:
        enabled: whether `--amp` was given.

    Raises:
        ConfigError: it is enabled on a CPU, for which Paddle has no 16-bit training.
    """

    def __init__(self, enabled: bool):
        if enabled and not paddle.device.get_device().startswith("gpu"):
            raise ConfigError("--amp: Paddle has 16-bit training on GPUs only; leave it out here")
        self.enabled = enabled
        self.dtype = "bfloat16" if enabled and paddle.amp.is_bfloat16_supported() else "float16"
        self._scaler = paddle.amp.GradScaler(enable=enabled and self.dtype == "float16")

    def arithmetic(self):
        """Return the context in which forward passes run.

        Paddle's list of what 16 bits are for lacks the transposed convolution, the generator's
        heaviest operation.
        """
        if not self.enabled:
            return contextlib.nullcontext()
        return paddle.amp.auto_cast(dtype=self.dtype, custom_white_list={"conv2d_transpose"})

    def exact(self):
        """Return a context, within `arithmetic`, for what 16 bits are too coarse for."""
        return exact() if self.enabled else contextlib.nullcontext()

    def scale(self, loss: paddle.Tensor) -> paddle.Tensor:
        """What to call `backward` on."""
        return self._scaler.scale(loss)

    def step(self, optimizer) -> None:
        """Step the optimizer with the gradients of scaled losses."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict:
        return self._scaler.state_dict()

    def restore(self, state: dict) -> None:
        self._scaler.load_state_dict(state)
