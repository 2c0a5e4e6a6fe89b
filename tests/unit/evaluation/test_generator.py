"""`scripts/evaluate.py stylegan2`, with mean colours in the place of Inception."""

import json

import numpy as np
import paddle
import pytest

from paddle_sam.common.checkpoint_file import save_file
from paddle_sam.common.images import save_image
from paddle_sam.common.weights import find_weight
from paddle_sam.data.archive import write_archive
from paddle_sam.evaluation import sets
from paddle_sam.metrics.feature_store import FeatureStore
from paddle_sam.metrics.translation import set_measures
from paddle_sam.models.stylegan2 import Generator
from scripts.evaluate import main as evaluate

ARCH = {"size": 16, "style_dim": 8, "mapping_layers": 2, "channels": {4: 8, 8: 8, 16: 4}}


@pytest.fixture(scope="module")
def generator():
    paddle.seed(0)
    network = Generator(**ARCH)
    for layer in [network.conv1, *network.convs]:
        layer.noise.weight.set_value(np.array([0.5], np.float32))  # starts at 0
    network.eval()
    return network


def test_an_image_depends_on_its_number_alone(generator):
    every = sets.image_maker(generator, 0, batch_size=32)(range(6))
    one, two = (sets.image_maker(generator, 0, batch_size=size) for size in (1, 4))
    for index in (5, 0, 3):
        assert np.abs(one([index])[0].astype(int) - every[index]).max() <= 1
    for image, expected in zip(two([4, 2]), (every[4], every[2]), strict=True):
        assert np.abs(image.astype(int) - expected).max() <= 1
    assert not np.array_equal(every[0], every[1])
    assert not np.array_equal(every[0], sets.image_maker(generator, 1)([0])[0])


def test_truncation_goes_to_the_mean_face(generator):
    psi = [np.stack(sets.image_maker(generator, 0, psi)(range(12))) for psi in (1.0, 0.5, 0.0)]
    spread = [images.astype(float).std(axis=0).mean() for images in psi]
    assert spread[0] > spread[1] > spread[2] > 0  # noise is left


def colours(images):
    return np.stack([np.r_[i.mean((0, 1)), i.std((0, 1))] for i in images])


@pytest.fixture
def weights(generator, tmp_path):
    state = {name: tensor.numpy() for name, tensor in generator.state_dict().items()}
    entry = {"network": "stylegan2_generator", "arch": ARCH, "state": state}
    content = {"kind": "stylegan2", "networks": {"g_ema": entry}}
    save_file(tmp_path / "g.pdparams", content)
    return tmp_path / "g.pdparams"


def test_a_generator_is_compared_with_images_and_goes_on_where_it_stopped(
    generator, weights, tmp_path, monkeypatch, capsys
):
    store = {}

    def open_store(inception_path, folder, device, **options):
        store["now"] = FeatureStore(folder, colours, {})
        return store["now"]

    monkeypatch.setattr(sets, "open_store", open_store)
    monkeypatch.setattr("paddle_sam.metrics.feature_store._PART_SIZE", 4)
    real = np.stack(sets.image_maker(generator, 5)(range(9)))
    for index, image in enumerate(real):
        save_image(tmp_path / "real" / f"{index}.png", image)
    given = ["stylegan2", "--checkpoint_path", str(weights), "--num_images", "10"]
    given += ["--real", str(tmp_path / "real"), "--cache_dir", str(tmp_path / "cache")]
    given += ["--device", "cpu", "--output", str(tmp_path / "out.json")]
    made = []
    maker = sets.image_maker

    def stopped(*arguments):
        make = maker(*arguments)

        def counted(indices):
            made.extend(indices)
            if len(made) == 8:
                raise KeyboardInterrupt
            return make(indices)

        return counted

    monkeypatch.setattr(sets, "image_maker", stopped)
    assert evaluate(given) == 130
    assert evaluate(given) == 0
    assert made == [*range(8), *range(4, 10)]  # the first four were kept
    found = json.loads((tmp_path / "out.json").read_text())
    expected = set_measures(colours(real), colours(maker(generator, 0)(range(10))))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-2, abs=1e-2)
    assert (found["real"], found["made"]) == (9, 10)

    pictures = [(p.name, p.read_bytes()) for p in sorted((tmp_path / "real").iterdir())]
    write_archive(tmp_path / "real.zip", pictures, {"labels": None})
    given[given.index(str(tmp_path / "real"))] = str(tmp_path / "real.zip")
    capsys.readouterr()
    assert evaluate(given) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert len(made) == 14


def test_what_is_missing_is_named(capsys):
    assert evaluate(["stylegan2", "--real", "x"]) == 2
    assert "--checkpoint_path: is needed" in capsys.readouterr().err
    given = ["--checkpoint_path", str(find_weight("age_mini")), "--real", "x"]
    assert evaluate(["stylegan2", *given]) == 2
    assert "expected a StyleGAN2 generator, found AgeRegressor" in capsys.readouterr().err
