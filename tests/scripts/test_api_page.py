"""The examples of docs/api.md run, one after the other, as a reader would try them."""

import re

import pytest

from tests import ROOT


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    names = {}
    exec(compile(code, "docs/api.md", "exec"), names)
    printed = capsys.readouterr().out
    face, codes = len(names["aged"][0][0]), names["pipeline"].n_codes
    size, width = names["pipeline"].output_size, names["pipeline"].style_dim
    for line in (
        f"(3, {face}, {face}, 3) [10.0, 40.0, 70.0] [0]",
        f"(1, 2, {size}, {size}, 3)",
        f"SAM {size} {codes}",
        f"(1, {size}, {size}, 3) (1, {codes}, {width})",
        f"3 (1, {codes}, {width})",
        f"({size}, {size}, 3) True",
        f"(4, {codes}, {width}) (4, {size}, {size}, 3)",
        "batch_size: expected at least 1, found -3",
    ):
        assert line in printed
    assert (tmp_path / "astronaut.mp4").stat().st_size > 1000


def test_projecting_takes_what_researchers_have():
    import numpy as np
    import paddle
    from PIL import Image

    import paddle_sam
    from tests.unit.ageing.tiny import tiny_generator

    class Pixels:
        """A perceptual distance that is the squared error."""

        def extract(self, images):
            return images

        def distance(self, left, right):
            return (left - right).square().mean(axis=[1, 2, 3])

    paddle.seed(0)
    generator = tiny_generator()
    images = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    masks = [Image.new("L", (40, 30), 255)] * 2
    options = {"generator": generator, "lpips": Pixels(), "step": 2}
    frames, codes, found = paddle_sam.project(images, masks, **options)
    assert [len(film) for film in frames] == [3, 3]
    assert codes.shape == (2, generator.n_codes, generator.style_dim)
    assert found.dtype == np.uint8
    still = paddle_sam.project(images, latent_level=[0], **{**options, "step": 0})
    assert [len(film) for film in still.frames] == [1, 1]
    with pytest.raises(paddle_sam.ConfigError, match="masks: expected one for each of 2"):
        paddle_sam.project(images, masks[:1], **options)
