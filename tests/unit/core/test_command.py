"""How a command ends: its status, and one line in place of a traceback."""

import errno

import pytest

from paddle_sam.core.command import command, exit_status
from paddle_sam.errors import ConfigError


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


@pytest.mark.parametrize(("done", "failed", "status"), [(3, 0, 0), (1, 2, 1), (0, 2, 2), (0, 0, 2)])
def test_status_of_several_inputs(done, failed, status):
    assert exit_status(done, failed) == status
