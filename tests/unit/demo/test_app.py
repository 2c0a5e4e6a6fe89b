"""The demo over HTTP, without a browser."""

import io
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import paddle
import pytest
import skimage.data
from PIL import Image

from paddle_sam.ageing.animate import compose
from paddle_sam.ageing.dial import FaceDial
from paddle_sam.ageing.edits import mix, strengthen
from paddle_sam.ageing.measures import Measures
from paddle_sam.core.images import resize, to_network, to_uint8
from paddle_sam.demo.app import make_app
from paddle_sam.demo.pictures import Look
from paddle_sam.demo.sessions import Session, Sessions, Subject
from paddle_sam.demo.state import Demo, Model
from paddle_sam.faces.paste import paste_back
from paddle_sam.metrics.judges import Judges
from tests import DEVICE

PORTRAIT = skimage.data.astronaut()


@pytest.fixture(scope="module")
def model(pipeline):
    """The embedded default with its age regressor."""
    return Model(pipeline, Measures.from_files(pipeline.crop, device=DEVICE))


@pytest.fixture(scope="module")
def client(model):
    demo = Demo({"small": lambda: model}, Sessions())
    return make_app(demo, max_upload_mb=1.0).test_client()


@pytest.fixture(scope="module")
def portrait(client):
    """Address of a session on the example, which is the portrait."""
    return opened(client)


def opened(client) -> str:
    return f"/session/{client.post('/example').json['session']}"


@pytest.fixture
def short_videos(monkeypatch):
    monkeypatch.setattr("paddle_sam.demo.state.VIDEO_SECONDS", 0.4)


def file_of(image: np.ndarray, file_format="JPEG"):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, file_format)
    return {"photo": (io.BytesIO(stream.getvalue()), f"photo.{file_format.lower()}")}


def pixels(response) -> np.ndarray:
    assert response.status_code == 200, response.json
    assert response.mimetype in ("image/png", "image/jpeg")
    return np.asarray(Image.open(io.BytesIO(response.data)))


def test_upload_and_ages_equal_the_pipeline(client, pipeline):
    found = client.post("/photo", data=file_of(PORTRAIT, "PNG")).json
    assert (found["faces"], found["model"]) == (1, "small")
    session = f"/session/{found['session']}"
    aged = pixels(client.get(f"{session}/0/age/37.png?keep=0"))
    want = pipeline.age(pipeline.faces(PORTRAIT, "all")[0].image[None], [37])[0, 0]
    assert np.abs(aged.astype(int) - want).max() <= 1
    for query, keep in (("", None), ("?keep=0.3", 0.3), ("?keep=1", 1.0)):
        aged = pixels(client.get(f"{session}/0/age/37.png{query}"))
        want = pipeline(PORTRAIT, 37, face="all", keep=keep)[0][0]
        assert np.abs(aged.astype(int) - want).max() <= 2
    before = pixels(client.get(f"{session}/0/input.png"))
    assert before.shape == aged.shape
    outside = (aged == before).all(-1).mean()
    assert outside > 0.1  # the background of the photograph stays


def test_fifty_rapid_requests_lose_none(client, pipeline):
    """Every age answers with its own picture, whatever the order of arrival; some are checked."""
    session = client.post("/example").json["session"]
    ages = [8 + (17 * k) % 50 for k in range(50)]  # younger ones look alike: as young as it can
    application = client.application

    def ask(age):
        return pixels(application.test_client().get(f"/session/{session}/0/age/{age}.png?keep=0"))

    with ThreadPoolExecutor(16) as pool:
        found = dict(zip(ages, pool.map(ask, ages), strict=True))
    assert len({image.tobytes() for image in found.values()}) == 50
    crops = np.stack([pipeline.faces(PORTRAIT, "all")[0].image])
    checked = range(8, 58, 7)
    for age, image in zip(checked, pipeline.age(crops, checked)[0], strict=True):
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
        ("0/age/101.png", "The age has to be from 0 to 100, not 101"),
        ("0/age/50.png?strength=9", "The strength has to be from 0 to 3, not 9"),
        ("0/age/50.png?mix=nan", "The mix has to be from 0 to 1"),
        ("0/age/50.png?keep=1.5", "The keep has to be from 0 to 1, not 1.5"),
        ("0/age/50.png?strength=much", "not a number"),
        ("0/age/50.png?reference=0", "0 reference faces; number 0 is not there"),
        ("0,x/photo/50.png", "faces: 0,x"),
        ("0,1/photo/50.png", "number 1 is not there"),
        ("0/photo/50.png?reference=0", "0 reference faces; number 0 is not there"),
        ("0/age/50.png?reference=" + 5000 * "9", "not a number"),
        (5000 * "9" + "/photo/50.png", "faces: 999"),
        ("0/strip.png?ages=old", "target_age"),
        (
            "0/strip.png?ages=" + ",".join(f"{k / 2:g}" for k in range(120)),
            "up to 101 ages, not 120",
        ),
    ],
)
def test_impossible_requests_for_a_face(client, portrait, path, words):
    answer = client.get(f"{portrait}/{path}")
    assert answer.status_code == 422
    assert words in answer.json["error"]


