"""One file as a data set: the same to a trainer as the folder it was made of."""

import copy
import io
import itertools
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from paddle_sam.core.files import TEXT_BYTES
from paddle_sam.core.images import read_image
from paddle_sam.errors import ConfigError, ImageError, Note
from paddle_sam.imagesets.archive import (
    archive_name,
    content_digest,
    list_sources,
    open_image_set,
    read_description,
    read_source,
    source_bytes,
    write_archive,
)
from paddle_sam.imagesets.loader import BatchLoader, ImagePairs, identify_images


def png(level: int, size: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), level, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


NAMES = ["a/2.png", "a/10.png", "b/1.png"]
CONTENT = {name: png(50 * index) for index, name in enumerate(NAMES)}
LABELS = {"labels": [["a/2.png", 0], ["a/10.png", 0], ["b/1.png", 3]]}


@pytest.fixture
def folder(tmp_path):
    for name, content in CONTENT.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "folder/dataset.json").write_text(json.dumps(LABELS))
    return tmp_path / "folder"


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "set.zip"
    write_archive(path, reversed(CONTENT.items()), LABELS)
    return path


def test_folder_and_archive_look_the_same(folder, packed):
    left, right = open_image_set(folder), open_image_set(packed)
    assert left.names == right.names == tuple(NAMES)
    assert left.labels == right.labels == (0, 0, 3)
    assert [str(image) for image in right.images] == [f"{packed}/{name}" for name in NAMES]
    assert [image.stem for image in left.images] == [image.stem for image in right.images]
    for one, other in zip(left.images, right.images, strict=True):
        np.testing.assert_array_equal(read_source(one), read_source(other))
        assert content_digest(one) == content_digest(other)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_trainer_reads_batches_of_it(folder, packed, workers):
    batches = [
        list(itertools.islice(BatchLoader(ImagePairs(path), 8, w).training(2, 1, 0, slice(2)), 4))
        for path, w in ((folder, 0), (packed, workers))
    ]
    for left, right in zip(*batches, strict=True):
        np.testing.assert_array_equal(left.source, right.source)


def test_targets_are_paired_by_name(folder, packed):
    (folder / "a/10.png").rename(folder / "a/10.webp")
    pairs = ImagePairs(packed, folder, limit=2)
    assert [pairs.paths(i)[1].name for i in range(2)] == ["2.png", "10.webp"]


def test_an_image_is_as_light_as_a_path(packed):
    image = open_image_set(packed).images[1]
    assert len(pickle.dumps(image)) < 400
    assert pickle.loads(pickle.dumps(image)).read_bytes() == CONTENT["a/10.png"]


def test_the_same_content_makes_the_same_bytes(packed, tmp_path):
    again = tmp_path / "again.zip"
    write_archive(again, reversed(CONTENT.items()), LABELS)
    assert again.read_bytes() == packed.read_bytes()
    with zipfile.ZipFile(packed) as opened:
        assert opened.testzip() is None
        assert {entry.compress_type for entry in opened.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time[0] for entry in opened.infolist()} == {1980}
        assert json.loads(opened.read("dataset.json")) == LABELS


def test_a_failed_write_leaves_what_was_there(packed, tmp_path):
    before = packed.read_bytes()
    with pytest.raises(ConfigError, match="two images are called x.png"):
        write_archive(packed, [("x.png", b"1"), ("x.png", b"2")], {})
    assert packed.read_bytes() == before
    assert list(tmp_path.iterdir()) == [packed]


def test_archives_of_other_programs(tmp_path):
    """Compressed, with folders, notes, extra fields and a Mac's shadow files."""
    path = tmp_path / "foreign.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("faces/", b"")
        entry = zipfile.ZipInfo("faces/1.png")
        entry.extra, entry.compress_type = b"\x99\x99\x04\x00abcd", zipfile.ZIP_DEFLATED
        opened.writestr(entry, CONTENT["b/1.png"])
        opened.writestr("faces/notes.txt", b"hello")
        opened.writestr("__MACOSX/faces/._1.png", b"junk")
        opened.writestr("faces/.hidden.png", b"junk")
    (image,) = open_image_set(path).images
    assert image.deflated and image.read_bytes() == CONTENT["b/1.png"]


