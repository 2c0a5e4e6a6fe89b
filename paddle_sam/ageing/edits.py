"""Edits of aged codes: functions `(codes, inverted) -> codes`, all [N, L, D], that can be chained.

`codes` are those of the aged faces, `inverted` what the faces were inverted to, before ageing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import paddle

from paddle_sam.ageing.pipeline import Edit
from paddle_sam.networks.stylegan2 import mix_latents


def strengthen(factor: float) -> Edit:
    """Scale what ageing does: 0 keeps the inverted face, 1 is the model, beyond extrapolates."""
    return lambda codes, inverted: inverted + factor * (codes - inverted)


def shift(offset: paddle.Tensor) -> Edit:
    """Move every code by `offset` [L, D]."""
    return lambda codes, inverted: codes + offset


def mix(latent_mask: Sequence[int], injected: paddle.Tensor, alpha: float | None = None) -> Edit:
    """Blend the codes that `latent_mask` names with `injected` [N or 1, L, D].

    `alpha` is the share of what is injected; None replaces entirely.
    """
    return lambda codes, inverted: mix_latents(codes, latent_mask, injected, alpha)


def chain(edits: Sequence[Edit]) -> Edit | None:
    """One edit that applies `edits` in order; None for none."""
    if not edits:
        return None
    return lambda codes, inverted: functools.reduce(
        lambda changed, edit: edit(changed, inverted), edits, codes
    )
