"""S4, StyleGAN on one's own data: preparing, ranking, training, sampling, figures, videos."""

import json

import pytest

from tests import DEVICE
from tests.described import understood


def test_images_are_chosen_by_identifiers_and_metadata(capsys):
    words = "--data_path danbooru2018/512px --output faces.zip --size 512 --format jpg"
    words += " --ids sfw.txt --metadata metadata --ratings s --tags 1girl --score 10"
    options = understood("prepare_dataset", words.split(), capsys)
    assert (options["ratings"], options["tags"], options["ids"]) == ("s", "1girl", "sfw.txt")


def test_the_cascade_has_the_described_parameters(capsys):
    words = "--preset anime --data_path images --output faces --size 0"
    options = understood("prepare_dataset", words.split(), capsys)
    assert (options["cascade_scale_factor"], options["cascade_neighbours"]) == (1.1, 5)
    assert options["cascade"] == "lbpcascade_animeface.xml"
    assert (options["crop"], options["face"]) == ("cascade", "all")


def test_a_danbooru_folder_is_chosen_from_and_cropped(tmp_path):
    """Its layout and its metadata; a cascade that comes with OpenCV stands for the one of anime."""
    pytest.importorskip("cv2")
    import skimage.data

    from paddle_sam.core.images import save_image
    from scripts.prepare_dataset import main

    root = tmp_path / "danbooru2018"
    records = {1: "s", 2: "q", 1003: "s"}
    for number in records:
        path = root / "512px" / f"{number % 1000:04}" / f"{number}.jpg"
        save_image(path, skimage.data.astronaut()[: 300 + number % 7])
    lines = [
        {"id": str(number), "rating": rating, "score": "12", "tags": [{"name": "1girl"}]}
        for number, rating in records.items()
    ]
    (root / "metadata").mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / "metadata" / "2018000000000000").write_text(text)
    (tmp_path / "sfw.txt").write_text("1\n2\n1003\n")
    words = f"--preset anime --data_path {root}/512px --output {tmp_path}/faces --size 0"
    words += f" --ids {tmp_path}/sfw.txt --metadata {root}/metadata --ratings s --tags 1girl"
    words += " --score 10 --cascade haarcascade_frontalface_default.xml --num_threads 1"
    assert main([*words.split(), "--duplicate_bits", "-1"]) == 0
    described = json.loads((tmp_path / "faces" / "dataset.json").read_text())
    sources = {image["source"].split("#")[0] for image in described["images"]}
    assert sources == {"512px/0001/1.jpg", "512px/0003/1003.jpg"}


@pytest.mark.parametrize("by", ["--drop_percent=5", "--drop_below=-2.5"])
def test_images_are_ranked_by_the_discriminator(by, capsys):
    words = ["--data_path", "faces.zip", "--checkpoint_path", "d.pdparams", by]
    assert understood("rank_images", words, capsys)["data_path"] == "faces.zip"


def test_a_run_has_the_described_settings(capsys):
    words = "--train_data faces.zip --resolution 512 --mirror --new_run sgan-faces-2gpu"
    words += " --ema_kimg 10 --minibatch_repeats 5 --d_repeats 1 --total_kimg 99000"
    words += " --g_lr 0.0015 --d_lr 0.0015 --resume latest --metric none --snapshot_kimg 50"
    words += " --stages 64:600,128:600,256:600 --allow_changed g_lr,d_lr"
    options = understood("train_stylegan2", words.split(), capsys)
    assert (options["minibatch_repeats"], options["total_kimg"]) == (5, 99000.0)


@pytest.mark.parametrize("psi", [1.2, 1.0, 0.7, 0.5, 0.0, -0.7])
def test_a_thousand_samples_of_any_psi(psi, capsys):
    words = ["--seeds", "0-999", "--names", "example", "--noise", "random", f"--truncation={psi}"]
    assert understood("sample", words, capsys)["truncation"] == psi


