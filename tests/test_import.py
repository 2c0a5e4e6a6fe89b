"""A clean import, in a fresh interpreter: `--help` answers before any framework is loaded."""

import json
import resource
import subprocess
import sys

import pytest

import paddle_sam
from tests import ROOT

COMMANDS = sorted([*ROOT.glob("scripts/*.py"), *ROOT.glob("convert/*.py")])
COMMANDS = [path for path in COMMANDS if path.name != "__init__.py"]
HEAVY = ("torch", "paddle", "skimage", "scipy", "dlib", "matplotlib")


def fresh(code: str, *arguments) -> tuple[dict, float, str]:
    """What a new interpreter has loaded after `code`, its CPU seconds, and what it printed."""
    report = (
        "import atexit, json, sys\n"
        f"heavy = {HEAVY!r}\n"
        "atexit.register(lambda: print('\\n' + json.dumps([n for n in heavy if n in sys.modules])))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", f"{report}\n{code}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    *printed, loaded = done.stdout.splitlines()
    return json.loads(loaded), seconds, "\n".join(printed)


def test_importing_the_package_loads_no_framework():
    loaded, seconds, _ = fresh("import paddle_sam; paddle_sam.__version__")
    assert loaded == []
    assert seconds < 1


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_help_loads_no_framework(path):
    code = "import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    loaded, seconds, printed = fresh(code, path, "--help")
    assert loaded == []
    assert seconds < 1
    assert path.name in printed and len(printed.splitlines()) > 5


def test_importing_a_model_loads_no_torch():
    loaded, _, _ = fresh("import paddle_sam.networks.load, paddle_sam.ageing.run")
    assert "torch" not in loaded and "dlib" not in loaded


def test_public_names():
    """Recorded, so that removing one is a decision."""
    assert paddle_sam.__all__ == [
        "AgePipeline",
        "Aged",
        "AlignedFace",
        "CheckpointError",
        "ConfigError",
        "CropSettings",
        "Directions",
        "EngineError",
        "FaceNotFoundError",
        "ImageError",
        "Inverted",
        "Judges",
        "OutputError",
        "PaddleSamError",
        "Projected",
        "StarGAN2",
        "StyleGenerator",
        "TrainingError",
        "Tuned",
        "WeightFile",
        "animate",
        "invert",
        "load",
        "losses",
        "mix",
        "paste_back",
        "project",
        "train",
        "train_age",
        "train_stargan2",
        "train_stylegan2",
        "tune",
    ]
    for name in paddle_sam.__all__:
        assert getattr(paddle_sam, name).__doc__
    assert issubclass(paddle_sam.ConfigError, ValueError)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        paddle_sam.nothing  # noqa: B018


def test_there_is_one_version():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert project["version"] == paddle_sam.__version__
    assert f"## {paddle_sam.__version__}" in changes
