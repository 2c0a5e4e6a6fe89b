"""The published StarGAN v2 command line: every option is accepted in every mode."""

import pytest

from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.stargan2.options import read_command_line

# Every option of the published command, with a value.
_COMMAND_LINE = """
    --img_size 64 --num_domains 3 --latent_dim 8 --hidden_dim 32 --style_dim 16 --lambda_reg 2
    --lambda_cyc 2 --lambda_sty 2 --lambda_ds 2 --ds_iter 7 --w_hpf 0 --randcrop_prob 0.25
    --total_iters 7 --resume_iter 7 --batch_size 7 --val_batch_size 7 --lr 0.5 --f_lr 0.5
    --beta1 0.5 --beta2 0.5 --weight_decay 0.5 --num_outs_per_domain 7 --num_workers 7 --seed 7
    --train_img_dir a --val_img_dir b --sample_dir c --checkpoint_dir d --eval_dir e
    --result_dir f --src_dir g --ref_dir h --inp_dir i --out_dir j --wing_path k --lm_path l
    --print_every 7 --sample_every 7 --save_every 7 --eval_every 7
"""
PUBLISHED = _COMMAND_LINE.split()
UNUSED = {
    "train": {"sample_dir", "checkpoint_dir", "eval_dir", "result_dir", "src_dir", "ref_dir"}
    | {"inp_dir", "out_dir", "lm_path"},
    "sample": {"hidden_dim", "lambda_ds", "train_img_dir", "eval_dir", "inp_dir", "lr"},
    "eval": {"hidden_dim", "result_dir", "total_iters", "src_dir", "out_dir", "num_workers"},
    "align": {"num_domains", "seed", "checkpoint_dir", "train_img_dir", "beta1", "eval_every"},
}


def read(mode, *argv):
    return read_command_line(["--mode", mode, *argv], "")


@pytest.mark.parametrize("mode", UNUSED)
def test_every_published_option_is_accepted_and_used_or_named(mode, capsys):
    config = read(mode, *PUBLISHED)
    note = capsys.readouterr().err
    named = {word.strip(",;\n").removeprefix("--") for word in note.split() if word[:2] == "--"}
    named -= {"mode", "exp_dir"}
    assert UNUSED[mode] <= named
    for flag, value in zip(PUBLISHED[::2], PUBLISHED[1::2], strict=True):
        name = flag.removeprefix("--")
        if name not in named:
            assert str(getattr(config, name)) in (value, f"{value}.0"), name


def test_published_command_lines_work(capsys):
    given = "--num_domains 3 --w_hpf 0 --lambda_ds 2 --train_img_dir a --val_img_dir b"
    config = read("train", *given.split())
    assert (config.num_domains, config.lambda_ds, config.train_img_dir) == (3, 2.0, "a")
    given = "--num_domains 2 --resume_iter 100000 --w_hpf 1 --checkpoint_dir c --src_dir s"
    read("sample", *given.split()).expect_numbers("x", {"num_domains": 2, "w_hpf": 1.0})
    assert read("align", "--inp_dir", "a", "--out_dir", "b").out_dir == "b"
    assert capsys.readouterr().err == ""


def test_a_mode_is_needed_and_presets_belong_to_training(capsys):
    with pytest.raises(ConfigError, match="mode: .*train, sample, eval, align, found none"):
        read_command_line(["--num_domains", "2"], "")
    with pytest.raises(SystemExit) as stopped:
        read_command_line(["--help"], "what it does")
    assert stopped.value.code == 0 and "what it does" in capsys.readouterr().out
    assert read("train", "--preset", "afhq").num_domains == 3
    for argv in (["sample", "--preset", "afhq"], ["align", "--psi", "1"], ["train", "--psi", "1"]):
        with pytest.raises(SystemExit):
            read(*argv)
        assert argv[1] in capsys.readouterr().err


def test_a_step_names_a_converted_or_own_checkpoint(tmp_path):
    def file(step):
        return read("sample", "--checkpoint_dir", str(tmp_path), "--resume_iter", str(step))

    for name in ("iteration_20.pdparams", "000300_nets_ema.pdparams", "4000_nets_ema.pdparams"):
        (tmp_path / name).touch()
        step = int(name.removeprefix("iteration_").split(".")[0].split("_")[0])
        assert file(step).weight_file() == tmp_path / name
    with pytest.raises(CheckpointError, match="resume_iter: .* iteration_7 or 000007_nets_ema"):
        file(7).weight_file()
    with pytest.raises(ConfigError, match="checkpoint_path: name"):
        read("sample").weight_file()
    assert read("eval", "--checkpoint_path", "x").weight_file().name == "x"


def test_weights_of_other_numbers_are_refused():
    given = ["--checkpoint_path", "x", "--num_domains", "3", "--w_hpf", "0"]
    read("eval", *given).expect_numbers("x", {"num_domains": 3, "w_hpf": 0.0, "img_size": 256})
    with pytest.raises(ConfigError, match="num_domains: x has 2, not 3"):
        read("eval", *given).expect_numbers("x", {"num_domains": 2, "w_hpf": 0.0})
    with pytest.raises(ConfigError, match="w_hpf: x has 1, not 0"):
        read("eval", *given).expect_numbers("x", {"num_domains": 3, "w_hpf": 1.0})
    with pytest.raises(ConfigError, match="img_size: x has 256, not 64"):
        read("sample", "--checkpoint_path", "x", "--img_size", "64").expect_numbers(
            "x", {"img_size": 256}
        )
