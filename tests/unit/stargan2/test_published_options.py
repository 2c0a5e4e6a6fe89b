"""The published StarGAN v2 command line, mode by mode: every option works or says where it went."""

import pytest

from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.metrics.options import StarGAN2EvaluationOptions
from paddle_sam.options import parse
from paddle_sam.stargan2.options import StarGAN2Options
from paddle_sam.stargan2.translate_options import AlignOptions, SampleOptions, elsewhere

_NAMES = """
    img_size num_domains latent_dim hidden_dim style_dim lambda_reg lambda_cyc lambda_sty lambda_ds
    ds_iter w_hpf randcrop_prob total_iters resume_iter batch_size val_batch_size lr f_lr beta1
    beta2 weight_decay num_outs_per_domain mode num_workers seed train_img_dir val_img_dir
    sample_dir checkpoint_dir eval_dir result_dir src_dir ref_dir inp_dir out_dir wing_path lm_path
    print_every sample_every save_every eval_every
"""
PUBLISHED = _NAMES.split()
MODES = {
    "train": StarGAN2Options,
    "sample": SampleOptions,
    "eval": StarGAN2EvaluationOptions,
    "align": AlignOptions,
}


def read(mode, *argv):
    return parse(MODES[mode], argv, "", refused=elsewhere(MODES[mode], mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_option_is_known(mode, name):
    values = {"mode": mode, "img_size": "64", "num_outs_per_domain": "2", "beta1": "0"}
    value = (values | {"beta2": "0"}).get(name, "1")
    try:
        config = read(mode, f"--{name}", value)
    except ConfigError as error:
        assert str(error).startswith(f"--{name}: ") and len(str(error)) > len(name) + 20
    else:
        assert str(getattr(config, name)) in (value, f"{value}.0")


def test_the_published_command_lines_work():
    given = (
        "--mode train --num_domains 3 --w_hpf 0 --lambda_reg 1 --lambda_sty 1 --lambda_ds 2"
        " --lambda_cyc 1 --train_img_dir a --val_img_dir b"
    )
    config = read("train", *given.split())
    assert (config.num_domains, config.lambda_ds, config.train_img_dir) == (3, 2.0, "a")
    given = (
        "--mode sample --num_domains 2 --resume_iter 100000 --w_hpf 1 --checkpoint_dir c"
        " --result_dir r --src_dir s --ref_dir t"
    )
    read("sample", *given.split()).expect(2, 1.0)
    given = (
        "--mode eval --num_domains 3 --w_hpf 0 --resume_iter 100000 --train_img_dir a"
        " --val_img_dir b --checkpoint_dir c --eval_dir e"
    )
    read("eval", *given.split()).expect(3, 0.0)
    read("align", *"--mode align --inp_dir a --out_dir b".split())  # noqa: SIM905
    with pytest.raises(ConfigError, match="--mode: this script does train, found 'sample'; use py"):
        read("train", "--mode", "sample")


def test_refusals_come_together():
    with pytest.raises(ConfigError, match="--lambda_ds: belongs to .*; --inp_dir: belongs to"):
        read("sample", "--inp_dir", "x", "--lambda_ds", "1")
    with pytest.raises(ConfigError, match="--sample_dir: pictures of a training run are kept in"):
        read("train", "--sample_dir", "x")


def test_a_step_names_a_converted_or_own_checkpoint(tmp_path):
    def file(step):
        return read("sample", "--checkpoint_dir", str(tmp_path), "--resume_iter", str(step))

    for name in ("iteration_20.pdparams", "000300_nets_ema.pdparams", "4000_nets_ema.pdparams"):
        (tmp_path / name).touch()
        step = int(name.removeprefix("iteration_").split(".")[0].split("_")[0])
        assert file(step).weight_file() == tmp_path / name
    with pytest.raises(CheckpointError, match="--resume_iter: .* has no iteration_7 or 000007_ne"):
        file(7).weight_file()
    with pytest.raises(ConfigError, match="--checkpoint_path: name a StarGAN v2 weight file"):
        read("sample").weight_file()
    assert read("eval", "--checkpoint_path", "x").weight_file().name == "x"


def test_weights_of_another_kind_are_refused(tmp_path):
    given = ["--checkpoint_path", "x", "--num_domains", "3", "--w_hpf", "0"]
    read("eval", *given).expect(3, 0.0)
    with pytest.raises(ConfigError, match="--num_domains: x has 2, not 3"):
        read("eval", *given).expect(2, 0.0)
    with pytest.raises(ConfigError, match="--w_hpf: x has 1, not 0"):
        read("eval", *given).expect(3, 1.0)
