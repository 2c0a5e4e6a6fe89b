"""How a command starts and ends: quiet, with one line for an error, and with its exit status."""

from __future__ import annotations

import errno
import functools
import os
import sys
import warnings
from collections.abc import Callable

from paddle_sam.errors import PaddleSamError, flags_shown

# What Paddle warns about at every import or step, whatever the program does.
_PADDLE_NOISE = ("No ccache found", "When training, we now always track", r"\s*Non compatible API")


def quiet_paddle() -> None:
    """Keep Paddle's standing messages out of a command's output; call before importing it."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    for message in _PADDLE_NOISE:
        warnings.filterwarnings("ignore", message=message)


def exit_status(done: int, failed: int) -> int:
    """What a command over several inputs ends with: 0 all done, 1 some failed, 2 none was done."""
    return 2 if not done else int(failed > 0)


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Turn `main(argv=None)` into a command: a `PaddleSamError` becomes one printed line.

    So does a full disk, wherever it is noticed. The wrapped function returns the exit status: what
    `main` returned (None is 0), 2 after an error, 130 after Ctrl-C, 1 where nobody reads on.
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
            except BrokenPipeError:  # who reads the output, such as `head`, has seen enough
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
