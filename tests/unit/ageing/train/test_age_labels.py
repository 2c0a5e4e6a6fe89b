import json
from pathlib import Path

import pytest

from paddle_sam.ageing.train.age_labels import read_ages
from paddle_sam.errors import ConfigError

UTK = [Path("a/100_0_0_2017.jpg"), Path("a/7_1_0_2017.jpg"), Path("a/notes.jpg")]
FFHQ = [Path("00000.png"), Path("00012.png"), Path("portrait.png")]


def test_utkface_names():
    assert read_ages("utkface", UTK) == {UTK[0]: 100, UTK[1]: 7}


def test_ages_are_clipped_to_the_classes():
    assert read_ages("utkface", [Path("116_0.jpg")]) == {Path("116_0.jpg"): 100}


def test_csv(tmp_path):
    path = tmp_path / "ages.csv"
    path.write_text("image,age\nfaces/00000.png,31\n00012.png,20-29\nother.png,5\n")
    assert read_ages(str(path), FFHQ) == {FFHQ[0]: 31, FFHQ[1]: 24.5}


def test_ffhq_aging_csv(tmp_path):
    path = tmp_path / "ffhq_aging_labels.csv"
    path.write_text(
        "image_number,age_group,age_group_confidence,gender\n"
        "0,50-69,0.99,male\n12,70-120,0.8,female\n13,0-2,1,male\n"
    )
    assert read_ages(str(path), FFHQ) == {FFHQ[0]: 59.5, FFHQ[1]: 70}


def test_ffhq_aging_json(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"0": {"age_group": "30-39"}, "12": {"age_group": "70+"}}))
    assert read_ages(str(path), FFHQ) == {FFHQ[0]: 34.5, FFHQ[1]: 70}


def test_plain_json(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"portrait.png": 0, "00012": 55}))
    assert read_ages(str(path), FFHQ) == {FFHQ[2]: 0, FFHQ[1]: 55}


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.csv", "picture,years\nx,3\n", "no column image or file"),
        ("a.csv", "image,age\n00000.png,old\n", "'old' is not an age"),
        ("a.csv", "image,age\n00000.png,nan\n", "'nan' is not an age"),
        ("a.json", "{", "cannot be read as ages"),
        ("a.csv", "image,age\nother.png,3\n", "gives no age for any of 3 images, such as 00000"),
    ],
)
def test_says_what_is_wrong(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_ages(str(path), FFHQ)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="labels: .*gone.csv cannot be read"):
        read_ages(str(tmp_path / "gone.csv"), FFHQ)
