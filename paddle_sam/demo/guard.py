"""Who may talk to the demo, and what its answers let a browser do."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, Response, request
from werkzeug.exceptions import Forbidden

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
