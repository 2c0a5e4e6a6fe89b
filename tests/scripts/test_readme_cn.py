"""README_cn.md says what README.md says: the same commands, tables, links, pictures, headings."""

import ast
import re
import shlex

import pytest

from tests import ROOT

ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README_cn.md").read_text(encoding="utf-8")
LANGUAGES = {"README.md", "README_cn.md"}


FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def without_code(text: str) -> str:
    return FENCE.sub("", text)


def blocks(text: str, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(text) if name == language]


def commands(text: str) -> list[list[str]]:
    """Words of each command; comments are translated."""
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def programs(text: str) -> list[str]:
    return [ast.dump(ast.parse(block)) for block in blocks(text, "python")]


def levels(text: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", without_code(text), re.M)]


def files(text: str) -> list[str]:
    """Where links and pictures lead, except to places on the same page and the other language."""
    links = re.findall(r"\]\(([^)#][^)]*)\)", text)
    return [link for link in links if link not in LANGUAGES]


def code(text: str) -> list[str]:
    """What is set as code, in the order of the alphabet, for sentences are built differently."""
    return sorted(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", without_code(text)))


def rows(text: str) -> list[tuple[int, list[str], list[str]]]:
    """Of each row of a table: number of cells, code of the first, numbers of all in order."""
    found = []
    for line in re.findall(r"^\|(.*)\|$", text, re.M):
        cells = line.split("|")
        numbers = re.findall(r"\d+(?:\.\d+)?(?:e-\d+)?", line)
        found.append((len(cells), re.findall(r"`([^`]+)`", cells[0]), numbers))
    return found


def tree(text: str) -> list[str]:
    """Names in the overview of folders, which stand before two spaces."""
    return [line.split("  ")[0] for block in blocks(text, "") for line in block.splitlines()]


@pytest.mark.parametrize(
    "of", [commands, programs, levels, files, code, rows, tree], ids=lambda of: of.__name__
)
def test_both_languages_say_the_same(of):
    english, chinese = of(ENGLISH), of(CHINESE)
    assert english, "nothing was found to compare"
    missing = [one for one in english if one not in chinese]
    extra = [one for one in chinese if one not in english]
    assert chinese == english, (
        f"README.md and README_cn.md differ in their {of.__name__}. Only in README.md: {missing};"
        f" only in README_cn.md: {extra}. Change README_cn.md as README.md was changed: translate"
        " the sentences around, and keep commands, file names, numbers and their order."
    )


def test_each_language_leads_to_the_other():
    assert "(README_cn.md)" in ENGLISH and "(README.md)" in CHINESE
