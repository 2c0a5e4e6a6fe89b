"""The demo as a person uses it, in headless Chromium. Skipped where there is no browser.

With PADDLE_SAM_SCREENSHOTS=docs/pictures it also renews the documentation's screenshots.
"""

import os
import shutil
import threading
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from paddle_sam.configs.demo import DemoConfig
from paddle_sam.inference.web.serve import make_demo_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def address():
    server = make_demo_server(DemoConfig(port=0, device="cpu"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()


@pytest.fixture
def page(address):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1000, "height": 800}, accept_downloads=True)
        page.set_default_timeout(60_000)
        foreign = []
        page.on("request", lambda r: foreign.append(r.url) if not _local(r.url, address) else None)
        page.goto(address)
        yield page
        browser.close()
        assert not foreign  # the page works offline


def _local(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def screenshot(page, name: str) -> None:
    if folder := os.environ.get("PADDLE_SAM_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def wait_for_age(page, age: int) -> None:
    page.wait_for_function(
        f"document.getElementById('aged').dataset.shows?.endsWith('/age/{age}.png')"
    )


def strip_is_complete(page) -> None:
    page.wait_for_function(
        "[...document.querySelectorAll('#strip img')].filter(i => i.naturalWidth).length === 11"
    )


def move_slider(page, age: int) -> None:
    page.evaluate(
        "age => { const s = document.getElementById('age'); s.value = age;"
        " s.dispatchEvent(new Event('input')); }",
        age,
    )


def test_upload_slide_strip_and_download(page, tmp_path):
    screenshot(page, "demo_start")
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "photo.jpg", quality=95)
    page.set_input_files("#file", tmp_path / "photo.jpg")
    page.wait_for_selector("#result:not([hidden])")
    wait_for_age(page, 40)
    strip_is_complete(page)
    move_slider(page, 75)
    wait_for_age(page, 75)
    assert page.inner_text("#years") == "75"
    screenshot(page, "demo_result")
    for button, name, width in (
        ("#save-image", "age_75.png", 64),
        ("#save-strip", "age_strip.png", 12 * 160),
    ):
        with page.expect_download() as download:
            page.click(button)
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
        assert Image.open(tmp_path / name).width == width


def test_fifty_rapid_slider_moves_end_at_the_last(page):
    page.click("#example")
    page.wait_for_selector("#result:not([hidden])")
    for step in range(50):
        move_slider(page, (step * 37) % 101)
    last = 49 * 37 % 101
    wait_for_age(page, last)
    page.wait_for_timeout(300)
    assert page.evaluate("document.getElementById('aged').dataset.shows").endswith(f"/{last}.png")
    assert page.is_hidden("#message")


def test_bad_files_are_explained_and_the_next_photo_works(page, tmp_path):
    (tmp_path / "page.jpg").write_text("<html>not a photo</html>")
    page.set_input_files("#file", tmp_path / "page.jpg")
    page.wait_for_function("document.getElementById('message').textContent.includes('HTML')")
    Image.fromarray(skimage.data.camera()).save(tmp_path / "camera.png")
    page.set_input_files("#file", tmp_path / "camera.png")
    page.wait_for_function("document.getElementById('message').textContent.includes('No face')")
    assert page.is_hidden("#result")
    page.click("#example")
    page.wait_for_selector("#result:not([hidden])")
    wait_for_age(page, 40)
    page.click("#again")
    assert page.is_visible("#drop")


def test_several_faces_are_offered(page, tmp_path):
    import numpy as np

    face = skimage.data.astronaut()
    Image.fromarray(np.hstack([face, face[:, ::-1]])).save(tmp_path / "two.png")
    page.set_input_files("#file", tmp_path / "two.png")
    page.wait_for_selector("#faces button:nth-child(2)")
    assert "2 faces" in page.inner_text("#message")
    page.click("#faces button:nth-child(2)")
    page.wait_for_function("document.getElementById('input').src.includes('/1/input.png')")
    assert page.get_attribute("#faces button:nth-child(2)", "aria-pressed") == "true"
