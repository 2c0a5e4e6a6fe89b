"""S0, the notes on training SAM: where data and weights are said, and one batch as they tell it."""

import json
import re

import pytest

from tests import ROOT
from tests.described import understood


def test_data_sets_have_names(tmp_path, monkeypatch, capsys):
    """The notes edit `configs/paths_config.py`; here a JSON file holds the same."""
    from paddle_sam.ageing.train.options import SAMOptions, data_folders

    table = {"ffhq_aging": {"train": "FFHQ/images256x256", "test": "CelebAMask-HQ/test_img"}}
    (tmp_path / "datasets.json").write_text(json.dumps(table))
    options = SAMOptions(datasets=str(tmp_path / "datasets.json"))
    assert data_folders(options, "train")[0].endswith("FFHQ/images256x256")
    assert data_folders(options, "test")[0].endswith("CelebAMask-HQ/test_img")


def test_weight_files_have_the_described_options(capsys):
    options = understood(
        "train",
        ["--pretrained_psp_path=a.pt", "--stylegan_weights=b.pt", "--ir_se50_path=c.pth"],
        capsys,
    )
    assert options["pretrained_psp_path"] == "a.pt"
    assert options["stylegan_weights"] == "b.pt"


def test_the_weighted_identity_loss_is_the_described_formula():
    """0.25 cos(pi d) + 0.75: 1 where the age stays, 0.5 at a hundred years."""
    import paddle

    from paddle_sam.ageing.losses import identity_weights

    found = identity_weights(paddle.to_tensor([0.3, 0.0, 0.0]), paddle.to_tensor([0.3, 0.5, 1.0]))
    assert found.numpy() == pytest.approx([1.0, 0.75, 0.5], abs=1e-6)


def test_ffhq_is_made_smaller(tmp_path):
    """From 1024 to 256 pixels, here from 64 to 16: the notes' `resize.py`."""
    import numpy as np

    from paddle_sam.core.images import read_image, save_image
    from scripts.prepare_dataset import main

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    for index, image in enumerate(small):
        large = image.repeat(4, axis=0).repeat(4, axis=1)
        save_image(tmp_path / "images1024x1024" / "00000" / f"{index:05}.png", large)
    words = f"--data_path {tmp_path}/images1024x1024 --output {tmp_path}/images256x256 --size 16"
    words += " --min_contrast 0 --min_colour 0 --duplicate_bits -1 --num_threads 1"
    assert main(words.split()) == 0
    made = sorted((tmp_path / "images256x256").rglob("*.png"))
    assert len(made) == 2
    for path, image in zip(made, small, strict=True):
        inner = (slice(2, -2), slice(2, -2))
        assert np.abs(read_image(path)[inner].astype(int) - image[inner]).mean() < 40


def test_an_environment_for_conda_names_what_pip_installs():
    text = (ROOT / "environment.yaml").read_text(encoding="utf-8")
    assert "-r requirements.txt" in text
    assert "python=3.11" in text


def test_the_page_counts_its_rows():
    """Of the rows of docs/described.md, how many work, differ, or do not."""
    text = (ROOT / "docs" / "described.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!described|---).*\| (\w+)[^|]*\|$", text, re.M)
    assert set(rows) == {"works", "differs", "not"}
    works, differs, fails = (rows.count(word) for word in ("works", "differs", "not"))
    stated = f"Of the {len(rows)} rows {works} work, {differs} differ and {fails} do not"
    assert stated in " ".join(text.split())
