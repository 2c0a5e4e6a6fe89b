"""What pyproject.toml promises, and what an installed package holds."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from paddle_sam.ageing.options import SideBySideOptions
from paddle_sam.core.command import parse
from tests import ROOT

tomllib = pytest.importorskip("tomllib")  # Python 3.11
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_requirements_follow_from_pyproject():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    extras = PROJECT["optional-dependencies"]
    want = [*extras["cpu"], *PROJECT["dependencies"], *extras["train"]]
    assert [line for line in lines if not line.startswith("#")] == want


def test_every_dependency_states_its_lowest_version():
    for name in PROJECT["dependencies"]:
        assert re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", name), name


def run(*command, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    ("given", "folder"),
    [([], "results"), (["--labels"], "results"), (["--exp_dir", "mine"], "mine")],
)
def test_the_quickstart_leaves_the_committed_examples_alone(tmp_path, given, folder):
    """Without an environment, and with a `python` that says what it was given."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(ROOT / "scripts" / "quickstart.sh", scripts)
    (scripts / "environment.sh").write_text("")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$*"\n')
    python.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = ("bash", scripts / "quickstart.sh", *given)
    done = run(*command, cwd=tmp_path, env={**os.environ, "PATH": path})
    script, *words = done.stdout.splitlines()[-1].split()
    assert script.endswith("inference_side_by_side.py")
    options = parse(SideBySideOptions, words, "")
    assert options.results == Path(folder)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that was built from a source package, as installers do."""
    folder = tmp_path_factory.mktemp("dist")
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    files = run(*listing, cwd=ROOT).stdout.split("\0")
    source = tmp_path_factory.mktemp("source")
    for name in filter(None, files):
        if (ROOT / name).is_file() and not name.startswith(("docs/", "examples/", "tests/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_what_the_main_job_needs(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "paddle_sam/py.typed",
        "paddle_sam/demo/static/demo.js",
        "paddle_sam/installed_weights/manifest.json",
        "paddle_sam/installed_weights/sam_mini.pdparams",
        "paddle_sam/installed_weights/age_mini.pdparams",
        "paddle_sam/installed_weights/stylegan2_mini.pdparams",
        "paddle_sam/installed_scripts/inference_side_by_side.py",
        "paddle_sam/installed_convert/convert_weights.py",
    ):
        assert name in names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "paddle_sam").rglob("*.py")}
    assert modules <= set(names)


def test_the_command_works_away_from_the_repository(wheel, tmp_path):
    """In an environment of its own, which borrows the installed libraries but not the package."""
    venv.create(tmp_path / "env", with_pip=False)
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries))
    python = tmp_path / "env" / "bin" / "python"
    work = tmp_path / "work"
    work.mkdir()
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "PADDLE_SAM_CACHE": str(tmp_path / "cache"),
        "PADDLE_SAM_WEIGHTS": str(ROOT / "pretrained_models"),  # for the landmarks alone
    }
    options = {"cwd": work, "env": environment}
    where = run(python, "-c", "import paddle_sam; print(paddle_sam.__file__)", **options).stdout
    assert where.startswith(str(site))
    command = (python, "-m", "paddle_sam.cli", "age", "--exp_dir", "out", "--target_age", "10,70")
    run(*command, **options)
    assert [path.suffix for path in (work / "out").rglob("astronaut*")] == [".png"]
