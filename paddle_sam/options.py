"""Options declared once: a field of a frozen dataclass is a flag, a JSON entry and a check.

    @dataclasses.dataclass(frozen=True)
    class TrainOptions(Options):
        batch_size: int = option(6, "images per step", minimum=1)

is `--batch_size N` on the command line, `"batch_size": 6` in the run's `opt.json`, and an error
that names the option where the value cannot work, in Python as on the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import numbers
import operator
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from paddle_sam.errors import ConfigError, quoted

AnyOptions = TypeVar("AnyOptions", bound="Options")

MOST_AGES = 1001  # of a request or command: 0 to 100 in steps of a tenth
HIGHEST_FRAME_RATE = 240  # frames per second, of the fastest displays
# Weights that several commands look for unless they are told otherwise.
INCEPTION = "pretrained_models/pt_inception-2015-12-05-6726825d.pdparams"
LPIPS = "pretrained_models/lpips_alex.npz"
# The most of an option by its name, in every command: a slip of the keyboard is not to fill the
# memory or the disk.
_MOST = {
    # Images at a time. More gains nothing on any device.
    **dict.fromkeys(("batch_size", "test_batch_size", "val_batch_size", "decoder_batch"), 4096),
    **dict.fromkeys(("workers", "test_workers", "num_workers", "num_threads"), 1024),
    # Pixels: of an image in a sheet, of which 16 are as wide as a JPEG can be; of a network's.
    **dict.fromkeys(("tile_size", "frame_size"), 4096),
    **dict.fromkeys(("size", "resolution", "output_size", "img_size", "input_size"), 8192),
    "sheet_images": 10_000,
    "fps": HIGHEST_FRAME_RATE,
    "duration": 3600,
    "video_steps": 3600,
}


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    may_be_empty: bool = False,
    resumable: bool = False,
) -> Any:
    """A dataclass field that is also a command line option.

    Args:
        default: the value where nothing else is given; its type is the option's.
        help: one line for `--help`.
        choices: the values allowed.
        minimum, maximum: the smallest and the largest number allowed.
        above, below: numbers that the value must be more than, and less than.
        may_be_empty: whether an empty text may be given on the command line.
        resumable: whether the value may differ when a run is resumed.
    """
    metadata = {name: value for name, value in locals().items() if name != "default"}
    return dataclasses.field(default=default, metadata=metadata)


class _Checked(type):
    """Completes and checks the values that a class of options is called with."""

    def __call__(cls, *, preset: str | None = None, **given: Any):
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in given:
            if name not in fields:
                near = difflib.get_close_matches(name, fields, 1)
                hint = f"did you mean --{near[0]}?" if near else "see --help for the known options."
                raise ConfigError(f"--{name}: there is no such option; {hint}")
        if preset is not None and preset not in cls.presets:
            raise ConfigError(
                f"--preset: expected one of {', '.join(cls.presets)}, found {preset!r}"
            )
        given = {name: _checked(fields[name], value) for name, value in given.items()}
        options = super().__call__(**{**cls.implied(preset, given), **given})
        try:
            options.check()
        except ConfigError as error:
            raise ConfigError(error.args[0] + _not_given(error.args[0], options, given)) from error
        return options


class Options(metaclass=_Checked):
    """Base of all options: keyword arguments only, checked whenever an object is made.

    Besides its fields a class takes `preset`, the name of a set of values.

    presets: their names. aliases: what other programs call an option on their command lines, such
    as `{"ckpt": "checkpoint_path"}`, or an option with a value, `{"no_encoder": "start=mean"}`.
    replaced: options of theirs that do not exist here, with what to do instead. words: the option
    that words without an option belong to: all of them to a tuple, one to a text.

    Raises:
        ConfigError: a name is unknown (the nearest known one is suggested) or a value cannot work.
    """

    presets: ClassVar[Sequence[str]] = ()
    aliases: ClassVar[Mapping[str, str]] = {}
    replaced: ClassVar[Mapping[str, str]] = {}
    words: ClassVar[str] = ""

    @classmethod
    def implied(cls, preset: str | None, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Values for what `given` leaves open; the fields' defaults fill the rest."""
        return {}

    def check(self) -> None:
        """Raise `ConfigError` where values do not fit each other."""

    def expect_numbers(self, file: str | os.PathLike, found: Mapping[str, float]) -> None:
        """Raise `ConfigError` if `file` has another number than an option that is given.

        The default of such an option stands for any number.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        values = {name: getattr(self, name) for name in found}
        wanted = {name: value for name, value in values.items() if value != defaults[name]}
        expect_numbers(file, wanted, found)


def expect_numbers(
    file: str | os.PathLike, wanted: Mapping[str, float], found: Mapping[str, float]
) -> None:
    """Raise `ConfigError` if a number of a weight file, `found`, is not the one `wanted`."""
    for name, value in wanted.items():
        if name not in found:
            raise ConfigError(f"--{name}: there is no such option; known are {', '.join(found)}")
        if found[name] != value:
            raise ConfigError(
                f"--{name}: {file} has {found[name]:g}, not {value:g}; leave the option out or name"
                " another file"
            )


def device_option() -> str:
    """The field `device` of every command that runs networks."""
    return option("auto", "auto, cpu, gpu or gpu:N", resumable=True)


ENGINES = ("auto", "eager", "onednn", "onednn-bf16", "gpu-fp16")


def engine_option(does: str = "runs the network") -> str:
    """The field `engine` of every command that can run exported models, which do this."""
    return option(
        "auto",
        f"what {does}: exported models in float32 (onednn, on a GPU too) or 16 bits (onednn-bf16 on"
        " CPUs, gpu-fp16 on GPUs), layer by layer (eager)",
        choices=ENGINES,
    )


def tile_size_option(of: str = "each image in a sheet") -> int:
    """The field `tile_size` of every command that lays images out for a person to look at."""
    text = f"side of {of}; 0 for the model's own, but at least 128"
    return option(0, text, minimum=0)


@dataclasses.dataclass(frozen=True)
class RunOptions(Options):
    """What every training has.

    changeable: options, apart by spaces, that may differ when a run is resumed, if `allow_changed`
        names them.
    """

    changeable: ClassVar[str] = ""

    max_bad_images: int = option(100, "stop after N unreadable images", minimum=0, resumable=True)
    keep_checkpoints: int = option(
        2, "keep the newest N checkpoints; 0 keeps all", minimum=0, resumable=True
    )
    seed: int = option(0, "seed of everything random", minimum=0)
    device: str = device_option()
    allow_tf32: bool = option(
        False,
        "on a GPU, compute float32 with ten bits of mantissa, which is faster on recent ones",
        resumable=True,
    )
    autotune: bool = option(
        False,
        "on a GPU, measure which of cuDNN's convolutions are fastest; the bits of a run then do not"
        " repeat",
        resumable=True,
    )
    allow_changed: str = option(
        "",
        "options that may differ from those of the run that is resumed, such as batch_size,"
        "learning_rate",
        resumable=True,
    )
    new_run: str = option(
        "", "start in a numbered folder of this description, EXP_DIR/00003-TEXT", resumable=True
    )


def to_json(options: Options) -> str:
    """The options as indented JSON, in their declared order."""
    return json.dumps(dataclasses.asdict(options), indent=2)


def read_json(options_type: type[AnyOptions], path: Path) -> AnyOptions:
    """Read what `to_json` wrote.

    Raises:
        ConfigError: the file is damaged or holds unknown options.
    """
    from paddle_sam.core import files

    try:
        return options_type(**files.read_json(path, "options"))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as options ({error})") from error


def check_resumable(
    stored: RunOptions, wanted: RunOptions, where: Path, allowed: Collection[str] = ()
) -> dict[str, str]:
    """Compare the options that a run was started with and those that should resume it.

    Returns:
        the changes that `allowed` names, in words by option.

    Raises:
        ConfigError: an option that is fixed for a run differs.
    """
    changed, refused = {}, []
    for field in dataclasses.fields(wanted):
        before, now = getattr(stored, field.name), getattr(wanted, field.name)
        if field.metadata["resumable"] or before == now:
            continue
        changed[field.name] = f"{before} -> {now}"
        if not (field.name in allowed and field.name in wanted.changeable.split()):
            refused.append(field)
    if refused:
        words = "; ".join(
            f"--{f.name} was {getattr(stored, f.name)!r}, is {getattr(wanted, f.name)!r}"
            for f in refused
        )
        advice = "Give the same ones to resume it, or another --exp_dir to start afresh"
        if all(field.name in wanted.changeable.split() for field in refused):
            names = ",".join([*allowed, *(field.name for field in refused)])
            advice += f", or --allow_changed {names} to change them on purpose"
        raise ConfigError(f"{where}: this run was started with other options ({words}). {advice}.")
    return changed


def parse_names(text: str, known: Sequence[str], name: str) -> list[str]:
    """Names that the option `name` lists by commas, each once.

    >>> parse_names("walk, fine,walk", ("walk", "coarse", "fine"), "--videos")
    ['walk', 'fine']

    Raises:
        ConfigError: one is unknown, or there is none.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in names if part not in known]
    if unknown or not names:
        found = quoted(unknown[0]) if unknown else "none"
        raise ConfigError(f"{name}: expected some of {', '.join(known)}, found {found}")
    return list(dict.fromkeys(names))


