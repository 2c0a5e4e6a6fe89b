"""Look at runs: their curves as one picture, or all of it in VisualDL."""

from __future__ import annotations

import dataclasses
import logging
import math
import re
import socket
from collections import defaultdict
from pathlib import Path

import numpy as np

from paddle_sam.core.files import atomic_path
from paddle_sam.errors import ConfigError
from paddle_sam.options import Options, option
from paddle_sam.training.folder import CHANGED, read_records

# What runs of each kind are watched by, in this order; other runs show their first values. Values
# whose names differ in their guide only, such as `G/latent_adv` and `G/ref_adv`, share a panel.
_SAM = (
    *("loss", "age_error_years_real", "loss_l2_real"),
    *("loss_l2_cycle", "loss_lpips_real", "loss_id_real"),
)
_STYLEGAN2 = (
    *("fid", "kid_alex", "D/score_real", "D/score_fake", "augment_p", "D/sign_real"),
    *("G/path_length", "D/r1"),
)
_STARGAN2 = ("D/real", "D/fake", "D/reg", "G/adv", "G/sty", "G/ds", "G/cyc", "FID", "LPIPS")
_GUIDES = re.compile(r"(latent|ref(?:erence)?)[_/]")
_COLUMNS = 3
_MOST = 9
_SMOOTHED = 200  # records from which on a mean is drawn over them

# By panel, then by the curve's label: points (step, value).
_Curves = dict[str, dict[str, list[tuple[int, float]]]]


@dataclasses.dataclass(frozen=True)
class PlotOptions(Options):
    """Options of `scripts/plot_run.py`."""

    run: str = option("", "run folder (--exp_dir of the training), also as a word")
    output: str = option("", "picture (default: curves.png in the run)")

    words = "run"

    def check(self):
        if not self.run:
            raise ConfigError("--run: name the folder of a training")


@dataclasses.dataclass(frozen=True)
class VisualizeOptions(Options):
    """Options of `scripts/visualize.py`."""

    run: str = option("log", "run folder, or a folder of runs, also as a word")
    host: str = option("127.0.0.1", "address to serve on")
    port: int = option(8040, "port to serve on; 0 takes a free one", minimum=0, maximum=65535)
    tensorboard: str = option(
        "", "instead: write the curves to this folder, for `tensorboard --logdir FOLDER`"
    )

    words = "run"


def plot_run(options: PlotOptions) -> Path:
    """Draw the curves of a run and return where; see `draw_curves`."""
    output = Path(options.output or Path(options.run, "curves.png"))
    draw_curves(Path(options.run), output)
    return output


def draw_curves(run: Path, output: Path) -> None:
    """Draw training and test curves of the run in folder `run` to the image file `output`.

    Raises:
        ConfigError: the folder holds no records, `output` names no picture format, or matplotlib
            is not installed.
        OutputError: the system refused to write.
    """
    curves = _read(Path(run))
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("matplotlib is not installed: pip install matplotlib") from error
    kinds = (_SAM, _STYLEGAN2, _STARGAN2)
    watched = [[name for name in kind if name in curves] for kind in kinds]
    names = max(watched, key=len) or sorted(curves)[:_MOST]
    rows = math.ceil(len(names) / _COLUMNS)
    figure = Figure(figsize=(4 * _COLUMNS, 2.8 * rows), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, _COLUMNS, index + 1)
        for number, (label, points) in enumerate(sorted(curves[name].items())):
            _draw(axes, label, np.array(points), f"C{number}")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step")
        if all(value >= 0 for points in curves[name].values() for _, value in points):
            axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    formats = figure.canvas.get_supported_filetypes()
    if Path(output).suffix.lower().lstrip(".") not in formats:
        raise ConfigError(f"{output}: expected a name that ends in one of {', '.join(formats)}")
    with atomic_path(output) as temporary:
        figure.savefig(temporary, dpi=100)


