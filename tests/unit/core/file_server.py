"""A web server on loopback that serves one file and misbehaves when told to."""

import http.server
import random
import re
import socket

CONTENT = random.Random(0).randbytes(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at /file; the fields make it misbehave."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut_after = []  # bytes sent by each of the next answers before the connection drops
        self.resumes = True
        self.status = 200
        self.page = None
        self.ranges = []  # what was asked for
        self.url = f"http://127.0.0.1:{self.server_address[1]}/file"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        if server.status != 200:
            return self.send_error(server.status)
        if server.page is not None:
            return self.answer(200, server.page, {"Content-Type": "text/html; charset=utf-8"})
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.resumes else 0
        if start >= len(CONTENT):
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(CONTENT)}"})
        if start:
            where = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            return self.answer(206, CONTENT[start:], {"Content-Range": where})
        return self.answer(200, CONTENT, {})

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        sent = self.server.cut_after.pop(0) if self.server.cut_after else len(body)
        self.wfile.write(body[:sent])
        self.wfile.flush()
        if sent < len(body):
            self.connection.shutdown(socket.SHUT_RDWR)
