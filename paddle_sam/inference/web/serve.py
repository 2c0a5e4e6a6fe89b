"""Start the web demo."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from werkzeug.serving import BaseWSGIServer, make_server

from paddle_sam.common.checks import CheckpointError, ConfigError
from paddle_sam.configs.demo import DemoConfig
from paddle_sam.inference.pipeline import EMBEDDED_DEFAULT, AgePipeline
from paddle_sam.inference.web.app import Demo, make_app
from paddle_sam.inference.web.sessions import Sessions
from paddle_sam.inference.web.worker import Worker


def make_demo_server(config: DemoConfig) -> BaseWSGIServer:
    """A server that is bound and ready for `serve_forever`.

    Raises:
        CheckpointError: a weight file is missing.
        ConfigError: the address is taken or not of this machine.
    """
    paths = [Path(part.strip()) for part in config.checkpoint_path.split(",") if part.strip()]
    if missing := [path for path in paths if not path.is_file()]:
        raise CheckpointError(f"{missing[0]}: there is no such file")
    loaders = {
        path.stem: functools.partial(AgePipeline.from_checkpoint, path, config.device)
        for path in paths
    } or {EMBEDDED_DEFAULT: functools.partial(AgePipeline.from_checkpoint, None, config.device)}
    demo = Demo(
        loaders, Worker(config.queue_length), Sessions(config.sessions, 60 * config.idle_minutes)
    )
    app = make_app(demo, config.max_upload_mb, config.host)
    try:
        return make_server(config.host, config.port, app, threaded=True)
    except (OSError, SystemExit) as error:  # werkzeug exits where a port is taken
        raise ConfigError(
            f"--port: {config.host}:{config.port} cannot be used ({error}); choose another"
        ) from error


def serve(config: DemoConfig) -> None:
    """Serve until interrupted."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line per picture
    server = make_demo_server(config)
    print(f"The demo is at http://{config.host}:{server.port}/ (Ctrl-C ends it)", flush=True)
    server.serve_forever()
