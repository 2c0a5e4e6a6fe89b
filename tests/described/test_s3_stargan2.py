"""S3, the StarGAN v2 report: the four modes as it calls them, and its settings as a preset."""

import pytest

from tests import DEVICE
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


@pytest.fixture
def lpips(tmp_path):
    """Weights of LPIPS with random contents."""
    import numpy as np

    from paddle_sam.networks.image_features import LPIPS

    state = LPIPS("alex").state_dict()
    np.savez(tmp_path / "lpips.npz", **{name: np.abs(a.numpy()) for name, a in state.items()})
    return tmp_path / "lpips.npz"


def pictures(root, domains):
    """Folders train, val, src and ref of pictures of 32 px in domains."""
    import numpy as np

    from paddle_sam.core.images import save_image

    rng = np.random.default_rng(0)
    for place in ("train", "val", "src", "ref"):
        for domain in domains:
            for index in range(4 if place == "train" else 1):
                coarse = rng.integers(0, 256, (4, 4, 3))
                image = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
                save_image(root / place / domain / f"{index}.png", image)


SMALL = f"""--img_size 32 --batch_size 2 --total_iters 2 --save_every 1 --print_every 1
    --latent_dim 4 --hidden_dim 8 --style_dim 4 --base_dim 4 --max_conv_dim 8 --num_workers 0
    --no_fid --device {DEVICE}"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["animals", "faces"])
def test_training_sampling_and_evaluation_follow_each_other(kind, lpips, tmp_path):
    """The commands for animals and for faces, in their form, at 32 px: two steps."""
    import json

    from paddle_sam.core.weights import NetworkEntry, WeightFile
    from paddle_sam.networks.face_heatmaps import FaceHeatmaps
    from scripts.stargan2 import main

    domains = ("cat", "dog", "wild") if kind == "animals" else ("female", "male")
    pictures(tmp_path, domains)
    losses = "--lambda_reg 1 --lambda_sty 1 --lambda_ds 1 --lambda_cyc 1"
    which = f"--num_domains {len(domains)} --w_hpf {0 if kind == 'animals' else 1}"
    if kind == "faces":
        entry = NetworkEntry.of("face_heatmaps", {"channels": 8}, FaceHeatmaps(channels=8))
        WeightFile("face_heatmaps", {"face_heatmaps": entry}).write(tmp_path / "wing.pdparams")
        which += f" --wing_path {tmp_path}/wing.pdparams"
    run = tmp_path / "run"
    folders = f"--train_img_dir {tmp_path}/train --val_img_dir {tmp_path}/val"
    words = f"--mode train {which} {losses} {folders} {SMALL} --lpips_path {lpips}"
    assert main([*words.split(), "--exp_dir", str(run)]) == 0
    used = f"{which} --resume_iter 2 --checkpoint_dir {run}/checkpoints --device {DEVICE}"
    words = f"--mode sample {used} --result_dir {tmp_path}/out --src_dir {tmp_path}/src"
    words += f" --ref_dir {tmp_path}/ref --series 1,2 --video_steps 2"
    assert main(words.split()) == 0
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"reference.jpg", "video_ref.mp4", "series.jpg"} <= made, made
    words = f"--mode eval {used} {folders} --eval_dir {tmp_path}/eval --num_outs_per_domain 2"
    words += f" --no_fid --lpips_path {lpips} --cache_dir {tmp_path}/cache"
    assert main([*words.split(), "--output", str(tmp_path / "eval.json")]) == 0
    found = json.loads((tmp_path / "eval.json").read_text())
    assert set(found["latent"]["LPIPS"]) >= {f"{domains[0]}2{domains[1]}", "mean"}
    assert found["seconds"] > 0


def test_photographs_are_aligned(tmp_path, monkeypatch):
    """As printed; an untrained network finds nothing, so the face is said to be in the middle."""
    import numpy as np

    from paddle_sam.core.images import read_image, save_image
    from paddle_sam.core.weights import NetworkEntry, WeightFile
    from paddle_sam.networks.face_heatmaps import FaceHeatmaps
    from scripts.stargan2 import main

    points = np.random.default_rng(0).uniform(70, 190, (98, 2))
    points[[*range(60, 68), 96]], points[[*range(68, 76), 97]] = [95, 110], [160, 112]
    points[76], points[82] = [102, 180], [152, 181]
    monkeypatch.setattr(FaceHeatmaps, "landmarks", lambda self, images: points[None])
    entry = NetworkEntry.of("face_heatmaps", {"channels": 8}, FaceHeatmaps(channels=8))
    weights = tmp_path / "pretrained_models"
    WeightFile("face_heatmaps", {"face_heatmaps": entry}).write(weights / "wing.pdparams")
    np.savez(weights / "celeba_lm_mean.npz", mean=points)
    monkeypatch.chdir(tmp_path)
    photo = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 256, 3))
    save_image(tmp_path / "assets" / "custom" / "female" / "one.png", photo)
    words = "--mode align --inp_dir assets/custom/female --out_dir assets/src/female"
    words += f" --device {DEVICE}"
    assert main(words.split()) == 0
    (crop,) = (tmp_path / "assets" / "src" / "female").iterdir()
    assert np.abs(read_image(crop).astype(int) - photo)[4:-4, 4:-4].max() <= 3
