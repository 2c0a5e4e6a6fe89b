"""What the inference commands write besides the aged faces: pasted photographs and a report."""

import json

import numpy as np
import paddle
import pytest
import skimage.data
from PIL import Image

from paddle_sam.ageing.measures import MEASURES, Measures
from paddle_sam.core.images import to_network
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError
from paddle_sam.faces.alignment import CropSettings, cut_out
from paddle_sam.networks.face_networks import face_region
from paddle_sam.networks.image_features import load_lpips
from scripts.inference import main as inference
from scripts.inference_side_by_side import main as side_by_side
from tests.unit.ageing.tiny import save_recognition
from tests.unit.faces.test_originals import png_16

PORTRAIT = skimage.data.astronaut()


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    return save_recognition(tmp_path_factory.mktemp("identity"))


def test_both_faces_of_a_photograph_are_pasted_and_the_rest_is_kept(pipeline, tmp_path, capsys):
    """Of 16 bits a channel, of which 8 are kept; that is said."""
    group = np.concatenate([PORTRAIT[:320, 60:380], PORTRAIT[:320, 380:59:-1]], axis=1)
    (tmp_path / "group.png").write_bytes(png_16(group.astype(np.uint16) * 257))
    arguments = ["--data_path", str(tmp_path / "group.png"), "--exp_dir", str(tmp_path / "out")]
    arguments += ["--face", "all", "--target_age", "80", "--paste_back"]
    assert inference(arguments) == 0
    assert "group.png: more than 8 bits" in capsys.readouterr().err
    pasted = np.asarray(Image.open(tmp_path / "out" / "inference_pasted" / "80" / "group.png"))
    faces = pipeline.faces(group, "all")
    assert len(faces) == 2 and pasted.shape == group.shape
    around = np.ones(group.shape[:2], bool)
    for face in faces:
        left, top = np.floor(face.quad.min(0)).astype(int).clip(0)
        right, bottom = np.ceil(face.quad.max(0)).astype(int)
        around[top:bottom, left:right] = False
        x, y = face.quad.mean(0).astype(int)
        middle = np.s_[y - 20 : y + 20, x - 20 : x + 20]
        assert np.abs(pasted[middle].astype(int) - group[middle]).mean() > 5
    assert around.mean() > 0.5
    np.testing.assert_array_equal(pasted[around], group[around])


def test_a_result_is_shown_beside_its_input_at_the_same_resolution(pipeline, tmp_path):
    Image.fromarray(PORTRAIT).save(tmp_path / "a.png")
    arguments = ["--data_path", str(tmp_path / "a.png"), "--exp_dir", str(tmp_path / "out")]
    assert inference([*arguments, "--target_age", "80", "--couple_outputs"]) == 0
    coupled = np.asarray(Image.open(tmp_path / "out" / "inference_coupled" / "80" / "a.png"))
    result = np.asarray(Image.open(tmp_path / "out" / "inference_results" / "80" / "a.png"))
    side = len(result)
    assert side > pipeline.output_size and coupled.shape == (side, 2 * side, 3)
    np.testing.assert_array_equal(coupled[:, side:], result)
    face = pipeline.faces(PORTRAIT)[0]
    as_photographed = cut_out(PORTRAIT, face.quad - 0.5, side).image
    np.testing.assert_array_equal(coupled[:, :side], as_photographed)


def test_the_summary_comes_after_the_last_result(pipeline, tmp_path, capsys):
    """Also where photographs are read ahead, to be aged together."""
    for name in ("a", "b", "c"):
        Image.fromarray(pipeline.faces(PORTRAIT)[0].image).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").touch()
    arguments = ["--data_path", str(tmp_path), "--no_align", "--exp_dir", str(tmp_path / "out")]
    assert side_by_side([*arguments, "--target_age", "10,80"]) == 1
    out, err = capsys.readouterr()
    assert out.index("3 of 4 photographs") > out.rindex("age, own")
    assert "4/4" in err and f"failed: {tmp_path / 'd.png'}" in err


