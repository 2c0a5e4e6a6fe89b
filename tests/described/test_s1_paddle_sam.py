"""S1, the README of the first Paddle port: training, testing and viewing as it prints them."""

import importlib

import numpy as np
import pytest

from tests import DEVICE, ROOT
from tests.described import understood

TRAIN = """--dataset_type=ffhq_aging --exp_dir=exp/test --workers=0 --test_workers=0 --batch_size=6
    --test_batch_size=6 --start_from_encoded_w_plus --use_weighted_id_loss --input_nc=4
    --target_age=uniform_random --val_interval=2500 --save_interval=5000 --id_lambda=0.1
    --lpips_lambda=0.1 --lpips_lambda_aging=0.1 --lpips_lambda_crop=0.6 --l2_lambda=0.25
    --l2_lambda_aging=0.25 --l2_lambda_crop=1 --w_norm_lambda=0.005 --aging_lambda=5
    --cycle_lambda=1"""


def test_the_training_command_means_what_its_table_says(capsys):
    options = understood("train", TRAIN.split(), capsys)
    assert (options["start_from_encoded_w_plus"], options["use_weighted_id_loss"]) == (True, True)
    described = {"learning_rate": 1e-4, "optim_name": "ranger", "max_steps": 500_000}
    described |= {"image_interval": 100, "board_interval": 50, "output_size": 1024, "label_nc": 0}
    described |= {"train_decoder": False, "start_from_latent_avg": False}
    assert {name: options[name] for name in described} == described


def test_the_preset_paper_is_that_command(capsys):
    named = understood("train", TRAIN.split(), capsys)
    preset = understood("train", ["--preset", "paper", "--exp_dir=exp/test"], capsys)
    differs = {name for name in named if named[name] != preset[name]}
    assert differs == {"workers", "test_workers"}  # processes, which change no result


def test_the_test_command_is_understood(capsys):
    words = "--exp_dir=exp/test --checkpoint_path=exp/model.pdparams --data_path=CelebA_test"
    words += " --test_batch_size=4 --test_workers=0 --target_age=0,10,20,30,40,50,60,70,80,90,100"
    options = understood("inference_side_by_side", words.split(), capsys)
    assert options["data_path"] == "CelebA_test"


def test_it_has_five_faces_to_run_on():
    from paddle_sam.core.folders import list_images

    assert len(list_images(ROOT / "CelebA_test")) >= 5


def test_nothing_has_to_be_compiled(capsys):
    assert importlib.import_module("scripts.compile_ranger").main([]) == 0
    assert "Nothing has to be compiled" in capsys.readouterr().out


def test_a_fresh_clone_has_curves_to_view():
    """`log/` ships a record that VisualDL reads, beside the described `timestamp.txt`."""
    from visualdl import LogReader

    from paddle_sam.training.curves import find_runs

    folder = ROOT / "log" / "five_faces"
    assert folder in find_runs(ROOT / "log", "visualdl")
    reader = LogReader(file_path=str(folder / "visualdl" / "vdlrecords.run.log"))
    losses = reader.get_data("scalar", "train/loss")
    assert [one.id for one in losses] == list(range(1, 61))
    assert len(reader.get_data("scalar", "test/loss")) == 3
    assert "**Best**: Step - 20" in (folder / "timestamp.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("face", sorted(path.stem for path in (ROOT / "CelebA_test").glob("*.jpg")))
def test_strips_in_torch_and_here_are_shown_side_by_side(face):
    from paddle_sam.core.images import read_image

    folder = ROOT / "examples" / "torch_and_paddle"
    in_torch, here = (read_image(folder / f"{face}_{one}.jpg") for one in ("torch", "paddle"))
    assert in_torch.shape[1] == 12 * 96  # the input, and ages 0, 10, ..., 100
    assert np.abs(in_torch.astype(int) - here).max() <= 8  # a level of 255, and JPEG
    assert f"{face}_torch.jpg" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_torch_side_is_the_same_network():
    """One face at one age by the reference's arithmetic in PyTorch, and by the pipeline."""
    torch = pytest.importorskip("torch")
    from benchmarks.naive import NaiveSAM, torch_ops
    from paddle_sam import AgePipeline
    from paddle_sam.core.images import read_image, to_network, to_uint8
    from paddle_sam.core.weights import find_weight
    from paddle_sam.networks.load import load

    pipeline = AgePipeline.from_checkpoint(device=DEVICE, raw_age=True, engine="eager")
    (face,) = pipeline.faces(read_image(ROOT / "CelebA_test" / "generated_9.jpg"), align=False)
    in_torch = NaiveSAM(load(find_weight("sam_mini"), device=DEVICE), torch_ops())
    with torch.no_grad():
        there = in_torch(torch.from_numpy(to_network(face.image[None])), 60).numpy()
    here = pipeline.age(face.image[None], [60])[0]
    assert np.abs(here.astype(int) - to_uint8(there)).max() <= 1


@pytest.mark.slow
def test_the_test_command_runs_as_printed(tmp_path, monkeypatch):
    """On the shipped faces; without `--checkpoint_path`, as the published weights are not here."""
    from scripts import inference_side_by_side

    monkeypatch.chdir(ROOT)
    words = f"--exp_dir={tmp_path} --data_path=CelebA_test --test_batch_size=4 --test_workers=0"
    words += " --target_age=0,10,20,30,40,50,60,70,80,90,100"
    assert inference_side_by_side.main(words.split()) == 0
    assert len(list((tmp_path / "inference_side_by_side").iterdir())) == 5


@pytest.mark.slow
def test_training_then_testing_as_printed(tmp_path, monkeypatch):
    """The printed command on tiny networks, and the strips of what it trained."""
    import json

    from scripts import inference_side_by_side, train
    from tests.unit.training import tiny

    tiny.write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    sets = {"ffhq_aging": {split: str(tmp_path / split) for split in ("train", "test")}}
    (tmp_path / "datasets.json").write_text(json.dumps(sets))
    words = f"{TRAIN} --pretrained_psp_path=psp.pdparams --stylegan_weights=stylegan2.pdparams"
    words += " --ir_se50_path=ir_se50.pdparams --age_regressor_path=age.pdparams"
    words += f" --lpips_path=lpips.npz --datasets=datasets.json --output_size=32 --device={DEVICE}"
    words += " --encoder_start=psp --max_steps=1"
    assert train.main(words.split()) == 0
    records = (tmp_path / "exp" / "test" / "stats.jsonl").read_text().splitlines()
    losses = next(one for one in map(json.loads, records) if one["split"] == "test")
    assert np.isfinite(losses["loss"])
    assert (tmp_path / "exp" / "test" / "timestamp.txt").exists()
    words = "--exp_dir=exp/test --checkpoint_path=exp/test/checkpoints/best_model.pdparams"
    words += f" --data_path={ROOT / 'CelebA_test'} --test_batch_size=4 --test_workers=0"
    words += " --target_age=0,10,20,30,40,50,60,70,80,90,100"
    assert inference_side_by_side.main(words.split()) == 0
    assert len(list((tmp_path / "exp" / "test" / "inference_side_by_side").iterdir())) == 5
