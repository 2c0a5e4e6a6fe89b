"""Squares of pictures: the middle, faces by dlib and by cascades, enlarging."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
from PIL import Image

from paddle_sam.core.images import resize
from paddle_sam.errors import ConfigError, FaceNotFoundError
from paddle_sam.faces.alignment import CropSettings, align, box_corners, middle, side_of
from paddle_sam.faces.landmarks import Face
from paddle_sam.imagesets.prepare import squares
from paddle_sam.imagesets.prepare.options import PrepareOptions
from paddle_sam.imagesets.prepare.squares import (
    cut_square,
    find_cascade,
    square_finder,
    upscaler,
)
from tests import PARITY
from tests.unit.imagesets.prepare.model_files import doubling_espcn, doubling_onnx

PHOTO = skimage.data.astronaut()
FACE = (225, 118)  # its middle
LANDMARKS = np.load(PARITY / "expected/alignment_astronaut.npz")["landmarks"]
# scikit-image brings OpenCV's LBP cascade, of the kind that the one for anime faces is.
LBP = skimage.data.lbp_frontal_face_cascade_filename()


def config(**options):
    return PrepareOptions(data_path="x", output="x.zip", **options)


def test_the_middle():
    assert middle(4, 10).tolist() == [[3, 0], [3, 4], [7, 4], [7, 0]]
    assert side_of(middle(4, 10)) == 4
    cut = cut_square(PHOTO[:100], middle(100, 512), 100)
    np.testing.assert_array_equal(cut, PHOTO[:100, 206:306])
    np.testing.assert_array_equal(cut_square(PHOTO, middle(512, 512), 64), resize(PHOTO, 64))


def test_a_square_is_never_cut_out_larger_than_it_is():
    assert cut_square(PHOTO, box_corners(10, 10, 40, 40), 64).shape == (30, 30, 3)
    assert cut_square(PHOTO, box_corners(10.5, 10, 40.5, 40), 64).shape == (30, 30, 3)


def test_a_square_that_leaves_the_picture_is_filled_up():
    cut = cut_square(PHOTO, box_corners(-50, 100, 100, 250), 150)
    assert cut.shape == (150, 150, 3)
    difference = cut[20:-20, 70:-20].astype(int) - PHOTO[120:230, 20:80]
    assert np.abs(difference).mean() < 4


class StandIn:
    """In place of dlib: the astronaut's face, a fainter one, and one outside the picture."""

    def find(self, image, every=False):
        faces = [(2.0, 1, 0), (1.0, 0.8, 40), (0.5, 2, 2000), (0.1, 0.7, 60)]
        faces = faces if every else faces[:1]  # the others are seen at other sizes
        box = (0, 0, 1, 1)
        return [Face(box, score, LANDMARKS * size + move) for score, size, move in faces]


@pytest.mark.parametrize(("choice", "number"), [("best", 1), ("largest", 1), ("all", 2)])
def test_faces_are_cut_as_ffhq_was(monkeypatch, choice, number):
    monkeypatch.setattr(squares, "FaceLandmarker", StandIn)
    found = square_finder(config(crop="face", face=choice, size=64))(PHOTO)
    assert len(found) == number
    wanted = align(PHOTO, LANDMARKS, CropSettings(64, oversample=4)).image
    np.testing.assert_array_equal(cut_square(PHOTO, found[0], 64), wanted)


def test_no_face(monkeypatch):
    monkeypatch.setattr(
        squares, "FaceLandmarker", lambda: SimpleNamespace(find=lambda *_, **__: [])
    )
    with pytest.raises(FaceNotFoundError, match="no face was found"):
        square_finder(config(crop="face"))(PHOTO)


@pytest.mark.parametrize("cascade", ["haarcascade_frontalface_default.xml", "own.xml"])
def test_cascades_of_opencv_and_of_the_user(tmp_path, monkeypatch, cascade):
    monkeypatch.chdir(tmp_path)
    # OpenCV does not read the copy's misspelt tag, scikit-image does not look at it.
    text = Path(LBP).read_text(encoding="utf-8").replace("featuhreParams", "featureParams")
    Path("own.xml").write_text(text, encoding="utf-8")
    find = square_finder(config(crop="cascade", cascade=cascade))
    (square,) = find(PHOTO)
    centre, side = square.mean(axis=0), side_of(square)
    assert np.abs(centre - FACE).max() < 15 and 70 < side < 150
    (larger,) = square_finder(config(crop="cascade", cascade=cascade, face_scale=1.5))(PHOTO)
    assert side_of(larger) == pytest.approx(1.5 * side, abs=1)
    assert np.abs(larger.mean(axis=0) - centre).max() <= 0.5
    with pytest.raises(FaceNotFoundError):
        find(skimage.data.coffee())
    with pytest.raises(FaceNotFoundError):
        square_finder(config(crop="cascade", cascade=cascade, cascade_min_size=200))(PHOTO)


