import pytest

from paddle_sam.core.weight_file import save_file
from tests.unit.export.tiny import ARCH, tiny_sam


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    """An empty cache of exported models."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PADDLE_SAM_CACHE", str(folder))
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    """A weight file of a network of the smallest size."""
    state = {name: value.numpy() for name, value in tiny_sam().state_dict().items()}
    path = tmp_path / "tiny.pdparams"
    network = {"network": "sam", "arch": ARCH, "state": state}
    save_file(path, {"kind": "sam", "networks": {"sam": network}, "alignment": {"size": 32}})
    return path
