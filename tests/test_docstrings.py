"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import paddle_sam


def runs(example: doctest.Example) -> bool:
    return not example.options.get(doctest.SKIP)


def modules_with_examples() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages(paddle_sam.__path__, "paddle_sam.")]
    finder = doctest.DocTestFinder()
    return [
        name
        for name in names
        if any(any(map(runs, test.examples)) for test in finder.find(importlib.import_module(name)))
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples(name):
    module = importlib.import_module(name)
    globs = {**vars(module)}
    for library in ("numpy", "paddle"):
        globs.setdefault(library, importlib.import_module(library))
    globs.setdefault("np", globs["numpy"])
    outcome = doctest.testmod(module, extraglobs=globs, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted
    assert not outcome.failed
