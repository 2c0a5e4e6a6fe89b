import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skimage.data

from paddle_sam.core.images import resize
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError
from paddle_sam.faces.landmarks import FaceLandmarker, _scales
from tests import PARITY

PHOTO = skimage.data.astronaut()
EXPECTED = np.load(PARITY / "expected/alignment_astronaut.npz")["landmarks"]


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker()


def test_landmarks_equal_the_references(landmarker):
    faces = landmarker.find(PHOTO)
    assert faces[0].confidence > 1
    assert np.array_equal(faces[0].landmarks, EXPECTED)
    left, top, right, bottom = faces[0].box
    assert left < EXPECTED[:, 0].mean() < right and top < EXPECTED[:, 1].mean() < bottom


def test_most_confident_face_comes_first(landmarker):
    """A clear face to the right of one that was made faint."""
    faint = PHOTO // 6 + 100
    for pair in (np.hstack([faint, PHOTO]), np.hstack([PHOTO, faint])):
        faces = landmarker.find(pair)
        scores = [face.confidence for face in faces]
        assert len(faces) >= 2 and scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("size", [3000, 300, 128, 96])
def test_large_and_small_photographs(landmarker, size):
    """The landmarks are those of the photograph at 512 px, to about a pixel there."""
    face = landmarker.find(resize(PHOTO, size))[0]
    at_512 = (face.landmarks + 0.5) * 512 / size - 0.5
    assert np.abs(at_512 - EXPECTED).mean() < 1.2
    assert np.abs((at_512 - EXPECTED).mean(0)).max() < 0.6  # no half-pixel slips
    assert 0 <= face.box[0] < face.box[2] <= size


@pytest.mark.parametrize("size", [512, 256])
def test_landmarks_near_those_of_another_picture(landmarker, size):
    """Known in the photograph, they are found again where it has moved by 6 pixels."""
    moved = np.roll(PHOTO, -6, axis=0)
    found = landmarker.near(resize(moved, size), EXPECTED * size / 512)
    assert np.abs(found * 512 / size - (EXPECTED - [0, 6])).mean() < 2


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (1, 900), (200, 200)])
def test_images_without_a_face(landmarker, shape):
    assert landmarker.find(np.full((*shape, 3), 128, np.uint8)) == []


def test_non_contiguous_views_are_accepted(landmarker):
    mirrored = landmarker.find(PHOTO[:, ::-1])
    assert len(mirrored) >= 1
    assert abs(511 - mirrored[0].landmarks[:, 0].mean() - EXPECTED[:, 0].mean()) < 3


@pytest.mark.parametrize("kind", ["truncated", "html", "empty"])
def test_damaged_predictor(tmp_path, monkeypatch, kind):
    path = tmp_path / "shape_predictor_68_face_landmarks.dat"
    with find_weight("landmarks").open("rb") as whole:
        content = {"truncated": whole.read(100_000), "html": b"<html>", "empty": b""}[kind]
    path.write_bytes(content)
    monkeypatch.setenv("PADDLE_SAM_WEIGHTS", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"damaged.*download_weights\.py landmarks"):
        FaceLandmarker()


def test_a_predictor_of_other_landmarks_is_refused(monkeypatch):
    dlib = pytest.importorskip("dlib")

    def predictor(path):
        return lambda image, box: dlib.full_object_detection(box, [dlib.point(1, 1)] * 5)

    monkeypatch.setattr(dlib, "shape_predictor", predictor)
    with pytest.raises(CheckpointError, match=r"predicts 5 landmarks.*expected .* 68"):
        FaceLandmarker()


def test_importing_the_module_does_not_import_dlib():
    code = "import sys, paddle_sam.faces.landmarks; sys.exit('dlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_threads_may_share_a_landmarker(landmarker):
    """A detector used by two threads at once loses faces; each thread has its own."""
    sizes = [512, 480, 448, 416] * 4
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda size: landmarker.find(resize(PHOTO, size)), sizes))
    alone = [landmarker.find(resize(PHOTO, size)) for size in sizes[:4]] * 4
    for found, want in zip(together, alone, strict=True):
        assert [face.box for face in found] == [face.box for face in want]
        assert np.array_equal(found[0].landmarks, want[0].landmarks)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_faces_of_turned_photographs_are_found_where_they_are(landmarker, turns):
    (face,) = landmarker.find(np.rot90(PHOTO, turns))
    x, y = EXPECTED[:, 0], EXPECTED[:, 1]
    want = {1: (y, 511 - x), 2: (511 - x, 511 - y), 3: (511 - y, x)}[turns]
    np.testing.assert_allclose(face.landmarks, np.stack(want, axis=1), atol=1e-9)
    left, top, right, bottom = face.box
    assert left < want[0].mean() < right and top < want[1].mean() < bottom


def test_near_and_far_faces_are_found_together(landmarker):
    """One face of 400 pixels and six of about 45, which only a large copy shows."""
    head = PHOTO[20:220, 120:330]
    canvas = np.full((3000, 4000, 3), 128, np.uint8)
    canvas[100:1700, 100:1780] = resize(head, (1600, 1680))
    for number in range(6):
        canvas[2300:2396, 200 + 600 * number : 301 + 600 * number] = resize(head, (96, 101))
    assert len(landmarker.find(canvas)) == 1
    faces = landmarker.find(canvas, every=True)
    assert len(faces) == 7
    assert sorted(face.box[2] - face.box[0] > 300 for face in faces) == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("size", "every", "looked_at"),
    [(512, False, [512]), (512, True, [512, 1024]), (1600, True, [1024, 1600, 2048])]
    + [(4000, False, [1024, 2048, 4000]), (96, True, [96, 400]), (6000, False, [1024, 2048, 4096])],
)
def test_sizes_that_the_detector_looks_at(size, every, looked_at):
    assert [round(scale * size) for scale in _scales(size, every)] == looked_at


def test_one_look_is_enough_for_a_portrait(landmarker, monkeypatch):
    """Beside a face of a quarter of the picture nobody looks for faces of 20 pixels."""
    looks = []
    find_at = FaceLandmarker._find_at
    monkeypatch.setattr(
        FaceLandmarker, "_find_at", lambda *args: looks.append(args[2]) or find_at(*args)
    )
    landmarker.find(PHOTO[:300, 70:370], every=True)
    assert looks == [1.0]
    looks.clear()
    landmarker.find(PHOTO, every=True)
    assert looks == [1.0, 2.0]
