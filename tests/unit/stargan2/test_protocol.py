"""StarGAN v2's protocol on small domains, and `scripts/evaluate.py`."""

import json

import numpy as np
import paddle
import pytest

from paddle_sam.core.images import read_image, resize, save_image, to_network
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import ConfigError
from paddle_sam.imagesets.loader import resize_bilinear
from paddle_sam.metrics.features import AlexFeatures, FeatureStore, fid
from paddle_sam.metrics.pairs import diversity
from paddle_sam.metrics.sets import set_measures
from paddle_sam.networks import stargan2
from paddle_sam.networks.image_features import LPIPS, InceptionV3
from paddle_sam.stargan2 import protocol as translation
from paddle_sam.stargan2.domains import Domains
from paddle_sam.stargan2.protocol import (
    Protocol,
    TranslationEvaluation,
    diversity_store,
)
from paddle_sam.stargan2.system import StarGAN2
from scripts.evaluate import main as evaluate
from tests import DEVICE

SIZE = 32
COUNT, OUTPUTS = 5, 3
NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domains")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for level, name in ((60, "cat"), (150, "dog")):
            for index in range(COUNT):
                image = rng.integers(level, level + 60, (40, 36, 3), dtype=np.uint8)
                save_image(folder / split / name / f"{index}.png", image)
    return folder


def networks():
    paddle.seed(0)
    size = {"img_size": SIZE, "max_conv_dim": 8, "base_dim": 4}
    archs = {
        "generator": {**size, "style_dim": 4, "w_hpf": 0.0},
        "mapping_network": {"latent_dim": 4, "style_dim": 4, "num_domains": 2, "width": 8},
        "style_encoder": {**size, "style_dim": 4, "num_domains": 2},
    }
    builders = {
        "generator": stargan2.Generator,
        "mapping_network": stargan2.MappingNetwork,
        "style_encoder": stargan2.StyleEncoder,
    }
    return {name: (arch, builders[name](**arch)) for name, arch in archs.items()}


@pytest.fixture(scope="module")
def system():
    return StarGAN2(*(network for _, network in networks().values()))


@pytest.fixture(scope="module")
def lpips():
    paddle.seed(0)
    network = LPIPS("alex")
    for name, parameter in network.named_parameters():
        if name.startswith("lin"):
            parameter.set_value(parameter.abs())
    return network


def colours(images):
    """Stands in for Inception: mean and deviation of each colour."""
    return np.stack([np.r_[i.mean((0, 1)), i.std((0, 1))] for i in images])


def make(system, root, folder, diversities=None, features=None, model="m", **protocol):
    protocol = Protocol(**{"outputs": OUTPUTS, "batch_size": 4, **protocol})
    train, val = Domains(root / "train"), Domains(root / "val")
    return TranslationEvaluation(system, model, train, val, folder, diversities, features, protocol)


def files(folder):
    return {str(p.relative_to(folder)): read_image(p) for p in sorted(folder.rglob("*.png"))}


def diversities(weights, folder=None):
    return diversity_store(weights / "lpips.npz", folder)


def test_every_pair_is_made_and_judged_by_definition(system, root, tmp_path, lpips, weights):
    store = FeatureStore(None, colours, {})
    results = make(system, root, tmp_path, diversities(weights), store).run()
    assert set(results) == {"latent", "reference"}
    assert len(files(tmp_path)) == 2 * 2 * COUNT * OUTPUTS
    for guide, measures in results.items():
        assert set(measures) == {"LPIPS", "FID", "KID", "precision", "recall"}
        for values in measures.values():
            assert set(values) == {"cat2dog", "dog2cat", "mean"}
            assert values["mean"] == pytest.approx((values["cat2dog"] + values["dog2cat"]) / 2)
        made = [read_image(p) for p in sorted((tmp_path / guide / "cat2dog").iterdir())]
        groups = [made[start : start + OUTPUTS] for start in range(0, len(made), OUTPUTS)]
        expected = np.mean([diversity(lpips, to_network(group)) for group in groups])
        assert measures["LPIPS"]["cat2dog"] == pytest.approx(expected, rel=1e-5)
        real = [read_image(path) for path in Domains(root / "train").files[1]]
        expected = fid(colours(real), colours(made))
        assert measures["FID"]["cat2dog"] == pytest.approx(expected, rel=1e-6)


def test_translations_are_what_the_network_makes(system, root, tmp_path):
    make(system, root, tmp_path).run()
    rng = np.random.default_rng((0, 20, 0, 1, 2, 1))  # cat to dog, third image, second output
    z = rng.standard_normal([1, 4]).astype("float32")
    image = read_image(root / "val" / "cat" / "2.png")
    x = paddle.to_tensor(to_network(resize_bilinear(image, SIZE)))
    expected = system.translate(x, system.latent_styles(z, 1)).numpy()
    found = to_network(read_image(tmp_path / "latent" / "cat2dog" / "0003_02.png"))
    assert np.abs(found - expected.clip(-1, 1)).max() < 1.01 / 127.5


