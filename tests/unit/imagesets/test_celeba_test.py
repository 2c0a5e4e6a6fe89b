import runpy
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests import ROOT

HQ, CELEBA = (64, 64), (178, 218)
EVERYTHING = {
    "CelebA-HQ-img/866.jpg": HQ,
    "CelebA-HQ-img/1287.jpg": HQ,
    "CelebA-HQ-img/2468.jpg": HQ,
    "img_align_celeba/000431.jpg": CELEBA,
    "img_align_celeba/001092.jpg": CELEBA,
    "img_align_celeba/198650.jpg": CELEBA,
}
NAMES = sorted(Path(name).name for name in EVERYTHING)


@pytest.fixture
def fill(tmp_path):
    """Run the command over a folder of images given as {name: size}; give status and files."""
    main = runpy.run_path(str(ROOT / "scripts/fill_celeba_test.py"))["main"]
    source, target = tmp_path / "celeba", tmp_path / "CelebA_test"

    def run(images: dict[str, tuple[int, int]], mode: str = "RGB"):
        for name, size in images.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, size, 100).save(path)
        status = main(["--data_path", str(source), "--output_path", str(target)])
        return status, sorted(path.name for path in target.glob("*"))

    run.source, run.target = source, target
    return run


def test_everything_is_found(fill):
    assert fill(EVERYTHING) == (0, NAMES)
    copied = fill.target / "866.jpg"
    assert copied.read_bytes() == (fill.source / "CelebA-HQ-img/866.jpg").read_bytes()


def test_padded_and_unpadded_names(fill):
    images = {"00866.png": HQ, "001287.jpg": HQ, "2468.jpg": HQ, "431.jpg": CELEBA}
    status, names = fill(images)
    assert status == 1
    assert names == ["000431.jpg", "1287.jpg", "2468.jpg", "866.png"]


def test_the_same_number_of_the_other_collection_is_not_taken(fill, capsys):
    status, names = fill({"000866.jpg": CELEBA, "431.jpg": HQ, "001092.jpg": CELEBA})
    assert (status, names) == (1, ["001092.jpg"])
    shown = capsys.readouterr().out
    assert "866.jpg (number 866 of CelebA-HQ)" in shown
    assert "000431.jpg (number 431 of CelebA)" in shown


def test_the_largest_copy_is_taken_and_masks_are_not(fill):
    fill({"labels/866.png": (512, 512)}, mode="L")
    status, names = fill({"small/866.jpg": (32, 32), "large/00866.jpg": (96, 96)})
    assert (status, names) == (1, ["866.jpg"])
    assert Image.open(fill.target / "866.jpg").size == (96, 96)


def test_nothing_found(fill, capsys):
    assert fill({"beach.jpg": HQ, "867.jpg": HQ}) == (2, [])
    assert "found none of the images; expected 866.jpg" in capsys.readouterr().err


def test_no_such_folder(fill, capsys):
    assert fill({}) == (2, [])
    assert "data_path: expected a folder" in capsys.readouterr().err


def test_the_published_command_runs_on_the_five_faces_that_are_shipped(tmp_path):
    folder = ROOT / "CelebA_test"
    shipped = [folder / "portrait.jpg"]
    shipped += [folder / f"generated_{seed}.jpg" for seed in (9, 17, 41, 45)]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for path in shipped:
        assert f"`{path.name}`" in readme
        shutil.copy(path, tmp_path)
    main = runpy.run_path(str(ROOT / "scripts/inference_side_by_side.py"))["main"]
    out = tmp_path / "out"
    arguments = [f"--exp_dir={out}", f"--data_path={tmp_path}", "--test_batch_size=4"]
    assert main([*arguments, "--test_workers=0", "--target_age=0,100"]) == 0
    strips = sorted(path.name for path in (out / "inference_side_by_side").iterdir())
    assert strips == sorted(path.name for path in shipped)
