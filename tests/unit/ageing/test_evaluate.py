"""`scripts/evaluate.py ageing`: the embedded model on two crops, checked from outside."""

import base64
import dataclasses
import html.parser
import json
import re

import numpy as np
import paddle
import pytest
import skimage.data
from PIL import Image

from paddle_sam.ageing import evaluate as ageing
from paddle_sam.ageing.measures import measure_ages
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.ageing.report_page import FaceRecord, summarise
from paddle_sam.core.images import read_image, save_image, to_network
from paddle_sam.core.weights import NetworkEntry, WeightFile, find_weight
from paddle_sam.metrics import pairs as faces
from paddle_sam.metrics.judges import Judges, as_judged
from paddle_sam.networks.face_networks import FaceEmbedder
from paddle_sam.networks.image_features import LPIPS, load_lpips
from paddle_sam.networks.load import load
from scripts.evaluate import main as evaluate
from tests import DEVICE

SHALLOW = {"units": [1, 1, 1, 1], "squeeze_excite": False}
AGES = [10, 50, 90]


@pytest.fixture(scope="module")
def pipeline():
    return AgePipeline.from_checkpoint(device=DEVICE, engine="eager")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weight files of random networks: LPIPS, and a face recogniser."""
    folder = tmp_path_factory.mktemp("weights")
    paddle.seed(0)
    lpips = {name: np.abs(tensor.numpy()) for name, tensor in LPIPS("alex").state_dict().items()}
    np.savez(folder / "lpips.npz", **lpips)
    state = {k: v.numpy() for k, v in FaceEmbedder(**SHALLOW).state_dict().items()}
    entry = NetworkEntry("face_embedder", SHALLOW, state)
    content = WeightFile("face_embedder", {"face_embedder": entry})
    content.write(folder / "identity.pdparams")
    return folder


@pytest.fixture(scope="module")
def data(pipeline, tmp_path_factory):
    """A crop, the same mirrored and darker, and a file that is no image."""
    folder = tmp_path_factory.mktemp("crops")
    crop = pipeline.faces(skimage.data.astronaut())[0].image
    save_image(folder / "a.png", crop)
    save_image(folder / "<b>.png", crop[:, ::-1] // 2)
    (folder / "c.jpg").write_bytes(b"no image")
    return folder


def flags(data, weights, out, *more):
    found = ["ageing", "--data_path", str(data), "--exp_dir", str(out), "--no_align"]
    found += ["--target_age", ",".join(map(str, AGES)), "--device", DEVICE, "--engine", "eager"]
    return [*found, "--lpips_path", str(weights / "lpips.npz"), *more]


@pytest.fixture(scope="module")
def whole(data, weights, tmp_path_factory):
    """The folder of an evaluation that judges identity by one network in both ways."""
    out = tmp_path_factory.mktemp("whole")
    identity = str(weights / "identity.pdparams")
    more = ["--identity_path", identity, "--aligned_identity_path", identity]
    assert evaluate(flags(data, weights, out, *more)) == 1  # c.jpg
    return out


def report(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_numbers_are_those_of_the_images(whole, data, weights, pipeline):
    regressor = load(find_weight("age_mini"), device=DEVICE)
    found = report(whole)
    assert [face["name"] for face in found["faces"]] == ["<b>.png", "a.png"]
    assert list(found["failed"]) == ["c"]
    errors = []
    lpips = load_lpips(weights / "lpips.npz")
    for face in found["faces"]:
        crop = read_image(data / face["name"])
        own = measure_ages(regressor, crop[None]).item()
        assert face["input_age"] == pytest.approx(own, abs=1e-3)
        images = pipeline.age(crop[None], [*AGES, own])[0]
        measured = measure_ages(regressor, images[:3])
        np.testing.assert_allclose(face["measured"], measured, atol=0.05)
        errors.append(np.array(face["measured"]) - AGES)
        left, right = crop.astype(float), images[3].astype(float)
        want = np.mean((left - right) ** 2) / 127.5**2
        assert face["reconstruction"]["l2"] == pytest.approx(want, rel=0.02)
        pair = [paddle.to_tensor(to_network(one)) for one in (crop, images[3])]
        with paddle.no_grad():
            want = lpips(*pair).item()
        assert face["reconstruction"]["lpips"] == pytest.approx(want, rel=0.02)
        assert 0 < face["reconstruction"]["ssim"] < 1
    overall = found["age_error"]["overall"]
    assert overall["mean_absolute_error"] == pytest.approx(np.abs(errors).mean())
    assert overall["bias"] == pytest.approx(np.mean(errors))
    at_50 = found["age_error"]["by_target"]["50"]
    assert at_50["mean_absolute_error"] == pytest.approx(np.abs(np.array(errors)[:, 1]).mean())
    assert set(found["identity"]) == {"face region", "five points"}
    judged = found["judged"]
    assert judged["judges"]["age"] == "dlib age-v1 (CC0)"
    assert judged["age_error"]["overall"]["number"] + judged["faces_not_found"] == 6
    read = Judges()(as_judged(pipeline.age(read_image(data / "a.png")[None], [50])[0, 0]))
    a = next(face for face in found["faces"] if face["name"] == "a.png")
    assert a["judged"]["judged_age"][1] == pytest.approx(read.age, abs=0.5)


class Page(html.parser.HTMLParser):
    """Checks that every element is closed; collects the pictures and the text."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag in ("img", "meta", "br"):
            self.sources += [value for name, value in attrs if name == "src"]
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_page(folder):
    page = Page()
    page.feed((folder / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_the_page_is_whole_and_needs_nothing_beside_it(whole):
    page = read_page(whole)
    assert page.sources and all(source.startswith("data:image/") for source in page.sources)
    text = (whole / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(href|url\(|<script|<link|@import)", text)
    assert "<b>.png" in "".join(page.text)  # a name, not an element
    plots = [s for s in page.sources if s.startswith("data:image/svg+xml")]
    assert len(plots) == 2 + 2 + 3  # ages, one for each judge, reconstruction
    pictures = [s for s in page.sources if s.startswith("data:image/jpeg;base64,")]
    # Two faces are best and worst, each as input and result, by age, two judges and
    # reconstruction; and three strips.
    judged = 4 - (report(whole)["identity"]["five points"]["number"] == 0)
    assert len(pictures) == judged * 2 * 2 * 2 + 3
    for source in pictures:
        assert base64.b64decode(source.split(",")[1])[:2] == b"\xff\xd8"


def test_private_faces_stay_out_of_the_page(data, weights, tmp_path):
    assert evaluate(flags(data, weights, tmp_path, "--no_pictures")) == 1
    assert not [s for s in read_page(tmp_path).sources if not s.startswith("data:image/svg")]
    assert not list(tmp_path.rglob("*.png"))
    assert "no face recognition weights were given" in "".join(read_page(tmp_path).text)


def test_an_interrupted_evaluation_goes_on(whole, data, weights, tmp_path, monkeypatch):
    judged = []
    real = ageing.AgeingEvaluation._numbers

    def stopped_at_the_second(self, crop, *rendered):
        judged.append(crop)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return real(self, crop, *rendered)

    identity = str(weights / "identity.pdparams")
    more = ["--identity_path", identity, "--aligned_identity_path", identity]
    monkeypatch.setattr(ageing.AgeingEvaluation, "_numbers", stopped_at_the_second)
    assert evaluate(flags(data, weights, tmp_path, *more)) == 130
    assert not (tmp_path / "report.json").exists()
    assert evaluate(flags(data, weights, tmp_path, *more, "--test_batch_size", "1")) == 1
    np.testing.assert_array_equal(judged[1], judged[2])  # the first is not judged again
    left, right = report(tmp_path), report(whole)
    for one, other in zip(left["faces"], right["faces"], strict=True):
        np.testing.assert_allclose(one["measured"], other["measured"], atol=0.05)
    again = (tmp_path / "report.html").stat().st_mtime_ns
    assert evaluate(flags(data, weights, tmp_path, *more)) == 1
    assert len(judged) == 3 and (tmp_path / "report.html").stat().st_mtime_ns > again


def test_results_of_something_else_are_not_mixed_in(whole, data, weights, capsys):
    assert evaluate([*flags(data, weights, whole), "--target_age", "20"]) == 2
    assert "targets was [10.0, 50.0, 90.0], is [20.0])" in capsys.readouterr().err
    generator = ["--generator", str(find_weight("stylegan2_mini"))]
    assert evaluate([*flags(data, weights, whole), *generator]) == 2
    assert "; generator was None, is " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--checkpoint_path", "x.pdparams"], "age_regressor_path: name the age regressor"),
        (["--aligned_identity_path", str(find_weight("age_mini"))], "holds an age regressor"),
        (["--keep", "0.5"], "--keep: this report measures the model's own pictures"),
        (["--target_age", "120"], "expected ages from 0 to 100, found 120"),
    ],
)
def test_mistakes_are_named(data, weights, tmp_path, capsys, more, words):
    assert evaluate([*flags(data, weights, tmp_path), *more]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_face_at_all_is_an_error(weights, tmp_path, capsys):
    save_image(tmp_path / "grey.png", np.full((80, 80, 3), 128, np.uint8))
    given = [flag for flag in flags(tmp_path, weights, tmp_path / "out") if flag != "--no_align"]
    assert evaluate(given) == 2
    assert "found no face to evaluate on" in capsys.readouterr().err


# Identity of faces that are found anew


class Found:
    def __init__(self, landmarks):
        self.landmarks = landmarks


def landmarks(shift):
    """68 landmarks whose five points are those of a small face amid 64 pixels."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48], points[30] = (26, 26), (34, 26), (30, 31)
    points[48], points[54] = (27, 35), (33, 35)
    return points + shift


def test_faces_are_moved_onto_their_points_before_they_are_compared(weights, monkeypatch):
    monkeypatch.setattr(faces, "FaceLandmarker", lambda: None)
    judge = faces.AlignedIdentity(weights / "identity.pdparams", DEVICE)
    picture = np.asarray(Image.fromarray(skimage.data.astronaut()[:240, 130:370]).resize((64, 64)))
    moved = np.roll(picture, (4, 6), (0, 1))

    class Landmarker:
        def find(self, image):
            if image.max() == 0:
                return []
            return [Found(landmarks((6, 4) if np.array_equal(image, moved) else (0, 0)))]

    judge._landmarker = Landmarker()
    images = np.stack([picture, moved, np.zeros_like(picture), picture[::-1]])
    same, shifted, absent, other = judge(picture, images)
    assert same == pytest.approx(1, abs=1e-5)
    assert shifted > 0.999 and absent is None
    assert other < shifted
    assert judge(np.zeros_like(picture), images) == [None] * 4


# Summaries, by hand


def record(name, input_age, measured, similarities, ssim):
    return FaceRecord(name, input_age, [0, 50], measured, {"j": similarities}, {"ssim": ssim})


def test_a_summary_is_what_the_records_say():
    found = summarise(
        [record("a", 5, [4, 40], [0.9, 0.5], 0.8), record("b", 30, [0, 54], [None, 0.7], 0.6)]
    )
    assert found["number_of_faces"] == 2
    assert found["age_error"]["by_target"]["0"]["mean_absolute_error"] == 2
    assert found["age_error"]["by_target"]["50"]["bias"] == -3
    assert found["age_error"]["by_target"]["50"]["mean_absolute_error"] == 7
    assert found["age_error"]["overall"]["number"] == 4
    assert found["age_error"]["overall"]["nine_in_ten_below"] == pytest.approx(8.2)
    identity = found["identity"]["j"]
    assert identity["mean"] == pytest.approx(0.7)
    assert (identity["number"], identity["faces_not_found"]) == (3, 1)
    # Gaps: 5, 45 of the first face, 20 of the second.
    assert [(s["from"], s["to"], s["number"]) for s in identity["by_gap"]] == [
        *((0, 10, 1), (20, 30, 1), (40, 50, 1)),
    ]
    assert found["reconstruction"]["ssim"]["mean"] == pytest.approx(0.7)
    assert found["reconstruction"]["ssim"]["deviation"] == pytest.approx(0.1)


def test_independent_judges_are_summarised_with_misses_as_failures():
    one = dataclasses.replace(
        record("a", 5, [4, 40], [0.9, 0.5], 0.8),
        judged={"judged_age": [6, 44], "distance": [0.5, 0.7], "same_gender": [1, 1]},
    )
    other = dataclasses.replace(
        record("b", 30, [0, 54], [None, 0.7], 0.6),
        judged={"judged_age": [None, 48], "distance": [None, 0.6], "same_gender": [None, 0]},
    )
    found = summarise([one, other])["judged"]
    assert found["judges"]["identity"] == "dlib face recognition v1 (CC0)"
    assert found["age_error"]["overall"]["mean_absolute_error"] == pytest.approx((6 + 6 + 2) / 3)
    assert found["age_error"]["by_target"]["50"]["bias"] == -4
    assert found["distance"] == pytest.approx(0.6)
    assert (found["same_person"], found["gender_kept"]) == (0.25, 0.5)
    assert found["faces_not_found"] == 1
    assert summarise([record("a", 5, [4, 40], [0.9, 0.5], 0.8)])["judged"] is None


def test_a_judge_that_saw_no_face_has_no_mean():
    found = summarise([record("a", 5, [4, 40], [None, None], 0.8)])["identity"]["j"]
    assert found == {"mean": None, "number": 0, "faces_not_found": 2, "by_gap": []}
