"""What the documents tell people to type exists and is understood; the Python example runs."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from paddle_sam.cli import COMMANDS, of_script
from paddle_sam.core import command
from paddle_sam.stargan2 import options as stargan2_options
from tests import ROOT

PAGES = [
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]
    if path.parent.name not in ("tests", ".venv")
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def command_lines() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in blocks(page, "(?:bash|sh)"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip() and not line.lstrip().startswith("#"):
                    found.append((str(page.relative_to(ROOT)), line.strip()))
    return found


class Understood(Exception):
    """Raised in place of running a command whose options were all understood."""


@pytest.fixture
def parse_only(monkeypatch):
    real = argparse.ArgumentParser.parse_args

    def parse_args(self, argv=None, namespace=None):
        real(self, argv, namespace)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    parse = command.parse

    def parse_options(*given, **named):
        parse(*given, **named)
        raise Understood

    for module in (command, stargan2_options):
        monkeypatch.setattr(module, "parse", parse_options)


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_every_command_is_understood(page, line, parse_only):
    words = [word for word in shlex.split(line, comments=True) if word != "..."]
    while "=" in words[0]:  # environment variables before the command
        words.pop(0)
    if words[0] == "bash":
        assert (ROOT / words[1]).is_file(), f"{page}: {words[1]}"
        return
    if words[0] == "paddle-sam":
        assert words[1] in COMMANDS, f"{page}: {line}"
        words = ["python", f"{COMMANDS[words[1]].script}.py", *of_script(words[1], words[2:])]
    if words[0] != "python":
        # Whatever else a page may use; a new tool is added here once it has been tried.
        assert words[0] in ("pip", "source", "git", "cd", "pytest", "visualdl"), f"{page}: {line}"
        return
    if words[1] == "-m" and not words[2].startswith(("tests.", "benchmarks.", "paddle_sam.")):
        assert words[2] in ("paddle.distributed.launch", "pip"), f"{page}: {line}"
        return
    name = words[2] if words[1] == "-m" else words[1].removesuffix(".py").replace("/", ".")
    arguments = words[3:] if words[1] == "-m" else words[2:]
    main = importlib.import_module(name).main
    if words[1] == "-m" and not arguments:
        return
    try:
        with pytest.raises(Understood):
            main(arguments)
    except SystemExit as error:
        raise AssertionError(f"{page}: {line}: options not understood") from error


def test_the_readme_has_commands_and_its_python_runs(capsys):
    assert len(command_lines()) >= 8
    for block in blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "(3, 104, 104, 3) uint8" in capsys.readouterr().out


def headings(page: Path) -> set[str]:
    """What a link's `#...` may name, as GitHub makes it of headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not heading or heading in headings(target), link
