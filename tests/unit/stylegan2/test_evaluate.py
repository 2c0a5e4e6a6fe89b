"""`scripts/evaluate.py stylegan2`, with mean colours in the place of Inception."""

import json

import numpy as np
import paddle
import pytest

from paddle_sam.core.images import read_image, save_image
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.imagesets.archive import write_archive
from paddle_sam.metrics import sets
from paddle_sam.metrics.features import FeatureStore
from paddle_sam.metrics.sets import set_measures
from paddle_sam.networks.stylegan2 import Generator
from paddle_sam.stylegan2 import evaluate as evaluation
from scripts.evaluate import main as evaluate
from scripts.sample import main as sample
from tests import DEVICE

ARCH = {"size": 16, "style_dim": 8, "mapping_layers": 2, "channels": {4: 8, 8: 8, 16: 4}}


@pytest.fixture
def weights(tmp_path):
    paddle.seed(0)
    network = Generator(**ARCH)
    for layer in [network.conv1, *network.convs]:
        layer.noise.weight.set_value(np.array([0.5], np.float32))  # starts at 0
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    entry = NetworkEntry("stylegan2_generator", ARCH, state)
    content = WeightFile("stylegan2", {"g_ema": entry}, latent_avg=np.zeros(8, "f4"))
    content.write(tmp_path / "g.pdparams")
    return tmp_path / "g.pdparams"


def colours(images):
    return np.stack([np.r_[i.mean((0, 1)), i.std((0, 1))] for i in images])


def samples(weights, folder, *more):
    """Images of `scripts/sample.py` in the order of their seeds."""
    given = ["--checkpoint_path", str(weights), "--exp_dir", str(folder), "--truncation", "1"]
    assert sample([*given, "--noise", "random", "--device", DEVICE, *more]) == 0
    return [read_image(path) for path in sorted((folder / "samples").glob("*.png"))]


def test_a_generator_is_judged_by_what_it_samples_and_goes_on_where_it_stopped(
    weights, tmp_path, monkeypatch, capsys
):
    def open_store(inception_path, folder, device, **options):
        return FeatureStore(folder, colours, {})

    monkeypatch.setattr(sets, "open_store", open_store)
    monkeypatch.setattr("paddle_sam.metrics.features.PART_SIZE", 4)
    real = samples(weights, tmp_path / "real", "--seeds", "50-58")
    folder = tmp_path / "real" / "samples"
    given = ["stylegan2", "--checkpoint_path", str(weights), "--num_images", "10"]
    given += ["--real", str(folder), "--cache_dir", str(tmp_path / "cache"), "--device", DEVICE]
    given += ["--batch_size", "3", "--output", str(tmp_path / "out.json")]
    made = []
    render = evaluation.render_seeds

    def stopped(generator, seeds, config):
        made.extend(seeds)
        if len(made) == 7:
            raise KeyboardInterrupt
        return render(generator, seeds, config)

    monkeypatch.setattr(evaluation, "render_seeds", stopped)
    assert evaluate(given) == 130
    assert evaluate(given) == 0
    assert made == [*range(7), *range(4, 10)]  # the first four were kept
    found = json.loads((tmp_path / "out.json").read_text())
    fakes = samples(weights, tmp_path / "fakes", "--seeds", "0-9")
    for name, value in set_measures(colours(real), colours(fakes)).items():
        assert found[name] == pytest.approx(value, rel=1e-2, abs=1e-2)
    assert (found["real"], found["made"]) == (9, 10)

    pictures = [(p.name, p.read_bytes()) for p in sorted(folder.glob("*.png"))]
    write_archive(tmp_path / "real.zip", pictures, {"labels": None})
    given[given.index(str(folder))] = str(tmp_path / "real.zip")
    capsys.readouterr()
    assert evaluate(given) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert len(made) == 13
    assert evaluate([*given, "--truncation", "0.5"]) == 0  # other images
    assert len(made) == 23


def test_what_is_missing_is_named(weights, tmp_path, capsys):
    assert evaluate(["stylegan2"]) == 2
    assert "--real: name a folder or archive of real images" in capsys.readouterr().err
    save_image(tmp_path / "real" / "0.png", np.zeros((16, 16, 3), np.uint8))
    given = ["--checkpoint_path", str(weights), "--real", str(tmp_path / "real")]
    assert evaluate(["stylegan2", *given, "--inception_path", str(tmp_path / "none")]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
