"""Folders of photographs: N inputs give N results or N reported errors, and a true exit status.

Most of these give crops to a tiny network, with --no_align; the last ones look for faces.
"""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from paddle_sam.common.checks import ConfigError, ImageError, OutputError
from paddle_sam.common.images import read_image, resize
from paddle_sam.configs.inference import FolderPerAgeConfig, SideBySideConfig
from paddle_sam.data.alignment import AlignedFace
from paddle_sam.inference import folders
from paddle_sam.inference.folders import folder_per_age, side_by_side
from paddle_sam.inference.photos import Photo, Summary, find_inputs, read_photos, results_folder
from paddle_sam.inference.pipeline import AgePipeline
from tests.unit.inference.tiny import SIZE, tiny_pipeline

PHOTO = skimage.data.astronaut()
FACE = resize(PHOTO[60:200, 150:290], SIZE)
AGES = "20,70"
FROM_CHECKPOINT = AgePipeline.from_checkpoint


@pytest.fixture(scope="module", autouse=True)
def one_pipeline():
    """A tiny network in place of whatever a command would read."""
    pipeline = tiny_pipeline()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AgePipeline, "from_checkpoint", classmethod(lambda *_: pipeline))
        yield pipeline


@pytest.fixture
def photos(tmp_path):
    return tmp_path / "photos"


def put(path: Path, content=FACE, file_format=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.fromarray(content).save(path, file_format)


def options(photos, **changes):
    common = {"data_path": str(photos), "exp_dir": str(photos.parent / "out"), "no_align": True}
    return common | {"target_age": AGES, "device": "cpu"} | changes


def strips(photos, **changes):
    return side_by_side(SideBySideConfig(**options(photos, **changes)))


def per_age(photos, **changes):
    return folder_per_age(FolderPerAgeConfig(**options(photos, **changes)))


def written(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# --- what is written -------------------------------------------------------------------------


def test_a_folder_per_age(photos, one_pipeline, capsys):
    put(photos / "a.png")
    put(photos / "deeper/b.bmp", FACE[:, ::-1])
    summary = per_age(photos)
    assert (summary.status(), summary.faces, summary.failures) == (0, 2, {})
    out = photos.parent / "out"
    results = "inference_results"
    assert written(out) == [
        *(f"{results}/{age}/{name}" for age in (20, 70) for name in ("a.png", "deeper/b.bmp"))
    ]
    expected = one_pipeline.age(FACE[None], [20, 70])[0]
    for age, image in zip((20, 70), expected, strict=True):
        np.testing.assert_array_equal(read_image(out / results / str(age) / "a.png"), image)
    assert "2 of 2 photographs, 2 faces" in capsys.readouterr().out


def test_coupled_outputs_show_the_input_beside_the_result(photos):
    put(photos / "a.png")
    per_age(photos, couple_outputs=True)
    out = photos.parent / "out"
    coupled = read_image(out / "inference_coupled/70/a.png")
    result = read_image(out / "inference_results/70/a.png")
    np.testing.assert_array_equal(coupled, np.hstack([FACE, result]))
    assert len(written(out)) == 4


def test_strips_begin_with_the_input(photos, one_pipeline):
    put(photos / "a.png")
    assert strips(photos, tile_size=SIZE, labels=False).status() == 0
    strip = read_image(photos.parent / "out/inference_side_by_side/a.png")
    young, old = one_pipeline.age(FACE[None], [20, 70])[0]
    np.testing.assert_array_equal(strip, np.hstack([FACE, young, old]))


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, (128 + 21, 3 * 128)),
        ({"labels": False}, (128, 3 * 128)),
        ({"tile_size": 48}, (48 + 12, 3 * 48)),
        ({"tile_size": 300, "target_age": "50"}, (350, 600)),
    ],
)
def test_sizes_of_strips(photos, changes, size):
    put(photos / "a.png")
    strips(photos, **changes)
    strip = read_image(photos.parent / "out/inference_side_by_side/a.png")
    assert strip.shape == (*size, 3)


def test_half_years_are_folders_too(photos):
    put(photos / "a.png")
    per_age(photos, target_age="7.5")
    assert written(photos.parent / "out") == ["inference_results/7.5/a.png"]


