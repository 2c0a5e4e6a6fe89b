"""Writing where systems refuse: what is said, and what is left."""

import contextlib
import errno
import io
import json
import os
import zipfile

import numpy as np
import pytest

from paddle_sam.core import files
from paddle_sam.core.files import (
    atomic_folder,
    atomic_path,
    open_file,
    read_arrays,
    remove_leftovers,
    write_arrays,
    write_json,
)
from paddle_sam.errors import CheckpointError, FileNameError, OutputError


def test_others_may_read_what_the_user_lets_them_read(tmp_path, monkeypatch):
    """File systems without permissions are not asked to change any."""
    monkeypatch.setattr(os, "chmod", None)
    (tmp_path / "by_python").write_text("1")
    write_json(tmp_path / "a.json", 1)
    mode = (tmp_path / "a.json").stat().st_mode
    assert mode == (tmp_path / "by_python").stat().st_mode and mode & 0o044


@pytest.mark.parametrize(("number", "refused"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_file_systems_that_cannot_flush_are_written_to(tmp_path, monkeypatch, number, refused):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    expected = pytest.raises(OutputError) if refused else contextlib.nullcontext()
    with expected:
        write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "a.json").exists() != refused


def test_a_long_name_that_is_legal_is_written(tmp_path):
    name = "\u7167" * 83 + ".jpg"  # 253 bytes of 255
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_bytes(b"x")
        assert temporary.suffix == ".jpg"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_is_too_long_is_that_files_failure(tmp_path):
    with pytest.raises(FileNameError, match="Shorten the name") as caught:
        write_json(tmp_path / ("a" * 300), 1)
    assert "space" not in str(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EACCES, "that you may write to"),
        (errno.EROFS, "that you may write to"),
        (errno.EIO, "What was there before is untouched"),
    ],
)
def test_the_advice_follows_from_what_the_system_said(tmp_path, number, advice):
    said = os.strerror(number)
    expected = pytest.raises(OutputError, match=f"{said}.*{advice}")
    with expected as caught, atomic_path(tmp_path / "a"):
        raise OSError(number, said)
    assert not isinstance(caught.value, FileNameError)
    assert ("space" in str(caught.value)) == (number == errno.ENOSPC)


def test_what_a_killed_process_left_is_deleted_by_the_next(tmp_path):
    old = [tmp_path / name for name in (".abcdefgh.tmp.png", ".photo.12_bcdez.tmp.jpg")]
    others = [tmp_path / name for name in (".abcdefgi.tmp.png", "a.tmp", ".notes.tmp", "b.png")]
    for path in [*old, *others]:
        path.touch()
    for path in [*old, *others[1:]]:
        os.utime(path, (1, 1))
    write_json(tmp_path / "result.json", 1)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"result.json", *(path.name for path in others)}


def test_files_that_belong_together_appear_together(tmp_path):
    folder = tmp_path / "a" / "b"
    with atomic_folder(folder) as aside:
        (aside / "1").write_text("new")
        (aside / "2").write_text("new")
        assert [path for path in folder.iterdir() if path.name[0] != "."] == []
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
    for error, seen in ((OSError(errno.ENOSPC, "No space"), OutputError), (KeyError(), KeyError)):
        with pytest.raises(seen), atomic_folder(folder) as aside:
            (aside / "1").write_text("half")
            raise error
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
    assert (folder / "1").read_text() == "new"
    (folder / ".abcdefgh.tmp").mkdir()
    remove_leftovers(tmp_path)
    assert not (folder / ".abcdefgh.tmp").exists()


def test_writers_that_do_not_notice_a_full_disk_are_noticed(tmp_path, monkeypatch):
    """Such as Paddle's, which leave an empty file and say nothing."""
    monkeypatch.setattr(files, "flush", lambda stream: full() if "room" in stream.name else None)

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="Free some space"), atomic_folder(tmp_path) as aside:
        (aside / "model.pdiparams").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_needed_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file is where a folder is needed"):
        write_json(tmp_path / "file" / "a.json", 1)


def test_names_that_are_not_utf8_come_back_from_json(tmp_path):
    name = os.fsdecode(b"stra\xdfe\n.jpg")
    write_json(tmp_path / "a.json", {name: name})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {name: name}


def test_only_regular_files_are_opened(tmp_path):
    with pytest.raises(OSError, match="it is a folder"):
        open_file(tmp_path)
    with pytest.raises(OSError, match="it is a device"):
        open_file(os.devnull)


def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return stream.getvalue()


def objects() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.array([{}], dtype=object))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (archive(data=b"text"), "its member 'data' is not an array"),
        (objects(), "holds more than arrays"),
        (b"\x89PNG\r\n\x1a\n", "not a NumPy archive"),
        (b"", "not a NumPy archive"),
        (archive(a=b"x")[:40], "not a NumPy archive|damaged"),
    ],
    # Archives hold the time of day, which test processes that share the suite do not agree on.
    ids=["text", "objects", "PNG", "empty", "truncated"],
)
def test_what_is_no_archive_of_arrays_is_told_without_unsafe_advice(tmp_path, content, found):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"a.npz.*({found}).*; fetch it") as caught:
        read_arrays(tmp_path / "a.npz", "fetch it")
    assert "allow_pickle" not in str(caught.value)


def test_arrays_are_bounded_before_they_are_unpacked(tmp_path, monkeypatch):
    write_arrays(tmp_path / "a.npz", {"a": np.zeros(1000)}, compress=True)
    assert read_arrays(tmp_path / "a.npz", "")["a"].shape == (1000,)
    monkeypatch.setattr(files, "ARRAY_BYTES", 7000)
    with pytest.raises(CheckpointError, match="holds 8,128 bytes of arrays, more than 7,000"):
        read_arrays(tmp_path / "a.npz", "")


def test_a_single_array_has_the_files_name(tmp_path):
    np.save(tmp_path / "smile.npy", np.ones(3))
    assert read_arrays(tmp_path / "smile.npy", "")["smile"].tolist() == [1, 1, 1]
