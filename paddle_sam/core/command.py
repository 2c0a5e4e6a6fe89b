"""How a command starts and ends: quiet, with one line for an error, and with its exit status."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paddle_sam.errors import Note, PaddleSamError, flags_shown

# What Paddle and Pillow warn about whatever the program does. The limits of images are our own.
_NOISE = (
    "No ccache found",
    "When training, we now always track",
    r"\s*Non compatible API",
    r"Image size \(\d+ pixels\) exceeds limit",
)
_FULL = (errno.ENOSPC, errno.EDQUOT)


NO_PADDLE = (
    "PaddlePaddle is not installed. On a CPU: pip install 'paddlepaddle==3.2.2'. On a GPU"
    " install the paddlepaddle-gpu 3.2.2 that fits its CUDA; README.md has the lines."
)


def quiet_paddle() -> None:
    """Keep standing messages of Paddle and Pillow out of a command's output, before any import."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)


def show_notes() -> None:
    """Have each `Note` printed to stderr, as one line and whenever it is given."""
    show = warnings.showwarning

    def line(message, category, *arguments, **named) -> None:
        if not issubclass(category, Note):
            return show(message, category, *arguments, **named)
        from tqdm import tqdm

        return tqdm.write(f"note: {message}", file=sys.stderr)

    warnings.showwarning = line
    warnings.simplefilter("always", Note)


def open_streams() -> None:
    """Make stdout and stderr take any text: where they are closed, and whatever their encoding."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        with contextlib.suppress(AttributeError, ValueError):  # a stand-in of a notebook or test
            getattr(sys, name).reconfigure(errors="backslashreplace")


def exit_status(done: int, failed: int) -> int:
    """Exit status of a command over several inputs: 0 all done, 1 some failed, 2 none done."""
    return 2 if not done else int(failed > 0)


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Turn `main(argv=None)` into a command: a `PaddleSamError` becomes one printed line.

    So does what the system says of a file, wherever it is noticed. The wrapped function returns
    the exit status: what `main` returned (None is 0), 2 after an error, 130 after Ctrl-C, 1 if the
    reader of stdout has gone.
    """

    @functools.wraps(main)
    def wrapped(argv=None) -> int:
        open_streams()
        with warnings.catch_warnings(), flags_shown():
            quiet_paddle()
            show_notes()
            try:
                status = main(argv) or 0
                sys.stdout.flush()
                return status
            except PaddleSamError as error:
                return _failed(str(error))
            except ModuleNotFoundError as error:
                if error.name != "paddle":
                    raise
                return _failed(NO_PADDLE)
            except BrokenPipeError:  # the reader of the output, such as `head`, has seen enough
                _drop_output()
                return 1
            except OSError as error:
                if error.errno not in _FULL and not error.filename:
                    raise
                _drop_output() if error.filename is None else None
                return _failed(f"{error.filename or 'a file or stdout'}: {error.strerror}")
            except MemoryError as error:
                what = f" ({error})" if str(error) else ""
                return _failed(f"not enough memory{what}. Use smaller batches or images.")
            except KeyboardInterrupt:
                print("stopped", file=sys.stderr)
                return 130

    return wrapped


def _failed(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _drop_output() -> None:
    """Let what is still to be written to stdout go nowhere, so that leaving does not fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
        from paddle_sam.core.command_line import parse

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