def _draw(axes, label: str, points: np.ndarray, colour: str) -> None:
    """A curve of points [N, 2]; where there are many, pale, with a running mean over it."""
    steps, values = points.T
    if label.startswith("test"):
        axes.plot(steps, values, "o-", color=colour, label=label, linewidth=1, markersize=4)
        return
    if len(points) < _SMOOTHED:
        axes.plot(steps, values, color=colour, label=label, linewidth=1)
        return
    axes.plot(steps, values, color=colour, linewidth=0.5, alpha=0.3)
    window = len(points) // 20
    mean = np.convolve(values, np.full(window, 1 / window), "valid")
    axes.plot(steps[window - 1 :], mean, color=colour, label=label, linewidth=1.5)


def _read(run: Path) -> _Curves:
    records = read_records(run)
    if not records:
        raise ConfigError(f"{run}: holds no records yet; name the --exp_dir of a training")
    curves: _Curves = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["split"] in ("train", "test"):
            for name, value in record.items():
                if name not in ("split", "step", "time"):
                    guide = _GUIDES.search(name)
                    label = f"{record['split']}, {guide[1]}" if guide else record["split"]
                    curves[_GUIDES.sub("", name)][label].append((record["step"], value))
    if not curves:
        raise ConfigError(f"{run}: holds no losses yet")
    return curves


def find_runs(folder: str | Path, holding: str) -> list[Path]:
    """Return the folders of runs at or below `folder` that hold a file or folder of this name.

    Raises:
        ConfigError: there is no run.
    """
    found = sorted(path.parent for path in Path(folder).rglob(holding))
    if not found:
        raise ConfigError(
            f"{folder}: holds no run. Name the --exp_dir of a training, or a folder of such"
        )
    return found


def visualize(options: VisualizeOptions) -> list[Path]:
    """Serve VisualDL, or write the curves for TensorBoard; returns what was written."""
    if options.tensorboard:
        return write_tensorboard(Path(options.run), Path(options.tensorboard))
    serve(options)
    return []


def write_tensorboard(folder: Path, output: Path) -> list[Path]:
    """Write the values of every run at or below `folder` as TensorBoard's event files.

    A run at `folder/a/b` is called `a/b` there; one that is `folder` itself, by its name.

    Returns:
        the folder of each run, in `output`.

    Raises:
        ConfigError: there is no run, `output` has been written before, or TensorBoard is not
            installed.
    """
    try:
        from tensorboard.summary import Writer
    except ImportError as error:
        raise ConfigError("TensorBoard is not installed: pip install tensorboard") from error
    written = []
    for run in find_runs(folder, "stats.jsonl"):
        target = output / (run.relative_to(folder) if run != folder else run.resolve().name)
        if target.exists():
            raise ConfigError(f"--tensorboard: {target} exists; name another folder or move it")
        writer = Writer(str(target))
        for record in read_records(run):
            if record["split"] == CHANGED:
                continue
            split, step, time = (record.pop(name) for name in ("split", "step", "time"))
            for name, value in record.items():
                writer.add_scalar(f"{split}/{name}", value, step, wall_time=time)
        writer.close()
        written.append(target)
    return written


def serve(options: VisualizeOptions) -> None:
    """Serve the runs at or below the folder `run` until interrupted.

    Raises:
        ConfigError: there is no run, the address cannot be used, or VisualDL is not installed.
    """
    logs = [str(run / "visualdl") for run in find_runs(options.run, "visualdl")]
    host, port = options.host, options.port
    try:
        from visualdl.server.app import create_app
        from visualdl.server.args import ParseArgs
        from werkzeug.serving import make_server
    except ImportError as error:
        raise ConfigError("VisualDL is not installed: pip install visualdl") from error
    # `visualdl.server.app.run` starts a process that outlives this one, and does not notice that
    # the port belongs to another.
    with _listening(host, port) as place:
        # Without a language VisualDL 2.5.3 fails on requests that state none; its pages would also
        # report to a counting service.
        given = {"logdir": logs, "host": host, "port": port}
        app = create_app(ParseArgs(**given, language="en", telemetry=False))
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for each request
        server = make_server(host, port, app, fd=place.fileno())
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{place.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def _listening(host: str, port: int) -> socket.socket:
    """Open the address to serve on."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        place = socket.socket(family)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
        place.listen()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--host, --port: cannot serve on {host}, port {port} ({error}). Name another --port;"
            " 0 takes a free one"
        ) from error
    return place
