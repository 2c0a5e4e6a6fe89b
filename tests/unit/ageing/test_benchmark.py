"""`scripts/evaluate.py benchmark`: protocols, planted errors, summaries by hand."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import paddle
import pytest
import skimage.data
from scipy.ndimage import gaussian_filter

from paddle_sam.ageing import benchmark as module
from paddle_sam.ageing import protocols
from paddle_sam.ageing.benchmark import Benchmark, run_benchmark
from paddle_sam.ageing.benchmark_summary import Result, dial_table, impostor_threshold, summarise
from paddle_sam.ageing.eval_options import BenchmarkOptions, DialOptions
from paddle_sam.ageing.photos import Input, Photo
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.ageing.protocols import FaceLabel, Subject, plan, read_labels
from paddle_sam.core.images import save_image
from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.metrics.judges import Judges, Reading, as_judged
from paddle_sam.networks.image_features import LPIPS
from paddle_sam.stylegan2.generator import StyleGenerator
from scripts.evaluate import main as evaluate
from tests import DEVICE
from tests.unit.ageing.test_evaluate import Page

PORTRAIT = skimage.data.astronaut()


@pytest.fixture(scope="module", autouse=True)
def judges(pipeline):
    """Networks and judges loaded once for all benchmarks, and few targets."""
    judges = Judges()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Judges", lambda: judges)
        patch.setattr(AgePipeline, "from_checkpoint", lambda *_, **__: pipeline)
        patch.setattr(protocols, "STRIP", (80,))
        yield judges


@pytest.fixture(scope="module")
def man(pipeline, judges):
    """The picture of a man, uint8 [256, 256, 3]: a generated face."""
    generator = StyleGenerator(pipeline.network.decoder)
    for seed in range(40):
        picture = as_judged(generator.render(generator.seed_codes([seed]))[0])
        reading = judges(picture)
        if reading and reading.male > 0.9:
            return picture
    raise AssertionError("no generated face is read as a man's")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A woman at 30, and darker and mirrored as if at 50; LPIPS with random weights."""
    folder = tmp_path_factory.mktemp("people")
    save_image(folder / "photos" / "eileen" / "30_1.png", PORTRAIT)
    later = (PORTRAIT[:, ::-1] * 0.8).astype(np.uint8)
    save_image(folder / "photos" / "eileen" / "50_2.png", later)
    paddle.seed(0)
    lpips = {name: np.abs(tensor.numpy()) for name, tensor in LPIPS("alex").state_dict().items()}
    np.savez(folder / "lpips.npz", **lpips)
    return folder


def options(folder, out, **more):
    files = {"data_path": str(folder / "photos"), "lpips_path": str(folder / "lpips.npz")}
    files["keep"] = "0"
    return BenchmarkOptions(exp_dir=str(out), device=DEVICE, engine="eager", **(files | more))


@pytest.fixture(scope="module")
def planted(folder, tmp_path_factory):
    """What a benchmark says where every result is what a function makes of the crop at 256 px."""

    def run(change):
        def aged(self, photo, ages):
            picture = as_judged(module.picture_of(photo.faces[0], photo.pixels))
            return np.stack([change(picture) for _ in ages])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Benchmark, "_aged", aged)
            return run_benchmark(options(folder, tmp_path_factory.mktemp("planted")))

    return run


@pytest.fixture(scope="module")
def unchanged(planted):
    return planted(lambda picture: picture)


def test_the_photograph_unchanged_is_the_same_person_of_the_wrong_age(unchanged, folder, tmp_path):
    assert unchanged["distance"] == 0 and unchanged["strict"] == 1 and unchanged["gender_kept"] == 1
    assert unchanged["quality"]["sharpness_of_photograph"] == 1
    assert unchanged["quality"]["background_lpips"] == pytest.approx(0, abs=1e-6)
    really = run_benchmark(options(folder, tmp_path))
    assert really["age_mae"] + 4 < unchanged["age_mae"]
    far = unchanged["by_gap"][-1]
    assert far["age_mae"] > 15 and far["hcs"] < unchanged["by_gap"][0]["hcs"]
    sharp = "sharpness_of_photograph"
    assert really["quality"][sharp] < 0.5 < unchanged["quality"][sharp]  # 64 pixels, enlarged


