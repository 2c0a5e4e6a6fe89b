import json
from pathlib import Path

import pytest

from paddle_sam.ageing.train.age_labels import read_ages
from paddle_sam.errors import ConfigError, Note

UTK = [Path("a/100_0_0_2017.jpg"), Path("a/7_1_0_2017.jpg"), Path("a/notes.jpg")]
FFHQ = [Path("00000.png"), Path("00012.png"), Path("portrait.png")]


def test_utkface_names():
    assert read_ages("utkface", UTK, "") == {UTK[0]: 100, UTK[1]: 7}


def test_ages_are_clipped_to_the_classes():
    assert read_ages("utkface", [Path("116_0.jpg")], "") == {Path("116_0.jpg"): 100}


def test_csv(tmp_path):
    path = tmp_path / "ages.csv"
    path.write_text("image,age\nfaces/00000.png,31\n00012.png,20-29\nother.png,5\n")
    assert read_ages(str(path), FFHQ, "") == {FFHQ[0]: 31, FFHQ[1]: 24.5}


def test_ffhq_aging_csv(tmp_path):
    path = tmp_path / "ffhq_aging_labels.csv"
    path.write_text(
        "image_number,age_group,age_group_confidence,gender\n"
        "0,50-69,0.99,male\n12,70-120,0.8,female\n13,0-2,1,male\n"
    )
    assert read_ages(str(path), FFHQ, "") == {FFHQ[0]: 59.5, FFHQ[1]: 70}


def test_ffhq_aging_json(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"0": {"age_group": "30-39"}, "12": {"age_group": "70+"}}))
    assert read_ages(str(path), FFHQ, "") == {FFHQ[0]: 34.5, FFHQ[1]: 70}


def test_plain_json(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"portrait.png": 0, "00012": 55}))
    assert read_ages(str(path), FFHQ, "") == {FFHQ[2]: 0, FFHQ[1]: 55}


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.csv", "picture,years\nx,3\n", "no column image or file"),
        ("a.csv", "image,years\nx,3\n", "no column age or age_group; found image, years"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[1]", "expected a JSON object"),
        ("a.csv", "image,age\nother.png,3\n", "gives no age for any of 3 images, such as 00000"),
    ],
)
def test_says_what_is_wrong(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_ages(str(path), FFHQ, "")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="labels: .*gone.csv cannot be read"):
        read_ages(str(tmp_path / "gone.csv"), FFHQ, "")


def images_of(*names):
    return [Path("data", name) for name in names]


def ages_by_name(tmp_path, suffix, text, *names):
    path = tmp_path / f"labels{suffix}"
    path.write_text(text)
    images = images_of(*names)
    ages = read_ages(str(path), images, "data")
    return {image.relative_to("data").as_posix(): age for image, age in ages.items()}


REPEATED = {"p1/1.png": 20, "p2/1.png": 70, "p1/2.png": 30, "p2/02.png": 5}


@pytest.mark.parametrize("prefix", ["", "data/", "C:\\faces\\data\\", "/home/me/data/"])
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_names_that_repeat_in_other_folders(tmp_path, suffix, prefix):
    windows = "\\" in prefix
    rows = {prefix + (n.replace("/", "\\") if windows else n): a for n, a in REPEATED.items()}
    text = "\n".join(["image,age", *(f"{n},{a}" for n, a in rows.items())])
    text = json.dumps(rows) if suffix == ".json" else text
    assert ages_by_name(tmp_path, suffix, text, *REPEATED) == REPEATED


def test_stems_are_paths_too(tmp_path):
    text = json.dumps({name.removesuffix(".png"): age for name, age in REPEATED.items()})
    assert ages_by_name(tmp_path, ".json", text, *REPEATED) == REPEATED


def test_a_row_without_a_folder_has_to_fit_one_image(tmp_path):
    with pytest.raises(ConfigError, match="'1.png' may be p1/1.png or p2/1.png"):
        ages_by_name(tmp_path, ".csv", "image,age\n1.png,20\n", "p1/1.png", "p2/1.png")
    assert ages_by_name(tmp_path, ".csv", "image,age\n1.png,20\n", "p1/1.png") == {"p1/1.png": 20}
    # Of another folder: taken where the file name is there once, in rows and images.
    text = "image,age\nold/1.png,20\nold/2.png,30\n"
    assert ages_by_name(tmp_path, ".csv", text, "new/1.png") == {"new/1.png": 20}
    assert ages_by_name(tmp_path, ".csv", text, "old/2.png", "new/2.png") == {"old/2.png": 30}


def test_rows_that_contradict_each_other_are_named(tmp_path):
    text = "image,age\na/1.png,20\na/1.png,70\n"
    with pytest.raises(ConfigError, match=r"'a/1.png' \(20\) and .* \(70\) both fit a/1.png"):
        ages_by_name(tmp_path, ".csv", text, "a/1.png")
    assert ages_by_name(tmp_path, ".csv", text.replace("70", "20"), "a/1.png") == {"a/1.png": 20}


def test_values_that_are_no_ages_are_left_out_and_counted(tmp_path):
    text = "image,age\n1.png,-1\n2.png,2004\n3.png,\n4.png,old\n5.png,nan\n6.png,40\n7.png,118\n"
    names = [f"{number}.png" for number in range(1, 8)]
    with pytest.warns(Note, match="5 of 7 values are not ages from 0 to 120, such as '-1'"):
        assert ages_by_name(tmp_path, ".csv", text, *names) == {"6.png": 40, "7.png": 100}
    with pytest.warns(Note, match="1 of 2 values .* such as '300'"):
        found = read_ages("utkface", images_of("300_0_0.png", "30_0_0.png"), "data")
    assert list(found.values()) == [30]


def test_tables_of_spreadsheets(tmp_path):
    text = "\ufeffImage;Age\r\n 1.png; 20\r\n2.png;30\r\n"
    assert ages_by_name(tmp_path, ".csv", text, "1.png", "2.png") == {"1.png": 20, "2.png": 30}