def test_contact_sheet_of_several_strips(photos, capsys):
    for name in "ab":
        put(photos / f"{name}.png")
    strips(photos)
    sheet = read_image(photos.parent / "out/contact_sheet_1.jpg")
    assert sheet.shape == (2 * (96 + 16) + 4, 3 * 96, 3)
    assert "all strips:" in capsys.readouterr().out


def test_no_contact_sheet_of_one_strip_or_where_it_is_unwanted(photos):
    put(photos / "a.png")
    strips(photos)
    put(photos / "b.png")
    strips(photos, contact_sheet=False)
    assert written(photos.parent / "out") == [f"inference_side_by_side/{name}.png" for name in "ab"]


def test_long_contact_sheets_are_divided(photos, monkeypatch):
    monkeypatch.setattr(folders, "SHEET_ROWS", 2)
    for name in "abc":
        put(photos / f"{name}.png")
    strips(photos, labels=False)
    heights = [read_image(photos.parent / f"out/contact_sheet_{n}.jpg").shape[0] for n in (1, 2)]
    assert heights == [2 * 96 + 4, 96]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_threads_gives_the_same_in_order(photos, workers, one_pipeline):
    names = [f"{number}.png" for number in range(9)]
    for number, name in enumerate(names):
        put(photos / name, np.roll(FACE, 7 * number, axis=0))
    config = FolderPerAgeConfig(**options(photos, test_workers=workers, target_age="30"))
    read = read_photos(config, one_pipeline.cut_faces, Summary())
    assert [str(photo.name) for photo in read] == names
    assert folder_per_age(config).faces == 9
    results = photos.parent / "out/inference_results/30"
    assert written(results) == names
    for number, name in enumerate(names):
        expected = one_pipeline.age(np.roll(FACE, 7 * number, axis=0)[None], [30])[0, 0]
        np.testing.assert_array_equal(read_image(results / name), expected)


def test_only_the_first_images(photos):
    for name in ("2.png", "10.png", "1.png"):
        put(photos / name)
    assert per_age(photos, n_images=2, target_age="30").faces == 2
    assert written(photos.parent / "out/inference_results/30") == ["1.png", "2.png"]


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file_format", "result"),
    [
        ("a.JPG", "JPEG", "a.JPG"),
        ("a.webp", "WEBP", "a.webp"),
        ("a.gif", "GIF", "a.gif.png"),
        ("a.ppm", "PPM", "a.ppm.png"),
        ("a.b.tiff", "TIFF", "a.b.tiff"),
        ("photo", "PNG", "photo.png"),
    ],
)
def test_results_are_named_after_their_input(photos, name, file_format, result):
    put(photos / name, FACE, file_format)
    one_file = name == "photo"  # a file that is named needs no suffix
    assert (
        per_age(
            photos / name if one_file else photos,
            target_age="5",
            exp_dir=str(photos.parent / "out"),
        ).status()
        == 0
    )
    assert written(photos.parent / "out") == [f"inference_results/5/{result}"]
    assert read_image(photos.parent / f"out/inference_results/5/{result}").shape == (SIZE, SIZE, 3)


def test_names_of_further_faces():
    faces = [AlignedFace(FACE, np.zeros((4, 2)))] * 3
    names = Photo(Path("holiday/group.jpg"), PHOTO, faces).face_names()
    assert names == [
        Path("holiday") / name for name in ("group.jpg", "group_face2.jpg", "group_face3.jpg")
    ]


def test_results_go_where_they_are_told(monkeypatch, tmp_path):
    assert results_folder(SideBySideConfig()) == Path("examples")
    assert results_folder(SideBySideConfig(data_path="x")) == Path("results")
    assert results_folder(SideBySideConfig(exp_dir="y")) == Path("y")


def test_without_data_it_is_the_portrait():
    ((name, image),) = find_inputs(SideBySideConfig())
    assert str(name) == "astronaut.png"
    np.testing.assert_array_equal(image, PHOTO)