def inverted(pipeline, image, choice="all"):
    crop = pipeline.faces(image, choice)[0].image
    network_input = paddle.to_tensor(to_network(crop))
    return crop, network_input, pipeline.invert(network_input)


def test_strength_scales_what_ageing_changes(client, portrait, pipeline):
    crop, image, code = inverted(pipeline, PORTRAIT)
    for strength in (0, 1.5):
        found = pixels(client.get(f"{portrait}/0/age/80.png?strength={strength}&keep=0"))
        want = pipeline.age(crop[None], [80], inverted=code, edit=strengthen(strength))[0, 0]
        assert np.abs(found.astype(int) - want).max() <= 1


def test_a_reference_gives_its_finer_codes_aged_alike(client, pipeline):
    portrait = opened(client)
    other = np.clip(PORTRAIT[:, ::-1] * (1, 0.7, 0.5), 0, 255).astype(np.uint8)
    answer = client.post(f"{portrait}/reference", data=file_of(other, "PNG"))
    assert answer.json == {"reference": 0}
    reference, its_image, its_code = inverted(pipeline, other, "best")
    shown = pixels(client.get(f"{portrait}/reference/0.png"))
    np.testing.assert_array_equal(shown, reference)
    crop, image, code = inverted(pipeline, PORTRAIT)
    at = paddle.to_tensor([70.0])
    aged, donor = pipeline.aged_codes(image, code, at), pipeline.aged_codes(its_image, its_code, at)
    for share in (1.0, 0.4):
        codes = mix([5, 6, 7, 8, 9], donor, share)(aged, code)
        want = to_uint8(pipeline.decode(codes).numpy())[0]
        found = pixels(client.get(f"{portrait}/0/age/70.png?reference=0&mix={share}&keep=0"))
        assert np.abs(found.astype(int) - want).max() <= 1
    plain = pixels(client.get(f"{portrait}/0/age/70.png?keep=0"))
    assert np.abs(plain.astype(int) - found).mean() > 2


def test_references_are_limited(client, monkeypatch):
    portrait = opened(client)
    monkeypatch.setattr("paddle_sam.demo.state.MAX_REFERENCES", 1)
    assert client.post(f"{portrait}/reference", data=file_of(PORTRAIT)).status_code == 200
    answer = client.post(f"{portrait}/reference", data=file_of(PORTRAIT))
    assert (answer.status_code, "1 reference faces already" in answer.json["error"]) == (422, True)


def test_each_face_can_be_chosen_and_returns_into_the_photo(client, pipeline):
    """One or all of them, in the photo's own size; what is around them is kept bit for bit."""
    pair = np.hstack([PORTRAIT, PORTRAIT[:, ::-1]])
    found = client.post("/photo", data=file_of(pair, "PNG")).json
    session = f"/session/{found['session']}"
    faces = pipeline.faces(pair, "all")
    assert found["faces"] == len(faces) == 2
    aged = [pixels(client.get(f"{session}/{face}/age/80.png?keep=0")) for face in (0, 1)]
    for name, chosen in (("0", [0]), ("1", [1]), ("0,1", [0, 1])):
        found = pixels(client.get(f"{session}/{name}/photo/80.png?keep=0"))
        quads = [faces[face].quad for face in chosen]
        want = paste_back(pair, [aged[face] for face in chosen], quads)
        assert np.abs(found.astype(int) - want).max() <= 1
        np.testing.assert_array_equal(found[(want == pair).all(-1)], pair[(want == pair).all(-1)])
    found = pixels(client.get(f"{session}/0,1/photo/80.png"))
    want = pipeline(pair, 80, face="all").paste()[0]
    assert np.abs(found.astype(int) - want).max() <= 2


