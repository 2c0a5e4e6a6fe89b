"""Weight files to convert."""

import lzma

import numpy as np
import pytest

from paddle_sam.core.weights import WeightFile
from tests import ROOT


@pytest.fixture
def weights(tmp_path):
    """Return a weight file of version 0.1 with random numbers, filters and average excepted."""

    def read(kind):
        packed = ROOT / "tests" / "fixtures" / "weights" / f"{kind}.pdparams.xz"
        (tmp_path / "old.pdparams").write_bytes(lzma.decompress(packed.read_bytes()))
        file = WeightFile.read(tmp_path / "old.pdparams")
        rng = np.random.default_rng(0)
        for entry in file.networks.values():
            for name, array in entry.state.items():
                if not name.endswith(("kernel", "latent_avg")):
                    entry.state[name] = rng.normal(size=array.shape).astype("float32")
        return file

    return read
