from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_sam.ageing.options import AgeingOptions, PhotoOptions
from paddle_sam.ageing.photos import (
    Input,
    Photo,
    face_mask,
    find_inputs,
    mask_of,
    read_photos,
)
from paddle_sam.core.images import result_names
from paddle_sam.errors import CheckpointError, ImageError
from paddle_sam.faces.alignment import AlignedFace, CropSettings, FaceCutter

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
    assert [one.name.as_posix() for one in find_inputs(config)] == ["a", "holiday/a"]


def test_only_the_portrait_s_results_are_examples():
    for options, folder in (
        ({}, "examples"),
        ({"data_path": "a.jpg"}, "results"),
        ({"latent": "a.npz"}, "results"),  # somebody's face, too
        ({"latent": "a.npz", "exp_dir": "mine"}, "mine"),
    ):
        assert AgeingOptions(**options).results == Path(folder)


def test_masks_are_no_photographs_but_belong_to_them(tmp_path):
    for name in ("a.jpg", "a.mask.png", "b.png", "b.mask.png", "alone.mask.png"):
        write(tmp_path / name)
    names = [one.path.name for one in find_inputs(PhotoOptions(data_path=str(tmp_path)))]
    assert names == ["a.jpg", "alone.mask.png", "b.png"]
    assert mask_of(tmp_path / "a.jpg") == tmp_path / "a.mask.png"
    assert mask_of(tmp_path / "b.png") == tmp_path / "b.mask.png"
    assert mask_of(tmp_path / "alone.mask.png") is None


def test_a_mask_counts_where_it_is_white_and_the_photograph_reaches(tmp_path):
    mask = np.full((8, 8), 255, np.uint8)
    mask[:4] = 0
    write(tmp_path / "a.png")
    face = AlignedFace(np.zeros((8, 8, 3), np.uint8), SQUARE + (4, 0))  # its right half is outside
    pixels, path = np.zeros((8, 8, 3), np.uint8), tmp_path / "a.png"
    covered = face_mask(pixels, face, path)
    assert covered[:, :4].all() and not covered[:, 4:].any()
    Image.fromarray(mask).save(tmp_path / "a.mask.png")
    both = face_mask(pixels, face, path)
    assert not both[:3].any() and (both[5:, :4] == 1).all() and not both[:, 4:].any()
    write(tmp_path / "a.mask.png", size=(4, 8))
    with pytest.raises(ImageError, match="the mask has 4 x 8 pixels, its photograph 8 x 8"):
        face_mask(pixels, face, path)


@pytest.mark.parametrize("masked", [False, True])
def test_a_face_of_which_nothing_counts_is_named(tmp_path, masked):
    """A crop may touch the photograph's border only, or a mask may be black."""
    write(tmp_path / "a.png")
    if masked:
        write(tmp_path / "a.mask.png", value=0)
    square = SQUARE if masked else SQUARE + (8, 0)
    face = AlignedFace(np.zeros((8, 8, 3), np.uint8), square)
    words = r"a\.mask\.png: the mask leaves nothing" if masked else r"a\.png: the face lies outside"
    with pytest.raises(ImageError, match=words):
        face_mask(np.zeros((8, 8, 3), np.uint8), face, tmp_path / "a.png")


def test_results_are_called_like_the_photograph():
    faces = [AlignedFace(np.zeros((8, 8, 3), np.uint8), SQUARE)] * 3
    photo = Photo(Input(Path("in/x.v2"), Path("x.v2.jpg"), ".jpg"), np.zeros((8, 8, 3)), faces)
    assert [path.as_posix() for path in photo.face_names()] == [
        "in/x.v2.jpg",
        "in/x.v2_face2.jpg",
        "in/x.v2_face3.jpg",
    ]
    assert photo.face_names(".mp4")[1] == Path("in/x.v2_face2.mp4")


def test_results_never_share_a_name():
    """Whatever their suffix, and also with further faces in each photograph."""
    files = "a.jpg a.png a.png.jpg a.png.png b.jpg c.gif c_face2.gif d_face2.jpg e/a.jpg"
    paths = [Path(file) for file in files.split()]
    names = result_names(paths)
    assert [str(name) for name in names[4:6]] == ["b", "c"]
    assert [name.as_posix() for name in names[6:]] == ["c_face2.gif", "d_face2", "e/a"]
    every = [f"{name}{face}" for name in names for face in ("", "_face2", "_face3")]
    assert len(set(every)) == len(every)
    assert result_names(paths[:1]) == [Path("a")]


def test_each_face_alone_keeps_its_own_code():
    crops = [np.full((4, 4, 3), value, np.uint8) for value in (1, 2)]
    faces = [AlignedFace(crop, SQUARE) for crop in crops]
    codes = np.arange(2, dtype=np.float32)[:, None, None]
    photo = Photo(Input(Path("two"), Path("two.jpg")), np.zeros((8, 8, 3), np.uint8), faces, codes)
    (first, one), (second, other) = photo.alone()
    assert (first, second) == ("two.png", "two_face2.png")
    assert [(p.crops.max(), p.codes.tolist()) for p in (one, other)] == [(1, [[[0]]]), (2, [[[1]]])]
    without = Photo(photo.input, photo.pixels, faces)
    assert [p.codes for _, p in without.alone()] == [None, None]


def test_what_finds_faces_is_not_the_fault_of_each_photograph(tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "shape_predictor_68_face_landmarks.dat").write_bytes(b"junk")
    monkeypatch.setenv("PADDLE_SAM_WEIGHTS", str(weights))
    inputs = [Input(Path(name), np.zeros((8, 8, 3), np.uint8)) for name in "abc"]
    photos = read_photos(PhotoOptions(data_path="x"), inputs, FaceCutter(CropSettings(8)))
    with pytest.raises(CheckpointError, match="68_face_landmarks.dat: found a damaged file"):
        next(photos)