@pytest.mark.parametrize("below", ["", "results"])
def test_results_among_the_photographs_are_not_taken_for_photographs(photos, below):
    put(photos / "a.png")
    put(photos.parent / "elsewhere.png")
    (photos / "contact_sheet_of_mine").mkdir()
    (photos / "contact_sheet_of_mine/b.png").symlink_to(photos.parent / "elsewhere.png")
    config = SideBySideConfig(**options(photos, exp_dir=str(photos / below)))
    assert [side_by_side(config).faces for _ in range(2)] == [2, 2]
    both = FolderPerAgeConfig(**options(photos, exp_dir=str(photos / below), couple_outputs=True))
    assert [folder_per_age(both).faces for _ in range(2)] == [2, 2]
    # Named themselves, results are inputs like any others.
    results = photos / below / "inference_results/20"
    assert len(find_inputs(SideBySideConfig(**options(results)))) == 2


def test_a_folder_of_nothing_but_results(photos):
    put(photos / "inference_results/20/a.png")
    with pytest.raises(ImageError, match="photos: found nothing but results of earlier runs"):
        per_age(photos, exp_dir=str(photos))


# --- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_are_reported_and_the_others_finished(photos, capsys, workers):
    put(photos / "1.png")
    put(photos / "2.png", b"")
    put(photos / "3.jpg", b"<html>not here</html>")
    put(photos / "4.png", FACE[::-1])
    summary = per_age(photos, test_workers=workers, target_age="30")
    assert (summary.status(), summary.faces) == (1, 2)
    assert len(summary.failures) == 2
    assert written(photos.parent / "out/inference_results/30") == ["1.png", "4.png"]
    out, err = capsys.readouterr()
    assert "2 of 4 photographs, 2 faces" in out
    assert "2.png: the file is empty" in err and "3.jpg: found an HTML page" in err


def test_nothing_usable_is_status_2(photos, capsys):
    put(photos / "a.png", b"")
    assert strips(photos).status() == 2
    assert not (photos.parent / "out").exists()
    assert "0 of 1 photographs, 0 faces" in capsys.readouterr().out


def test_a_folder_without_images(photos):
    photos.mkdir()
    with pytest.raises(ImageError, match="photos: found no image in this folder"):
        strips(photos)


def test_ages_are_checked_before_the_first_image_is_read(photos):
    with pytest.raises(ConfigError, match="--target_age"):
        strips(photos, target_age="120")


def test_a_result_that_cannot_be_written_ends_the_run(photos):
    put(photos / "a.png")
    put(photos.parent / "out", b"a file in the way")
    with pytest.raises(OutputError, match="could not be written"):
        per_age(photos)


# --- with faces to find ----------------------------------------------------------------------


def test_every_face_of_a_photograph(photos):
    pair = np.hstack([PHOTO[:400, 60:400], (PHOTO // 2 + 60)[:400, 60:400]])
    put(photos / "pair.png", pair)
    put(photos / "grey.png", np.full((90, 90, 3), 128, np.uint8))
    summary = strips(photos, no_align=False, face="all", target_age="30")
    assert (summary.status(), summary.faces) == (1, 2)
    assert written(photos.parent / "out") == [
        "contact_sheet_1.jpg",
        "inference_side_by_side/pair.png",
        "inference_side_by_side/pair_face2.png",
    ]
    (reason,) = summary.failures.values()
    assert "grey.png: found no face" in reason and "--no_align" in reason


def test_threads_find_the_faces_that_one_finds(photos, one_pipeline):
    """dlib's detector does not survive being shared."""
    views = [PHOTO[:300, 80:380], PHOTO[:280, 60:400][:, ::-1], PHOTO[10:310, 70:370]] * 3
    for number, view in enumerate(views):
        put(photos / f"{number}.png", np.ascontiguousarray(view))
    summary = per_age(photos, no_align=False, test_workers=2, target_age="30")
    assert (summary.faces, summary.failures) == (9, {})
    for number, view in enumerate(views):
        found = read_image(photos.parent / f"out/inference_results/30/{number}.png")
        np.testing.assert_array_equal(found, one_pipeline(np.ascontiguousarray(view), [30])[0, 0])


def test_measured_ages_are_printed_for_the_embedded_model(photos, capsys, monkeypatch):
    monkeypatch.setattr(AgePipeline, "from_checkpoint", FROM_CHECKPOINT)
    put(photos / "a.png", PHOTO)
    strips(photos, no_align=False, target_age="10,40,70")
    out = capsys.readouterr().out
    measured = next(line for line in out.splitlines() if "measured" in line).split()[1:]
    assert [int(age) for age in measured] == sorted(int(age) for age in measured)
    assert "No --checkpoint_path: using the small embedded model" in out
