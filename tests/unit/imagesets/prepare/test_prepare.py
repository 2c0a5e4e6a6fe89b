"""The whole of `scripts/prepare_dataset.py` on a dirty data set: what is planted is found."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import skimage.data
from PIL import Image

from paddle_sam.core.folders import one_writer
from paddle_sam.core.images import decode_image, read_image
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import (
    open_image_set,
    read_description,
    read_source,
    write_archive,
)
from paddle_sam.imagesets.loader import BatchLoader, ImagePairs
from paddle_sam.imagesets.prepare.augmentation import augment
from paddle_sam.imagesets.prepare.examine import encode
from paddle_sam.imagesets.prepare.options import AUGMENTATIONS, PrepareOptions
from paddle_sam.imagesets.prepare.prepare import prepare_dataset
from scripts.prepare_dataset import main
from tests import ROOT
from tests.unit.core.icc_profiles import P3_TO_XYZ, rgb_profile
from tests.unit.imagesets.prepare.dirty import encoded, pictures, plant

SIZE = 64


@pytest.fixture(scope="module")
def dirty(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs") / "dirty"
    return root, plant(root, rgb_profile(P3_TO_XYZ, 2.2))


def inputs(root: Path) -> str:
    return f"{root},{root}.zip"


def config(**options) -> PrepareOptions:
    return PrepareOptions(**{"size": SIZE, "num_threads": 2, **options})


@pytest.fixture(scope="module")
def prepared(dirty, tmp_path_factory):
    """The output, and the rows of its report by the names of the inputs."""
    output = tmp_path_factory.mktemp("prepared") / "set.zip"
    root, _ = dirty
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    summary = prepare_dataset(config(data_path=inputs(root), output=str(output)))
    assert before == sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    with (summary.report / "report.csv").open(newline="") as file:
        rows = {row["source"]: row for row in csv.DictReader(file)}
    return output, rows, summary


def test_each_planted_defect_is_found_and_named(dirty, prepared):
    _, expected = dirty
    _, rows, _ = prepared
    assert set(rows) == set(expected)
    assert sum(kind != "good" for kind, _ in expected.values()) >= 60
    found = {}
    for name in expected:
        kind, row = expected[name][0], rows[name]
        found[name] = {
            "good": ("good", row["reason"]),
            "note": ("note", expected[name][1] if expected[name][1] in row["notes"] else row),
            "reason": ("reason", row["reason"]),
        }[kind]
    wrong = {name: rows[name] for name in expected if found[name] != expected[name]}
    assert not wrong


def test_duplicates_name_what_is_kept_instead(prepared):
    _, rows, _ = prepared
    assert rows["dirty/same/copy.png"]["kept_instead"] == "dirty/good/11.png"
    assert rows["dirty-2/packed/again.png"]["kept_instead"] == "dirty/good/14.png"
    instead = {row["kept_instead"] for row in rows.values() if row["reason"] == "near_duplicate"}
    assert instead == {f"dirty/good/{i:02d}.png" for i in range(11)}


def test_reasons_are_explained(prepared):
    _, rows, _ = prepared
    details = {name.split("/")[-1]: row["detail"] for name, row in rows.items()}
    assert "empty" in details["empty.jpg"]
    assert "HTML" in details["page.jpg"]
    assert "truncated" in details["cut_half.jpg"]
    assert "CRC error in the PNG's IDAT" in details["bit.png"]
    assert "CRC error in the PNG's tEXt" in details["crc_of_text.png"]
    assert "384 x 96 pixels" in details["panorama.jpg"]
    assert not any("/tmp" in text or "found found" in text for text in details.values())


def test_the_archive_holds_what_was_kept_as_squares(prepared):
    output, rows, summary = prepared
    images = open_image_set(output)
    kept = {row["image"]: name for name, row in rows.items() if row["outcome"] == "kept"}
    assert set(images.names) == set(kept)
    assert summary.counts["kept"] == len(images) == 27
    assert {read_source(image).shape for image in images.images} == {(SIZE, SIZE, 3)}
    about = read_description(output)
    assert {entry["name"]: entry["source"] for entry in about["images"]} == kept
    assert about["labels"] is None
    batch = next(BatchLoader(ImagePairs(output), SIZE).once(4))
    assert batch.source.shape == (4, SIZE, SIZE, 3)


def test_unusual_files_come_out_as_a_viewer_shows_them(prepared):
    output, rows, _ = prepared
    images = open_image_set(output)
    by_name = dict(zip(images.names, images.images, strict=True))
    originals = pictures(30)[23:]
    for place, name in ((0, "turned.jpg"), (2, "moving.gif"), (4, "deep.png")):
        shown = read_source(by_name[rows[f"dirty/unusual/{name}"]["image"]]).astype(float)
        wanted = Image.fromarray(originals[place]).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        assert np.abs(shown - np.asarray(wanted)).mean() < 8, name


def test_sheets_show_what_was_kept_and_dropped(prepared):
    _, _, summary = prepared
    sheets = sorted(path.name for path in summary.report.glob("*.jpg"))
    reasons = [*summary.counts["dropped"]]
    assert sheets == sorted(["kept.jpg", *[f"dropped_{reason}.jpg" for reason in reasons]])
    assert len(reasons) == 8
    height, width, _ = read_image(summary.report / "dropped_near_duplicate.jpg").shape
    assert width == 10 * 128 and height > 2 * 128  # pairs of dropped and kept
    assert json.loads((summary.report / "summary.json").read_text()) == summary.counts


def test_nothing_is_left_of_the_work_and_an_output_is_not_overwritten(dirty, prepared):
    output, _, _ = prepared
    assert sorted(path.name for path in output.parent.iterdir()) == ["set.zip", "set_report"]
    with pytest.raises(ConfigError, match="exists"):
        prepare_dataset(config(data_path=inputs(dirty[0]), output=str(output)))


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(dirty, prepared, tmp_path):
    root, _ = dirty
    output = tmp_path / "again.zip"
    options = ["--data_path", inputs(root), "--output", str(output), "--size", str(SIZE)]
    command = [sys.executable, str(ROOT / "scripts/prepare_dataset.py"), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    journal = tmp_path / "again_work/journal.jsonl"
    with subprocess.Popen(
        [*command, "--num_threads", "1"], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        while not (journal.is_file() and journal.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.005)
        workers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    assert workers and not psutil.wait_procs(workers, timeout=60)[1]  # they went, too
    done = journal.read_bytes().count(b"\n")
    assert done > 0
    # What a kill in the middle of writing leaves behind.
    with journal.open("ab") as stream:
        stream.write(b'{"key": "dirty/')
    with (tmp_path / "again_work/images.bin").open("ab") as stream:
        stream.write(b"half an image")
    assert main([*options, "--num_threads", "1"]) == 1  # some files cannot be read
    assert output.read_bytes() == prepared[0].read_bytes()


def test_a_run_is_not_resumed_with_other_options(dirty, tmp_path):
    root, _ = dirty
    (tmp_path / "x_work").mkdir()
    (tmp_path / "x_work/mine.txt").write_text("precious")
    options = {"data_path": str(root), "output": str(tmp_path / "x.zip")}
    with pytest.raises(ConfigError, match="holds something else"):
        prepare_dataset(config(**options))
    (tmp_path / "x_work/mine.txt").unlink()
    (tmp_path / "x_work/settings.json").write_text('{"size": 32}')
    with pytest.raises(ConfigError, match="size was 32, is 64"):
        prepare_dataset(config(**options))


def test_copies_and_labels_of_a_tiny_set(tmp_path):
    for index, image in enumerate(pictures(4)):
        path = tmp_path / "in" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    output = tmp_path / "out.zip"
    options = {"data_path": str(tmp_path / "in"), "output": str(output), "format": "jpg"}
    summary = prepare_dataset(config(**options, augment=2, labels="folders", seed=5))
    assert (summary.counts["kept"], summary.counts["copies"]) == (4, 8)
    images = open_image_set(output)
    assert images.names[:4] == tuple(f"00000/img0000000{n}.jpg" for n in ("0", "0_1", "0_2", "1"))
    assert images.labels == (0,) * 6 + (1,) * 6
    about = read_description(output)
    assert about["classes"] == ["in/a", "in/b"]
    altered = [entry["altered"] for entry in about["images"] if "altered" in entry]
    assert len(set(altered)) > 4
    assert {part.split()[0] for text in altered for part in text.split(", ")} <= {*AUGMENTATIONS}
    # From the image, its name and the seed alone, whichever process makes it.
    first, copy = (read_source(image) for image in images.images[:2])
    remade, done = augment(first, AUGMENTATIONS, "copy 1 of in/a/0.png", 5)
    assert altered[0] == ", ".join(done)
    assert encode(remade, "jpg") == images.images[1].read_bytes() and copy.shape == first.shape


def labelled(path, labels, classes=None, first=0):
    """An archive with a picture for each label."""
    images = pictures(first + len(labels))[first:]
    names = [f"{index}.png" for index in range(len(labels))]
    contents = ((name, encoded(i, "PNG")) for name, i in zip(names, images, strict=True))
    description = {"labels": [list(pair) for pair in zip(names, labels, strict=True)]}
    write_archive(path, contents, description | ({"classes": classes} if classes else {}))


def test_labels_of_the_inputs_are_carried_over(tmp_path):
    labelled(tmp_path / "a.zip", [2, 0, 1], ["cat", "dog", "hen"])
    labelled(tmp_path / "b.zip", [1, 2], ["cat", "dog", "hen"], first=3)
    files = [tmp_path / name for name in ("a.zip", "b.zip", "set.zip")]
    options = {"output": str(files[2]), "labels": "inputs", "augment": 1}
    prepare_dataset(config(data_path=f"{files[0]},{files[1]}", **options))
    assert open_image_set(files[2]).labels == (2, 2, 0, 0, 1, 1, 1, 1, 2, 2)
    assert read_description(files[2])["classes"] == ["cat", "dog", "hen"]


def test_labels_that_cannot_be_carried_over(tmp_path):
    labelled(tmp_path / "a.zip", [2, 0, 1], ["cat", "dog", "hen"])
    labelled(tmp_path / "b.zip", [0, 0], ["hen"])
    write_archive(tmp_path / "c.zip", [("0.png", encoded(pictures(1)[0], "PNG"))], {})
    for names, message in (
        (("a.zip", "b.zip"), "name their classes differently"),
        (("a.zip", "c.zip"), "c.zip states no labels; expected a folder or zip"),
    ):
        data = ",".join(str(tmp_path / name) for name in names)
        with pytest.raises(ConfigError, match=f"labels inputs: .*{message}"):
            prepare_dataset(config(data_path=data, output=str(tmp_path / "o.zip"), labels="inputs"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip", "c.zip"]


def test_faces_of_photographs_and_pictures_without(tmp_path):
    photo = skimage.data.astronaut()
    two = np.concatenate([photo[:300], photo[:300, ::-1]], axis=1)
    contents = {"one.png": photo, "two.jpg": two, "cat.png": skimage.data.chelsea()}
    (tmp_path / "in").mkdir()
    for name, image in contents.items():
        Image.fromarray(image).save(tmp_path / "in" / name)
    options = {"data_path": str(tmp_path / "in"), "output": str(tmp_path / "o.zip")}
    faces = {"crop": "cascade", "face": "all", "cascade_neighbours": 8, "cascade_min_size": 64}
    summary = prepare_dataset(config(**options, **faces))
    with (summary.report / "report.csv").open(newline="") as file:
        rows = {row["source"]: (row["reason"], row["kept_instead"]) for row in csv.DictReader(file)}
    assert set(rows) == {"in/cat.png", "in/one.png", "in/two.jpg#0", "in/two.jpg#1"}
    assert rows.pop("in/cat.png") == ("no_face", "")
    # The portrait's face twice, of which one stays, and its mirror image, which is no duplicate.
    assert sorted(reason for reason, _ in rows.values()) == ["", "", "near_duplicate"]
    assert next(instead for _, instead in rows.values() if instead) in rows


def test_nothing_good(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.jpg").write_bytes(b"no")
    options = ["--data_path", str(tmp_path / "in"), "--output", str(tmp_path / "out.zip")]
    assert main([*options, "--num_threads", "1"]) == 2
    assert "0 of 1 images kept; dropped: 1 unreadable" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out_report"]


def test_a_missing_input_leaves_nothing_behind(tmp_path):
    with pytest.raises(ImageError, match="none: there is no such file or folder"):
        prepare_dataset(config(data_path=str(tmp_path / "none"), output=str(tmp_path / "o.zip")))
    assert not list(tmp_path.iterdir())


def test_an_output_among_the_inputs(tmp_path):
    with pytest.raises(ConfigError, match="lies in the input"):
        prepare_dataset(config(data_path=str(tmp_path), output=str(tmp_path / "a/o.zip")))
    assert not list(tmp_path.iterdir())


def test_smaller_images_are_enlarged_when_asked(tmp_path):
    (tmp_path / "in").mkdir()
    image = pictures(1)[0]
    (tmp_path / "in/1.png").write_bytes(encoded(image, "PNG"))
    options = {"data_path": str(tmp_path / "in"), "output": str(tmp_path / "o.zip"), "size": 128}
    assert prepare_dataset(config(**options)).counts["dropped"] == {"too_small": 1}
    summary = prepare_dataset(config(**options, upscale="lanczos"))
    assert summary.counts["converted"] == {"enlarged from 96": 1}
    wanted = Image.fromarray(image).resize((128, 128), Image.Resampling.LANCZOS)
    (enlarged,) = open_image_set(tmp_path / "o.zip").images
    np.testing.assert_array_equal(decode_image(enlarged.read_bytes(), "it"), np.asarray(wanted))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_path": ""}, "data_path: name folders"),
        ({"output": "set.tar"}, "output: expected the name of an archive, .* found 'set.tar'"),
        ({"size": 100}, "a power of two"),
        ({"min_size": 32}, "min_size: 32 is less than size 64"),
        ({"cascade_scale_factor": 1.0}, "cascade_scale_factor: expected more than 1"),
        ({"face_scale": 0.0}, "face_scale: expected more than 0"),
        ({"max_aspect": 0.5}, "max_aspect: expected at least 1"),
        ({"augmentations": "mirror,smear"}, "augmentations: expected some of .* found 'smear'"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        config(**{"data_path": "x", "output": "x.zip", **options})


def test_every_page_of_a_tiff_is_an_image(tmp_path):
    (tmp_path / "in").mkdir()
    first, *others = map(Image.fromarray, pictures(3))
    first.save(tmp_path / "in/scan.tif", save_all=True, append_images=others)
    summary = prepare_dataset(
        config(data_path=str(tmp_path / "in"), output=str(tmp_path / "o.zip"))
    )
    assert summary.counts["kept"] == 3
    sources = [entry["source"] for entry in read_description(tmp_path / "o.zip")["images"]]
    assert sources == [f"in/scan.tif#{page}" for page in range(3)]


def test_a_grey_border_is_noted_and_kept(tmp_path):
    (tmp_path / "in").mkdir()
    image = np.pad(pictures(1)[0], ((0, 0), (16, 16), (0, 0)), constant_values=128)
    image = np.pad(image, ((16, 16), (0, 0), (0, 0)), constant_values=128)
    (tmp_path / "in/a.jpg").write_bytes(encoded(image, "JPEG"))
    summary = prepare_dataset(
        config(data_path=str(tmp_path / "in"), output=str(tmp_path / "o.zip"))
    )
    assert summary.counts["kept"] == 1 and summary.counts["converted"] == {"grey border": 1}


def test_one_preparation_at_a_time(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(encoded(pictures(1)[0], "PNG"))
    options = {"data_path": str(tmp_path / "in"), "output": str(tmp_path / "o.zip")}
    holder = f"process {os.getpid()} .*is writing a preparation"
    with (
        one_writer(tmp_path / "o_work", "a preparation"),
        pytest.raises(ConfigError, match=holder),
    ):
        prepare_dataset(config(**options))
    (tmp_path / "o_work/.abcdefgh.tmp").write_bytes(b"left by a kill")
    prepare_dataset(config(**options))
    assert not (tmp_path / "o_work").exists()
