"""Ranking by a discriminator: order, independence, what is written, and that it finds rubbish."""

import csv
import zipfile

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_sam.core.folders import LOCK, FolderInUseError, Store, one_writer
from paddle_sam.core.images import read_image, to_network
from paddle_sam.core.weights import NetworkEntry, WeightFile, find_weight
from paddle_sam.errors import CheckpointError, ConfigError, ImageError
from paddle_sam.imagesets.archive import open_image_set, read_description, write_archive
from paddle_sam.networks.load import load
from paddle_sam.networks.stylegan2 import Discriminator, Generator
from paddle_sam.stylegan2.options import RankOptions
from paddle_sam.stylegan2.rank import rank_images, score_all
from scripts.rank_images import main

ARCH = {"size": 16, "channels": {4: 4, 8: 4, 16: 4}}


@pytest.fixture
def weights(tmp_path):
    """A tiny StyleGAN2 file."""
    paddle.seed(1)
    networks = {}
    made = {
        "g_ema": ("stylegan2_generator", {**ARCH, "style_dim": 8, "mapping_layers": 1}, Generator),
        "d": ("stylegan2_discriminator", ARCH, Discriminator),
    }
    for name, (network, arch, build) in made.items():
        state = {key: value.numpy() for key, value in build(**arch).state_dict().items()}
        networks[name] = NetworkEntry(network, arch, state)
    path = tmp_path / "tiny.pdparams"
    WeightFile("stylegan2", networks).write(path)
    return path


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for index in range(10):
        path = tmp_path / "images" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return tmp_path / "images"


def config(weights, tmp_path, **options):
    fixed = {"checkpoint_path": str(weights), "exp_dir": str(tmp_path / "out"), "num_threads": 0}
    return RankOptions(**{**fixed, **options})


def table(folder):
    with (folder / "out/ranking.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_images_are_listed_by_the_score_they_get_alone(weights, folder, tmp_path):
    rank_images(config(weights, tmp_path, data_path=str(folder), batch_size=3))
    discriminator = load(weights, "d")
    alone = {
        path.name: discriminator(paddle.to_tensor(to_network(read_image(path)))).item()
        for path in folder.iterdir()
    }
    rows = table(tmp_path)
    assert [row["image"] for row in rows] == sorted(alone, key=alone.get, reverse=True)
    for row in rows:
        assert float(row["score"]) == pytest.approx(alone[row["image"]], abs=1e-4)
    assert [int(row["rank"]) for row in rows] == list(range(1, 11))
    assert read_image(tmp_path / "out/best.jpg").shape == (128 + 21, 1280, 3)


def test_the_worst_are_left_out_of_a_new_archive(weights, folder, tmp_path):
    names = [path.name for path in folder.iterdir()]
    about = {
        "labels": [[name, int(name[0]) % 2] for name in names],
        "images": [{"name": name, "source": f"from/{name}"} for name in names],
        "classes": ["even", "odd"],
    }
    data = tmp_path / "set.zip"
    write_archive(data, ((name, (folder / name).read_bytes()) for name in names), about)
    before = data.read_bytes()
    rank_images(config(weights, tmp_path, data_path=str(data), drop_percent=30.0))
    rows = table(tmp_path)
    assert [row["dropped"] for row in rows] == [""] * 7 + ["yes"] * 3
    kept = open_image_set(tmp_path / "out/kept.zip")
    assert set(kept.names) == {row["image"] for row in rows[:7]}
    assert kept.labels == tuple(int(name[0]) % 2 for name in kept.names)
    description = read_description(tmp_path / "out/kept.zip")
    assert {entry["source"] for entry in description["images"]} == {f"from/{n}" for n in kept.names}
    assert description["classes"] == ["even", "odd"]
    assert data.read_bytes() == before
    for image in kept.images:
        assert image.read_bytes() == (folder / image.name).read_bytes()


def test_what_scores_below_a_threshold_is_left_out(weights, folder, tmp_path):
    data = {"data_path": str(folder)}
    rank_images(config(weights, tmp_path, **data))
    scores = [float(row["score"]) for row in table(tmp_path)]
    threshold = (scores[3] + scores[4]) / 2
    rank_images(config(weights, tmp_path, **data, drop_below=str(threshold)))
    assert [row["dropped"] for row in table(tmp_path)] == [""] * 4 + ["yes"] * 6
    assert len(open_image_set(tmp_path / "out/kept.zip")) == 4
    with pytest.raises(ConfigError, match=f"drop_below: leaves none .* found {scores[0] + 1}"):
        rank_images(config(weights, tmp_path, **data, drop_below=str(scores[0] + 1)))
    with pytest.raises(ConfigError, match="drop_percent: leaves none of 10 images, found 96"):
        rank_images(config(weights, tmp_path, **data, drop_percent=96.0))


def test_unreadable_images_are_listed_last_and_not_kept(weights, folder, tmp_path):
    (folder / "4.png").write_bytes(b"no")
    options = ["--data_path", str(folder), "--checkpoint_path", str(weights), "--num_threads", "2"]
    assert main([*options, "--exp_dir", str(tmp_path / "out"), "--drop_percent", "10"]) == 1
    last = table(tmp_path)[-1]
    assert (last["image"], last["score"], last["dropped"]) == ("4.png", "", "yes")
    assert "found no image" in last["problem"]
    with zipfile.ZipFile(tmp_path / "out/kept.zip") as archive:
        assert len(archive.namelist()) == 8 + 1  # one of nine dropped; and dataset.json


def test_nothing_readable(weights, folder, tmp_path):
    for path in folder.iterdir():
        path.write_bytes(b"no")
    with pytest.raises(ImageError, match="none of 10 images can be read"):
        rank_images(config(weights, tmp_path, data_path=str(folder)))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]


