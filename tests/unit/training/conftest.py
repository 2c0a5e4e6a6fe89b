import pytest

from tests.unit.training import tiny


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Folder with the weight files and images of a small run; not to be changed."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.write_files(folder)
    return folder
