"""How a command starts and ends: quiet, with one line for an error, and with its exit status."""

from __future__ import annotations

import errno
import functools
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable
from typing import Any

from paddle_sam.errors import PaddleSamError, flags_shown

# What Paddle warns about at every import or step, whatever the program does.
_PADDLE_NOISE = ("No ccache found", "When training, we now always track", r"\s*Non compatible API")


def quiet_paddle() -> None:
    """Keep Paddle's standing messages out of a command's output; call before importing it."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    for message in _PADDLE_NOISE:
        warnings.filterwarnings("ignore", message=message)


def exit_status(done: int, failed: int) -> int:
    """Exit status of a command over several inputs: 0 all done, 1 some failed, 2 none done."""
    return 2 if not done else int(failed > 0)


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Turn `main(argv=None)` into a command: a `PaddleSamError` becomes one printed line.

    So does a full disk, wherever it is noticed. The wrapped function returns the exit status: what
    `main` returned (None is 0), 2 after an error, 130 after Ctrl-C, 1 if stdout was closed.
    """

    @functools.wraps(main)
    def wrapped(argv=None) -> int:
        quiet_paddle()
        with flags_shown():
            try:
                status = main(argv) or 0
                sys.stdout.flush()
                return status
            except PaddleSamError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
            except BrokenPipeError:  # the reader of the output, such as `head`, has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                print(f"error: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print("stopped", file=sys.stderr)
                return 130

    return wrapped


def script(description: str, options: str, function: str, done: str = "{}") -> Callable[..., int]:
    """A command that reads options and calls a function with them.

    Both are named as in `paddle_sam.ageing.strips:side_by_side` and imported when they are needed,
    so that `--help` is instant. The function's result is None, an object whose `status()` is the
    exit status, or a path or several, which are printed.

    Args:
        description: for `--help`; the script's docstring.
        options: the class of options.
        function: what to call with them.
        done: how to print each path.
    """

    @command
    def main(argv=None) -> int:
        from paddle_sam.options import parse

        chosen = parse(pkgutil.resolve_name(options), argv, description)
        result = pkgutil.resolve_name(function)(chosen)
        if hasattr(result, "status"):
            return result.status()
        for path in _listed(result):
            print(done.format(path))
        return 0

    return main


def _listed(result: Any) -> Any:
    if result is None:
        return ()
    return (result,) if isinstance(result, str | os.PathLike) else result
