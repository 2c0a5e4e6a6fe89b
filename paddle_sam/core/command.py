"""A command from its words to its exit status: options read, errors as one line, no noise."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import errno
import functools
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from paddle_sam.errors import ConfigError, Note, PaddleSamError, flags_shown, quoted
from paddle_sam.options import AnyOptions, RunOptions, to_json

# What Paddle and Pillow warn about whatever the program does. The limits of images are our own.
_NOISE = (
    "No ccache found",
    "When training, we now always track",
    r"\s*Non compatible API",
    r"Image size \(\d+ pixels\) exceeds limit",
)
_DIGITS = 30  # of a number on the command line
_FULL = (errno.ENOSPC, errno.EDQUOT)
NO_PADDLE = (
    "PaddlePaddle is not installed. On a CPU: pip install 'paddlepaddle==3.2.2'. On a GPU"
    " install the paddlepaddle-gpu 3.2.2 that fits its CUDA; README.md has the lines."
)
# The home folder at the start of a path or of one in a list; shells leave it after `=`.
_HOME = re.compile(r"(?:(?<=^)|(?<=,))~(?=/|$|,)")


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


def for_each(items: Iterable, act: Callable[[Any], Any]) -> list:
    """Return what `act` gives for the items that it can be done for; print why not for others."""
    results = []
    for item in items:
        try:
            results.append(act(item))
        except PaddleSamError as error:
            print(f"error: {error}", file=sys.stderr)
    return results


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


def script(
    description: str,
    options: str,
    function: str,
    done: str = "{}",
    environment: str = "",
) -> Callable[..., int]:
    """A command that reads options and calls a function with them.

    Both are named as in `paddle_sam.ageing.run:side_by_side` and imported when they are needed,
    so that `--help` is instant. The function's result is None, the exit status or an object whose
    `status()` that is, or a path or several, which are printed.

    Args:
        description: for `--help`; the script's docstring.
        options: the class of options.
        function: what to call with them.
        done: how to print each path.
        environment: a dictionary of variables for libraries that read them when they are loaded.
            What is set already stays.
    """

    @command
    def main(argv=None) -> int:
        chosen = parse(pkgutil.resolve_name(options), argv, description)
        for name, value in (pkgutil.resolve_name(environment) if environment else {}).items():
            os.environ.setdefault(name, value)
        result = pkgutil.resolve_name(function)(chosen)
        if hasattr(result, "status"):
            return result.status()
        if isinstance(result, int):
            return result
        for path in (result,) if isinstance(result, str | os.PathLike) else result or ():
            print(done.format(path))
        return 0

    return main


def parse(
    options_type: type[AnyOptions],
    argv: Sequence[str] | None,
    description: str,
    prog: str | None = None,
) -> AnyOptions:
    """Read a command line into options. `--dry_run` prints the result and exits.

    Args:
        options_type: the dataclass.
        argv: arguments; None for those of the process.
        description: for `--help`.
        prog: what `--help` calls the command; the script's name if None.

    Raises:
        ConfigError: a value cannot work.
    """
    parser = _Parser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    if options_type.presets:
        choices = sorted(options_type.presets)
        parser.add_argument("--preset", choices=choices, help="named set of options")
    parser.add_argument("--dry_run", action="store_true", help="print the options and exit")
    fields = {field.name: field for field in dataclasses.fields(options_type)}
    shared = {field.name for field in dataclasses.fields(RunOptions)} & set(fields)
    for name in [*(name for name in fields if name not in shared), *sorted(shared)]:
        others = [alias for alias, stands in options_type.aliases.items() if stands == name]
        _add_argument(parser, fields[name], type(fields[name].default), others)
    _add_shorthands(parser, options_type)
    known, words = parser.parse_known_args(argv)
    given = vars(known)
    taker = options_type.words
    if words and taker and not any(word.startswith("-") for word in words):
        if type(fields[taker].default) is tuple:
            given[taker] = [*given.get(taker, ()), *words]
        elif len(words) > 1 or taker in given:
            parser.error(f"--{taker}: expected one, found also {quoted(words[-1])}")
        else:
            given[taker] = words[0]
    elif words:
        parser.error(_unknown(words, fields, options_type.replaced))
    dry_run = given.pop("dry_run", False)
    for name, value in given.items():
        value = "" if value == [] else value  # what argparse makes of `--name=--`
        texts = [value] if isinstance(value, str) else value
        if name in fields and isinstance(texts, list):
            if not fields[name].metadata["may_be_empty"] and not all(map(str.strip, texts)):
                raise ConfigError(f"--{name}: found an empty value; leave it out or name one")
            texts = [_HOME.sub(_home, text) for text in texts]
            given[name] = texts if isinstance(value, list) else texts[0]
    options = options_type(**given)
    if dry_run:
        print(to_json(options))
        raise SystemExit(0)
    return options


def _add_argument(
    parser: argparse.ArgumentParser, field: dataclasses.Field, kind: type, others: Sequence[str]
) -> None:
    """Add an option under its name and its other ones."""
    text = field.metadata["help"]
    flags = [f"--{name}" for name in (field.name, *others)]
    named = {"dest": field.name, "help": text}
    if kind is bool and field.name.startswith("no_"):
        parser.add_argument(*flags, action="store_true", **named)
    elif kind is bool:
        named["help"] += f" (default: {'yes' if field.default else 'no'})"
        parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **named)
    elif kind is tuple:
        parser.add_argument(*flags, nargs="+", metavar="TEXT", **named)
    else:
        named["help"] += f" (default: {field.default})" if field.default != "" else ""
        choices = field.metadata["choices"]
        metavar = None if choices else {int: "N", float: "X"}.get(kind, "TEXT")
        read = {int: _whole_number, float: _number}.get(kind, kind)
        parser.add_argument(*flags, type=read, choices=choices, metavar=metavar, **named)


def _add_shorthands(parser: argparse.ArgumentParser, options_type: type[AnyOptions]) -> None:
    """Add the aliases that stand for an option with a value."""
    for alias, stands in options_type.aliases.items():
        name, equals, value = stands.partition("=")
        if equals:
            text = f"the same as --{name} {value}"
            parser.add_argument(
                f"--{alias}", dest=name, action="store_const", const=value, help=text
            )


class _Parser(argparse.ArgumentParser):
    """Ends with one line about what is wrong, as other errors of a command do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}. {self.prog} --help lists the options.\n")


def _unknown(words: Sequence[str], known: Iterable[str], replaced: Mapping[str, str]) -> str:
    """What to say about words of a command line that belong to no option."""
    for word in words:
        if word.startswith("--"):
            name = word[2:].partition("=")[0]
            if name in replaced:
                return f"--{name}: {replaced[name]}"
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean --{near[0]}?" if near else ""
            return f"unrecognized option --{name}{hint}"
    return (
        f"unrecognized arguments: {quoted(' '.join(words))[1:-1]} (a pattern such as *.jpg"
        " becomes many words: name a folder, or one file)"
    )


def _home(found: re.Match) -> str:
    try:
        return str(Path.home())
    except RuntimeError:  # a user without any, as in some containers
        return found[0]


def _whole_number(text: str) -> int:
    if len(text) > _DIGITS or not re.fullmatch(r"\s*[+-]?\d+\s*", text):
        raise argparse.ArgumentTypeError(f"expected a whole number, found {quoted(text)}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, found {quoted(text)}") from None
