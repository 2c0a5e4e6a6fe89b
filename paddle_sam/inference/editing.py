"""Edits of aged codes: functions `(codes, inverted) -> codes`, all [N, L, D], that can be chained.

`codes` are those of the aged faces, `inverted` what the faces were inverted to, before ageing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from paddle_sam.inference.pipeline import Edit


def strengthen(factor: float) -> Edit:
    """Scale what ageing does: 0 keeps the inverted face, 1 is the model, beyond extrapolates."""
    return lambda codes, inverted: inverted + factor * (codes - inverted)


def chain(edits: Sequence[Edit]) -> Edit | None:
    """One edit that applies `edits` in order; None for none."""
    if not edits:
        return None
    return lambda codes, inverted: functools.reduce(
        lambda changed, edit: edit(changed, inverted), edits, codes
    )
