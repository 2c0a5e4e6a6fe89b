"""The demo over HTTP, without a browser."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import paddle
import pytest
import skimage.data
from PIL import Image

from paddle_sam.ageing.animate import compose
from paddle_sam.ageing.edits import mix, strengthen
from paddle_sam.ageing.measures import Measures
from paddle_sam.core.images import to_network, to_uint8
from paddle_sam.demo.app import make_app
from paddle_sam.demo.sessions import Sessions
from paddle_sam.demo.state import Demo, Model
from paddle_sam.demo.worker import Worker
from paddle_sam.faces.paste import paste_back

PORTRAIT = skimage.data.astronaut()


@pytest.fixture(scope="module")
def model(pipeline):
    """The embedded default with its age regressor."""
    return Model(pipeline, Measures.from_files(pipeline.crop, device="cpu"))


@pytest.fixture(scope="module")
def client(model):
    demo = Demo({"small": lambda: model}, Worker(), Sessions())
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
    crop = pixels(client.get(f"/session/{found['session']}/0/input.png"))
    np.testing.assert_array_equal(crop, pipeline.faces(PORTRAIT)[0].image)
    aged = pixels(client.get(f"/session/{found['session']}/0/age/37.png"))
    want = pipeline.age(crop[None], [37])[0, 0]
    assert np.abs(aged.astype(int) - want).max() <= 1


def test_fifty_rapid_requests_lose_none(client, pipeline):
    """Every age answers with its own picture, whatever the order of arrival; some are checked."""
    session = client.post("/example").json["session"]
    ages = [(17 * k) % 50 for k in range(50)]
    application = client.application

    def ask(age):
        return pixels(application.test_client().get(f"/session/{session}/0/age/{age}.png"))

    with ThreadPoolExecutor(16) as pool:
        found = dict(zip(ages, pool.map(ask, ages), strict=True))
    assert len({image.tobytes() for image in found.values()}) == 50
    crops = np.stack([pipeline.faces(PORTRAIT)[0].image])
    checked = range(0, 50, 7)
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
        ("0/age/50.png?strength=much", "This is no number"),
        ("0/age/50.png?reference=0", "0 reference faces; number 0 is not there"),
        ("0,x/photo/50.png", "no numbers of faces: 0,x"),
        ("0,1/photo/50.png", "number 1 is not there"),
        ("0/strip.png?ages=old", "--target_age"),
    ],
)
def test_impossible_requests_for_a_face(client, portrait, path, words):
    answer = client.get(f"{portrait}/{path}")
    assert answer.status_code == 422
    assert words in answer.json["error"]


def inverted(pipeline, image):
    crop = pipeline.faces(image)[0].image
    network_input = paddle.to_tensor(to_network(crop))
    return crop, network_input, pipeline.invert(network_input)


def test_strength_scales_what_ageing_changes(client, portrait, pipeline):
    crop, image, code = inverted(pipeline, PORTRAIT)
    for strength in (0, 1.5):
        found = pixels(client.get(f"{portrait}/0/age/80.png?strength={strength}"))
        want = pipeline.age(crop[None], [80], inverted=code, edit=strengthen(strength))[0, 0]
        assert np.abs(found.astype(int) - want).max() <= 1


def test_a_reference_gives_its_finer_codes_aged_alike(client, pipeline):
    portrait = opened(client)
    other = np.clip(PORTRAIT[:, ::-1] * (1, 0.7, 0.5), 0, 255).astype(np.uint8)
    answer = client.post(f"{portrait}/reference", data=file_of(other, "PNG"))
    assert answer.json == {"reference": 0}
    reference, its_image, its_code = inverted(pipeline, other)
    shown = pixels(client.get(f"{portrait}/reference/0.png"))
    np.testing.assert_array_equal(shown, reference)
    crop, image, code = inverted(pipeline, PORTRAIT)
    at = paddle.to_tensor([70.0])
    aged, donor = pipeline.aged_codes(image, code, at), pipeline.aged_codes(its_image, its_code, at)
    for share in (1.0, 0.4):
        codes = mix([5, 6, 7, 8, 9], donor, share)(aged, code)
        want = to_uint8(pipeline.decode(codes).numpy())[0]
        found = pixels(client.get(f"{portrait}/0/age/70.png?reference=0&mix={share}"))
        assert np.abs(found.astype(int) - want).max() <= 1
    plain = pixels(client.get(f"{portrait}/0/age/70.png"))
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
    for number, face in enumerate(faces):
        crop = pixels(client.get(f"{session}/{number}/input.png"))
        np.testing.assert_array_equal(crop, face.image)
    aged = [pixels(client.get(f"{session}/{face}/age/80.png")) for face in (0, 1)]
    for name, chosen in (("0", [0]), ("1", [1]), ("0,1", [0, 1])):
        found = pixels(client.get(f"{session}/{name}/photo/80.png"))
        quads = [faces[face].quad for face in chosen]
        want = paste_back(pair, [aged[face] for face in chosen], quads)
        assert np.abs(found.astype(int) - want).max() <= 1
        np.testing.assert_array_equal(found[(want == pair).all(-1)], pair[(want == pair).all(-1)])


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
    assert 0.005 < (np.abs(after.astype(int) - before).max(-1) > 20).mean() < 0.1  # the face


def test_results_are_measured(client, portrait):
    young, old = (client.get(f"{portrait}/0/age/{age}.json").json for age in (15, 85))
    assert set(young) == {"measured_age"}  # no recognition network was given
    assert young["measured_age"] < 40 < 60 < old["measured_age"]


def test_the_video_can_be_played(client, portrait, pipeline, short_videos):
    answer = client.get(f"{portrait}/0/video.mp4?strength=1.5")
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
    assert client.get(f"{portrait}/video_done").json == 0


def test_sliders_answer_while_a_video_is_made_and_it_ends_with_its_session(client, monkeypatch):
    portrait = opened(client)
    composed, reached, go_on = [], threading.Event(), threading.Event()

    def held(*arguments):
        """The video rests at its third frame until it is told to go on."""
        composed.append(compose(*arguments))
        if len(composed) == 3:
            reached.set()
            assert go_on.wait(60)
        return composed[-1]

    monkeypatch.setattr("paddle_sam.demo.state.compose", held)
    with ThreadPoolExecutor(1) as pool:
        video = pool.submit(client.application.test_client().get, f"{portrait}/0/video.mp4")
        assert reached.wait(60)
        again = client.get(f"{portrait}/0/video.mp4")
        assert (again.status_code, "Another video" in again.json["error"]) == (503, True)
        assert client.get(f"{portrait}/0/age/33.png").status_code == 200
        assert client.get(f"{portrait}/video_done").json == pytest.approx(2 / 76)
        assert not video.done()
        client.delete(portrait)
        go_on.set()
        assert video.result().status_code == 410
    assert len(composed) == 3
    assert client.post("/example").status_code == 200


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
    assert client.get(f"{session}/0/video.mp4").status_code == 200


def test_the_page_knows_the_limits(client):
    assert client.get("/settings").json == {"models": ["small"], "max_upload_mb": 1.0}
