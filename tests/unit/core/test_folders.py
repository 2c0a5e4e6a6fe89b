"""Which files of a folder are images, and what is said of the others."""

import os
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_sam.core.folders import list_folder, list_images, natural_key
from paddle_sam.core.images import read_image
from paddle_sam.errors import ImageError, Note


def save(path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path, **options)


def names(root):
    return [path.relative_to(root).as_posix() for path in list_folder(root).images]


def left_out(root):
    return {reason: sorted(names) for reason, names in list_folder(root).left_out.items()}


def test_links_to_folders_are_followed(tmp_path):
    save(tmp_path / "elsewhere/b.png")
    save(tmp_path / "elsewhere/deep/c.png")
    save(tmp_path / "set/a.png")
    (tmp_path / "set/link").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "set") == ["a.png", "link/b.png", "link/deep/c.png"]
    (tmp_path / "set/a.png").unlink()
    assert list_images(tmp_path / "set")  # nothing but a link


def test_circles_of_links_end_and_no_folder_is_listed_twice(tmp_path):
    save(tmp_path / "set/a/1.png")
    save(tmp_path / "set/b/2.png")
    (tmp_path / "set/a/up").symlink_to(tmp_path / "set")
    (tmp_path / "set/0").symlink_to(tmp_path / "set/b")
    (tmp_path / "set/b/self").symlink_to(".")
    assert names(tmp_path / "set") == ["a/1.png", "b/2.png"]
    assert left_out(tmp_path / "set") == {
        "listed already under another path": ["0", "a/up", "b/self"]
    }


def test_a_lattice_of_links_takes_no_exponential_time(tmp_path):
    for level in range(30):
        (tmp_path / f"set/{level}").mkdir(parents=True)
        for side in ("left", "right"):
            (tmp_path / f"set/{level}/{side}").symlink_to(tmp_path / f"set/{level + 1}")
    save(tmp_path / "set/30/a.png")
    assert names(tmp_path / "set") == ["30/a.png"]


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "__MACOSX"]
    + ["lost+found", ".Trash-1000", ".thumbnails", "thumbnails"],
)
def test_folders_that_systems_keep_are_left_out(tmp_path, name):
    save(tmp_path / "set/a.jpg")
    save(tmp_path / f"set/{name}/a.jpg/SYNOPHOTO_THUMB_XL.jpg")
    save(tmp_path / f"set/deep/{name}/deleted.jpg")
    assert names(tmp_path / "set") == ["a.jpg"]
    reason = "hidden" if name.startswith(".") else "kept by a system"
    assert left_out(tmp_path / "set") == {reason: sorted([name, f"deep/{name}"])}
    assert list_images(tmp_path / "set" / name)  # asked for by name


def test_files_of_systems_are_no_images(tmp_path):
    save(tmp_path / "a.jpg")
    for name in ("Thumbs.db", ".DS_Store", "._a.jpg", "desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path) == ["a.jpg"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # not worth a word
        list_images(tmp_path)


def test_an_image_without_a_usual_ending_is_known_by_its_beginning(tmp_path):
    for name, kind in (("plain", "JPEG"), ("big.jpg_large", "PNG"), ("x.1", "WEBP"), ("y", "GIF")):
        save(tmp_path / name, format=kind)
    for name in ("raw.cr2", "old.jpe", "new.JXL", "still.tga"):
        save(tmp_path / name, format="TIFF")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(20))
    (tmp_path / "notes.txt").write_text("about")
    (tmp_path / "empty").touch()
    assert names(tmp_path) == [
        "big.jpg_large", "new.JXL", "old.jpe", "plain", "still.tga", "x.1", "y"
    ]  # fmt: skip
    assert left_out(tmp_path) == {
        "ending in .cr2": ["raw.cr2"],
        "ending in .mp4": ["film.mp4"],
        "ending in .txt": ["notes.txt"],
        "without an ending": ["empty"],
    }


def test_what_is_left_out_is_counted_once_in_a_note(tmp_path):
    save(tmp_path / "a.png")
    for index in range(3):
        (tmp_path / f"{index}.mp4").touch()
    (tmp_path / ".hidden").touch()
    with pytest.warns(Note) as notes:
        assert list_images(tmp_path) == [tmp_path / "a.png"]
    (note,) = notes
    assert str(note.message) == (
        f"{tmp_path}: found 1 images; left out: 3 ending in .mp4 (0.mp4, 1.mp4, ...)"
    )
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match="Left out: 3 ending in .mp4 .*; 1 hidden"):
        list_images(tmp_path)


def test_special_files_are_not_opened_and_are_named_if_they_look_like_images(tmp_path):
    save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "gone").symlink_to("nowhere")
    here = Path.cwd()
    os.chdir(tmp_path)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.png")
    finally:
        os.chdir(here)
    assert names(tmp_path) == ["a.png", "gone.jpg", "pipe.png", "socket.png"]
    assert left_out(tmp_path) == {"not regular files": ["device", "gone", "pipe"]}
    for path in list_folder(tmp_path).images[1:]:
        with pytest.raises(
            ImageError, match=f"{path.name}: .*(no such file|not a regular file|No such device)"
        ):
            read_image(path)


def test_numbers_count_whatever_their_length_and_script():
    """Other scripts have digits too, which `int` takes; it refuses numbers of 5,000 digits."""
    ordered = ["1.png", "02.png", "10.png", "a2.png", "a10.png", f"a{'9' * 5000}.png"]
    found = sorted(map(Path, [*reversed(ordered), "٣", "b"]), key=natural_key)
    assert [str(path) for path in found if str(path) in ordered] == ordered