def test_references_are_of_the_target_domain(system, root, tmp_path, monkeypatch):
    asked = []
    real = StarGAN2.reference_styles

    def spy(self, images, domains):
        asked.extend(zip(domains.tolist(), images.mean((1, 2, 3)).tolist(), strict=True))
        return real(self, images, domains)

    monkeypatch.setattr(StarGAN2, "reference_styles", spy)
    make(system, root, tmp_path).run()
    assert len(asked) == 2 * COUNT * OUTPUTS
    # Cats are dark and dogs are bright.
    assert all((brightness > 127.5) == (domain == 1) for domain, brightness in asked)
    assert len({round(brightness, 6) for _, brightness in asked}) > COUNT


def test_batches_do_not_matter(system, root, tmp_path):
    make(system, root, tmp_path / "one", batch_size=1).run()
    make(system, root, tmp_path / "many", batch_size=32).run()
    one, many = files(tmp_path / "one"), files(tmp_path / "many")
    assert one.keys() == many.keys()
    for name, image in one.items():
        assert np.abs(image.astype(int) - many[name]).max() <= 1, name


def test_an_interrupted_evaluation_goes_on(system, root, tmp_path, monkeypatch, weights):
    first = make(system, root, tmp_path, diversities(weights, tmp_path / "kept")).run()
    before = files(tmp_path)
    lost = [tmp_path / "latent" / "cat2dog" / "0002_01.png", tmp_path / "reference" / "dog2cat"]
    lost[0].unlink()
    for path in lost[1].iterdir():
        path.unlink()
    made = []
    real = TranslationEvaluation._translate

    def spy(self, guide, source, target, chosen, files):
        made.extend((guide, source, target, index) for index in chosen)
        real(self, guide, source, target, chosen, files)

    monkeypatch.setattr(TranslationEvaluation, "_translate", spy)
    measured = []
    real_diversity = translation.diversity

    def spy_diversity(lpips, group):
        measured.append(group)
        return real_diversity(lpips, group)

    monkeypatch.setattr(translation, "diversity", spy_diversity)
    again = make(system, root, tmp_path, diversities(weights, tmp_path / "kept")).run()
    expected = [("latent", 0, 1, 1), *[("reference", 1, 0, index) for index in range(COUNT)]]
    assert sorted(made) == sorted(expected)
    assert len(measured) <= len(expected)  # none of an image whose translations are as they were
    before_it, after_it = (found["latent"]["LPIPS"]["mean"] for found in (first, again))
    assert after_it == pytest.approx(before_it, rel=0.01)
    after = files(tmp_path)
    assert after.keys() == before.keys()
    for name, image in after.items():
        assert np.abs(image.astype(int) - before[name]).max() <= 1, name


def test_a_folder_of_other_translations_is_refused(system, root, tmp_path):
    make(system, root, tmp_path)
    with pytest.raises(ConfigError, match="made in another way .model was .*; seed was "):
        make(system, root, tmp_path, model="other", seed=1)


def test_domains_must_fit(system, root, tmp_path):
    save_image(tmp_path / "cat" / "0.png", np.zeros((8, 8, 3), np.uint8))
    one = Domains(tmp_path)
    val = Domains(root / "val")
    with pytest.raises(ConfigError, match="has the domains cat, dog, but folder has cat"):
        TranslationEvaluation(system, "m", one, val, tmp_path / "out", None, None)
    with pytest.raises(ConfigError, match="has 1 domains"):
        TranslationEvaluation(system, "m", one, one, tmp_path / "out", None, None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, lpips):
    """Files of random weights: Inception, LPIPS and a StarGAN v2."""
    folder = tmp_path_factory.mktemp("weights")
    paddle.seed(0)

    def entry(builder, arch, network):
        state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
        return NetworkEntry(builder, arch, state)

    inception = {"inception": entry("inception_v3", {}, InceptionV3())}
    WeightFile("inception", inception).write(folder / "inception.pdparams")
    parts = {n: entry(f"stargan2_{n}", arch, net) for n, (arch, net) in networks().items()}
    WeightFile("stargan2", parts).write(folder / "stargan2.pdparams")
    np.savez(folder / "lpips.npz", **{k: v.numpy() for k, v in lpips.state_dict().items()})
    return folder


