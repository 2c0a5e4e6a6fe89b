from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_sam.ageing.options import AgeingOptions, PhotoOptions
from paddle_sam.ageing.photos import (
    OtherFormat,
    Photo,
    face_mask,
    find_inputs,
    mask_of,
    results_folder,
)
from paddle_sam.errors import ImageError
from paddle_sam.faces.alignment import AlignedFace

SQUARE = np.array([[0, 0], [0, 8], [8, 8], [8, 0]], np.float64)


def write(path, size=(8, 8), value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def test_results_of_every_command_are_no_photographs(tmp_path):
    results = "inference_results/10 inference_pasted/10 inference_side_by_side style_mixing"
    results += " reference_guided/10 projection directions"
    for folder in ("", "holiday", *results.split()):
        write(tmp_path / folder / "a.png")
    write(tmp_path / "contact_sheet_1.jpg")
    config = PhotoOptions(data_path=str(tmp_path), exp_dir=str(tmp_path))
    assert [name.as_posix() for name, _ in find_inputs(config)] == ["a.png", "holiday/a.png"]


def test_only_the_portrait_s_results_are_examples():
    for options, folder in (
        ({}, "examples"),
        ({"data_path": "a.jpg"}, "results"),
        ({"latent": "a.npz"}, "results"),  # somebody's face, too
        ({"latent": "a.npz", "exp_dir": "mine"}, "mine"),
    ):
        assert results_folder(AgeingOptions(**options)) == Path(folder)


def test_masks_are_no_photographs_but_belong_to_them(tmp_path):
    for name in ("a.jpg", "a.mask.png", "b.png", "b.mask.png", "alone.mask.png"):
        write(tmp_path / name)
    names = [path.name for _, path in find_inputs(PhotoOptions(data_path=str(tmp_path)))]
    assert names == ["a.jpg", "alone.mask.png", "b.png"]
    assert mask_of(tmp_path / "a.jpg") == tmp_path / "a.mask.png"
    assert mask_of(tmp_path / "b.png") == tmp_path / "b.mask.png"
    assert mask_of(tmp_path / "alone.mask.png") is None


def test_a_mask_counts_where_it_is_white_and_the_photograph_reaches(tmp_path):
    mask = np.full((8, 8), 255, np.uint8)
    mask[:4] = 0
    write(tmp_path / "a.png")
    face = AlignedFace(np.zeros((8, 8, 3), np.uint8), SQUARE + (4, 0))  # its right half is outside
    photo = Photo("a.png", np.zeros((8, 8, 3), np.uint8), [face], tmp_path / "a.png")
    covered = face_mask(photo, face)
    assert covered[:, :4].all() and not covered[:, 4:].any()
    Image.fromarray(mask).save(tmp_path / "a.mask.png")
    both = face_mask(photo, face)
    assert not both[:3].any() and (both[5:, :4] == 1).all() and not both[:, 4:].any()
    write(tmp_path / "a.mask.png", size=(4, 8))
    with pytest.raises(ImageError, match="the mask has 4 x 8 pixels, its photograph 8 x 8"):
        face_mask(photo, face)


def test_a_photograph_called_like_a_second_face_keeps_its_result():
    taken = frozenset(map(Path, ("x.jpg", "x_face2.jpg", "x_face2_.jpg")))
    faces = [AlignedFace(np.zeros((8, 8, 3), np.uint8), SQUARE)] * 3
    photo = Photo(Path("x.jpg"), np.zeros((8, 8, 3), np.uint8), faces, taken=taken)
    names = [path.name for path in photo.face_names()]
    assert names == ["x.jpg", "x_face2__.jpg", "x_face3.jpg"]


def test_other_formats_never_share_a_name():
    named = OtherFormat()
    photos = ("a.jpg", "a.png", "a.png.jpg", "a.png.png")
    found = [named(Path(photo), ".png").name for photo in photos]
    assert len(set(found)) == 4 and found[:2] == ["a.png", "a.png.png"]
