import pytest

from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.stylegan2.generator import StyleGenerator
from tests import DEVICE
from tests.unit.ageing.tiny import tiny_generator
from tests.unit.export.tiny import ARCH, tiny_sam
from tests.unit.training import tiny


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
    network = NetworkEntry("sam", ARCH, state)
    WeightFile("sam", {"sam": network}, alignment={"size": 32}).write(path)
    return path


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Folder with the weight files and images of a small run; not to be changed."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.write_files(folder)
    return folder


@pytest.fixture(scope="session")
def pipeline():
    """The embedded default, layer by layer; not to be changed."""
    return AgePipeline.from_checkpoint(device=DEVICE, engine="eager")


@pytest.fixture(scope="session")
def generator():
    """A StyleGAN2 of the smallest size; not to be changed."""
    return StyleGenerator(tiny_generator())


_WAITING = ("numpy", "item", "tolist", "cpu", "copy_")
_WAITING += ("__array__", "__bool__", "__float__", "__index__", "__int__")


@pytest.fixture
def host_copies(monkeypatch):
    """Names of the tensor methods called that wait for a GPU, without those that they call.

    Every copy to the host does, and `copy_` where it is asked to.
    """
    import paddle

    found, inside = [], []

    def counted(name, method):
        def call(tensor, *arguments, **named):
            if not inside and (name != "copy_" or arguments[1:] != (False,)):
                found.append(name)
            inside.append(name)
            try:
                return method(tensor, *arguments, **named)
            finally:
                inside.pop()

        return call

    for name in _WAITING:
        monkeypatch.setattr(paddle.Tensor, name, counted(name, getattr(paddle.Tensor, name)))
    return found