def test_the_figures_have_the_described_seeds(capsys):
    options = understood("figures", [], capsys)
    described = {
        "uncurated_seed": 5,
        "uncurated_rows": 3,
        "uncurated_levels": "0,1,2,2,3,3",
        "mix_columns": "639,701,687,615,2268",
        "mix_rows": "888,829,1898,1733,1614,845",
        "noise_seeds": "1157,1012",
        "noise_draws": 100,
        "component_seeds": "1967,1555",
        "truncation_seeds": "91,388-396",
        "psis": "1,0.7,0.5,0.25,0,-0.25,-0.5,-1",
        "truncation": 0.7,
    }
    assert {name: options[name] for name in described} == described


@pytest.mark.parametrize(
    ("preset", "seed", "grid"), [("random_grid_404", 404, "2x2"), ("interpolate", 500, None)]
)
def test_the_videos_are_presets(preset, seed, grid, capsys):
    options = understood("video", ["--preset", preset], capsys)
    assert (options["seed"], options["duration"], options["fps"]) == (seed, 60.0, 20)
    assert (options["smoothing"], options["truncation"], options["bitrate"]) == (1.0, 0.7, "5M")
    assert grid in (None, options["grid"])


def test_the_third_video_walks_the_fine_layers_of_one_face(capsys):
    options = understood("video", ["--preset", "fine_503"], capsys)
    assert (options["seed"], options["style_ranges"]) == (503, "6-")


def test_a_clip_of_the_training_is_made_of_its_grids(capsys):
    options = understood("video", ["--grids", "results/00001-sgan-faces-2gpu"], capsys)
    described = {"grid_rate": 10.0, "fps": 25, "crf": 33, "grid_scale": 0.5}
    assert {name: options[name] for name in described} == described


def test_transfer_starts_from_a_trained_model(capsys):
    words = ["--train_data", "few.zip", "--init_from", "faces.pdparams", "--freeze_d", "4"]
    options = understood("train_stylegan2", words, capsys)
    assert (options["init_from"], options["freeze_d"]) == ("faces.pdparams", 4)


def test_settings_of_the_first_stylegan_are_taken(capsys):
    words = "--train_data faces.zip --D_repeats 2 --G_smoothing_kimg 20 --no-mirror_augment"
    options = understood("train_stylegan2", [*words.split(), "--desc", "sgan-faces"], capsys)
    assert (options["d_repeats"], options["ema_kimg"], options["mirror"]) == (2, 20.0, False)
    assert options["new_run"] == "sgan-faces"


