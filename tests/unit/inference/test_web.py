"""The demo over HTTP, without a browser."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skimage.data
from PIL import Image

from paddle_sam.common.images import to_network
from paddle_sam.inference.web.app import Demo, make_app
from paddle_sam.inference.web.sessions import Session, SessionEndedError, Sessions
from paddle_sam.inference.web.worker import BusyError, Worker

PORTRAIT = skimage.data.astronaut()


@pytest.fixture
def client(pipeline):
    demo = Demo({"small": lambda: pipeline}, Worker(), Sessions())
    return make_app(demo, max_upload_mb=1.0).test_client()


def file_of(image: np.ndarray, file_format="JPEG"):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, file_format)
    return {"photo": (io.BytesIO(stream.getvalue()), f"photo.{file_format.lower()}")}


def pixels(response) -> np.ndarray:
    assert response.status_code == 200, response.json
    assert response.mimetype == "image/png"
    return np.asarray(Image.open(io.BytesIO(response.data)))


def test_upload_and_ages_equal_the_pipeline(client, pipeline):
    found = client.post("/photo", data=file_of(PORTRAIT, "PNG")).json
    assert (found["faces"], found["model"]) == (1, "small")
    crop = pixels(client.get(f"/session/{found['session']}/0/input.png"))
    np.testing.assert_array_equal(crop, pipeline.faces(PORTRAIT)[0].image)
    aged = pixels(client.get(f"/session/{found['session']}/0/age/37.png"))
    want = pipeline.age(crop[None], [37])[0, 0]
    assert np.abs(aged.astype(int) - want).max() <= 1


def test_fifty_rapid_requests_lose_none(client, pipeline):
    """Every age answers with its own picture, whatever the order of arrival."""
    session = client.post("/example").json["session"]
    ages = [(17 * k) % 50 for k in range(50)]
    application = client.application

    def ask(age):
        return pixels(application.test_client().get(f"/session/{session}/0/age/{age}.png"))

    with ThreadPoolExecutor(16) as pool:
        found = dict(zip(ages, pool.map(ask, ages), strict=True))
    crops = np.stack([pipeline.faces(PORTRAIT)[0].image])
    want = pipeline.age(crops, sorted(ages))[0]
    for age, image in zip(sorted(ages), want, strict=True):
        assert np.abs(found[age].astype(int) - image).max() <= 1, age


def test_strip_has_the_input_and_every_age(client):
    session = client.post("/example").json["session"]
    picture = pixels(client.get(f"/session/{session}/0/strip.png?ages=20,60"))
    assert picture.shape[1] == 3 * 160


def test_a_photo_is_forgotten_on_request(client):
    session = client.post("/example").json["session"]
    assert client.delete(f"/session/{session}").status_code == 200
    answer = client.get(f"/session/{session}/0/age/50.png")
    assert answer.status_code == 410
    assert "no longer in memory" in answer.json["error"]


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (lambda c: c.post("/photo"), 422, "No picture arrived"),
        (lambda c: c.post("/photo", data=file_of(PORTRAIT[:100, :100])), 422, "No face was found"),
        (lambda c: c.post("/photo", data={"photo": (io.BytesIO(b"<html>"), "a.jpg")}), 422, "HTML"),
        (lambda c: c.post("/photo", data={"photo": (io.BytesIO(b""), "a.jpg")}), 422, "empty"),
        (lambda c: c.post("/photo", data={"photo": (io.BytesIO(b"x" * 2**21), "a")}), 413, "1 MB"),
        (lambda c: c.post("/example", data={"model": "large"}), 422, "no model called 'large'"),
        (lambda c: c.get("/session/none/0/input.png"), 410, "no longer in memory"),
        (lambda c: c.get("/nothing"), 404, "not found"),
        (lambda c: c.get("/", headers={"Host": "evil.example"}), 403, "localhost"),
        (lambda c: c.get("/static/../app.py"), 404, "not found"),
    ],
)
def test_mistakes_are_answered_in_words(client, request_, status, words):
    answer = request_(client)
    assert answer.status_code == status
    assert words in answer.json["error"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("7/age/50.png", "number 7 is not there"),
        ("0/age/101.png", "from 0 to 100"),
        ("0/strip.png?ages=old", "--target_age"),
    ],
)
def test_impossible_requests_for_a_face(client, path, words):
    session = client.post("/example").json["session"]
    answer = client.get(f"/session/{session}/{path}")
    assert answer.status_code == 422
    assert words in answer.json["error"]


def test_several_faces_can_be_chosen(client, pipeline):
    pair = np.hstack([PORTRAIT, PORTRAIT[:, ::-1]])
    found = client.post("/photo", data=file_of(pair)).json
    assert found["faces"] == 2
    left, right = (
        pixels(client.get(f"/session/{found['session']}/{face}/input.png")) for face in (0, 1)
    )
    assert np.abs(left.astype(int) - right[:, ::-1]).mean() < 12
    assert np.abs(left.astype(int) - right).mean() > 12


def make_session(pipeline):
    crops = np.zeros((1, 64, 64, 3), np.uint8)
    return Session("small", crops, to_network(crops), None)


def test_sessions_end_when_idle_or_too_many(pipeline, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("paddle_sam.inference.web.sessions.time.monotonic", lambda: now[0])
    sessions = Sessions(limit=2, idle_seconds=60)

    def add():
        session = make_session(pipeline)
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
