"""Options declared once: a field of a frozen dataclass is a flag, a JSON entry and a check.

    @dataclasses.dataclass(frozen=True)
    class RunOptions:
        batch_size: int = option(6, "images per step", minimum=1)

gives `--batch_size N` on the command line, `"batch_size": 6` in the run's `opt.json`, and an
error naming the option where the value cannot work.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from paddle_sam.errors import ConfigError

Config = TypeVar("Config")


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence | None = None,
    minimum: float | None = None,
    resumable: bool = False,
) -> Any:
    """A dataclass field that is also a command line option.

    Args:
        default: the value where nothing else is given; its type is the option's.
        help: one line for `--help`.
        choices: the values allowed.
        minimum: the smallest number allowed.
        resumable: whether the value may differ when a run is resumed.
    """
    metadata = {"help": help, "choices": choices, "minimum": minimum, "resumable": resumable}
    return dataclasses.field(default=default, metadata=metadata)


def parse(
    config_type: type[Config],
    argv: Sequence[str] | None,
    description: str,
    preset_names: Sequence[str] = (),
    implied: Callable[[str | None, Mapping[str, Any]], Mapping[str, Any]] | None = None,
    prog: str | None = None,
) -> Config:
    """Read a command line into a config. `--dry_run` prints the resulting options and exits.

    Args:
        config_type: the dataclass.
        argv: arguments; None for those of the process.
        description: for `--help`.
        preset_names: what `--preset` may name.
        implied: gives, for the preset's name and the options given, values for what the command
            line leaves open. The defaults fill the rest.
        prog: what `--help` calls the command; the script's name if None.

    Raises:
        ConfigError: a value cannot work.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    if preset_names:
        parser.add_argument("--preset", choices=sorted(preset_names), help="named set of options")
    parser.add_argument("--dry_run", action="store_true", help="print the options and exit")
    for field in dataclasses.fields(config_type):
        _add_argument(parser, field, type(field.default))
    given = vars(parser.parse_args(argv))
    dry_run = given.pop("dry_run", False)
    preset = given.pop("preset", None)
    config = from_dict(config_type, {**(implied(preset, given) if implied else {}), **given})
    if dry_run:
        print(to_json(config))
        raise SystemExit(0)
    return config


def from_dict(config_type: type[Config], values: Mapping[str, Any]) -> Config:
    """Build and check a config.

    Raises:
        ConfigError: an unknown name (the nearest known one is suggested) or a bad value.
    """
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]}?" if near else "see --help for the known options."
            raise ConfigError(f"{name}: there is no such option; {hint}")
    for name, value in values.items():
        _check_value(fields[name], value)
    return config_type(**values)


def to_json(config: Any) -> str:
    """The options as indented JSON, in their declared order."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def read_json(config_type: type[Config], path: Path) -> Config:
    """Read what `to_json` wrote.

    Raises:
        ConfigError: the file is damaged or holds unknown options.
    """
    try:
        return from_dict(config_type, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as options ({error})") from error


def parse_names(text: str, known: Sequence[str], name: str) -> list[str]:
    """Names that the option `name` lists by commas, each once.

    >>> parse_names("walk, fine,walk", ("walk", "coarse", "fine"), "--videos")
    ['walk', 'fine']

    Raises:
        ConfigError: one is unknown, or there is none.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [part for part in names if part not in known]:
        raise ConfigError(f"{name}: expected some of {', '.join(known)}, found {unknown[0]!r}")
    if not names:
        raise ConfigError(f"{name}: expected some of {', '.join(known)}, found none")
    return list(dict.fromkeys(names))


def check_resumable(stored: Any, wanted: Any, where: Path) -> None:
    """Raise `ConfigError` where `wanted` differs from `stored` in an option fixed for a run."""
    changed = [
        f"--{field.name} was {getattr(stored, field.name)!r}, is {getattr(wanted, field.name)!r}"
        for field in dataclasses.fields(wanted)
        if not field.metadata["resumable"]
        and getattr(stored, field.name) != getattr(wanted, field.name)
    ]
    if changed:
        raise ConfigError(
            f"{where}: this run was started with other options ({'; '.join(changed)}). Give the"
            " same ones to resume it, or another --exp_dir to start afresh."
        )


def _add_argument(parser: argparse.ArgumentParser, field: dataclasses.Field, kind: type) -> None:
    text = field.metadata["help"]
    flag = f"--{field.name}"
    if kind is bool and field.name.startswith("no_"):
        parser.add_argument(flag, action="store_true", help=text)
    elif kind is bool:
        text += f" (default: {'yes' if field.default else 'no'})"
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
    else:
        text += f" (default: {field.default})" if field.default != "" else ""
        choices = field.metadata["choices"]
        metavar = None if choices else {int: "N", float: "X"}.get(kind, "TEXT")
        parser.add_argument(flag, type=kind, choices=choices, metavar=metavar, help=text)


def _check_value(field: dataclasses.Field, value: Any) -> None:
    kind = type(field.default)
    numeric = kind is float and type(value) is int
    if not (type(value) is kind or numeric):
        raise ConfigError(f"{field.name}: expected {kind.__name__}, found {value!r}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{field.name}: expected a finite number, found {value}")
    choices, minimum = field.metadata["choices"], field.metadata["minimum"]
    if choices is not None and value not in choices:
        raise ConfigError(f"{field.name}: expected one of {', '.join(choices)}, found {value!r}")
    if minimum is not None and not value >= minimum:
        raise ConfigError(f"{field.name}: expected at least {minimum}, found {value}")
