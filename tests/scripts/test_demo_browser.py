"""The demo as a person uses it, in headless Chromium. Skipped where there is no browser.

With PADDLE_SAM_SCREENSHOTS=docs/pictures it also renews the documentation's screenshots.
"""

import contextlib
import io
import os
import shutil
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
from PIL import Image

from paddle_sam.core.weights import find_weight
from paddle_sam.demo.options import DemoOptions
from paddle_sam.demo.serve import make_demo_server
from tests import DEVICE
from tests.unit.ageing.tiny import save_recognition

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]

PORTRAIT = skimage.data.astronaut()


@pytest.fixture(scope="module")
def address():
    """The demo as it starts without options."""
    with serving(DemoOptions(port=0, device=DEVICE)) as address:
        yield address


@pytest.fixture(scope="module")
def equipped(tmp_path_factory):
    """A demo of two models, which are the same, and a damaged one; it also measures identity."""
    folder = tmp_path_factory.mktemp("models")
    copy, damaged = folder / "copy.pdparams", folder / "damaged.pdparams"
    copy.write_bytes(find_weight("sam_mini").read_bytes())
    damaged.touch()
    config = DemoOptions(
        port=0,
        device=DEVICE,
        checkpoint_path=f"{find_weight('sam_mini')},{copy},{damaged}",
        identity_path=str(save_recognition(folder)),
        age_regressor_path=str(find_weight("age_mini")),
    )
    with serving(config) as address:
        yield address


