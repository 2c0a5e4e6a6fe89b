import numpy as np
import paddle
import pytest
import skimage.data
from PIL import Image

from paddle_sam.ageing.edits import read_directions
from paddle_sam.ageing.learning import fit, read_labels, ridge, seed_codes
from paddle_sam.core.images import to_network
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import ConfigError
from paddle_sam.metrics.judges import as_judged, open_judges
from paddle_sam.networks.load import load
from paddle_sam.stylegan2.generator import StyleGenerator
from scripts.edit import main as edit


def made(n=400, dim=12, noise=0.1):
    random = np.random.default_rng(0)
    codes = random.normal(size=(n, dim))
    slope = random.normal(size=dim)
    return codes, slope, codes @ slope + noise * random.normal(size=n) + 40


def test_a_linear_label_is_found():
    codes, slope, labels = made()
    found = fit(codes, labels)
    np.testing.assert_allclose(found.direction, slope / np.linalg.norm(slope), atol=0.01)
    assert found.slope == pytest.approx(np.linalg.norm(slope), rel=0.01)
    assert found.r2 > 0.99
    assert (found.fitted, found.held_out, found.accuracy) == (320, 80, None)


def test_two_values_are_told_apart():
    codes, slope, labels = made()
    found = fit(codes, (labels > 40).astype(float))
    assert found.accuracy > 0.9
    assert found.direction @ slope / np.linalg.norm(slope) > 0.95


def test_labels_without_cause_have_no_quality():
    """More numbers than faces would explain anything that was fitted; the held-out ones tell."""
    random = np.random.default_rng(1)
    found = fit(random.normal(size=(100, 200)), random.normal(size=100))
    assert found.r2 < 0.1


def test_the_penalty_is_that_of_leaving_one_out():
    """Against the errors of actually leaving each out, over the same penalties."""
    codes, _, labels = made(30, 20, noise=5.0)
    x, y = codes - codes.mean(0), labels - labels.mean()

    def solve(x, y, penalty):
        return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)

    level = np.square(np.linalg.svd(x, compute_uv=False)).mean()
    errors = {}
    for penalty in np.logspace(-4, 3, 29) * level:
        rows = [np.arange(len(x)) != k for k in range(len(x))]
        left = [y[~row] - x[~row] @ solve(x[row], y[row], penalty) for row in rows]
        errors[penalty] = np.square(left).mean()
    np.testing.assert_allclose(ridge(x, y), solve(x, y, min(errors, key=errors.get)), rtol=1e-6)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("seed,label\n" + "".join(f"{k},{k}\n" for k in range(20)), "50 labelled faces.*found 20"),
        ("seed,label\n" + "".join(f"{k},7\n" for k in range(60)), "the same label, 7"),
        ("seed,label\n1,a\n2,b\n3,c\n", "two kinds of labels, found a, b, c"),
        ("seed,label\nx,1\n", "expected seeds.*'x'"),
        ("seed,label\n" + 5000 * "9" + ",1\n", "expected seeds.*'999"),
        ("seed,age\n1,1\n", "no column 'label'"),
    ],
)
def test_labels_that_cannot_be_learned_are_explained(tmp_path, table, words):
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(ConfigError, match=words):
        seeds, labels = read_labels(tmp_path / "labels.csv")
        fit(np.random.default_rng(0).normal(size=(len(seeds), 8)), labels)


def test_words_become_numbers(tmp_path):
    (tmp_path / "labels.csv").write_text("label;seed\nno;3\nyes;8\n")
    seeds, labels = read_labels(tmp_path / "labels.csv")
    assert (seeds, labels.tolist()) == ([3, 8], [0.0, 1.0])


def test_seeds_are_those_of_sampling(pipeline):
    """So that a table may be filled in by looking at what `scripts/sample.py` drew."""
    network = pipeline.network
    expected = StyleGenerator(network.decoder).map(
        np.stack([np.random.RandomState(7).randn(network.style_dim).astype(np.float32)])
    )
    np.testing.assert_allclose(seed_codes(pipeline, [7], 1.0), expected, atol=1e-5)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The folder in which an age direction of the embedded model was learned, and what was said."""
    folder = tmp_path_factory.mktemp("learned")
    crop = folder / "a.png"
    Image.fromarray(skimage.data.astronaut()[:256, 96:352]).resize((64, 64)).save(crop)
    argv = ["--data_path", str(crop), "--no_align", "--exp_dir", str(folder)]
    assert edit([*argv, "--learn", "age", "--learn_seeds", "200", "--amounts=-2,2"]) == 0
    return folder


def test_the_learned_age_makes_held_out_faces_older(learned, pipeline):
    """Seeds that took no part, by the model's regressor and, where it is at hand, an open judge."""
    direction = read_directions(learned / "directions" / "age.npz")["age"]
    assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-5)
    codes = np.repeat(seed_codes(pipeline, list(range(9000, 9012)), 0.7)[:, None], 10, axis=1)
    regressor = load(find_weight("age_mini"))
    judges = open_judges()
    ages, judged = [], []
    for amount in (-2, 2):
        images = pipeline.pictures(paddle.to_tensor(codes + np.float32(amount) * direction))
        with paddle.no_grad():
            ages.append(regressor.age(paddle.to_tensor(to_network(images))).numpy())
        if judges is not None:
            readings = [judges(as_judged(image)) for image in images]
            judged.append(np.array([one.age if one else np.nan for one in readings]))
    if judges is not None:
        assert np.nanmean(judged[1] - judged[0]) > 8
    assert (ages[1] > ages[0]).mean() > 0.9
    assert (ages[1] - ages[0]).mean() > 15


def test_the_sheet_shows_what_was_learned(learned):
    sheet = np.asarray(Image.open(learned / "directions" / "a.png"))
    assert sheet.shape == (128 + 21, 2 * 128, 3)


def test_what_cannot_be_learned_is_refused(capsys):
    assert edit(["--learn", "beauty"]) == 2
    assert "--learn: expected age, judge_age, judge_gender or a table" in capsys.readouterr().err
    assert edit(["--learn", "age", "--learn_seeds", "3"]) == 2
    assert "--learn_seeds: expected at least 50, found 3" in capsys.readouterr().err