def test_another_person_is_not_accepted(planted, unchanged, man):
    found = planted(lambda picture: man)
    assert found["distance"] > 0.7 > unchanged["distance"]
    assert (found["same_person"], found["strict"], found["hcs"]) == (0, 0, 0)
    assert found["gender_kept"] == 0  # and the other gender is seen


def test_a_blurred_face_is_seen_in_the_quality(planted, unchanged):
    quality = planted(lambda picture: gaussian_filter(picture, (2, 2, 0)))["quality"]
    # NIQE sees it in whole photographs (test_quality.py), not in the four blocks of a small face.
    assert quality["sharpness_of_photograph"] < 0.2
    assert unchanged["quality"]["background_psnr"] is None  # equal
    assert quality["background_psnr"] < 35 and quality["background_lpips"] > 1e-4


def test_mirrored_gender_is_seen(planted, unchanged):
    read = Judges.__call__
    with pytest.MonkeyPatch.context() as patch:
        seen = []

        def mirrored(self, image):
            seen.append(None)
            reading = read(self, image)
            photographs = 2
            return (
                reading
                if len(seen) <= photographs
                else dataclasses.replace(reading, male=1 - reading.male)
            )

        patch.setattr(Judges, "__call__", mirrored)
        found = planted(lambda picture: picture)
    assert (unchanged["gender_kept"], found["gender_kept"]) == (1, 0)
    assert found["distance"] == 0


