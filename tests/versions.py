"""Run the core of the suite with other versions of what the package needs (docs/versions.md).

    python -m tests.versions --lowest
    python -m tests.versions --paddle 3.0.0 2.6.2 --python python3.10 python3.12

`--lowest` installs exactly the lowest version of every dependency that pyproject.toml states.
`--paddle` installs the newest of them beside each of the given versions of Paddle; where that needs
other versions, `--with` names them: --with 'numpy<2'. Each is tried with every `--python`. Every
environment is made in a temporary folder and removed. Prints a row of a table and the tests that
failed for each, as they end; the exit status is 1 if one failed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

from tests import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest has it there

# Fast, and together they touch every dependency and every trainer. None of them imports torch.
CORE = (
    "tests/unit/core/test_device.py",
    "tests/unit/core/test_images.py",
    "tests/unit/core/test_video.py",
    "tests/unit/core/test_weight_file.py",
    "tests/unit/faces/test_alignment.py",
    "tests/unit/faces/test_landmarks.py",
    "tests/unit/faces/test_paste.py",
    "tests/unit/networks/test_codes.py",
    "tests/unit/networks/test_conditional.py",
    "tests/unit/networks/test_face_recognition.py",
    "tests/unit/networks/test_load.py",
    "tests/unit/networks/test_sam.py",
    "tests/unit/networks/test_stargan2.py",
    "tests/unit/networks/test_stylegan2_discriminator.py",
    "tests/unit/networks/test_stylegan2_ops.py",
    "tests/unit/ageing/test_mixing.py",
    "tests/unit/ageing/train/test_trainer.py",
    "tests/unit/export/test_engine.py",
    "tests/unit/export/test_operators.py",
    "tests/unit/training/test_adam.py",
    "tests/unit/training/test_amp.py",
    "tests/unit/training/test_distributed.py",
    "tests/unit/training/test_ranger.py",
    "tests/unit/training/test_state.py",
    "tests/unit/training/test_synchronisation.py",
    "tests/unit/stylegan2/train/test_trainer.py",
    "tests/unit/stargan2/test_trainer.py",
    "tests/unit/demo/test_app.py",
    "tests/unit/imagesets/test_training_data.py",
)
RUNNER = ("pytest", "hypothesis")


@dataclass
class Outcome:
    """What one environment holds, and how the tests ended in it."""

    versions: dict[str, str]
    passed: int = 0
    skipped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)  # test, first line of the reason


def lowest(requirement: str) -> str:
    """Return a requirement that only the lowest version it allows fulfils.

    >>> lowest("numpy>=2.0"), lowest("opencv>=4.10,<5"), lowest("setuptools")
    ('numpy==2.0', 'opencv==4.10', 'setuptools')
    """
    return re.sub(r">=([0-9.]+).*", r"==\1", requirement)


def try_versions(python: str, requirements: list[str]) -> Outcome:
    """Run `CORE` in a new environment that holds these requirements and what they need.

    Raises:
        subprocess.CalledProcessError: the environment could not be made.
    """
    with tempfile.TemporaryDirectory(prefix="paddle_sam_versions") as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        python = str(Path(folder, "bin", "python"))
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        install = [*pip, "install", "--quiet", "--prefer-binary", *requirements, *RUNNER]
        subprocess.run(install, check=True)
        listing = subprocess.run(
            [*pip, "list", "--format=freeze"], check=True, capture_output=True, text=True
        )
        versions = dict(line.lower().split("==") for line in listing.stdout.split())
        number = "import platform; print(platform.python_version())"
        versions["python"] = subprocess.check_output([python, "-c", number], text=True).strip()
        report = Path(folder, "report.xml")
        tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        # What pytest prints goes to stderr; this command's stdout is the table.
        command = [*tests, "--tb=line", *CORE]
        subprocess.run(command, cwd=ROOT, env=environment, check=False, stdout=sys.stderr)
        return _read(report, versions)


def _read(report: Path, versions: dict[str, str]) -> Outcome:
    outcome = Outcome(versions)
    if not report.exists():  # Python itself died
        outcome.failed.append(("the whole run", "pytest ended without a report"))
        return outcome
    for case in ET.parse(report).iter("testcase"):
        problem = next((part for part in case if part.tag in ("failure", "error")), None)
        if problem is not None:
            name = f"{case.get('classname')}.{case.get('name')}".removeprefix(".")
            reason = (problem.get("message") or "").strip().partition("\n")[0]
            outcome.failed.append((name, reason))
        elif case.find("skipped") is not None:
            outcome.skipped += 1
        else:
            outcome.passed += 1
    return outcome


HEAD = "| Paddle | Python | NumPy | passed | failed | skipped |\n|---|---|---|---|---|---|"


def row(outcome: Outcome) -> str:
    """Return an outcome as a row of the Markdown table that `HEAD` begins."""
    versions = outcome.versions
    paddle = versions.get("paddlepaddle") or f"{versions['paddlepaddle-gpu']} (GPU build)"
    counts = outcome.passed, len(outcome.failed), outcome.skipped
    return f"| {' | '.join(map(str, (paddle, versions['python'], versions['numpy'], *counts)))} |"


def main(argv: list[str] | None = None) -> int:
    """Try the versions that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--lowest", action="store_true", help="the lowest version of everything")
    which.add_argument("--paddle", nargs="+", metavar="VERSION", help="such as 3.0.0 2.6.2")
    parser.add_argument("--gpu", action="store_true", help="paddlepaddle-gpu, with --paddle")
    parser.add_argument("--with", nargs="+", default=[], metavar="REQUIREMENT", dest="others")
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="Pythons to use")
    args = parser.parse_args(argv)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = project["dependencies"] + extras["train"]
    if args.lowest:
        wanted = [[lowest(name) for name in [*needed, *extras["cpu"]]]]
    else:
        build = "paddlepaddle-gpu" if args.gpu else "paddlepaddle"
        wanted = [[*needed, f"{build}=={version}", "setuptools"] for version in args.paddle]
    print(HEAD, flush=True)
    failed = False
    for python, names in itertools.product(args.python, wanted):
        outcome = try_versions(python, [*names, *args.others])
        print(row(outcome), flush=True)
        for name, reason in outcome.failed:
            print(f"    {name}: {reason[:200]}", flush=True)
        failed = failed or bool(outcome.failed)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