def test_a_ranking_that_was_stopped_resumes(weights, folder, tmp_path, monkeypatch):
    options = {"data_path": str(folder), "batch_size": 3}
    monkeypatch.setattr("paddle_sam.stylegan2.rank.PART_SIZE", 3)
    (folder / "4.png").write_bytes(b"no")
    rank_images(config(weights, tmp_path, **options, exp_dir=str(tmp_path / "straight/out")))
    scored = []
    forward = Discriminator.forward

    def stopped(network, images):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(len(images))
        return forward(network, images)

    monkeypatch.setattr(Discriminator, "forward", stopped)
    with pytest.raises(KeyboardInterrupt):
        rank_images(config(weights, tmp_path, **options))
    (part,) = (tmp_path / "out/scores").rglob("part_*.npz")
    part.with_name("part_0.npz").write_bytes(part.read_bytes()[:50])  # as a failing disk leaves it
    monkeypatch.setattr(
        Discriminator, "forward", lambda d, x: scored.append(len(x)) or forward(d, x)
    )
    rank_images(config(weights, tmp_path, **options))
    # Five were scored, of which three were kept; the unreadable one is tried again.
    assert sum(scored) == 5 + 6
    assert table(tmp_path) == table(tmp_path / "straight")
    assert not (tmp_path / "out/scores").exists()


def test_two_rankings_do_not_share_a_folder(weights, folder, tmp_path):
    """The first to end would delete the scores of the other."""
    with (
        one_writer(tmp_path / "out", "a ranking"),
        pytest.raises(FolderInUseError, match="writing a ranking"),
    ):
        rank_images(config(weights, tmp_path, data_path=str(folder)))


def test_scores_belong_to_an_image_and_a_discriminator(weights, folder, tmp_path, monkeypatch):
    scored = []
    forward = Discriminator.forward
    monkeypatch.setattr(
        Discriminator, "forward", lambda d, x: scored.append(len(x)) or forward(d, x)
    )

    def score(facts):
        store = Store(tmp_path / "scores", facts)
        return score_all(load(weights, "d"), open_image_set(folder), 4, 0, store)[0]

    first = score({"weights": "these"})
    assert sum(scored) == 10
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "3.png")
    second = score({"weights": "these"})
    assert sum(scored) == 11 and list(first != second) == [n == 3 for n in range(10)]
    score({"weights": "others"})
    assert sum(scored) == 21


def test_samples_of_seeds_are_ranked(weights, tmp_path):
    made = []
    for size in (2, 5):
        options = {"samples": 5, "seed": 7, "batch_size": size, "truncation": 0.7}
        options |= {"engine": "eager", "exp_dir": str(tmp_path / str(size) / "out")}
        ranking = rank_images(config(weights, tmp_path, **options))
        assert (ranking.images, ranking.unreadable) == (5, 0)
        made.append(table(tmp_path / str(size)))
    assert [row["image"] for row in made[0]] == [row["image"] for row in made[1]]
    # What is there is used again, and what an earlier ranking made is not in the way.
    options |= {"samples": 2}
    assert rank_images(config(weights, tmp_path, **options)).images == 2
    assert {row["image"] for row in made[0]} == {f"seed{n:04d}.png" for n in range(7, 12)}
    assert read_image(tmp_path / "2/out/samples/seed0007.png").shape == (16, 16, 3)


def test_the_embedded_discriminator_knows_noise_from_what_its_generator_makes(tmp_path):
    options = {"exp_dir": str(tmp_path / "out"), "samples": 8, "num_threads": 0, "engine": "eager"}
    rank_images(RankOptions(**options))
    random = np.random.default_rng(0)
    for index in range(4):
        noise = random.integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"out/samples/noise{index}.png")
    discriminator = load(find_weight("stylegan2_mini"), "d")
    images = open_image_set(tmp_path / "out/samples")
    scores, _ = score_all(discriminator, images, 12, 0, Store(None, {}))
    noisy = [name.startswith("noise") for name in images.names]
    assert scores[noisy].max() < scores[np.logical_not(noisy)].min()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either data_path or samples"),
        ({"data_path": "x", "samples": 3}, "give either data_path or samples"),
        ({"data_path": "x", "drop_percent": 100.0}, "drop_percent: expected less than 100"),
        ({"samples": 3, "drop_percent": 5.0}, "drop_percent: makes an archive"),
        ({"samples": 3, "drop_below": "-1"}, "drop_below: makes an archive of"),
        ({"data_path": "x", "drop_below": "low"}, "drop_below: expected .* found 'low'"),
        ({"data_path": "x", "drop_below": "1,2"}, "drop_below: expected one number"),
        ({"data_path": "x", "drop_below": "1", "drop_percent": 1.0}, "either .*drop_percent or"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        RankOptions(**options)


def test_results_among_the_images(weights, folder, tmp_path):
    options = {"data_path": str(folder), "exp_dir": str(folder / "out")}
    with pytest.raises(ConfigError, match="exp_dir: .*out lies in the input .*images"):
        rank_images(config(weights, tmp_path, **options))


def test_a_file_without_a_discriminator(weights, folder, tmp_path):
    for name, error, words in (
        ("judge", ConfigError, "holds g_ema, d, not 'judge'"),
        ("g_ema", CheckpointError, "holds a StyleGAN2 generator"),
    ):
        with pytest.raises(error, match=f"discriminator: .*{words}"):
            rank_images(config(weights, tmp_path, data_path=str(folder), discriminator=name))
