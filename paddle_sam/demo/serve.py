"""Start the web demo."""

from __future__ import annotations

import functools
from pathlib import Path

from paddle_sam.ageing.measures import Measures
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT, EMBEDDED_NOTE, AgePipeline
from paddle_sam.demo.app import make_app
from paddle_sam.demo.options import DemoOptions
from paddle_sam.demo.server import DemoServer, addresses
from paddle_sam.demo.sessions import Sessions
from paddle_sam.demo.state import Demo, Model
from paddle_sam.errors import CheckpointError
from paddle_sam.metrics.judges import open_judges

SPARE_THREADS = 16  # that answer what needs no waiting while all others wait for the network


def make_demo_server(config: DemoOptions) -> DemoServer:
    """A server that is bound and ready for `serve_forever`, the first model loaded.

    Raises:
        CheckpointError: a weight file is missing, or the first cannot be used.
        ConfigError: the address is taken or not of this machine.
    """
    loaders = {
        name: functools.partial(load_model, config, path)
        for name, path in model_names(config.checkpoint_path).items()
    }
    sessions = Sessions(config.sessions, 60 * config.idle_minutes, 1e6 * config.memory_mb)
    demo = Demo(loaders, sessions, config.queue_length, config.max_megapixels)
    app = make_app(demo, config.max_upload_mb, config.host, config.names())
    server = DemoServer(
        app,
        config.host,
        config.port,
        threads=2 * config.queue_length + SPARE_THREADS,
        max_request_bytes=int(config.max_upload_mb * 1e6) + 100_000,  # and the form around it
        idle=sessions.drop_old,
    )
    try:
        demo.prepare()
    except Exception:
        server.server_close()
        raise
    return server


def model_names(checkpoint_path: str) -> dict[str, str]:
    """A name for each weight file of `--checkpoint_path`, and its path; empty for the embedded one.

    Files of one name in several folders are called by their paths.

    Raises:
        CheckpointError: a file is missing.
    """
    paths = [part.strip() for part in checkpoint_path.split(",") if part.strip()]
    if missing := [path for path in paths if not Path(path).is_file()]:
        raise CheckpointError(f"--checkpoint_path: {missing[0]}: there is no such file")
    stems = [Path(path).stem for path in paths]
    names = {
        stem if stems.count(stem) == 1 else path: path
        for stem, path in zip(stems, paths, strict=True)
    }
    return names or {EMBEDDED_DEFAULT: ""}


def load_model(config: DemoOptions, path: str) -> Model:
    """The pipeline of a weight file, and what measures its results."""
    pipeline = AgePipeline.from_checkpoint(path or None, config.device)
    files = (path, config.age_regressor_path, config.identity_path)
    load = Measures.from_files
    return Model(pipeline, load(pipeline.crop, *files, config.device, judges=open_judges()))


def serve(config: DemoOptions) -> None:
    """Serve until interrupted."""
    if not config.checkpoint_path:
        print(EMBEDDED_NOTE)
    server = make_demo_server(config)
    where = " or ".join(addresses(config.host, server.port))
    print(f"The demo is at {where} (Ctrl-C ends it)", flush=True)
    server.serve_forever()
