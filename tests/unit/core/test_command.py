"""How a command ends: its status, and one line in place of a traceback."""

import ast
import errno
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from paddle_sam.ageing.options import ExportOptions
from paddle_sam.core.command import command, exit_status, script
from paddle_sam.demo.options import ENVIRONMENT
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
        (OSError(errno.ENOSPC, "No space"), 2, "error: a file or stdout: No space\n"),
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


def run(code, **options):
    lines = "from paddle_sam.core.command import command\n" + code
    command = [sys.executable, "-c", lines]
    return subprocess.run(command, capture_output=True, check=False, cwd=ROOT, **options)


@pytest.mark.parametrize("encoding", ["gbk", "cp1252", "ascii"])
def test_any_name_can_be_printed(encoding):
    code = r"command(lambda argv: print('\xf1and\xfa \u7167\u7247 \udcff'))(); print('then')"
    done = run(code, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"then\n") and rb"\udcff" in done.stdout


def test_a_note_is_one_line_each_time():
    code = (
        "import warnings\nfrom paddle_sam.errors import Note\n"
        "def main(argv):\n    for _ in range(2): warnings.warn('a.tif: has 3 pages', Note)\n"
        "command(main)()"
    )
    assert run(code).stderr == b"note: a.tif: has 3 pages\n" * 2


@pytest.mark.skipif(os.name == "nt", reason="shells of Unix")
@pytest.mark.parametrize(
    ("redirected", "status", "words"),
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        (">/dev/full", 2, "No space left"),
        ("| head -c 1 >&2", 1, ""),
    ],
)
def test_an_output_that_is_closed_or_full_is_no_traceback(redirected, status, words, tmp_path):
    (tmp_path / "c.py").write_text(
        "import sys\nfrom paddle_sam.core.command import command\n"
        "sys.exit(command(lambda argv: print('x' * 500_000))())"
    )
    line = f"set -o pipefail; {sys.executable} {tmp_path / 'c.py'} {redirected}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a.json"), "a.json: Permission denied"),
        (MemoryError(), "not enough memory. Use smaller batches or images."),
    ],
)
def test_what_the_system_says_is_one_line(error, line, capsys):
    assert ending(error)() == 2
    assert capsys.readouterr().err == f"error: {line}\n"


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


def test_variables_are_set_before_anything_is_loaded_and_given_ones_stay(monkeypatch):
    """The demo's threads sleep while they wait, unless somebody wants them otherwise."""
    monkeypatch.setenv("KMP_BLOCKTIME", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that it is removed again after the test
    monkeypatch.delenv("OMP_WAIT_POLICY")
    seen = {}
    found = {"options": ExportOptions, "f": lambda _: seen.update(os.environ), "env": ENVIRONMENT}
    monkeypatch.setattr(pkgutil, "resolve_name", found.get)
    assert script("", "options", "f", environment="env")([]) == 0
    assert (seen["OMP_WAIT_POLICY"], seen["KMP_BLOCKTIME"]) == ("PASSIVE", "7")
