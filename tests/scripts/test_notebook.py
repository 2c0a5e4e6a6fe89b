"""The notebook in examples/ is executed, cell by cell, and shows what its text says."""

import json

import av
import numpy as np

from tests import ROOT

NOTEBOOK = ROOT / "examples" / "age_a_face.ipynb"


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it writes a video where it is
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}:{number}", "exec"), names)

    size = names["pipeline"].output_size
    assert names["images"].shape == (5, size, size, 3)
    # The model's own regressor reads what the calibration asks for: 0, 15, 56, 91 and 100 years.
    asked = names["pipeline"].calibration.asks(names["ages"])
    assert (np.diff(asked) > 8).all()
    np.testing.assert_allclose(names["measured"], asked, atol=8)
    assert np.abs(names["edited"].astype(int) - names["images"]).mean() > 3
    changed = (names["pasted"] != names["photo"]).any(axis=2)
    assert 0.01 < changed.mean() < 0.15
    with av.open("ageing.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.frames == 24
