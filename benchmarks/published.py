"""A SAM network of the published size, its weights made by the parity recipe (no torch needed)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paddle_sam.convert.recognise import recognise
from paddle_sam.convert.rules import to_paddle
from paddle_sam.convert.tables import TABLES
from paddle_sam.core.weights import load_strict
from paddle_sam.networks.load import build_empty
from paddle_sam.networks.sam import SAM
from tests.parity import recipe

NAME = "sam_ffhq_aging"


def published_sam() -> SAM:
    """1024 px, 567 million parameters, in eval mode."""
    manifest = recipe.manifest(NAME)
    content = {
        "state_dict": recipe.state_dict(NAME),
        "opts": manifest["opts"],
        "latent_avg": np.zeros(manifest["extra"]["latent_avg"], np.float32),
    }
    entry = recognise(content, Path(NAME)).networks["sam"]
    state = to_paddle(entry.state, TABLES[entry.table], NAME).state | entry.added
    content.clear()
    network = build_empty(entry.builder, entry.arch)
    load_strict(network, state, NAME, consume=True)
    network.eval()
    return network