def parse_codes(text: str, codes: int, name: str) -> list[int]:
    """Numbers of W+ codes that the option `name` lists, of a model that has `codes` of them.

    >>> parse_codes("8,9,12-14", 18, "--latent_level")
    [8, 9, 12, 13, 14]

    Raises:
        ConfigError: a part is not a number or range, or there is no such code.
    """
    listed: dict[int, None] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if last < first:
            raise ConfigError(
                f"{name}: expected numbers such as 8,9 or ranges such as 5-9, found {quoted(part)}"
            )
        if last >= codes:
            raise ConfigError(f"{name}: this model has the codes 0 to {codes - 1}, found {last}")
        listed |= dict.fromkeys(range(first, last + 1))
    return list(listed)


def parse_numbers(text: str, name: str) -> list[float]:
    """Numbers that the option `name` lists by commas.

    >>> parse_numbers("1,0.5,-1", "--psis")
    [1.0, 0.5, -1.0]

    Raises:
        ConfigError: a part is not a finite number.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{name}: expected numbers such as 1,0.5,-1, found {quoted(text)}")
    return numbers


def parse_formats(text: str) -> list[str]:
    """File suffixes that `--formats` lists, each once.

    >>> parse_formats("mp4,.GIF")
    ['.mp4', '.gif']

    Raises:
        ConfigError: one is unknown.
    """
    known = ("mp4", "gif", "webp")
    names = ",".join(part.strip().removeprefix(".") for part in text.lower().split(","))
    return [f".{name}" for name in parse_names(names, known, "--formats")]


def _not_given(message: str, options: Options, given: Mapping[str, Any]) -> str:
    """What to add to a message that begins with options which nobody gave."""
    blamed = re.findall(r"--(\w+)", message.partition(": ")[0])
    values = [(name, getattr(options, name, "")) for name in blamed if name not in given]
    notes = [f"--{name}, not given, is {quoted(value)}" for name, value in values if value]
    return f" ({'; '.join(notes)})" if notes else ""


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """The value as the field's type; NumPy's numbers and paths are taken as well."""
    kind, rules, flag = type(field.default), field.metadata, f"--{field.name}"
    accepted = {
        int: numbers.Integral,
        float: numbers.Real,
        str: (str, os.PathLike),
        tuple: (tuple, list),
    }.get(kind, kind)
    if not isinstance(value, accepted) or isinstance(value, bool) and kind is not bool:
        raise ConfigError(f"{flag}: expected {kind.__name__}, found {quoted(value)}")
    try:
        value = os.fspath(value) if kind is str else kind(value)
        value = tuple(map(os.fspath, value)) if kind is tuple else value
    except TypeError:
        raise ConfigError(f"{flag}: expected texts or paths, found {quoted(value)}") from None
    except OverflowError:
        value = math.inf
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{flag}: expected a finite number, found {value}")
    if rules["choices"] is not None and value not in rules["choices"]:
        known = ", ".join(rules["choices"])
        raise ConfigError(f"{flag}: expected one of {known}, found {quoted(value)}")
    most = rules["maximum"] if rules["maximum"] is not None else _MOST.get(field.name)
    for words, bound, fits in (
        ("at least", rules["minimum"], operator.ge),
        ("at most", most, operator.le),
        ("more than", rules["above"], operator.gt),
        ("less than", rules["below"], operator.lt),
    ):
        if bound is not None and not fits(value, bound):
            raise ConfigError(f"{flag}: expected {words} {bound}, found {quoted(value)}")
    return value
