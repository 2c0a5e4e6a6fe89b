"""Images chosen by their numbers, from lists and from Danbooru's metadata."""

import json

import pytest

from paddle_sam.errors import ConfigError, Note
from paddle_sam.imagesets.archive import open_image_set, read_description
from paddle_sam.imagesets.prepare.options import PrepareOptions
from paddle_sam.imagesets.prepare.prepare import prepare_dataset
from tests.unit.imagesets.prepare.dirty import encoded, pictures

IDS = (1, 1001, 2, 12, 30)
RECORDS = (
    {"id": "1", "rating": "s", "score": "5", "tags": [{"name": "solo"}, {"name": "smile"}]},
    {"id": "1001", "rating": "q", "score": "50", "tags": [{"name": "solo"}]},
    {"id": 2, "rating": "s", "score": -3, "tag_string": "solo hat"},
    {"id": "12", "rating": "e", "score": "x", "tags": None},
    {"id": "99999", "rating": "s", "score": "9", "tags": []},
)


@pytest.fixture(scope="module")
def danbooru(tmp_path_factory):
    """`{id % 1000}/{id}.jpg`, and metadata in two files, with lines that are no records."""
    folder = tmp_path_factory.mktemp("danbooru")
    for number, image in zip(IDS, pictures(len(IDS)), strict=True):
        path = folder / f"512px/{number % 1000:04d}/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image, "JPEG"))
    (folder / "metadata").mkdir()
    lines = [json.dumps(record) for record in RECORDS]
    (folder / "metadata/0.json").write_text("\n".join([*lines[:2], "", "{", "[" * 99999]))
    (folder / "metadata/1.json").write_text("\n".join([*lines[2:], "17", ""]))
    return folder


def chosen(danbooru, tmp_path, **options):
    output = tmp_path / "set.zip"
    fixed = {"data_path": str(danbooru / "512px"), "output": str(output), "size": 64}
    fixed |= {"duplicate_bits": -1, "num_threads": 1}
    prepare_dataset(PrepareOptions(**fixed, **options))
    sources = [entry["source"] for entry in read_description(output)["images"]]
    return sorted(int(source.rsplit("/", 1)[1].removesuffix(".jpg")) for source in sources)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ratings": "s"}, [1, 2]),
        ({"ratings": "s,q"}, [1, 2, 1001]),
        ({"ratings": "safe"}, [1, 2]),
        ({"score": "5"}, [1, 1001]),
        ({"score": "-3"}, [1, 2, 1001]),
        ({"tags": "solo"}, [1, 2, 1001]),
        ({"tags": "solo,-smile"}, [2, 1001]),
        ({"tags": "solo, hat", "ratings": "s", "score": "-9"}, [2]),
    ],
)
def test_metadata_choose(danbooru, tmp_path, options, expected):
    with pytest.warns(Note, match="metadata: 3 of 8 lines are not records"):
        found = chosen(danbooru, tmp_path, metadata=str(danbooru / "metadata"), **options)
    assert found == expected


def test_a_list_of_numbers_or_paths_chooses(danbooru, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("\ufeff1\r\n512px/0001/1001.jpg\n\nC:\\x\\0012.png\n777\n")
    assert chosen(danbooru, tmp_path, ids=str(ids)) == [1, 12, 1001]
    rows = (tmp_path / "set_report/report.csv").read_text()
    assert "512px/0002/2.jpg,left out,not_examined,not in --ids" in rows


def test_choices_that_cannot_be_made(danbooru, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("1\nall of them\n")
    with pytest.raises(ConfigError, match="ids.txt, line 2: 'all of them' is not a number"):
        chosen(danbooru, tmp_path, ids=str(ids))
    ids.write_text("77\n")
    with pytest.raises(ConfigError, match="ids: chooses none of 5 images, such as 512px/0001/1"):
        chosen(danbooru, tmp_path, ids=str(ids))
    with pytest.raises(ConfigError, match="metadata: .*ids.txt holds no JSON line with an id"):
        chosen(danbooru, tmp_path, metadata=str(ids))
    with pytest.raises(ConfigError, match="tags: chooses by"):
        chosen(danbooru, tmp_path, tags="solo")
    with pytest.raises(ConfigError, match="score: expected a whole number, found 'high'"):
        chosen(danbooru, tmp_path, metadata=str(ids), score="high")


def test_the_preset_for_anime_is_the_published_cascade():
    options = PrepareOptions(data_path="x", output="y.zip", preset="anime", cascade_min_size=250)
    assert (options.crop, options.cascade) == ("cascade", "lbpcascade_animeface.xml")
    assert (options.cascade_scale_factor, options.cascade_neighbours) == (1.1, 5)
    assert options.cascade_min_size == 250 and options.face == "all"


def test_crops_of_their_own_size_go_to_a_folder(danbooru, tmp_path):
    output = tmp_path / "crops"
    options = {"data_path": str(danbooru / "512px"), "output": str(output), "size": 0}
    summary = prepare_dataset(PrepareOptions(**options, duplicate_bits=-1, num_threads=1))
    assert summary.archive == output and not (tmp_path / "crops_work").exists()
    images = open_image_set(output)
    assert len(images) == 5 and {name.split("/")[0] for name in images.names} == {"00000"}
    assert [entry["side"] for entry in read_description(output)["images"]] == [96.0] * 5
