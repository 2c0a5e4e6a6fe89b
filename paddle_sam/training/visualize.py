"""VisualDL on the runs below a folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from paddle_sam.errors import ConfigError


def run_logs(folder: str | Path) -> list[Path]:
    """The `visualdl` folders of the runs at or below `folder`.

    Raises:
        ConfigError: there is no run.
    """
    found = sorted(path for path in Path(folder).rglob("visualdl") if path.is_dir())
    if not found:
        raise ConfigError(
            f"{folder}: holds no run. Name the --exp_dir of a training; each has a visualdl folder"
        )
    return found


def serve(folder: str | Path, host: str, port: int) -> None:
    """Serve the runs at or below `folder` until interrupted.

    Raises:
        ConfigError: there is no run, or VisualDL is not installed.
    """
    logs = run_logs(folder)
    try:
        from visualdl.server import app
    except ImportError as error:
        raise ConfigError("VisualDL is not installed: pip install visualdl") from error
    print(f"http://{host}:{port}/  (Ctrl-C ends it)")
    # Without a language VisualDL 2.5.3 fails on requests that state none; its pages would also
    # report to a counting service.
    server = app.run(
        logdir=[str(path) for path in logs],
        host=host,
        port=port,
        open_browser=False,
        language="en",
        telemetry=False,
    )
    # It is a process of its own, which would outlive this one and hold the port.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(server, signal.SIGTERM))