def test_a_face_that_is_gone_counts_as_a_failure(planted):
    found = planted(lambda picture: np.full_like(picture, 128))
    assert found["faces_not_found"] == found["results"]
    assert (found["same_person"], found["gender_kept"], found["age_mae"]) == (0, 0, None)
    text = (Path(found["settings"]["exp_dir"]) / "benchmark.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_true_later_photographs_are_compared_with(folder, tmp_path, capsys):
    arguments = ["benchmark", "--data_path", str(folder / "photos"), "--exp_dir", str(tmp_path)]
    arguments += ["--lpips_path", str(folder / "lpips.npz"), "--device", DEVICE, "--keep", "0"]
    assert evaluate([*arguments, "--protocol", "reference", "--engine", "eager"]) == 0
    report = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    (row,) = report["all_results"]
    assert (row["photo"], row["person"]) == ("eileen/30_1.png", "eileen")
    assert (row["own_age"], row["target"]) == (30, 50)
    reference = report["reference"]
    assert reference["pairs"] == 1 and reference["true later photograph"]["distance"] == 0
    assert reference["photograph as it is"]["distance"] < 0.45 < reference["result"]["distance"]
    page = Page()
    text = (tmp_path / "benchmark.html").read_text(encoding="utf-8")
    page.feed(text)
    assert page.open == [] and page.sources == []
    words = "".join(page.text)
    assert "Their judges" in words and "MyTimeMachine" in words and "dlib age-v1 (CC0)" in words
    # What is there is not measured again.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Benchmark, "_measure", lambda *_: pytest.fail("measured again"))
        assert evaluate([*arguments, "--protocol", "reference", "--engine", "eager"]) == 0
    assert evaluate([*arguments, "--protocol", "strip", "--engine", "eager"]) == 2
    assert "protocol was 'reference', is 'strip'" in capsys.readouterr().err


def test_dials_are_compared_in_one_table(folder, tmp_path):
    arguments = ["dial", "--data_path", str(folder / "photos"), "--exp_dir", str(tmp_path)]
    arguments += ["--lpips_path", str(folder / "lpips.npz"), "--engine", "eager"]
    arguments += ["--device", DEVICE]
    assert evaluate([*arguments, "--protocol", "reference"]) == 0
    lines = (tmp_path / "dial.md").read_text(encoding="utf-8").splitlines()
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert head == ["1 pairs", "age error (bias)", "distance to the later photograph", "below 0.6"]
    assert [row[0] for row in rows] == [
        *("true later photograph", "photograph as it is", "--keep 0 --raw_age"),
        *("--keep 0.25 --raw_age", "--keep 0.5 --raw_age", "--keep 0.75 --raw_age"),
        *("--keep 0, calibrated", "the default"),
    ]
    assert rows[0][2:] == ["0.00", "100%"] and rows[1][3] == "100%"
    published, quarter, half, most = (float(row[2]) for row in rows[2:6])
    assert published > quarter > half > most > float(rows[1][2])
    with pytest.raises(ConfigError, match="keep 0.5"):
        DialOptions(keep="0.5")


def test_there_and_back_is_compared_with_the_photograph(folder, tmp_path):
    (one,) = (folder / "photos" / "eileen").glob("30_1.png")
    found = run_benchmark(options(folder, tmp_path, data_path=str(one), protocol="cycle"))
    assert 0.3 < found["cyclic"]["distance"] < 1.1
    assert found["results"] == 3 and found["ranges_95"] == {}  # of a single person


def test_real_faces_of_known_ages_make_the_line_of_the_judge(judges):
    bare = Benchmark.__new__(Benchmark)
    bare._real = [
        dataclasses.replace(subject(str(at), 20 + at), reading=Reading(24.0, 0.2, None, None))
        for at in range(60)
    ]
    bare.subjects = [subject("x", 80, label=False)]
    found = bare.real_readings()
    assert found["mae"] == pytest.approx(np.abs(24 - np.arange(20, 80)).mean())
    assert found["bias"] == pytest.approx(24 - np.arange(20, 80).mean())
    assert set(found["readings"]) == {20, 30, 40, 50, 60, 70, 80} and found["readings"][30] == 24
    bare._real = bare._real[:10]
    assert bare.real_readings()["source"] == "1,000 UTKFace faces"


def test_what_a_protocol_needs_is_said(folder, tmp_path):
    one = str(folder / "photos" / "eileen" / "30_1.png")
    with pytest.raises(ImageError, match="reference .*two photographs of a person"):
        run_benchmark(options(folder, tmp_path, data_path=one, protocol="reference"))


# Plans and labels


def subject(name, age, person="", label=True):
    reading = Reading(age, 0.2, np.zeros(128), np.zeros((68, 2)))
    face = FaceLabel(age if label else None, person)
    return Subject(None, name, face, None, reading, age)


def test_protocols_ask_for_these_ages():
    child, adult = subject("c", 12), subject("a", 45)
    both = [child, adult]
    asked = {name: [ages for _, ages in plan(name, both)] for name in ("strip", "lifespan")}
    assert asked["strip"] == [[32, 80], [25, 65, 80]]
    assert asked["lifespan"] == [[1, 5, 8, 12, 17, 25, 35, 45, 60, 80]] * 2
    assert plan("young60", both) == [(child, [60])]


def test_reference_pairs_are_of_one_person_12_to_45_years_apart():
    ages = {"p/5_1": 5, "p/16_2": 16, "p/17_3": 17, "p/50_4": 50, "p/51_5": 51}
    people = [subject(name, age, "p") for name, age in ages.items()]
    people += [subject("q/30_1", 30, "q"), subject("x", 40), subject("y", 20)]
    ((first, targets),) = plan("reference", people)
    assert first is people[0] and targets == [17, 50]


def test_results_of_other_codes_are_not_taken():
    benchmark = Benchmark.__new__(Benchmark)
    benchmark.options = BenchmarkOptions()
    photo = Photo(Input(Path("a"), PORTRAIT), PORTRAIT, [])
    codes = np.zeros((1, 2, 3), np.float32)
    keys = [
        benchmark._key(Subject(one, "a", FaceLabel(gender="male"), PORTRAIT, None, 30.0), [50.0])
        for one in (
            photo,
            dataclasses.replace(photo, codes=codes),
            dataclasses.replace(photo, codes=codes + 1),
            photo,
        )
    ]
    assert len(set(keys)) == 3 and keys[0] == keys[3]


def test_labels_are_read_from_names_and_tables(tmp_path):
    names = read_labels("names", tmp_path)
    assert names(tmp_path / "34_1_2_20170105.jpg") == FaceLabel(34, "", "female", "Asian")
    assert names(tmp_path / "001A02.JPG") == FaceLabel(2, "001")
    assert names(tmp_path / "anna" / "41_3.png") == FaceLabel(41, "anna")
    assert names(tmp_path / "41_3.png") == names(tmp_path / "2468.jpg") == FaceLabel()
    table = tmp_path / "labels.csv"
    table.write_text("image,age,person,gender,group\nanna/a.png,41,anna,Female,X\nb.png,,,,\n")
    find = read_labels(str(table), tmp_path)
    assert find(tmp_path / "anna" / "a.png") == FaceLabel(41, "anna", "female", "X")
    assert find(tmp_path / "b.png") == find(tmp_path / "c.png") == FaceLabel()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("age\n3\n", "has no column image"),
        ("image,age\na.png,old\n", "could not convert string to float: 'old'"),
        ("image,age\na.png,nan\n", "age 'nan' is not from 0 to 130"),
        ("image,age\na.png,-1\n", "age '-1' is not from 0 to 130"),
        ("image,gender\na.png,x\n", "gender 'x'"),
    ],
)
def test_bad_tables_are_named(tmp_path, text, words):
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(ConfigError, match=f"labels: {table}.*{words}"):
        read_labels(str(table), tmp_path)
    with pytest.raises(ConfigError, match="labels: .*none.csv"):
        read_labels(str(Path("none.csv")), tmp_path)