def test_the_command_compares_two_folders(root, weights, tmp_path, capsys):
    real, made = (str(root / split / "cat") for split in ("train", "val"))
    flags = ["--real", real, "--made", made, "--device", DEVICE]
    flags += ["--inception_path", str(weights / "inception.pdparams")]
    flags += ["--cache_dir", str(tmp_path / "cache"), "--output", str(tmp_path / "out.json")]
    assert evaluate(["sets", *flags]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out.json").read_text())
    assert (printed["real"], printed["made"], printed["resizing"]) == (5, 5, "clean")
    parts = sorted((tmp_path / "cache").rglob("part_*.npz"))
    stamps = [part.stat().st_mtime_ns for part in parts]
    assert evaluate(["sets", *flags, "--batch_size", "3"]) == 0  # nothing is computed again
    assert json.loads(capsys.readouterr().out) == printed
    assert [
        part.stat().st_mtime_ns for part in sorted((tmp_path / "cache").rglob("*.npz"))
    ] == stamps
    features = {}
    for part in parts:
        with np.load(part) as archive:
            features |= dict(zip(archive["digests"], archive["features"], strict=True))
    assert len(features) == 10
    assert evaluate(["sets", *flags, "--resizing", "legacy"]) == 0
    assert json.loads(capsys.readouterr().out)["FID"] != printed["FID"]


def test_alexnet_stands_in_for_inception(root, weights, lpips, tmp_path, capsys):
    folders = [root / split / "cat" for split in ("train", "val")]
    flags = ["--real", str(folders[0]), "--made", str(folders[1]), "--features", "alexnet"]
    flags += ["--lpips_path", str(weights / "lpips.npz"), "--cache_dir", str(tmp_path / "cache")]
    flags += ["--batch_size", "2", "--device", DEVICE]
    assert evaluate(["sets", *flags]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["features"] == "alexnet"
    paths = [sorted(folder.iterdir()) for folder in folders]
    images = [[resize(read_image(path), 224) for path in some] for some in paths]
    expected = set_measures(*map(AlexFeatures(lpips), images))
    assert {name: printed[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert evaluate(["sets", *flags, "--resizing", "legacy"]) == 2
    assert "--resizing legacy: is for --features inception only" in capsys.readouterr().err


def test_the_command_runs_the_protocol(root, weights, tmp_path, capsys):
    flags = ["--checkpoint_path", str(weights / "stargan2.pdparams"), "--device", DEVICE]
    flags += ["--train_img_dir", str(root / "train"), "--val_img_dir", str(root / "val")]
    flags += ["--lpips_path", str(weights / "lpips.npz"), "--eval_dir", str(tmp_path / "eval")]
    flags += ["--num_outs_per_domain", "2", "--max_images", "2", "--no_fid"]
    assert evaluate(["stargan2", *flags]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["latent"]["LPIPS"]["mean"] > 0 and printed["seconds"] > 0
    assert len(files(tmp_path / "eval")) == 2 * 2 * 2 * 2

    names = [f"{d}/{p.name}" for d in ("cat", "dog") for p in sorted((root / "val" / d).iterdir())]
    rows = [f"{name},{'first' if index == 0 else 'other'},all" for index, name in enumerate(names)]
    (tmp_path / "groups.csv").write_text("\n".join(rows))
    assert evaluate(["stargan2", *flags, "--groups", str(tmp_path / "groups.csv")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["latent"] == printed["latent"]
    groups = again["groups"]["latent"]
    assert set(groups["cat2dog"]) == {"first", "other", "all"}
    assert set(groups["dog2cat"]) == {"other", "all"}
    whole, cats = again["latent"]["LPIPS"], groups["cat2dog"]
    assert cats["all"]["LPIPS"] == pytest.approx(whole["cat2dog"])
    assert groups["dog2cat"]["other"]["LPIPS"] == pytest.approx(whole["dog2cat"])
    assert [cats[name]["images"] for name in ("all", "first", "other")] == [2, 1, 1]
    first, other = (cats[name]["LPIPS"] for name in ("first", "other"))
    assert cats["all"]["error"] == pytest.approx(abs(first - other) / 2, rel=1e-4)
    assert cats["first"]["error"] is None
    (tmp_path / "groups.csv").write_text("\n".join(rows[1:]))
    assert evaluate(["stargan2", *flags, "--groups", str(tmp_path / "groups.csv")]) == 2
    assert f"groups: {tmp_path / 'groups.csv'}: expected a row" in capsys.readouterr().err


def test_mistakes_on_the_command_line_are_named(capsys, tmp_path):
    assert evaluate(["faces"]) == 2
    assert "one of sets, stylegan2, stargan2, ageing" in capsys.readouterr().err
    assert evaluate([]) == 2
    assert evaluate(["sets"]) == 2
    assert "--real: name a folder or archive of real images" in capsys.readouterr().err
    nowhere = str(tmp_path / "nowhere")
    assert evaluate(["sets", "--real", nowhere, "--made", nowhere]) == 2
    assert f"{nowhere}: there is no such file or folder" in capsys.readouterr().err
    assert evaluate(["stargan2"]) == 2
    assert "checkpoint_path: name a StarGAN v2 weight file" in capsys.readouterr().err


def test_set_measures_of_equal_sets():
    features = np.random.default_rng(0).normal(size=(50, 3))
    measures = set_measures(features, features)
    assert measures["FID"] == pytest.approx(0, abs=1e-6)
    assert (measures["precision"], measures["recall"]) == (1, 1)