@pytest.mark.parametrize(
    ("setting", "instead"),
    [
        ("minibatch_base", "--batch_size"),
        ("minibatch_dict", "--stage_batches"),
        ("network_snapshot_ticks", "--snapshot_kimg"),
        ("num_gpus", "paddle.distributed.launch"),
        ("resume_kimg", "--resume latest"),
        ("resume_run_id", "--exp_dir"),
    ],
)
def test_other_settings_name_what_replaced_them(setting, instead, capsys):
    from scripts.train_stylegan2 import main

    with pytest.raises(SystemExit):
        main(["--train_data", "faces.zip", f"--{setting}", "1"])
    error = capsys.readouterr().err
    assert error.startswith(f"error: --{setting}: ")
    assert instead in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two archives of ten pictures each, prepared by the command."""
    import numpy as np

    from paddle_sam.core.images import save_image
    from scripts import prepare_dataset

    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for name in ("faces", "cartoons"):
        for index in range(10):
            coarse = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            save_image(folder / name / f"{index}.png", coarse)
        words = ["--data_path", str(folder / name), "--output", str(folder / f"{name}.zip")]
        assert prepare_dataset.main([*words, "--size", "16", "--num_threads", "1"]) == 0
    return folder


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory):
    """Two sets with weights, growth with its own rates and batches, repeats, a numbered folder."""
    from scripts import train_stylegan2

    words = f"--train_data {sets}/faces.zip,{sets}/cartoons.zip:3 --resolution 16 --device {DEVICE}"
    words += " --stages 8:0.008 --stage_rates 8:0.004 --stage_batches 8:2 --batch_size 4"
    words += " --minibatch_repeats 2 --D_repeats 2 --G_smoothing_kimg 1 --no-mirror_augment"
    words += " --latent_dim 6 --channel_base 96 --channel_max 6 --mbstd_group 2 --num_workers 0"
    words += " --log_kimg 0.004 --snapshot_kimg 0.008 --save_kimg 0.008 --total_kimg 0.024"
    root = tmp_path_factory.mktemp("results")
    command = [*words.split(), "--exp_dir", str(root), "--desc", "sgan faces 2gpu"]
    assert train_stylegan2.main(command) == 0
    return root / "00000-sgan-faces-2gpu"


@pytest.mark.slow
def test_a_run_with_the_described_settings_does_what_they_say(run):
    records = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    losses = [record for record in records if record["split"] == "train"]
    # Two images twice a step at 8 px, four twice a step at 16 px.
    assert [record["kimg"] for record in losses] == pytest.approx([0.004, 0.008, 0.016, 0.024])
    assert [record["size"] for record in losses] == [8, 8, 16, 16]
    rates = [record["learning_rate"] for record in records if record["split"] == "run"]
    assert rates == [0.004, 0.004, 0.0025, 0.0025]
    assert (run / "samples" / "reals.png").exists()
    inputs = json.loads((run / "inputs.json").read_text())
    assert inputs["train_data"]["images"] == 20


@pytest.mark.slow
def test_what_a_run_leaves_is_sampled_shown_filmed_and_ranked(run, sets, tmp_path):
    from scripts import figures, inspect_generator, rank_images, sample, video

    (snapshot,) = (run / "snapshots").glob("network_000000.024.pdparams")
    chosen = ["--checkpoint_path", str(snapshot), "--exp_dir", str(tmp_path), "--device", DEVICE]
    for psi in (1.2, 0.7, 0.5, 0, -0.7):
        folder = [*chosen[:3], str(tmp_path / f"psi{psi}"), *chosen[4:], "--seeds", "0-1"]
        words = ["--names", "example", "--noise", "random", f"--truncation={psi}"]
        assert sample.main([*folder, *words]) == 0
        assert (tmp_path / f"psi{psi}" / "samples" / "example-1.png").exists()
    shown = ["--figures", "truncation,mixing", "--truncation_seeds", "91,388-390"]
    assert figures.main([*chosen, *shown]) == 0
    for preset in ("random_grid_404", "interpolate", "fine_503"):
        short = ["--preset", preset, "--duration", "4", "--fps", "2", "--style_ranges", "2-"]
        assert video.main([*chosen, *short]) == 0
        assert (tmp_path / "videos" / f"{preset}.mp4").exists()
    assert video.main(["--grids", str(run / "samples"), "--exp_dir", str(tmp_path)]) == 0
    assert (tmp_path / "videos" / "training.mp4").exists()
    assert inspect_generator.main([*chosen, "--layers"]) == 0
    judge = next((run / "checkpoints").glob("iteration_*.pdparams"))
    words = ["--data_path", f"{sets}/faces.zip", "--checkpoint_path", str(judge)]
    words += ["--drop_percent", "20", "--exp_dir", str(tmp_path / "ranked"), "--device", DEVICE]
    assert rank_images.main(words) == 0
    assert len((tmp_path / "ranked" / "ranking.csv").read_text().splitlines()) == 11


@pytest.mark.slow
def test_a_transfer_starts_from_what_a_run_leaves(run, sets, tmp_path):
    """Trained on with another set: the first grid must look like the old model."""
    import numpy as np

    from paddle_sam.core.images import read_image
    from scripts import train_stylegan2

    judge = next((run / "checkpoints").glob("iteration_*.pdparams"))
    words = f"--train_data {sets}/cartoons.zip --init_from {judge} --freeze_d 1 --resolution 16"
    words += (
        f" --device {DEVICE} --exp_dir {tmp_path}/few --batch_size 4 --mbstd_group 2 --g_lr 0.0001"
    )
    words += " --d_lr 0.0001 --num_workers 0 --snapshot_kimg 0.004 --total_kimg 0.004"
    assert train_stylegan2.main(words.split()) == 0
    grids = [sorted((folder / "samples").glob("fakes_*"))[-1] for folder in (run, tmp_path / "few")]
    old, new = (read_image(grid).astype(int) for grid in grids)
    assert np.abs(old - new).mean() < 8
