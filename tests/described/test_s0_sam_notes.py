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
