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


@pytest.mark.slow
def test_training_sampling_and_evaluation_follow_each_other(tmp_path, capsys):
    """The commands for animals, in their form, at 32 px: three domains, two steps."""
    import json

    import numpy as np

    from paddle_sam.core.images import save_image
    from paddle_sam.networks.image_features import LPIPS
    from scripts.stargan2 import main

    rng = np.random.default_rng(0)
    for place in ("train", "val", "src", "ref"):
        for domain in ("cat", "dog", "wild"):
            for index in range(4 if place == "train" else 1):
                coarse = rng.integers(0, 256, (4, 4, 3))
                image = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
                save_image(tmp_path / place / domain / f"{index}.png", image)
    lpips = {name: np.abs(value.numpy()) for name, value in LPIPS("alex").state_dict().items()}
    np.savez(tmp_path / "lpips.npz", **lpips)
    run = tmp_path / "run"
    words = "--mode train --num_domains 3 --w_hpf 0 --lambda_reg 1 --lambda_sty 1 --lambda_ds 2"
    words += f" --lambda_cyc 1 --train_img_dir {tmp_path}/train --val_img_dir {tmp_path}/val"
    words += " --img_size 32 --batch_size 2 --total_iters 2 --save_every 1 --print_every 1"
    words += " --latent_dim 4 --hidden_dim 8 --style_dim 4 --base_dim 4 --max_conv_dim 8"
    words += " --num_workers 0"
    words += f" --no_fid --lpips_path {tmp_path}/lpips.npz --device cpu --exp_dir {run}"
    assert main(words.split()) == 0
    used = f"--num_domains 3 --w_hpf 0 --resume_iter 2 --checkpoint_dir {run}/checkpoints"
    words = f"--mode sample {used} --result_dir {tmp_path}/out --src_dir {tmp_path}/src"
    words += f" --ref_dir {tmp_path}/ref --series 1,2 --video_steps 2 --device cpu"
    assert main(words.split()) == 0
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"reference.jpg", "video_ref.mp4", "series.jpg"} <= made, made
    words = f"--mode eval {used} --train_img_dir {tmp_path}/train --val_img_dir {tmp_path}/val"
    words += f" --eval_dir {tmp_path}/eval --num_outs_per_domain 2 --no_fid --device cpu"
    words += f" --lpips_path {tmp_path}/lpips.npz --cache_dir {tmp_path}/cache"
    assert main([*words.split(), "--output", str(tmp_path / "eval.json")]) == 0
    found = json.loads((tmp_path / "eval.json").read_text())
    assert set(found["latent"]["LPIPS"]) >= {"cat2dog", "wild2cat", "mean"}
    assert found["seconds"] > 0