# Summaries, by hand


def result(person, target, age, distance, gender="female", same_gender=True):
    return Result(
        photo=person,
        person=person,
        gender=gender,
        group="",
        own_age=30.0,
        target=target,
        age=age,
        age_by_regressor=None,
        distance=distance,
        same_gender=same_gender,
        sharpness=0.5,
        niqe=5.0,
        background_psnr=None,
        background_lpips=0.1,
    )


RESULTS = [
    result("a", 40.0, 44.0, 0.3),
    result("a", 80.0, 70.0, 0.65),
    result("b", 40.0, 38.0, 0.58, "male"),
    result("b", 80.0, None, None, "male", None),
]


def test_a_summary_is_what_the_results_say():
    found = summarise(RESULTS, 0, 0.55, {0.0: 10.0, 100.0: 90.0})
    assert (found["results"], found["people"], found["faces_not_found"]) == (4, 2, 1)
    assert found["age_mae"] == pytest.approx((4 + 10 + 2) / 3)
    assert found["age_bias"] == pytest.approx((4 - 10 - 2) / 3)
    assert found["distance"] == pytest.approx((0.3 + 0.65 + 0.58) / 3)
    assert (found["same_person"], found["strict"]) == (0.5, 0.25)  # the lost one is a failure
    assert found["gender_kept"] == 0.75
    at_40, at_80 = found["by_target"]
    assert (at_40["read"], at_40["real_faces_read"], at_40["bias_to_real"]) == (41, 42, -1)
    assert at_80["bias_to_real"] == pytest.approx(70 - 74)
    assert [(row["from"], row["number"]) for row in found["by_gap"]] == [(0, 2), (25, 2)]
    gender = found["groups"]["gender"]
    assert gender["rows"]["male"]["gender_kept"] == 0.5
    assert gender["largest_difference"]["age_mae"] == pytest.approx(7 - 2)
    low, high = found["ranges_95"]["age_mae"]
    assert (low, high) == (2, 7)  # of one person or the other alone
    assert found["quality"]["background_psnr"] is None


def test_a_table_of_dials_by_hand():
    report = summarise(RESULTS, 0, 0.55, {0.0: 10.0, 100.0: 90.0})
    head, _, row, _ = dial_table({"x": report}).split("\n")
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[0] == "x" and cells[1] == "0.51" and cells[2] == "50% (50 to 50)"
    assert cells[3:] == ["25%", "100%", "-", "0%", "5.3 (-2.7)", "75%"]
    assert "| at 15 to 24 years |" in head


def test_results_that_are_missing_count_as_failures():
    assert summarise(RESULTS, 4, 0.55, {})["same_person"] == 0.25


def test_the_strict_threshold_is_where_one_pair_of_strangers_in_a_thousand_lies():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 128)) / 11
    people = [str(at) for at in range(60)]
    found, source = impostor_threshold(points, people)
    left, right = np.triu_indices(60, 1)
    distances = np.sort(np.linalg.norm(points[left] - points[right], axis=1))
    assert distances[1] <= found <= distances[2] and "1770 pairs" in source
    # Two photographs of one person are not strangers.
    points[1] = points[0]
    assert impostor_threshold(points, ["0", "0", *people[2:]])[0] > 0.5
    assert impostor_threshold(points[:10], people[:10])[1].startswith("322,636 pairs")
