"""How a command ends: its status, and one line in place of a traceback."""

import ast
import errno
import pkgutil
from pathlib import Path

import pytest

from paddle_sam.ageing.options import ExportOptions
from paddle_sam.core.command import command, exit_status, script
from paddle_sam.errors import ConfigError
from paddle_sam.options import Options
from tests import ROOT


def ending(error):
    @command
    def main(argv=None):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("--size: expected 64"), 2, "error: --size: expected 64\n"),
        (OSError(errno.ENOSPC, "No space", "out/log"), 2, "error: out/log: No space\n"),
        (OSError(errno.ENOSPC, "No space"), 2, "error: a file: No space\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, status, line, capsys):
    assert ending(error)() == status
    shown = capsys.readouterr().err
    assert shown.startswith(line) and shown.count("\n") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.EIO, "broken disk")])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        ending(error)()


def test_what_main_returns_is_the_status():
    assert command(lambda argv: None)() == 0
    assert command(lambda argv: argv)(1) == 1


SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_script_names_is_there(path):
    """Options and function of a script are named as text, which no import checks."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    for call in calls:
        if getattr(call.func, "id", "") == "script":
            options, function = (pkgutil.resolve_name(name.value) for name in call.args[1:3])
            assert issubclass(options, Options) and callable(function)


class Done:
    def status(self):
        return 1


@pytest.mark.parametrize(
    ("result", "status", "shown"),
    [
        (None, 0, ""),
        (Done(), 1, ""),
        (Path("run"), 0, "at run\n"),
        (iter(["a", "b"]), 0, "at a\nat b\n"),
    ],
)
def test_what_a_scripts_function_returns_is_shown(result, status, shown, monkeypatch, capsys):
    monkeypatch.setattr(
        pkgutil, "resolve_name", {"options": ExportOptions, "f": lambda _: result}.get
    )
    assert script("", "options", "f", "at {}")([]) == status
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(("done", "failed", "status"), [(3, 0, 0), (1, 2, 1), (0, 2, 2), (0, 0, 2)])
def test_status_of_several_inputs(done, failed, status):
    assert exit_status(done, failed) == status
