"""The errors a user can mend, and the shape check every network uses.

A message names the option or file, what was found, what was expected and what to do next. Options
are written as flags. A command prints the message as it is, without a traceback
(`paddle_sam.core.command`); in Python the flags read as what they are there, names of arguments.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

# What a file's name may hold that a terminal takes for a command.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
# A command to run, which keeps its flags, or a flag.
_FLAG = re.compile(r"(python \S+\.py[^;:,`)]*)|(?<![\w-])--(?=[A-Za-z])")
_in_command = False
_QUOTED = 80  # characters of a value that a message repeats


@contextlib.contextmanager
def flags_shown() -> Iterator[None]:
    """Within this context messages show options as flags, for people at a command line."""
    global _in_command
    before, _in_command = _in_command, True
    try:
        yield
    finally:
        _in_command = before


class PaddleSamError(Exception):
    """Base of every error that the user, not the programmer, can mend."""

    def __str__(self) -> str:
        text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().__str__())
        return text if _in_command else _FLAG.sub(lambda found: found[1] or "", text)


class ConfigError(PaddleSamError, ValueError):
    """An option or argument has a value that cannot work."""


class CheckpointError(PaddleSamError):
    """A weight file is missing, damaged, foreign, or does not fit the network."""


class ImageError(PaddleSamError):
    """An image file cannot be read or used."""


class FaceNotFoundError(ImageError):
    """No face was detected where one is needed."""


class TrainingError(PaddleSamError):
    """Training cannot continue, for example because a loss is not a number."""


class EngineError(PaddleSamError):
    """The exported models cannot be built, loaded or run here."""


class OutputError(PaddleSamError):
    """A result cannot be written (full disk, no permission)."""


class FileNameError(OutputError, ImageError):
    """The result of one image cannot be written because of its name; those of others can."""


class Note(UserWarning):
    """Something a user should know about a result; a command prints it as one line."""


def quoted(value: Any) -> str:
    """Return `repr(value)` for a message, cut where it is long.

    >>> quoted("9" * 5000)
    "'999999999999999999999... (5002 characters)"
    """
    text = repr(value)
    return text if len(text) <= _QUOTED else f"{text[:22]}... ({len(text)} characters)"


def first_line(error: Exception) -> str:
    r"""Return what an error of a library says on its first line, or its type if it says nothing.

    Where Paddle compiled code from Python a headline is first.

    >>> first_line(ValueError("In user code:\n  no such kernel\n")), first_line(EOFError())
    ('no such kernel', 'EOFError')
    """
    lines = (line.strip()[:200] for line in str(error).splitlines())
    return next((line for line in lines if line not in ("", "In user code:")), type(error).__name__)


def check_shape(name: str, tensor, expected: Sequence[int | None]) -> None:
    """Raise `ConfigError` unless `tensor.shape` equals `expected`; `None` matches any length.

    >>> import numpy
    >>> check_shape("w_plus", numpy.zeros((2, 18, 512)), (None, 18, 512))
    >>> check_shape("w_plus", numpy.zeros((2, 14, 512)), (None, 18, 512))
    Traceback (most recent call last):
    ...
    paddle_sam.errors.ConfigError: w_plus: expected shape [*, 18, 512], found [2, 14, 512]
    """
    found = tuple(tensor.shape)
    fits = len(found) == len(expected) and all(
        want is None or want == have for want, have in zip(expected, found, strict=True)
    )
    if not fits:
        want = ", ".join("*" if size is None else str(size) for size in expected)
        raise ConfigError(f"{name}: expected shape [{want}], found [{', '.join(map(str, found))}]")