def test_damage_is_found_at_the_image_it_hit(packed):
    image = open_image_set(packed).images[1]
    data = bytearray(packed.read_bytes())
    data[image.offset + image.size // 2] ^= 1
    packed.write_bytes(data)
    first, second, _ = open_image_set(packed).images
    assert read_source(first).shape == (8, 8, 3)
    with pytest.raises(ImageError, match="set.zip/a/10.png: found content that its checksum"):
        read_source(second)


def test_a_member_inflates_to_no_more_than_it_declares(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("1.png", bytes(100_000))
    # The central directory's entry, 46 bytes and the name, says 10 bytes instead.
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    (image,) = open_image_set(path).images
    with pytest.raises(ImageError, match="checksum"):
        image.read_bytes()
    with pytest.raises(ImageError, match="declares 100 bytes|declares 10 bytes"):
        image.read_bytes(most=9)


def test_members_that_overlap_are_refused(tmp_path):
    """As in a zip bomb: many names, all with the same bytes."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("1.png", CONTENT["a/2.png"])
        (first,) = opened.infolist()
        for number in range(2, 50):
            again = copy.copy(first)
            again.filename = f"{number}.png"
            opened.filelist.append(again)
            opened.NameToInfo[again.filename] = again
    with pytest.raises(ImageError, match="1.png and .*png overlap in this archive"):
        open_image_set(path)


def test_what_an_archive_leaves_out_is_counted(tmp_path):
    path = tmp_path / "mixed.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for name in ("1.png", "film.mp4", "@eaDir/1.png", "#recycle/2.png", "dataset.json"):
            opened.writestr(name, b"{}" if name.endswith("json") else CONTENT["a/2.png"])
    with pytest.warns(Note, match=r"found 1 images; left out: 1 ending in .mp4.*; 2 kept by"):
        assert open_image_set(path).names == ("1.png",)


def test_a_description_is_bounded_before_it_is_read(folder, tmp_path):
    """2 GiB of spaces in a zip of 2 MB; brackets that no stack holds; a number of 5,000 digits."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("1.png", CONTENT["a/2.png"])
        with opened.open("dataset.json", "w", force_zip64=True) as member:
            for _ in range(TEXT_BYTES // (1 << 20) + 1):
                member.write(b" " * (1 << 20))
    assert path.stat().st_size < 2 << 20
    with pytest.raises(ConfigError, match="bomb.zip: its dataset.json .* declares 26[0-9],"):
        open_image_set(path)
    for text in ("[" * 10**6, '{"labels": ' + "9" * 5000 + "}"):
        (folder / "dataset.json").write_text(text)
        with pytest.raises(ConfigError, match="its dataset.json cannot be read"):
            open_image_set(folder)


def test_names_that_are_not_text_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(CONTENT["a/2.png"])
    images = open_image_set(tmp_path / "set")
    pairs = [(name, source_bytes(images.images[0]))]
    write_archive(tmp_path / "set.zip", pairs, {"images": [{"name": name, "source": name}]})
    (packed,) = open_image_set(tmp_path / "set.zip").names
    assert packed == archive_name(name) == r"caf\udce9.png"
    assert read_description(tmp_path / "set.zip")["images"][0]["source"] == name


def test_any_name_has_an_identity(folder):
    before = identify_images(str(folder), list_sources(folder))
    (folder / os.fsdecode(b"\xff.png")).symlink_to("nowhere")
    after = identify_images(str(folder), list_sources(folder))
    assert (before["images"], after["images"]) == (3, 4) and before["sha256"] != after["sha256"]


def test_archives_that_cannot_be_used(packed, tmp_path):
    short = tmp_path / "short.zip"
    short.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(ImageError, match="short.zip: not a complete zip archive"):
        open_image_set(short)
    write_archive(tmp_path / "empty.zip", [], {})
    with pytest.raises(ImageError, match="found no image in this archive"):
        open_image_set(tmp_path / "empty.zip")
    with pytest.raises(ImageError, match="there is no such file"):
        open_image_set(tmp_path / "none.zip")
    packed_image = open_image_set(packed).images[0]
    packed.unlink()
    with pytest.raises(ImageError, match="could not be read"):
        packed_image.read_bytes()


def test_a_password_or_a_rare_compression_is_named(tmp_path):
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as opened:
        opened.writestr("1.png", CONTENT["a/2.png"])
    with pytest.raises(ImageError, match="1.png is packed by method 12"):
        open_image_set(path)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match="1.png is encrypted"):
        open_image_set(path)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "is not a JSON object"),
        ('{"labels": [1]}', "expected pairs of a name and a class"),
        ('{"labels": [["a/2.png", 0]]}', "of a/10.png, found None"),
        ('{"labels": [["a/2.png", "x"]]}', "of a/2.png, found 'x'"),
    ],
)
def test_a_description_that_cannot_be_used(folder, description, message):
    (folder / "dataset.json").write_text(description)
    with pytest.raises(ConfigError, match=message):
        open_image_set(folder)


def test_without_labels(folder):
    (folder / "dataset.json").write_text('{"labels": null}')
    assert open_image_set(folder).labels is None
    (folder / "dataset.json").unlink()
    images = open_image_set(folder)
    assert (len(images), images.labels) == (3, None)
    assert read_source(images.images[0]).tolist() == read_image(folder / "a/2.png").tolist()
