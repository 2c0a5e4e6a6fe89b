"""The web demo over HTTP: upload a photo, drag the age slider.

Nothing is written to disk, and nothing is loaded from anywhere else: the page works offline. Who
may talk to it, and what its answers let a browser do, is checked on every request.
"""

from __future__ import annotations

import io
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, Request, Response, jsonify, request, send_from_directory
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import Forbidden, HTTPException, RequestEntityTooLarge
from werkzeug.routing import BaseConverter

from paddle_sam.ageing.options import parse_ages
from paddle_sam.demo.pictures import Look
from paddle_sam.demo.sessions import BusyError, SessionEndedError
from paddle_sam.demo.state import Demo
from paddle_sam.errors import ConfigError, ImageError, PaddleSamError

PAGE_FILES = Path(__file__).resolve().parent / "static"
STATUS = {SessionEndedError: 410, BusyError: 503}
MAX_FIELDS = 8  # of a form
MAX_AGES = 101  # of a strip
# Said here, as a computer's own table may call these text/plain, which browsers refuse to run.
TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html"}
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
LOOPBACK = ("127.0.0.1", "localhost", "::1")

HEADERS = {
    # Everything comes from here; pictures may also be what the page made itself.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:;"
    " media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Number(BaseConverter):
    """A number of a face, or an age: up to four digits."""

    regex = "[0-9]{1,4}"
    to_python = staticmethod(int)


class InMemoryRequest(Request):
    """Keeps uploads in memory, where Flask puts larger ones into temporary files."""

    def _get_file_stream(self, *_args, **_kwargs) -> io.BytesIO:
        return io.BytesIO()


def make_app(
    demo: Demo,
    max_upload_mb: float = 20.0,
    host: str = "127.0.0.1",
    allowed_hosts: tuple[str, ...] = (),
) -> Flask:
    """The demo as a WSGI application.

    Args:
        demo: what it serves.
        max_upload_mb: largest photo accepted, in megabytes.
        host, allowed_hosts: as `guard` takes them.
    """
    app = Flask(__name__, static_folder=None)
    app.request_class = InMemoryRequest
    app.url_map.converters["number"] = Number
    app.config["MAX_CONTENT_LENGTH"] = int(max_upload_mb * 1e6)
    app.config["MAX_FORM_PARTS"] = MAX_FIELDS
    guard(app, host, allowed_hosts)

    @app.get("/")
    def page():
        return send_from_directory(PAGE_FILES, "index.html")

    @app.get("/static/<path:name>")
    def static_file(name):
        kind = TYPES.get(Path(name).suffix)
        return send_from_directory(PAGE_FILES, name, mimetype=kind)

    @app.get("/settings")
    def settings():
        return jsonify({"models": list(demo.loaders), "max_upload_mb": max_upload_mb})

    @app.post("/photo")
    def photo():
        return jsonify(demo.open(uploaded(), request.form.get("model", ""), visitor()))

    @app.post("/example")
    def example():
        return jsonify(demo.open_example(request.form.get("model", ""), visitor()))

    @app.post("/session/<token>/reference")
    def reference(token):
        return jsonify(demo.add_reference(token, uploaded()))

    @app.get("/session/<token>/reference/<number:number>.png")
    def reference_image(token, number):
        return content(demo.reference_image(token, number), "image/png")

    @app.get("/session/<token>/photo.jpg")
    def whole_photo(token):
        return content(demo.photo(token), "image/jpeg")

    @app.get("/session/<token>/<number:face>/input.png")
    def input_image(token, face):
        return content(demo.input_image(token, face), "image/png")

    @app.get("/session/<token>/<number:face>/age/<number:age>.png")
    def aged_image(token, face, age):
        return content(demo.aged_image(token, face, look(age)), "image/png")

    @app.get("/session/<token>/<number:face>/age/<number:age>.json")
    def measured(token, face, age):
        return jsonify(demo.measured(token, face, look(age)))

    @app.get("/session/<token>/<faces>/photo/<number:age>.<any(jpg, png):kind>")
    def pasted(token, faces, age, kind):
        data = demo.pasted(token, numbers(faces), look(age), full=kind == "png")
        return content(data, "image/png" if kind == "png" else "image/jpeg")

    @app.get("/session/<token>/<number:face>/strip.png")
    def age_strip(token, face):
        ages = parse_ages(request.args.get("ages", "0-100:10")[:1000])
        if len(ages) > MAX_AGES:
            raise ConfigError(f"A strip has up to {MAX_AGES} ages, not {len(ages)}.")
        return content(demo.strip(token, face, [look(age) for age in ages]), "image/png")

    @app.post("/session/<token>/<number:face>/video")
    def start_video(token, face):
        demo.start_video(token, face, look(0))
        return jsonify(demo.video_state(token)), 202

    @app.get("/session/<token>/video")
    def video_state(token):
        return jsonify(demo.video_state(token))

    @app.get("/session/<token>/video.mp4")
    def video(token):
        return content(demo.video(token), "video/mp4")

    @app.delete("/session/<token>")
    def forget(token):
        demo.sessions.forget(token)
        return jsonify({})

    @app.errorhandler(PaddleSamError)
    def mendable(error):
        answer, status = error_page(str(error), STATUS.get(type(error), 422))
        if status == 503:
            answer.headers["Retry-After"] = "1"
        return answer, status

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(error):
        return error_page(f"The picture is larger than {max_upload_mb:g} MB.", 413)

    @app.errorhandler(HTTPException)
    def other(error):
        return error_page(error.description, error.code)

    return app


def uploaded() -> bytes:
    """The file that a request brought."""
    file = request.files.get("photo")
    if file is None:
        raise ImageError("No picture arrived. Please choose one.")
    return file.read()


def look(age: float) -> Look:
    """An age with the edits of the query: `strength`, `reference`, `mix` and `keep`."""
    asked: MultiDict[str, str] = request.args
    kinds = {"strength": float, "reference": int, "mix": float, "keep": float}
    try:
        edits = {name: kind(asked[name]) for name, kind in kinds.items() if name in asked}
    except ValueError as error:
        raise ConfigError(f"{', '.join(kinds)}: not a number") from error
    return Look(age, **edits)


def numbers(text: str) -> list[int]:
    """Numbers of faces, as in `0,2`."""
    parts = text[:1000].split(",")
    if not all(part.isascii() and part.isdecimal() and len(part) < 5 for part in parts):
        raise ConfigError(f"Not numbers of faces: {text[:80]}")
    return list(dict.fromkeys(map(int, parts)))


def visitor() -> str:
    """Whom an upload is fair to: an address."""
    return request.remote_addr or ""


def content(data: bytes, kind: str) -> Response:
    return Response(data, mimetype=kind, headers={"Cache-Control": "no-store"})


def error_page(message: str, status: int):
    return jsonify({"error": message}), status


def guard(app: Flask, host: str, allowed_hosts: tuple[str, ...] = ()) -> None:
    """Refuse requests of other pages, and send the headers that keep other pages out.

    Args:
        app: the application to protect.
        host: the address it is bound to. On a loopback address, requests that name another host
            than this machine are refused: a page elsewhere could reach the demo through a name of
            its own that resolves to 127.0.0.1.
        allowed_hosts: further names to answer to, such as that of a reverse proxy. If there are
            any, other names are refused whatever the address.
    """
    names = {*LOCAL_NAMES, *(name.lower() for name in allowed_hosts)}
    restricted = host in LOOPBACK or bool(allowed_hosts)

    @app.before_request
    def known_name():
        if restricted and host_name(request.host) not in names:
            raise Forbidden(
                f"This demo answers to {', '.join(sorted(names))} only. If it stands behind a"
                " proxy, start it with --allowed_hosts and the name people use."
            )

    @app.before_request
    def own_page():
        """Anything that changes something has to come from the demo's own page."""
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        site = request.headers.get("Sec-Fetch-Site")
        origin = request.headers.get("Origin")
        if site is not None:
            foreign = site not in ("same-origin", "none")
        elif origin is not None:
            address = urlsplit(origin).netloc
            foreign = address != request.host and host_name(address) not in allowed_hosts
        else:
            foreign = False  # not a browser
        if foreign:
            raise Forbidden("This request comes from another page.")

    @app.after_request
    def headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response


def host_name(address: str) -> str:
    """The name in a Host header, without the port and in lower case.

    >>> host_name("Localhost:7860"), host_name("[::1]:80"), host_name("[::1]")
    ('localhost', '[::1]', '[::1]')
    """
    name = address if address.endswith("]") else address.rsplit(":", 1)[0]
    return name.lower()