def test_of_several_faces_each_or_one():
    two = np.concatenate([PHOTO[:300], PHOTO[:300, ::-1]], axis=1)
    find = square_finder(config(crop="cascade", face="all", cascade_neighbours=8))
    assert len(find(two)) == 2
    assert len(square_finder(config(crop="cascade", face="best"))(two)) == 1


def test_cascades_that_cannot_be_used(tmp_path):
    with pytest.raises(ConfigError, match="no file nothing.xml; OpenCV brings haarcascade_eye.xml"):
        find_cascade("nothing.xml")
    (tmp_path / "x.xml").write_text("<opencv_storage></opencv_storage>")
    with pytest.raises(ConfigError, match="x.xml is not a cascade that OpenCV can read"):
        square_finder(config(crop="cascade", cascade=str(tmp_path / "x.xml")))


def test_without_a_fitting_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match="needs OpenCV, .* pip install 'opencv-contrib"):
        square_finder(config(crop="cascade"))
    five = SimpleNamespace(__version__="5.0.0", __path__=[])
    monkeypatch.setitem(sys.modules, "cv2", five)
    monkeypatch.setitem(sys.modules, "cv2.data", SimpleNamespace())
    with pytest.raises(ConfigError, match="OpenCV, 5.0.0, has no CascadeClassifier"):
        square_finder(config(crop="cascade"))


SMALL = resize(PHOTO[50:200, 150:300], 30)
DOUBLED = SMALL.repeat(2, axis=0).repeat(2, axis=1)


def test_an_onnx_model_enlarges(tmp_path):
    (tmp_path / "x2.onnx").write_bytes(doubling_onnx())
    enlarge = upscaler(str(tmp_path / "x2.onnx"))
    np.testing.assert_array_equal(enlarge(SMALL, 60), DOUBLED)
    # As often as needed, then reduced.
    again = DOUBLED.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(enlarge(SMALL, 100), resize(again, 100))


def test_a_model_of_opencvs_superresolution_enlarges(tmp_path):
    """It enlarges the brightness; OpenCV itself the colours, smoothly."""
    (tmp_path / "ESPCN_x2.pb").write_bytes(doubling_espcn())
    enlarged = upscaler(str(tmp_path / "ESPCN_x2.pb"))(SMALL, 60)
    assert enlarged.shape == (60, 60, 3)
    grey = [np.asarray(Image.fromarray(image).convert("L"), int) for image in (enlarged, DOUBLED)]
    assert np.abs(grey[0] - grey[1]).mean() < 2


def test_lanczos_enlarges():
    for spec in ("", "lanczos"):
        np.testing.assert_array_equal(upscaler(spec)(SMALL, 64), resize(SMALL, 64))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.onnx", None, "expected lanczos or the file of a model"),
        ("model.pth", b"x", "expected a model .onnx, .pb or .param"),
        ("model.onnx", b"no", "OpenCV cannot read"),
        ("ESPCN_x2.pb", b"no", "OpenCV cannot read"),
        ("grey.onnx", doubling_onnx(1), "does not take RGB in 0..1"),
        ("network.pb", b"x", "does not say which network it is; expected such as EDSR_x4.pb"),
    ],
)
def test_models_that_cannot_be_used(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        upscaler(str(tmp_path / name))


@pytest.fixture
def ncnn_doubler(tmp_path):
    """Doubles by interpolation, and cuts two pixels off each side first, as waifu2x's nets do."""
    pytest.importorskip("ncnn")
    layers = (
        "Input in 0 1 Input1",
        "Crop cut 1 1 Input1 cut -23309=2,2,2 -23310=2,-2,-2 -23311=2,1,2",
        "Interp up 1 1 cut Out 0=1 1=2.0 2=2.0",
    )
    path = tmp_path / "double.param"
    path.write_text("\n".join(["7767517", "3 3", *layers, ""]))
    path.with_suffix(".bin").touch()
    return path


@pytest.mark.parametrize("side", [48, 37])
def test_an_ncnn_model_enlarges_whatever_its_convolutions_cut_off(ncnn_doubler, side):
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    found = upscaler(str(ncnn_doubler))(image, 2 * side)
    np.testing.assert_array_equal(found, image.repeat(2, axis=0).repeat(2, axis=1))


def test_an_ncnn_model_that_cannot_be_used(tmp_path, ncnn_doubler):
    ncnn_doubler.with_suffix(".bin").unlink()
    with pytest.raises(ConfigError, match="cannot read .*double.param with double.bin beside it"):
        upscaler(str(ncnn_doubler))
