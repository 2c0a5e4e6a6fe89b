"""VisualDL on a run, as a person sees it, in headless Chromium. Skipped without a browser."""

import shutil
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import numpy as np
import pytest

from paddle_sam.training.folder import RunLogger
from tests import ROOT

pytest.importorskip("visualdl")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture
def address(tmp_path):
    logger = RunLogger(tmp_path / "run", say=lambda line: None)
    for step in range(1, 6):
        logger.scalars("train", step, {"loss_l2_real": 1 / step})
    panel = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    logger.panel("train/faces", 5, panel)
    logger.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "scripts" / "visualize.py"), str(tmp_path / "run")]
    server = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(30)
        with pytest.raises(OSError):  # nothing is left behind
            urlopen(url, timeout=5)


def _wait(url, server):
    for _ in range(300):
        assert server.poll() is None, "the server ended"
        try:
            urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"nothing answers at {url}")


def test_the_page_shows_curves_and_images(address):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        with page.expect_response(lambda r: "loss_l2_real" in r.url and r.ok):
            page.goto(f"{address}app/scalar")
        page.wait_for_function("document.querySelector('canvas')?.width > 100")
        page.goto(f"{address}app/sample/image")
        page.wait_for_function("Array.from(document.images).some(i => i.naturalWidth === 96)")
        browser.close()