def test_the_page_gets_a_reduced_photo(client):
    large = np.asarray(Image.fromarray(PORTRAIT).resize((1500, 1500)))
    session = f"/session/{client.post('/photo', data=file_of(large)).json['session']}"
    before = pixels(client.get(f"{session}/photo.jpg"))
    after = pixels(client.get(f"{session}/0/photo/80.jpg"))
    assert before.shape == after.shape == (1200, 1200, 3)
    full = pixels(client.get(f"{session}/0/photo/80.png"))
    assert full.shape == large.shape
    reduced = np.asarray(Image.fromarray(full).resize((1200, 1200), Image.Resampling.LANCZOS))
    assert np.abs(after.astype(int) - reduced).mean() < 1.5
    assert 0.001 < (np.abs(after.astype(int) - before).max(-1) > 20).mean() < 0.1  # the face


def test_whole_photographs_stay_within_the_memory(pipeline):
    demo = Demo({"small": lambda: Model(pipeline)}, Sessions())
    token = demo.open_example()["session"]
    session = demo.sessions.get(token)
    demo.sessions.max_bytes = session.size
    assert demo.pasted(token, [0], Look(50), full=False)
    assert session.size <= demo.sessions.max_bytes
    demo.close()


def test_a_dial_counts_all_that_it_keeps(pipeline):
    (face,) = pipeline.faces(PORTRAIT)
    dial = FaceDial(PORTRAIT, face, pipeline.crop, resize(face.image, 256), 40)
    shown = dial.shown(dial.change(resize(face.image, 256), 60))
    kept = [value for name, value in vars(dial).items() if name != "_photo"]
    kept += [*dial._bands, *dial._base]
    total = sum(array.nbytes for array in kept if isinstance(array, np.ndarray))
    assert len(shown) == 256 and total > 4_500_000 and abs(dial.nbytes / total - 1) < 0.01

    session = Session("small", b"", PORTRAIT, [], [Subject(face.image, None, None)])
    before, session.faces[0].dial = session.size, dial
    assert session.size == before + dial.nbytes


def test_results_are_measured(client, portrait):
    young, old = (client.get(f"{portrait}/0/age/{age}.json").json for age in (15, 85))
    assert set(young) == {"measured_age"}  # no recognition network was given
    assert young["measured_age"] < 40 < 60 < old["measured_age"]


def test_the_judges_read_results_too(pipeline):
    pytest.importorskip("onnxruntime")
    measures = Measures.from_files(pipeline.crop, device=DEVICE, judges=Judges())
    demo = Demo({"small": lambda: Model(pipeline, measures)}, Sessions())
    client = make_app(demo, max_upload_mb=1.0).test_client()
    found = client.get(f"{opened(client)}/0/age/80.json").json
    assert 40 < found["judged_age"] < 81 and 0.4 < found["distance"] < 1.2
    assert found["same_gender"] in (0, 1)


def made_video(client, session, query="", face=0) -> dict:
    """Ask for a video and wait until it is ready or given up; returns its last state."""
    answer = client.post(f"{session}/{face}/video{query}")
    assert answer.status_code == 202, answer.json
    video = answer.json
    while not video["ready"] and not video["error"]:
        time.sleep(0.02)
        video = client.get(f"{session}/video").json
    return video


