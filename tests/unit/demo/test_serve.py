"""How the demo starts and works: its address, models, memory of photos, and worker."""

import contextlib
import http.client
import socket
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.demo import serve as serve_module
from paddle_sam.demo.options import DemoOptions
from paddle_sam.demo.serve import DemoServer, addresses, make_demo_server, model_names
from paddle_sam.demo.sessions import BusyError, Recent, Session, SessionEndedError, Sessions, Worker
from paddle_sam.demo.state import Demo, Model
from paddle_sam.errors import CheckpointError, ConfigError
from tests import DEVICE


def test_what_is_kept_is_limited():
    recent = Recent(limit=10)
    for key in "abc":
        recent.add(key, key.upper(), 4)
        recent.get("a")
    assert [recent.get(key) for key in "abc"] == ["A", None, "C"]
    recent.add("d", "D", 11)
    assert [recent.get(key) for key in "acd"] == [None, None, None]


def test_models_of_one_name_stay_apart(tmp_path):
    paths = [tmp_path / name for name in ("one/best.pdparams", "two/best.pdparams", "c.pdparams")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    one, two, other = map(str, paths)
    assert model_names(f"{one},{two}, {other}") == {one: one, two: two, "c": other}
    assert model_names("") == {"sam_mini": ""}
    with pytest.raises(CheckpointError, match=r"checkpoint_path: nowhere: there is no such file"):
        model_names(f"{one},nowhere")


def test_a_damaged_model_is_noticed_before_the_first_photo(tmp_path):
    (tmp_path / "a.pdparams").write_bytes(b"")
    with pytest.raises(CheckpointError, match="the file is empty"):
        make_demo_server(DemoOptions(port=0, checkpoint_path=str(tmp_path / "a.pdparams")))


def test_idle_photos_go_although_nobody_asks(monkeypatch):
    sessions = Sessions(idle_seconds=0.2)
    monkeypatch.setattr("paddle_sam.demo.serve.Sessions", lambda *limits: sessions)
    monkeypatch.setattr(Demo, "prepare", lambda self: None)
    server = make_demo_server(DemoOptions(port=0, device=DEVICE))
    session, gone = make_session(), threading.Event()
    weakref.finalize(session, gone.set)
    sessions.add(session)
    del session
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert gone.wait(60)
    server.shutdown()


def test_addresses_that_cannot_be_used_are_explained(capfd):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port: 127.0.0.1:{port} cannot be used.*in use"):
            make_demo_server(DemoOptions(port=port))
    assert capfd.readouterr().err == ""
    with pytest.raises(ConfigError, match="port: expected at most 65535, found 70000"):
        DemoOptions(port=70000)


def test_a_missing_face_detector_is_noticed_before_the_first_photo(pipeline, monkeypatch):
    def missing():
        raise CheckpointError("the landmark predictor is missing")

    model = Model(AgePipeline(pipeline.network, pipeline.crop))
    monkeypatch.setattr("paddle_sam.demo.serve.load_model", lambda *_: model)
    monkeypatch.setattr("paddle_sam.faces.alignment.FaceLandmarker", missing)
    with pytest.raises(CheckpointError, match="predictor is missing"):
        make_demo_server(DemoOptions(port=0, device=DEVICE))


def make_session():
    return Session("small", b"", np.zeros((1, 1, 3), np.uint8), [], [])


def test_sessions_end_when_idle_or_too_many(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("paddle_sam.demo.sessions.time.monotonic", lambda: now[0])
    monkeypatch.setattr("paddle_sam.demo.sessions.ACTIVE_SECONDS", 30)
    sessions = Sessions(limit=2, idle_seconds=60)

    def add():
        session = make_session()
        session.used = now[0]
        return sessions.add(session)

    first, second = add(), add()
    now[0] += 50
    sessions.get(first)
    third = add()
    with pytest.raises(SessionEndedError):
        sessions.get(second)
    now[0] += 55
    sessions.get(third)
    now[0] += 55
    assert sessions.get(third)
    with pytest.raises(SessionEndedError, match="1 idle minutes"):
        sessions.get(first)


def test_active_visitors_are_not_turned_out():
    sessions = Sessions(limit=2)
    first, second = sessions.add(make_session()), sessions.add(make_session())
    with pytest.raises(BusyError, match="Many photos"):
        sessions.add(make_session())
    assert sessions.get(first) and sessions.get(second)


def test_memory_is_bounded_pictures_go_before_photos():
    sessions = Sessions(max_bytes=1000)
    first, second = make_session(), make_session()
    tokens = [sessions.add(session) for session in (first, second)]
    first.pictures.add("a", b"", 600)
    second.pictures.add("a", b"", 600)
    sessions.trim()
    assert (first.pictures.size, second.pictures.size) == (0, 600)
    large = Session("small", bytes(990), np.zeros((1, 1, 3), np.uint8), [], [])
    sessions.add(large)
    assert second.pictures.size == 0
    assert all(sessions.get(token) for token in tokens)
    with pytest.raises(BusyError, match="Many photos"):
        sessions.add(Session("small", bytes(100), np.zeros((1, 1, 3), np.uint8), [], []))
    with pytest.raises(BusyError, match="more memory than this demo may use .1 MB"):
        Sessions(max_bytes=1e6).add(Session("small", bytes(10**6), large.preview, [], []))


def queued(worker: Worker, pool, job, visitor):
    """Put a job in the queue, and wait until it is there."""
    before = worker._waiting
    future = pool.submit(worker.run, job, visitor)
    while worker._waiting == before and not future.done():
        pass
    return future


def test_the_worker_takes_turns_between_visitors():
    worker, started, gate, done = Worker(queue_length=8), threading.Event(), threading.Event(), []

    def block():
        started.set()
        gate.wait()

    with ThreadPoolExecutor(8) as pool:
        blocked = pool.submit(worker.run, block, "a")
        started.wait()
        order = ["a1", "a2", "a3", "b1", "b2"]
        jobs = [queued(worker, pool, lambda n=n: done.append(n), n[0]) for n in order]
        jobs.append(queued(worker, pool, lambda: done.append("a4"), "a"))
        with pytest.raises(BusyError):  # no visitor has more than half of the queue
            worker.run(lambda: None, "a")
        gate.set()
        [job.result() for job in (blocked, *jobs)]
        worker.close()
    assert done == ["a1", "b1", "a2", "b2", "a3", "a4"]


def test_the_worker_keeps_order_and_refuses_too_much():
    worker, gate, done = Worker(queue_length=3), threading.Event(), []
    with ThreadPoolExecutor(8) as pool:
        blocked = pool.submit(worker.run, gate.wait)
        while worker._waiting < 1:
            pass
        waiting = [
            queued(worker, pool, lambda number=number: done.append(number), number)
            for number in (1, 2)
        ]
        with pytest.raises(BusyError):
            worker.run(lambda: done.append(99))
        gate.set()
        blocked.result()
        [job.result() for job in waiting]
    assert done == [1, 2]
    assert worker.run(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        worker.run(lambda: 1 / 0)
    worker.close()


@pytest.fixture
def small_server():
    """A server of an application that answers with the length of what it was sent."""

    def app(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(len(body)).encode()]

    server = DemoServer(app, "127.0.0.1", 0, 2, 1000, lambda: None)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join(10)
    assert not thread.is_alive()


def asked(port: int, body: bytes, timeout=20) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    connection.request("POST", "/", body)
    response = connection.getresponse()
    return response.status, response.read()


def slow_request(port: int) -> socket.socket:
    """A connection whose request never arrives whole."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n123")
    return connection


def test_slow_clients_hold_no_thread_and_are_sent_away(small_server, monkeypatch):
    slow = [slow_request(small_server.port) for _ in range(20)]
    assert asked(small_server.port, b"12345") == (200, b"5")
    monkeypatch.setattr("paddle_sam.demo.serve.REQUEST_SECONDS", 0.2)
    assert [connection.recv(100) for connection in slow] == 20 * [b""]
    assert asked(small_server.port, b"12345") == (200, b"5")


def test_half_received_requests_have_bounded_memory(small_server, monkeypatch):
    monkeypatch.setattr("paddle_sam.demo.serve.INCOMING_BYTES", 5)
    slow = [slow_request(small_server.port) for _ in range(3)]
    closed = 0
    for connection in slow:
        connection.settimeout(2)
        with contextlib.suppress(TimeoutError):
            closed += connection.recv(100) == b""
    assert closed == 2
    assert asked(small_server.port, b"1")[0] == 200


def test_large_requests_are_refused(small_server):
    assert asked(small_server.port, bytes(900)) == (200, b"900")
    assert asked(small_server.port, bytes(2000))[0] == 413


def test_printed_addresses_can_be_opened():
    assert addresses("::1", 7860) == ["http://[::1]:7860/"]
    for host in ("0.0.0.0", "::"):
        assert addresses(host, 80)[0] == "http://127.0.0.1:80/"


def test_the_page_is_opened_on_demand(monkeypatch, capsys):
    opened = threading.Event()
    addresses = []

    def open_page(address):
        addresses.append(address)
        opened.set()

    monkeypatch.setattr(serve_module.webbrowser, "open", open_page)
    monkeypatch.setattr(serve_module.DemoServer, "serve_forever", lambda self: self.server_close())
    serve_module.serve(DemoOptions(port=0, device=DEVICE))
    assert not addresses
    serve_module.serve(DemoOptions(port=0, device=DEVICE, open=True))
    assert opened.wait(10)
    assert addresses[0] in capsys.readouterr().out
