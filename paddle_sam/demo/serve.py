"""Start the web demo: its model, and an HTTP server with limits on what clients can hold.

Waitress receives whole requests before a thread works on them, so a slow client costs a socket and
no thread. What it leaves open, deadlines for requests that trickle in and the memory that half
received photos take, is policed here.
"""

from __future__ import annotations

import functools
import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path

import waitress
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.wasyncore import loop

from paddle_sam.ageing.measures import Measures
from paddle_sam.ageing.pipeline import EMBEDDED_DEFAULT, EMBEDDED_NOTE, AgePipeline
from paddle_sam.demo.app import make_app
from paddle_sam.demo.options import DemoOptions
from paddle_sam.demo.sessions import Sessions
from paddle_sam.demo.state import Demo, Model
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.metrics.judges import open_judges

SPARE_THREADS = 16  # that answer what needs no waiting while all others wait for the network
CONNECTIONS = 512  # sockets open at once
HEADER_BYTES = 16_384
REQUEST_SECONDS = 30.0  # in which a request has to arrive
SILENT_SECONDS = 60  # after which a connection is closed
INCOMING_BYTES = 256_000_000  # that half received requests may take together
POLL_SECONDS = 0.5


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
    where = addresses(config.host, server.port)
    print(f"The demo is at {' or '.join(where)} (Ctrl-C ends it)", flush=True)
    if config.open:  # in a thread, because a browser in the terminal returns when it is closed
        threading.Thread(target=webbrowser.open, args=where[:1], daemon=True).start()
    server.serve_forever()


class DemoServer:
    """An application on a bound address.

    Args:
        app: the WSGI application.
        host, port: where to listen; port 0 takes a free one.
        threads: requests worked on at once.
        max_request_bytes: largest request.
        idle: called twice a second while it serves.

    Raises:
        ConfigError: the address is taken, or is not of this machine.
    """

    def __init__(
        self,
        app: Callable,
        host: str,
        port: int,
        threads: int,
        max_request_bytes: int,
        idle: Callable[[], None],
    ):
        self._idle = idle
        self._stop, self._ended = threading.Event(), threading.Event()
        self._sockets: dict[int, object] = {}  # waitress's own map of listeners and channels
        self._began: dict[HTTPChannel, float] = {}  # when a request began to arrive
        try:
            self._server = waitress.create_server(
                app,
                map=self._sockets,
                host=host,
                port=port,
                threads=threads,
                ident=None,
                connection_limit=CONNECTIONS,
                channel_timeout=SILENT_SECONDS,
                cleanup_interval=5,
                max_request_header_size=HEADER_BYTES,
                max_request_body_size=max_request_bytes,
                # Nothing is ever written to disk.
                inbuf_overflow=2**40,
                outbuf_overflow=2**40,
                # A slow reader holds its answer, not the thread that made it.
                outbuf_high_watermark=2**40,
                asyncore_use_poll=True,
            )
        except (OSError, ValueError) as error:  # ValueError: the name cannot be resolved
            reason = error.strerror if isinstance(error, OSError) else "there is no such address"
            raise ConfigError(
                f"--port: {host}:{port} cannot be used ({reason}); choose another, or another"
                " --host"
            ) from error
        listeners = [one for one in self._sockets.values() if isinstance(one, BaseWSGIServer)]
        self.port = listeners[0].effective_port

    def serve_forever(self) -> None:
        """Serve until `shutdown` is called or an exception, such as Ctrl-C, is raised."""
        next_check = 0.0
        try:
            while not self._stop.is_set():
                loop(timeout=POLL_SECONDS, use_poll=True, map=self._sockets, count=1)
                if time.monotonic() >= next_check:
                    next_check = time.monotonic() + POLL_SECONDS
                    self._police()
                    self._idle()
        finally:
            self.server_close()
            self._ended.set()

    def shutdown(self) -> None:
        """Make `serve_forever`, in another thread, return; wait until it has."""
        self._stop.set()
        self._ended.wait()

    def server_close(self) -> None:
        """Close the address and every connection."""
        self._server.task_dispatcher.shutdown(timeout=1)
        for channel in list(self._sockets.values()):
            channel.close()

    def _police(self) -> None:
        """Close connections whose request takes too long to arrive, or too much memory."""
        now = time.monotonic()
        channels = [item for item in self._sockets.values() if isinstance(item, HTTPChannel)]
        arriving = [channel for channel in channels if channel.request is not None]
        self._began = {channel: self._began.get(channel, now) for channel in arriving}
        total = 0
        for channel in sorted(arriving, key=self._began.get, reverse=True):  # the latest first
            total += channel.request.body_bytes_received
            if now - self._began[channel] > REQUEST_SECONDS or total > INCOMING_BYTES:
                channel.handle_close()


def addresses(host: str, port: int) -> list[str]:
    """URLs that a browser can open for a server bound to an address.

    >>> addresses("::1", 7860), addresses("127.0.0.1", 80)
    (['http://[::1]:7860/'], ['http://127.0.0.1:80/'])
    """
    if host in ("", "0.0.0.0", "::"):
        names = ["127.0.0.1", socket.gethostname()]
    else:
        names = [f"[{host}]" if ":" in host else host]
    return [f"http://{name}:{port}/" for name in names]
