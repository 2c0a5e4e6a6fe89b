"""S3, the StarGAN v2 report: the four modes as it calls them, and its settings as a preset."""

import pytest

from tests.described import understood

FACES = "--num_domains 2 --w_hpf 1"
TRAIN = f"--mode train {FACES} --lambda_reg 1 --lambda_sty 1 --lambda_ds 1 --lambda_cyc 1"


@pytest.mark.parametrize(
    "words",
    [
        f"{TRAIN} --train_img_dir data/celeba_hq/train --val_img_dir data/celeba_hq/val",
        "--mode align --inp_dir assets/representative/custom/female"
        " --out_dir assets/representative/celeba_hq/src/female",
        f"--mode sample {FACES} --resume_iter 100000 --checkpoint_dir expr/checkpoints/celeba_hq"
        " --result_dir expr/results/celeba_hq --src_dir assets/src --ref_dir assets/ref",
        "--mode sample --num_domains 3 --resume_iter 100000 --w_hpf 0"
        " --checkpoint_dir expr/checkpoints/afhq --result_dir expr/results/afhq"
        " --src_dir assets/src --ref_dir assets/ref",
        f"--mode eval {FACES} --resume_iter 100000 --train_img_dir data/celeba_hq/train"
        " --val_img_dir data/celeba_hq/val --checkpoint_dir expr/checkpoints/celeba_hq"
        " --eval_dir expr/eval/celeba_hq",
    ],
)
def test_a_described_command_is_understood(words, capsys):
    options = understood("stargan2", words.split(), capsys)
    assert options["mode"] == words.split()[1]


def test_the_reports_settings_are_a_preset(capsys):
    options = understood("stargan2", ["--mode", "train", "--preset", "report"], capsys)
    described = {"total_iters": 500_000, "ds_iter": 500_000, "batch_size": 4, "save_every": 5000}
    assert {name: options[name] for name in described} == described


def test_afhq_has_no_high_pass_filter(capsys):
    options = understood("stargan2", ["--mode", "train", "--preset", "afhq"], capsys)
    assert (options["num_domains"], options["w_hpf"], options["lambda_ds"]) == (3, 0.0, 2.0)