def test_the_video_can_be_played(client, portrait, pipeline, short_videos):
    assert client.get(f"{portrait}/video.mp4").status_code == 422
    video = made_video(client, portrait, "?strength=1.5")
    assert video == {"done": 1.0, "ready": True, "error": ""}
    answer = client.get(f"{portrait}/video.mp4")
    assert (answer.status_code, answer.mimetype) == (200, "video/mp4")
    with av.open(io.BytesIO(answer.data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.frames, stream.average_rate, stream.width) == (10, 25, 256)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 10
    oldest = Image.fromarray(pixels(client.get(f"{portrait}/0/age/100.png?strength=1.5")))
    want = np.asarray(oldest.resize((256, 256), Image.Resampling.LANCZOS))
    assert np.abs(frames[5][:256].astype(int) - want).mean() < 4


def test_sliders_answer_while_a_video_is_made_and_it_ends_with_its_session(client, monkeypatch):
    portrait = opened(client)
    composed, reached, resume = [], threading.Event(), threading.Event()

    def held(*arguments):
        """The video rests at its third frame until it is told to resume."""
        composed.append(compose(*arguments))
        if len(composed) == 3:
            reached.set()
            assert resume.wait(60)
        return composed[-1]

    monkeypatch.setattr("paddle_sam.demo.state.compose", held)
    assert client.post(f"{portrait}/0/video").status_code == 202
    assert reached.wait(60)
    again = client.post(f"{portrait}/0/video?strength=2")
    assert (again.status_code, "Another video" in again.json["error"]) == (503, True)
    assert again.headers["Retry-After"]
    assert client.post(f"{portrait}/0/video").status_code == 202  # the same one
    assert client.get(f"{portrait}/0/age/33.png").status_code == 200
    assert client.get(f"{portrait}/video").json["done"] == pytest.approx(2 / 76)
    client.delete(portrait)
    resume.set()
    other = opened(client)
    monkeypatch.setattr("paddle_sam.demo.state.VIDEO_SECONDS", 0.1)
    monkeypatch.setattr("paddle_sam.demo.state.compose", compose)
    while client.post(f"{other}/0/video").status_code == 503:  # the first one notices
        time.sleep(0.02)
    while not client.get(f"{other}/video").json["ready"]:
        time.sleep(0.02)
    assert len(composed) == 3


def test_a_failed_video_says_so_and_another_can_be_made(client, short_videos, monkeypatch):
    portrait = opened(client)
    with monkeypatch.context() as broken:
        broken.setattr("paddle_sam.demo.state.encode_video", lambda *_: 1 / 0)
        assert made_video(client, portrait)["error"] == "The video failed."
    assert made_video(client, portrait)["ready"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # not a browser
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_pages_cannot_change_anything(client, headers, status):
    assert client.post("/example", headers=headers).status_code == status
    assert client.delete("/session/none", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("bound", "allowed", "host", "status"),
    [
        ("127.0.0.1", (), "localhost:7860", 200),
        ("127.0.0.1", (), "faces.example", 403),
        ("127.0.0.1", ("faces.example",), "Faces.example", 200),
        ("0.0.0.0", (), "anything.example", 200),
        ("0.0.0.0", ("faces.example",), "anything.example", 403),
        ("::1", (), "[::1]:7860", 200),
    ],
)
def test_names_that_are_answered_to(model, bound, allowed, host, status):
    app = make_app(Demo({"small": lambda: model}, Sessions()), 1.0, bound, allowed)
    answer = app.test_client().get("/settings", headers={"Host": host})
    assert answer.status_code == status
    assert status == 200 or "--allowed_hosts" in answer.json["error"]


def test_answers_keep_other_pages_out(client, portrait):
    for path in ("/", "/static/demo.js", f"{portrait}/0/age/50.png", "/nothing"):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe-inline" not in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_the_page_has_no_inline_code_or_style(client):
    page = client.get("/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=)", page)


def test_files_have_their_type_whatever_the_computer_says(client, monkeypatch):
    monkeypatch.setattr("mimetypes.guess_type", lambda *_: ("text/plain", None))
    assert client.get("/static/demo.js").mimetype == "text/javascript"
    assert client.get("/static/demo.css").mimetype == "text/css"


@pytest.mark.parametrize(
    "path",
    [
        "/session/x/99999/input.png",
        f"/session/x/{5000 * '1'}/age/5.png",
        "/session/x/0/age/-1.png",
        "/session/%00/0/input.png",
        "/session/x/0/age/%D9%A3.png",
        "/static/%2e%2e/app.py",
        f"/{5000 * 'a'}",
    ],
)
def test_no_address_is_an_error_of_the_server(client, path):
    assert 400 <= client.get(path).status_code < 500


def test_uploads_are_not_written_to_disk(client, short_videos, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a temporary file was made")

    for name in ("SpooledTemporaryFile", "TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(f"tempfile.{name}", refuse)
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", refuse)
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    mixed = (0.8 * PORTRAIT + 0.2 * noise).astype(np.uint8)
    photo = file_of(mixed, "PNG")
    assert photo["photo"][0].getbuffer().nbytes > 500_000
    found = client.post("/photo", data=photo)
    assert (found.status_code, found.json["faces"]) == (200, 1)
    session = f"/session/{found.json['session']}"
    assert client.get(f"{session}/0/photo/80.png").status_code == 200
    assert made_video(client, session)["ready"]


def test_the_page_knows_the_limits(client):
    assert client.get("/settings").json == {"models": ["small"], "max_upload_mb": 1.0}