@contextlib.contextmanager
def serving(config: DemoOptions):
    server = make_demo_server(config)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, with a film of the portrait in place of a camera."""
    from playwright.sync_api import sync_playwright

    film = tmp_path_factory.mktemp("camera") / "camera.y4m"
    planes = [np.asarray(plane) for plane in Image.fromarray(PORTRAIT).convert("YCbCr").split()]
    colours = [plane.reshape(256, 2, 256, 2).mean((1, 3)).astype(np.uint8) for plane in planes[1:]]
    frame = b"FRAME\n" + b"".join(plane.tobytes() for plane in (planes[0], *colours))
    film.write_bytes(b"YUV4MPEG2 W512 H512 F10:1 Ip A1:1 C420jpeg\n" + 5 * frame)
    camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    camera.append(f"--use-file-for-fake-video-capture={film}")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *camera])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    with opened(browser, address) as page:
        yield page


@pytest.fixture
def equipped_page(browser, equipped):
    with opened(browser, equipped) as page:
        yield page


@contextlib.contextmanager
def opened(browser, address: str):
    # The tests themselves evaluate code in the page, which its policy forbids.
    page = browser.new_page(viewport={"width": 1000, "height": 800}, bypass_csp=True)
    page.set_default_timeout(60_000)
    foreign = []
    page.on("request", lambda r: foreign.append(r.url) if not _local(r.url, address) else None)
    page.goto(address)
    page.wait_for_function("state.maxUpload < Infinity")  # the page knows its settings
    yield page
    page.close()
    assert not foreign  # the page works offline


def _local(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def screenshot(page, name: str) -> None:
    if folder := os.environ.get("PADDLE_SAM_SCREENSHOTS"):
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        picture.quantize(256).save(Path(folder) / f"{name}.png", optimize=True)


def strip_is_complete(page) -> None:
    page.wait_for_function(
        "[...document.querySelectorAll('#strip img')].filter(i => i.naturalWidth).length === 11"
    )


def move_slider(page, value: float, name: str = "age") -> None:
    page.evaluate(
        "([name, value]) => { const s = document.getElementById(name); s.value = value;"
        " s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change')); }",
        [name, value],
    )


def shows(page, ending: str) -> None:
    """Wait until the picture is that of this photo whose address ends like this."""
    page.wait_for_function(
        "ending => { const { shows } = document.getElementById('aged').dataset;"
        " return shows?.startsWith(`session/${state.session}/`) && shows.endsWith(ending); }",
        arg=ending,
    )


def downloaded(page, button: str, name: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.click(button)
    assert download.value.suggested_filename == name
    download.value.save_as(folder / name)
    return folder / name


def test_the_page_works_under_its_own_content_security_policy(browser, address):
    page = browser.new_page()
    page.set_default_timeout(60_000)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.click("#example")
    page.wait_for_selector("#aged[data-shows]")
    page.click("#strip button:nth-child(11)")
    page.wait_for_selector("#aged[data-shows*='age/100.png']")
    page.close()
    assert complaints == []


def test_upload_slide_strip_and_download(page, tmp_path):
    screenshot(page, "demo_start")
    Image.fromarray(PORTRAIT).save(tmp_path / "photo.jpg", quality=95)
    page.set_input_files("#file", tmp_path / "photo.jpg")
    page.wait_for_selector("#result:not([hidden])")
    shows(page, "/age/40.png")
    strip_is_complete(page)
    move_slider(page, 75)
    shows(page, "/age/75.png")
    assert page.inner_text("#years") == "75"
    page.wait_for_function("/looks \\d\\d/.test(document.getElementById('measured').textContent)")
    screenshot(page, "demo_result")
    assert Image.open(downloaded(page, "#save-image", "age_75.png", tmp_path)).width == 104
    strip = Image.open(downloaded(page, "#save-strip", "age_strip.png", tmp_path))
    assert strip.width == 12 * 160
    with av.open(str(downloaded(page, "#save-video", "ageing.mp4", tmp_path))) as video:
        assert (video.streams.video[0].frames, video.streams.video[0].width) == (150, 256)
    page.wait_for_function("document.getElementById('save-video').textContent === 'Video'")
    page.check("input[value=photo]")
    shows(page, "/0/photo/75.jpg")
    screenshot(page, "demo_photo")


def test_the_numbers_of_a_result_are_shown(equipped_page):
    page = equipped_page
    page.click("#example")
    move_slider(page, 85)
    page.wait_for_function(
        "/^own regressor: looks [6-9]\\d years old · identity similarity -?[01]\\.\\d\\d/.test("
        "document.getElementById('measured').textContent)"
    )


def test_fifty_rapid_slider_moves_keep_order_and_end_at_the_last(page):
    page.click("#example")
    shows(page, "/age/40.png")
    page.evaluate(
        "() => { window.shown = []; const image = document.getElementById('aged');"
        " new MutationObserver(() => shown.push(parseInt(image.dataset.shows.split('/').pop())))"
        ".observe(image, { attributeFilter: ['data-shows'] }); }"
    )
    moved = [step * 37 % 101 for step in range(50)]
    for age in moved:
        move_slider(page, age)
    shows(page, f"/age/{moved[-1]}.png")
    page.wait_for_timeout(300)
    seen = page.evaluate("shown")
    assert seen[-1] == moved[-1]
    places = [moved.index(age) for age in seen]
    assert places == sorted(places)
    assert page.is_hidden("#message")


def test_a_refused_picture_does_not_stop_the_slider(page):
    """An answer that comes late, and is an error, is of no interest where the slider went on."""
    page.click("#example")
    shows(page, "/age/40.png")
    page.evaluate(
        """() => {
          const real = fetch;
          const headers = { "Content-Type": "application/json" };
          const error = () => new Response('{"error": "Too much."}', { status: 503, headers });
          const held = () => new Promise((answer) => { window.refuse = () => answer(error()); });
          window.fetch = (address, options) =>
            address.endsWith("/age/61.png") ? held() : real(address, options);
        }"""
    )
    move_slider(page, 61)
    page.wait_for_function("typeof refuse === 'function'")
    move_slider(page, 70)
    page.evaluate("refuse()")
    shows(page, "/age/70.png")
    assert page.is_hidden("#message")
    move_slider(page, 61)
    page.evaluate("refuse()")
    page.wait_for_function("document.getElementById('message').textContent === 'Too much.'")


def test_an_answer_of_a_proxy_is_explained(page):
    page.evaluate("""() => {
        window.fetch = () => new Response("<html>", { status: 413 });
    }""")
    page.click("#example")
    page.wait_for_function("document.getElementById('message').textContent.includes('413')")
    assert "in front of the demo" in page.inner_text("#message")


def test_without_https_the_webcam_is_explained(page):
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.click("#webcam")
    page.wait_for_function("document.getElementById('message').textContent.includes('https')")


def test_fifty_requests_at_once_lose_none(page):
    page.click("#example")
    shows(page, "/age/40.png")
    answers = page.evaluate(
        "() => Promise.all([...Array(50).keys()].map(async age => {"
        " const response = await fetch(`session/${state.session}/0/age/${age}.png`);"
        " return [age, response.status, (await response.blob()).size]; }))"
    )
    assert [age for age, status, size in answers if status == 200 and size > 1000] == [*range(50)]


def test_a_picture_of_the_webcam_is_aged(page):
    page.click("#webcam")
    page.click("#shoot")  # possible once the camera shows something
    shows(page, "/age/40.png")
    assert page.is_hidden("#camera")
    assert page.evaluate("document.getElementById('preview').srcObject") is None


def test_bad_files_are_explained_and_the_next_photo_works(page, tmp_path):
    (tmp_path / "page.jpg").write_text("<html>not a photo</html>")
    page.set_input_files("#file", tmp_path / "page.jpg")
    page.wait_for_function("document.getElementById('message').textContent.includes('HTML')")
    Image.fromarray(skimage.data.coins()).save(tmp_path / "coins.png")
    page.set_input_files("#file", tmp_path / "coins.png")
    page.wait_for_function("document.getElementById('message').textContent.includes('No face')")
    (tmp_path / "large.jpg").write_bytes(bytes(21_000_000))
    page.set_input_files("#file", tmp_path / "large.jpg")
    page.wait_for_function(
        "document.getElementById('message').textContent === 'The picture is larger than 20 MB.'"
    )
    assert page.is_hidden("#result")
    page.click("#example")
    page.wait_for_selector("#result:not([hidden])")
    shows(page, "/age/40.png")
    page.click("#again")
    assert page.is_visible("#drop")


def test_several_faces_return_into_the_photo(page, tmp_path):
    pair = np.hstack([PORTRAIT, PORTRAIT[:, ::-1]])
    Image.fromarray(pair).save(tmp_path / "two.png")
    page.set_input_files("#file", tmp_path / "two.png")
    page.wait_for_selector("#faces button:nth-child(2)")
    assert "2 faces" in page.inner_text("#message")
    page.click("#faces button:nth-child(2)")
    page.wait_for_function("document.getElementById('input').src.includes('/1/input.png')")
    assert page.get_attribute("#faces button:nth-child(2)", "aria-pressed") == "true"
    move_slider(page, 80)
    page.check("input[value=photo]")
    shows(page, "/1/photo/80.jpg")
    one = np.asarray(Image.open(downloaded(page, "#save-image", "photo_age_80.png", tmp_path)))
    page.check("#all")
    shows(page, "/0,1/photo/80.jpg")
    both = np.asarray(Image.open(downloaded(page, "#save-image", "photo_age_80.png", tmp_path)))
    assert one.shape == both.shape == pair.shape
    halves = [np.hsplit(image, 2) for image in (pair, one, both)]
    changed = [[(halves[0][k] != image[k]).any() for k in (0, 1)] for image in halves[1:]]
    assert sorted(changed[0]) == [False, True] and changed[1] == [True, True]


def test_strength_and_a_reference_change_the_face(page, tmp_path):
    page.click("#example")
    shows(page, "/age/40.png")
    move_slider(page, 1.5, "strength")
    shows(page, "/age/40.png?strength=1.5")
    other = np.clip(PORTRAIT[:, ::-1] * (1, 0.7, 0.5), 0, 255).astype(np.uint8)
    Image.fromarray(other).save(tmp_path / "other.png")
    page.set_input_files("#reference-file", tmp_path / "other.png")
    shows(page, "?strength=1.5&reference=0")
    move_slider(page, 0.5, "mix")
    shows(page, "?strength=1.5&reference=0&mix=0.5")
    page.click("#references button:first-child")
    shows(page, "/age/40.png?strength=1.5")
    assert page.is_hidden("#mix-row")
    (tmp_path / "text.png").write_text("no picture")
    page.set_input_files("#reference-file", tmp_path / "text.png")
    page.wait_for_function("document.getElementById('message').textContent.includes('no image')")
    assert page.is_visible("#result")


def test_another_model_ages_the_same_photo(equipped_page):
    page = equipped_page
    page.click("#example")
    shows(page, "/age/40.png")
    before = page.evaluate("state.session")
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as forgotten:
        page.select_option("#model", "copy")
    assert forgotten.value.url.endswith(f"/session/{before}") and forgotten.value.ok
    shows(page, "/age/40.png")  # of the new session, which the page had before it forgot the old
    assert page.evaluate("state.session") != before
    old = f"fetch('session/{before}/0/input.png').then(response => response.status)"
    assert page.evaluate(old) == 410


def test_a_model_that_cannot_be_loaded_leaves_the_one_before(equipped_page):
    page = equipped_page
    page.click("#example")
    shows(page, "/age/40.png")
    page.select_option("#model", "damaged")
    page.wait_for_function("document.getElementById('message').textContent.includes('is empty')")
    assert page.input_value("#model") == "sam_mini"
    move_slider(page, 50)
    shows(page, "/age/50.png")


def test_a_photo_can_be_dropped_anywhere_on_the_page(page):
    page.click("#example")
    shows(page, "/age/40.png")
    before = page.evaluate("state.session")
    page.evaluate(
        """async () => {
          const photo = await (await fetch(url("photo.jpg"))).blob();
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([photo], "a.jpg"));
          const drop = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
          document.body.dispatchEvent(drop);
        }"""
    )
    page.wait_for_function(f"state.session !== '{before}'")
    shows(page, "/age/40.png")