def test_the_report_has_every_measure_of_every_result(pipeline, identity, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    crop = pipeline.faces(PORTRAIT)[0].image
    Image.fromarray(crop).save(tmp_path / "a.png")
    arguments = ["--data_path", str(tmp_path / "a.png"), "--no_align", "--report"]
    arguments += ["--identity_path", str(identity), "--exp_dir", str(tmp_path / "out")]
    arguments += ["--keep", "0"]
    assert side_by_side([*arguments, "--target_age", "10,80"]) == 0
    printed = capsys.readouterr().out
    assert "a.png:\n  target age " in printed
    assert all(word in printed for word in ("age, judge", "age, own", "distance", "LPIPS"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (face,) = report["faces"]
    assert (face["name"], [r["target_age"] for r in face["results"]]) == ("a.png", [10, 80])
    assert report["judges"]["judged_age"] == "dlib age-v1 (CC0)"
    young, old = face["results"]
    assert young["judged_age"] < old["judged_age"]
    assert 0.3 < young["distance"] < 1.2 and young["same_gender"] == 1
    assert young["measured_age"] < face["input_age"] < old["measured_age"]
    images = pipeline.age(crop[None], [10, 80])[0]
    lpips = load_lpips(find_weight("lpips_alex"))
    for result, image in zip(face["results"], images, strict=True):
        pair = [paddle.to_tensor(to_network(one)) for one in (crop, image)]
        with paddle.no_grad():
            assert result["lpips"] == pytest.approx(lpips(*pair).item(), abs=2e-3)
        assert -1 <= result["identity"] < 0.9999


def test_a_run_that_is_cut_off_reports_what_it_did(pipeline, tmp_path, monkeypatch):
    crop = pipeline.faces(PORTRAIT)[0].image
    for name in ("a.png", "b.png"):
        Image.fromarray(crop).save(tmp_path / name)
    input_age = Measures.input_age

    def interrupted(self, crop):
        monkeypatch.setattr(Measures, "input_age", stop)
        return input_age(self, crop)

    def stop(self, crop):
        raise KeyboardInterrupt

    monkeypatch.setattr(Measures, "input_age", interrupted)
    arguments = ["--data_path", str(tmp_path), "--no_align", "--exp_dir", str(tmp_path / "out")]
    assert inference([*arguments, "--target_age", "50", "--report"]) == 130
    (face,) = json.loads((tmp_path / "out" / "report.json").read_text())["faces"]
    assert face["name"] == "a.png"


def test_identity_of_the_same_face_is_one_and_looks_at_the_face_region(identity):
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (256, 256, 3), np.uint8)
    outside = crop.copy()
    outside[:, 225:] = 0  # beyond column 220
    measures = Measures.from_files(CropSettings(), identity_path=str(identity))
    found = measures(crop, np.stack([crop, outside]))["identity"]
    np.testing.assert_allclose(found, 1, atol=1e-5)
    assert face_region(paddle.zeros([1, 3, 256, 256])).shape[-1] == 188
    tight = Measures.from_files(CropSettings(scale=0.6), identity_path=str(identity))
    assert tight(crop, outside[None])["identity"][0] < 0.9999


def test_without_networks_measures_are_null(tmp_path, pipeline, monkeypatch, capsys):
    monkeypatch.setattr("paddle_sam.ageing.measures.find_weight", only_embedded)
    monkeypatch.setattr("paddle_sam.metrics.judges.find_weight", only_embedded)
    Image.fromarray(pipeline.faces(PORTRAIT)[0].image).save(tmp_path / "a.png")
    arguments = ["--data_path", str(tmp_path / "a.png"), "--no_align", "--report"]
    arguments += ["--exp_dir", str(tmp_path / "out"), "--target_age", "50"]
    assert inference([*arguments, "--checkpoint_path", str(find_weight("sam_mini"))]) == 0
    printed = capsys.readouterr().out
    assert "without LPIPS" in printed and "without independent judges" in printed
    (face,) = json.loads((tmp_path / "out" / "report.json").read_text())["faces"]
    want = {"target_age": 50} | dict.fromkeys(MEASURES)
    assert (face["input_age"], face["results"]) == (None, [want])


def only_embedded(name):
    if name == "age_mini":  # comes with the package; the dial reads the face's own age by it
        return find_weight(name)
    raise CheckpointError(f"{name}: this file is missing")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--feather", "0.7"], "feather: expected at most 0.5, found 0.7"),
        (
            ["--identity_path", str(find_weight("age_mini"))],
            "holds an age regressor",
        ),
        (
            ["--age_regressor_path", str(find_weight("sam_mini"))],
            "holds a SAM",
        ),
        (["--paste_back", "--latent", "a.npz"], "paste_back: needs the photograph"),
    ],
)
def test_options_that_cannot_work_are_explained(arguments, words, tmp_path, capsys):
    assert inference([*arguments, "--exp_dir", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_photographs_with_results_are_left_out_on_request(pipeline, tmp_path, capsys):
    crop = Image.fromarray(pipeline.faces(PORTRAIT)[0].image)
    for name in ("a.png", "b.jpg"):
        crop.save(tmp_path / name)
    arguments = ["--data_path", str(tmp_path), "--no_align", "--exp_dir", str(tmp_path / "out")]
    arguments += ["--target_age", "50", "--skip_existing"]
    assert side_by_side([*arguments, "--n_images", "1"]) == 0
    first = tmp_path / "out" / "inference_side_by_side" / "a.png"
    written = first.stat().st_mtime_ns
    assert side_by_side(arguments) == 0
    assert "1 of 2 photographs have results already" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == written and first.with_name("b.jpg").exists()
    assert side_by_side(arguments) == 0  # nothing is left to do
    assert side_by_side(arguments[:-1]) == 0
    assert first.stat().st_mtime_ns > written


def test_names_cannot_command_the_terminal(pipeline, tmp_path, capsys):
    Image.fromarray(PORTRAIT).save(tmp_path / "good.png")
    (tmp_path / "a\x1b[31mred\nfailed: me.png").write_bytes(b"no image")
    arguments = ["--data_path", str(tmp_path), "--exp_dir", str(tmp_path / "out")]
    assert inference([*arguments, "--target_age", "50"]) == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("failed: ")]
    assert r"a\x1b[31mred\nfailed: me.png" in line


def test_squeezed_photographs_are_counted(pipeline, tmp_path, capsys):
    Image.fromarray(PORTRAIT[:300]).save(tmp_path / "wide.png")
    Image.fromarray(PORTRAIT).save(tmp_path / "square.png")
    arguments = ["--data_path", str(tmp_path), "--exp_dir", str(tmp_path / "out")]
    assert inference([*arguments, "--no_align", "--target_age", "50"]) == 0
    note = capsys.readouterr().err
    assert "note: 1 photographs are not square" in note and "wide.png" in note
    assert inference([*arguments, "--target_age", "50"]) == 0
    assert "not square" not in capsys.readouterr().err
