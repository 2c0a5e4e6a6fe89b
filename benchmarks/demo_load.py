"""The demo under load: many visitors, slow clients and hostile uploads at the same time.

A server is started here in a process of its own, with a process of clients. For --seconds,
--clients visitors open the example and drag its slider or fetch light pages; --slow connections
send a request that never arrives whole; bombs (images that declare far more than they hold) and
requests of foreign pages come in between. Writes benchmarks/results/demo_load.json.

    python -m benchmarks.demo_load
    python -m benchmarks.demo_load --clients 20 --seconds 5 --settle 5
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import io
import json
import multiprocessing
import os
import random
import socket
import struct
import threading
import time
import zlib

import psutil
import skimage.data
from PIL import Image

from benchmarks import timing
from paddle_sam.demo.options import ENVIRONMENT, DemoOptions

LIGHT = ("/", "/settings", "/static/demo.js", "/static/demo.css")


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200, help="visitors at once")
    parser.add_argument("--slow", type=int, default=20, help="clients that never finish a request")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long")
    parser.add_argument("--settle", type=float, default=60.0, help="seconds until memory is read")
    args = parser.parse_args(argv)
    context = multiprocessing.get_context("spawn")
    ready, ports = context.Event(), context.Queue()
    process = context.Process(target=serve, args=(ready, ports), daemon=True)
    process.start()
    port = ports.get(timeout=120)
    warm_up(port)
    server = psutil.Process(process.pid)
    idle = server.memory_info().rss
    load = Load(port, args)
    load.run()
    peak = server.memory_info().rss
    time.sleep(args.settle)
    record = {"machine": timing.machine(), "arguments": vars(args), **load.summary()}
    record["memory_mb"] = {
        "idle": idle / 1e6,
        "under_load": peak / 1e6,
        "later": server.memory_info().rss / 1e6,
    }
    process.terminate()
    print(json.dumps({key: record[key] for key in record if key != "machine"}, indent=2))
    print("written:", timing.write("demo_load", record))


def serve(ready, ports) -> None:
    os.environ.update(ENVIRONMENT)  # as scripts/demo.py sets it, before Paddle is loaded
    from paddle_sam.demo.serve import make_demo_server

    server = make_demo_server(DemoOptions(port=0, device="cpu"))
    ports.put(server.port)
    server.serve_forever()


def warm_up(port: int) -> None:
    """One visitor who does everything, so that what is loaded once is loaded."""
    session = json.loads(ask(port, "POST", "/example")[1])["session"]
    for age in range(0, 101, 10):
        ask(port, "GET", f"/session/{session}/0/age/{age}.png")
    ask(port, "DELETE", f"/session/{session}")


class Load:
    """The clients, and what they saw."""

    def __init__(self, port: int, args: argparse.Namespace):
        self.port, self.args = port, args
        self.times: dict[str, list[float]] = collections.defaultdict(list)
        self.statuses: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.evicted = 0
        self.photo = form(portrait_file())
        self.bomb = form(bomb(16_000, 16_000))
        self._lock = threading.Lock()
        self._end = 0.0

    def run(self) -> None:
        self._end = time.monotonic() + self.args.seconds
        jobs = [(self.visit, n) for n in range(self.args.clients)]
        jobs += [(self.dawdle, n) for n in range(self.args.slow)]
        jobs += [(self.attack, n) for n in range(2)]
        threads = [threading.Thread(target=job, args=(n,)) for job, n in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def visit(self, number: int) -> None:
        """A visitor: half of them drag a slider, with pauses; the others look at light pages."""
        chance = random.Random(number)
        time.sleep(chance.uniform(0, min(3.0, self.args.seconds / 4)))
        session = None
        while time.monotonic() < self._end:
            if number % 2 and session is None:
                upload = number % 4 == 1  # the others take the example, which is read once
                path, photo = ("/photo", self.photo) if upload else ("/example", None)
                status, body = self.ask("upload" if upload else "example", "POST", path, photo)
                session = json.loads(body)["session"] if status == 200 else None
            elif number % 2:
                age = chance.randrange(101)
                status, _ = self.ask("age", "GET", f"/session/{session}/0/age/{age}.png")
                self.evicted += status == 410
            else:
                self.ask("light", "GET", chance.choice(LIGHT))
            time.sleep(chance.uniform(0.5, 2.0))

    def dawdle(self, number: int) -> None:
        """A client that sends a byte a second."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as it:
            it.sendall(
                b"POST /photo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n"
            )
            while time.monotonic() < self._end:
                it.sendall(b"x")
                time.sleep(1)

    def attack(self, number: int) -> None:
        """Bombs, foreign pages and odd addresses."""
        while time.monotonic() < self._end:
            self.ask("bomb", "POST", "/photo", self.bomb)
            self.ask("foreign", "POST", "/example", headers={"Sec-Fetch-Site": "cross-site"})
            self.ask("odd", "GET", f"/session/x/{4000 * '1'}/age/5.png")
            time.sleep(0.5)

    def ask(self, kind: str, method: str, path: str, body=None, headers=None) -> tuple[int, bytes]:
        start = time.perf_counter()
        try:
            status, data = ask(self.port, method, path, body, headers)
        except OSError:
            status, data = 0, b""
        with self._lock:
            self.statuses[kind][status] += 1
            self.times[kind].append(time.perf_counter() - start)
        return status, data

    def summary(self) -> dict:
        def of(kind: str) -> dict:
            times = sorted(self.times[kind])
            at = {"median_s": 0.5, "p95_s": 0.95, "slowest_s": 1.0}
            found = {
                name: times[min(int(p * len(times)), len(times) - 1)] for name, p in at.items()
            }
            return {**found, "answers": dict(self.statuses[kind])}

        server_errors = sum(counts[500] for counts in self.statuses.values())
        return {
            "requests": {kind: of(kind) for kind in sorted(self.times)},
            "answered_500": server_errors,
            "active_visitors_evicted": self.evicted,
        }


def ask(port: int, method: str, path: str, body=None, headers=None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        boundary = {"Content-Type": "multipart/form-data; boundary=x"} if body else {}
        connection.request(method, path, body, {**boundary, **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read()


def form(photo: bytes) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'
    return head + photo + b"\r\n--x--\r\n"


def portrait_file() -> bytes:
    """NASA's public-domain portrait as a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(stream, "JPEG")
    return stream.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A small PNG file of one colour that declares many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    pack = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    data = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


if __name__ == "__main__":
    main()
