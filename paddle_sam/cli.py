"""The command `paddle-sam`: every script by a short name, wherever the package is installed.

    paddle-sam age photo.jpg
    paddle-sam demo
    paddle-sam convert sam_ffhq_aging.pt

A command takes the options of its script. What it does without one is said by its `--help`.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from paddle_sam import __version__

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Command:
    """A command of `paddle-sam`.

    script: the file that does it, in `scripts` or `convert`. help: what it does. positional: the
    option that a first argument without a flag stands for; empty where the script has arguments of
    its own. needs: weights that are fetched before its first use.
    """

    script: str
    help: str
    positional: str = ""
    needs: tuple[str, ...] = ()


_PHOTOS = ("--data_path", ("landmarks",))  # what the commands that find faces take
COMMANDS = {
    "age": Command("scripts/inference_side_by_side", "age strips of photographs", *_PHOTOS),
    "ages": Command("scripts/inference", "a folder of results for each age", *_PHOTOS),
    "animate": Command("scripts/animate", "a video of a face growing old", *_PHOTOS),
    "demo": Command("scripts/demo", "a web page to try ageing on", "", ("landmarks",)),
    "invert": Command("scripts/invert", "codes and images of an encoder", *_PHOTOS),
    "project": Command("scripts/project", "find the code of a face", *_PHOTOS),
    "mix": Command("scripts/style_mixing", "aged faces in random styles", *_PHOTOS),
    "reference": Command(
        "scripts/reference_guided_inference", "aged faces in the style of others", *_PHOTOS
    ),
    "edit": Command("scripts/edit", "what directions in latent space do", *_PHOTOS),
    "align": Command("scripts/align_all_parallel", "cut out faces", "--root_path", ("landmarks",)),
    "weights": Command("scripts/download_weights", "get weight files"),
    "convert": Command("convert/convert_weights", "convert checkpoints to Paddle and back"),
    "export": Command("scripts/export", "inference models and ONNX", "--checkpoint_path"),
    "train": Command("scripts/train", "train SAM or a pSp encoder"),
    "train-age": Command("scripts/train_age", "train an age regressor"),
    "train-stylegan2": Command("scripts/train_stylegan2", "train StyleGAN2", "--train_data"),
    "stargan2": Command("scripts/stargan2", "StarGAN v2: train, sample, eval, align"),
    "evaluate": Command("scripts/evaluate", "measure images and networks"),
    "prepare": Command("scripts/prepare_dataset", "make a data set of pictures", "--data_path"),
    "rank": Command("scripts/rank_images", "find what does not belong in a set", "--data_path"),
    "sample": Command("scripts/sample", "images that a StyleGAN2 makes of seeds"),
    "figures": Command("scripts/figures", "the figures of the StyleGAN papers"),
    "video": Command("scripts/video", "videos of what a generator has learned"),
    "blend": Command("scripts/blend", "blend two generators by layers"),
    "inspect": Command("scripts/inspect_generator", "nearest neighbours and layers"),
    "plot": Command("scripts/plot_run", "draw the curves of a training run"),
    "visualize": Command("scripts/visualize", "serve VisualDL for a run"),
}
# With these a command needs no weights.
NO_RUN = {"-h", "--help", "--dry_run", "--no_align", "--no_crop", "--list"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status; 2 if there is no such command."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    if argv[0] == "--version":
        print(f"paddle-sam {__version__}")
        return 0
    name, *arguments = argv
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else "`paddle-sam --help` lists them."
        print(f"error: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2
    return run(name, arguments)


def run(name: str, arguments: Sequence[str]) -> int:
    """Run the script behind a command with arguments."""
    command, arguments = COMMANDS[name], of_script(name, arguments)
    module = load_script(command.script)
    sys.argv[0] = f"paddle-sam {name}"
    if command.needs and not NO_RUN & set(arguments):
        fetch(command.needs)
    if not {"-h", "--help"} & set(arguments):
        return module.main(arguments) or 0
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        module.main(arguments)
    print(in_short(text.getvalue()), end="")
    return 0


def of_script(name: str, arguments: Sequence[str]) -> list[str]:
    """Arguments of a command as its script takes them.

    >>> of_script("age", ["photo.jpg", "--face", "all"])
    ['--data_path', 'photo.jpg', '--face', 'all']
    """
    option = COMMANDS[name].positional
    named = option and arguments and not arguments[0].startswith("-")
    return [option, *arguments] if named else list(arguments)


def fetch(names: Sequence[str]) -> None:
    """Get weights that are missing; if they cannot be had, the command says what it lacks."""
    from paddle_sam.convert.obtain_weights import obtain_all
    from paddle_sam.core.weights import find_weight, weights_dir
    from paddle_sam.errors import CheckpointError

    for name in names:
        try:
            find_weight(name)
        except CheckpointError:
            obtain_all([name], weights_dir())


def in_short(text: str) -> str:
    """Name the commands of a text as `paddle-sam` does.

    >>> in_short("python scripts/demo.py --port 80; python convert/convert_weights.py FILE")
    'paddle-sam demo --port 80; paddle-sam convert FILE'
    """
    for name, command in COMMANDS.items():
        text = text.replace(f"python {command.script}.py", f"paddle-sam {name}")
    return text


def load_script(name: str) -> ModuleType:
    """Load a script from the repository, or from the installed package."""
    folder, stem = name.split("/")
    installed = _PACKAGE / f"installed_{folder}" / f"{stem}.py"
    path = installed if installed.is_file() else _PACKAGE.parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"paddle_sam_{stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # what starts processes looks functions up by module
    spec.loader.exec_module(module)
    return module


def overview() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: paddle-sam COMMAND [OPTIONS]",
            "",
            "Face ageing (SAM), StyleGAN2 and StarGAN v2 in PaddlePaddle.",
            "",
            *lines,
            "",
            "`paddle-sam COMMAND --help` explains each; start with `paddle-sam age photo.jpg`.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
