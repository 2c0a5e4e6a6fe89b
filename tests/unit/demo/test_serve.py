"""How the demo starts and works: its address, models, memory of photos, and worker."""

import socket
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.demo.options import DemoOptions
from paddle_sam.demo.serve import make_demo_server, model_names
from paddle_sam.demo.sessions import Recent, Session, SessionEndedError, Sessions
from paddle_sam.demo.state import Demo, Model
from paddle_sam.demo.worker import BusyError, Worker
from paddle_sam.errors import CheckpointError, ConfigError


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
    server = make_demo_server(DemoOptions(port=0, device="cpu"))
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
        with pytest.raises(ConfigError, match=f"port: 127.0.0.1:{port} cannot be used"):
            make_demo_server(DemoOptions(port=port))
    assert "in use" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="port: expected at most 65535, found 70000"):
        DemoOptions(port=70000)


def test_a_missing_face_detector_is_noticed_before_the_first_photo(pipeline, monkeypatch):
    def missing():
        raise CheckpointError("the landmark predictor is missing")

    model = Model(AgePipeline(pipeline.network, pipeline.crop))
    monkeypatch.setattr("paddle_sam.demo.serve.load_model", lambda *_: model)
    monkeypatch.setattr("paddle_sam.faces.cutter.FaceLandmarker", missing)
    with pytest.raises(CheckpointError, match="predictor is missing"):
        make_demo_server(DemoOptions(port=0, device="cpu"))


def make_session():
    return Session("small", b"", np.zeros((1, 1, 3), np.uint8), [], [])


def test_sessions_end_when_idle_or_too_many(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("paddle_sam.demo.sessions.time.monotonic", lambda: now[0])
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


def test_the_worker_keeps_order_and_refuses_too_much():
    worker, gate, done = Worker(queue_length=3), threading.Event(), []
    with ThreadPoolExecutor(8) as pool:
        blocked = pool.submit(worker.run, gate.wait)
        while worker._waiting < 1:
            pass
        waiting = []
        for number in (1, 2):
            waiting.append(pool.submit(worker.run, lambda number=number: done.append(number)))
            while worker._waiting < 1 + number:
                pass
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
