"""The judges on public-domain and generated faces."""

import numpy as np
import pytest
import skimage.data

from paddle_sam.ageing.measures import Measures
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.errors import CheckpointError
from paddle_sam.faces.alignment import CropSettings
from paddle_sam.metrics import judges as module
from paddle_sam.metrics.judges import SAME_PERSON, Judges, as_judged, open_judges, picture_of
from tests import DEVICE

PORTRAIT = skimage.data.astronaut()  # of a woman of 42, public domain


@pytest.fixture(scope="module")
def judges():
    return Judges()


@pytest.fixture(scope="module")
def reading(judges):
    return judges(PORTRAIT)


def test_readings_are_those_of_the_published_networks(reading):
    """Measured once; the package that ships the networks reads a woman of 33 by five landmarks."""
    assert reading.age == pytest.approx(28.7, abs=0.5)
    assert reading.male < 0.05
    assert np.linalg.norm(reading.descriptor) == pytest.approx(1.4, abs=0.2)
    assert reading.landmarks.shape == (68, 2)


def test_colours_are_read_as_rgb(judges, reading):
    assert abs(judges(PORTRAIT[..., ::-1]).age - reading.age) > 1


def test_the_same_person_is_near_and_another_far(judges, reading):
    darker = (PORTRAIT[:, ::-1] * 0.8).astype(np.uint8)
    assert reading.distance(reading) == 0
    assert reading.distance(judges(darker)) < 0.45
    face = AgePipeline.from_checkpoint(device=DEVICE, engine="eager")
    crop = face.faces(PORTRAIT)[0].image
    other = judges(as_judged(face.age(crop[None], [80])[0, 0]))
    assert reading.distance(other) > SAME_PERSON


def test_no_face_is_none_and_measured_as_nan(judges):
    grey = np.full((300, 300, 3), 128, np.uint8)
    assert judges(grey) is None
    measured = Measures(CropSettings(), judges=judges)(PORTRAIT, np.stack([grey]))
    assert all(np.isnan(measured[name]).all() for name in ("judged_age", "distance", "same_gender"))


def test_measures_read_the_photograph_at_its_own_resolution(judges):
    face = AgePipeline.from_checkpoint(device=DEVICE, engine="eager").faces(PORTRAIT)[0]
    picture = picture_of(face, PORTRAIT)
    assert picture.shape == (256, 256, 3)
    small = np.abs(as_judged(face.image).astype(int) - picture).mean()
    assert 0.5 < small < 12  # the same cut, sharper
    assert picture_of(face, None) is face.image
    same = Measures(CropSettings(), judges=judges)(face.image, picture[None], picture)
    assert same["distance"].tolist() == [0] and same["same_gender"].tolist() == [1]


def test_missing_judges_are_named_with_the_command(monkeypatch, tmp_path, capsys):
    def missing(name):
        raise CheckpointError(f"{name}: missing; download_weights.py judge_age")

    monkeypatch.setattr(module, "find_weight", missing)
    assert open_judges() is None
    assert "without independent judges: judge_age: missing" in capsys.readouterr().out
    monkeypatch.setattr(module, "find_weight", lambda name: tmp_path / "damaged.onnx")
    (tmp_path / "damaged.onnx").write_bytes(b"no network")
    with pytest.raises(CheckpointError, match="damaged.onnx: damaged .*download_weights.py judges"):
        Judges()
