"""Folders, zips and tars as tasks: named, ordered, read and nothing extracted."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.archive import source_bytes
from paddle_sam.imagesets.prepare import inputs
from paddle_sam.imagesets.prepare.inputs import input_paths, list_tasks
from tests.unit.imagesets.prepare.dirty import encoded

CONTENT = encoded(np.zeros((4, 4, 3), np.uint8), "PNG")
NAMES = ["b/2.png", "b/10.png", "a.png"]


def make_tar(path, mode, names=NAMES):
    with tarfile.open(path, mode) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(CONTENT)
            archive.addfile(member, io.BytesIO(CONTENT))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        note = tarfile.TarInfo("note.txt")
        archive.addfile(note)


def tasks_of(data_path, work):
    return list_tasks(input_paths(str(data_path)), work)[0]


@pytest.mark.parametrize(
    ("name", "mode"),
    [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tar.bz2", "w:bz2"), ("x.txz", "w:xz")],
)
def test_tars_are_read_at_random(tmp_path, name, mode):
    make_tar(tmp_path / name, mode)
    work = tmp_path / "work"
    tasks = tasks_of(tmp_path / name, work)
    label = name.split(".tar")[0]
    assert [task.name for task in tasks] == [
        f"{label}/{n}" for n in ("a.png", "b/2.png", "b/10.png")
    ]
    assert [source_bytes(task.source) for task in tasks] == [CONTENT] * 3
    unpacked = list(work.rglob("*"))
    assert len(unpacked) == (name != "x.tar")
    before = [path.stat().st_mtime_ns for path in unpacked]
    assert tasks_of(tmp_path / name, work) == tasks
    assert [path.stat().st_mtime_ns for path in unpacked] == before  # not unpacked again


def test_several_inputs_and_names_with_commas(tmp_path):
    for folder in ("one/set", "two/set", "a,b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").write_bytes(CONTENT)
    both = f"{tmp_path}/one/set, {tmp_path}/two/set,"
    assert [task.name for task in tasks_of(both, tmp_path)] == [
        "set/1.png",
        "set-2/1.png",
    ]
    assert [task.name for task in tasks_of(f"{tmp_path}/a,b", tmp_path)] == ["a,b/1.png"]
    assert [task.name for task in tasks_of(f"{tmp_path}/a,b/1.png", tmp_path)] == ["1.png/1.png"]


def test_no_input():
    with pytest.raises(ConfigError, match="data_path: expected folders or archives, found ' , '"):
        input_paths(" , ")


def test_a_changed_file_is_another_task(tmp_path):
    path = tmp_path / "1.png"
    Image.new("RGB", (4, 4)).save(path)
    (before,) = tasks_of(tmp_path, tmp_path)
    Image.new("RGB", (9, 9)).save(path)
    (after,) = tasks_of(tmp_path, tmp_path)
    assert before.name == after.name and before.stamp != after.stamp


def test_no_name_leads_outside(tmp_path):
    make_tar(tmp_path / "x.tar.gz", "w:gz", ["../../evil.png", "/etc/evil.png"])
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("../evil.png", CONTENT)
    work = tmp_path / "work"
    tasks = tasks_of(f"{tmp_path}/x.tar.gz,{tmp_path}/y.zip", work)
    assert [source_bytes(task.source) for task in tasks] == [CONTENT] * 3
    assert {path.parent for path in work.rglob("*")} == {work}
    assert not list(tmp_path.parent.glob("evil*"))


def test_an_archive_that_unpacks_to_far_too_much(tmp_path, monkeypatch):
    make_tar(tmp_path / "x.tar.gz", "w:gz")
    monkeypatch.setattr(inputs, "_LARGEST_GROWTH", 1)
    monkeypatch.setattr(inputs, "_LARGEST_START", 1000)
    with pytest.raises(ImageError, match="x.tar.gz: unpacks to more than"):
        tasks_of(tmp_path / "x.tar.gz", tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())


def test_headers_of_a_tar_are_bounded_before_they_are_read(tmp_path):
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    (tmp_path / "bomb.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(ImageError, match="bomb.tar: .*a header declares 8,589,934,592 bytes"):
        tasks_of(tmp_path / "bomb.tar", tmp_path / "work")


def test_pipes_are_no_input(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="pipe: neither a file nor a folder"):
        tasks_of(tmp_path / "pipe", tmp_path / "work")


def test_inputs_that_cannot_be_used(tmp_path):
    make_tar(tmp_path / "x.tar.gz", "w:gz")
    whole = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="x.tar.gz: found a damaged or truncated archive"):
        tasks_of(tmp_path / "x.tar.gz", tmp_path / "work")
    for name, pack in {"gz": gzip, "bz2": bz2, "xz": lzma}.items():
        packed = bytearray(pack.compress(np.random.default_rng(0).bytes(20_000) + bytes(90_000)))
        packed[len(packed) // 2] ^= 0xFF
        (tmp_path / f"x.tar.{name}").write_bytes(packed)
        with pytest.raises(ImageError, match=rf"x.tar.{name}: found a damaged"):
            tasks_of(tmp_path / f"x.tar.{name}", tmp_path / "work")
    (tmp_path / "y.gz").write_bytes(gzip.compress(b"just text"))
    with pytest.raises(ImageError, match="y.gz: found a compressed file that is not a tar"):
        tasks_of(tmp_path / "y.gz", tmp_path / "work")
    make_tar(tmp_path / "z.tar", "w", [])
    with pytest.raises(ImageError, match="z.tar: found no image in this archive"):
        tasks_of(tmp_path / "z.tar", tmp_path)
    make_tar(tmp_path / "twice.tar", "w", ["1.png", "1.png"])
    with pytest.raises(ConfigError, match="holds twice/1.png twice"):
        tasks_of(tmp_path / "twice.tar", tmp_path)
