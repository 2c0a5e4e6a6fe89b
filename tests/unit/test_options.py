import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from paddle_sam import options as base
from paddle_sam.ageing.options import SideBySideOptions, parse_ages
from paddle_sam.ageing.train.options import SAMOptions, data_folders
from paddle_sam.core.command import command, parse
from paddle_sam.demo.options import DemoOptions
from paddle_sam.errors import ConfigError
from paddle_sam.stylegan2.options import VideosOptions
from paddle_sam.stylegan2.parsing import parse_grid, parse_seeds
from paddle_sam.stylegan2.train.options import StyleGAN2Options

PUBLISHED = shlex.split("""--dataset_type=ffhq_aging --exp_dir=exp/test --workers=0 --test_workers=0
    --batch_size=6 --test_batch_size=6 --start_from_encoded_w_plus --use_weighted_id_loss
    --input_nc=4 --target_age=uniform_random --val_interval=2500 --save_interval=10000
    --id_lambda=0.1 --lpips_lambda=0.1 --lpips_lambda_aging=0.1 --lpips_lambda_crop=0.6
    --l2_lambda=0.25 --l2_lambda_aging=0.25 --l2_lambda_crop=1 --w_norm_lambda=0.005
    --aging_lambda=5 --cycle_lambda=1 --optim_name=ranger --learning_rate=0.0001
    --output_size=1024 --image_interval=100 --board_interval=50 --max_steps=500000
    --pretrained_psp_path=psp.pt --stylegan_weights=stylegan2.pt --checkpoint_path=sam.pt
    --train_decoder""")


def _parse(*argv):
    return parse(SAMOptions, argv, "training")


def test_takes_the_published_command_line():
    config = _parse(*PUBLISHED)
    assert config.start == "encoded_w_plus"
    assert config.l2_lambda_crop == 1.0
    assert config.save_interval == 10000
    assert config.train_decoder
    assert (config.target_age, config.optim_name) == ("uniform_random", "ranger")


def test_preset_fills_what_is_left_open():
    config = _parse("--preset", "mini", "--batch_size", "3")
    assert (config.batch_size, config.output_size, config.start) == (3, 64, "encoded_w_plus")
    assert _parse().start == "zero"
    assert not _parse("--preset", "paper", "--no-use_weighted_id_loss").use_weighted_id_loss


def test_the_task_has_defaults_of_its_own():
    config = _parse("--task", "psp", "--preset", "mini")
    assert (config.input_nc, config.start, config.aging_lambda) == (3, "latent_avg", 0.0)
    assert config.output_size == 64
    paper = _parse("--task", "psp", "--preset", "paper")
    assert (paper.l2_lambda, paper.lpips_lambda, paper.id_lambda) == (1.0, 0.8, 0.1)
    assert (paper.w_norm_lambda, paper.batch_size) == (0.0, 8)


def test_json_round_trip(tmp_path):
    config = _parse("--preset", "paper", "--seed", "7")
    path = tmp_path / "opt.json"
    path.write_text(base.to_json(config))
    assert base.read_json(SAMOptions, path) == config
    assert list(json.loads(path.read_text())) == [f.name for f in dataclasses.fields(SAMOptions)]


def test_dry_run_prints_the_options_and_ends(capsys):
    with pytest.raises(SystemExit) as ended:
        _parse("--dry_run", "--seed", "7")
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7


@pytest.mark.parametrize(
    "values, message",
    [
        ({"batch_sise": 3}, "batch_sise: there is no such option; did you mean batch_size?"),
        ({"batch_size": 0}, "batch_size: expected at least 1, found 0"),
        ({"batch_size": "6"}, "batch_size: expected int, found '6'"),
        ({"batch_size": True}, "batch_size: expected int, found True"),
        ({"optim_name": "sgd"}, "optim_name: expected one of ranger, adam, found 'sgd'"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a finite number"),
        ({"target_age": "old"}, "target_age: expected uniform_random or ages"),
        ({"target_age": "0,101"}, "target_age: expected uniform_random or ages"),
        ({"label_nc": 19}, "label_nc: label maps are not part of SAM"),
        ({"input_nc": 3}, "input_nc: sam takes 4 channels.*found 3"),
        ({"input_nc": 1}, "input_nc: .*found 1; leave it out: grey pictures are read as RGB"),
        (
            {"start_from_encoded_w_plus": True, "start_from_latent_avg": True},
            "these exclude each other",
        ),
        (
            {"task": "psp", "input_nc": 3, "start_from_encoded_w_plus": True},
            "pSp starts from the mean latent",
        ),
    ],
)
def test_refuses_values_that_cannot_work(values, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        SAMOptions(**values)


@pytest.mark.parametrize(
    ("made", "name", "found"),
    [
        (lambda: SAMOptions(batch_size=-3), "batch_size", "-3"),
        (lambda: SAMOptions(optim_name="sgd"), "optim_name", "'sgd'"),
        (lambda: SAMOptions(learning_rate="x"), "learning_rate", "'x'"),
        (lambda: StyleGAN2Options(r1_gamma=float("nan")), "r1_gamma", "nan"),
        (lambda: StyleGAN2Options(resolution="x"), "resolution", "'x'"),
        (lambda: StyleGAN2Options(preset="tiny"), "preset", "'tiny'"),
        (lambda: StyleGAN2Options(style_mixing=1.5), "style_mixing", "1.5"),
        (lambda: DemoOptions(port=70000), "port", "70000"),
        (lambda: SideBySideOptions(feather=0), "feather", "0.0"),
        (lambda: dataclasses.replace(SAMOptions(), batch_size=0), "batch_size", "0"),
    ],
)
def test_what_cannot_work_fails_in_python_too(made, name, found):
    with pytest.raises(ValueError, match=f"^{name}: .*found {re.escape(found)}") as caught:
        made()
    assert isinstance(caught.value, ConfigError)


def test_rules_by_resolution_and_presets_hold_in_python():
    given = ["--resolution", "512"]
    assert StyleGAN2Options(resolution=512) == parse(StyleGAN2Options, given, "")
    assert StyleGAN2Options(resolution=512).r1_gamma == 0.0002 * 512**2 / 8
    assert StyleGAN2Options(resolution=512, r1_gamma=3).r1_gamma == 3.0
    assert SAMOptions(task="psp").input_nc == 3
    assert SAMOptions(preset="mini") == _parse("--preset", "mini")


def test_numbers_of_numpy_and_paths_are_taken():
    options = SAMOptions(batch_size=np.int64(3), learning_rate=np.float32(0.5), exp_dir=Path("a"))
    assert (options.batch_size, options.learning_rate, options.exp_dir) == (3, 0.5, "a")
    assert json.loads(base.to_json(options))["batch_size"] == 3


def test_an_option_is_named_as_argument_in_python_and_as_flag_by_a_command(capsys):
    error = ConfigError("--size: 3; give --crop, or run python scripts/x.py --list")
    assert str(error) == "size: 3; give crop, or run python scripts/x.py --list"
    assert command(lambda argv: SAMOptions(batch_size=-3))() == 2
    assert capsys.readouterr().err == "error: --batch_size: expected at least 1, found -3\n"


def test_an_empty_value_is_refused(capsys):
    with pytest.raises(ConfigError, match="train_data: found an empty value"):
        _parse("--train_data", "")
    assert parse(StyleGAN2Options, ["--preset", "mini", "--stages="], "").stages == ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--batch_sise", "3"], "--batch_sise; did you mean --batch_size?"),
        (["--batch_size", "many"], "--batch_size: expected a whole number, found 'many'"),
        (["--batch_size", "9" * 5000], "--batch_size: expected a whole number, found '999"),
        (["--l2_lambda", "x" * 5000], "--l2_lambda: expected a number, found 'xxx"),
        (["--train_data", "a.jpg", "b.jpg", "c.jpg"], "b.jpg c.jpg (a pattern such as *.jpg"),
        (["--optim_name", "sgd"], "--optim_name"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line(given, words, capsys):
    with pytest.raises(SystemExit) as ended:
        _parse(*given)
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert shown.startswith("error: ") and shown.count("\n") == 1 and len(shown) < 400
    assert words in shown


def test_the_home_folder_is_found_after_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    options = _parse("--exp_dir=~/runs", "--train_data=~/a,~/b", "--test_data=~x/y")
    assert (options.exp_dir, options.train_data) == ("/home/me/runs", "/home/me/a,/home/me/b")
    assert options.test_data == "~x/y"


def test_without_a_home_folder_nothing_breaks(monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert _parse("--exp_dir=~/runs").exp_dir == "~/runs"


def test_an_option_that_was_not_given_is_not_blamed_alone():
    given = ["--preset", "mini", "--resolution", "16"]
    with pytest.raises(ConfigError, match="stages: .*stages, not given, is '16:9,32:22'"):
        parse(StyleGAN2Options, given, "")
    with pytest.raises(ConfigError) as caught:
        parse(StyleGAN2Options, [*given, "--stages", "16:9"], "")
    assert "not given" not in str(caught.value)


@pytest.mark.parametrize(
    ("made", "name", "most"),
    [
        (lambda: SAMOptions(batch_size=10**6), "batch_size", 4096),
        (lambda: SAMOptions(workers=10**6), "workers", 1024),
        (lambda: SideBySideOptions(tile_size=10**6), "tile_size", 4096),
        (lambda: VideosOptions(fps=10**6), "fps", 240),
        (lambda: VideosOptions(duration=10**6), "duration", 3600),
        (lambda: StyleGAN2Options(resolution=2**20), "resolution", 8192),
    ],
)
def test_slips_of_the_keyboard_do_not_fill_the_memory(made, name, most):
    with pytest.raises(ConfigError, match=f"{name}: expected at most {most}, found"):
        made()


@pytest.mark.parametrize(
    "read",
    [
        lambda text: parse_ages(text),
        lambda text: parse_ages(f"0-{text}"),
        lambda text: base.parse_codes(text, 10, "--latent_mask"),
        lambda text: base.parse_numbers(text + "x", "--psis"),
        lambda text: parse_seeds(text),
        lambda text: parse_grid(f"{text}x2"),
        lambda text: StyleGAN2Options(resume=text),
        lambda text: VideosOptions(bitrate=text).bits_per_second,
        lambda text: SAMOptions(target_age=text),
        lambda text: parse_ages("0.5," * 600 + ",".join(f"{k / 10}" for k in range(600))),
    ],
)
def test_numbers_of_5000_digits_are_refused_in_a_line(read):
    with pytest.raises(ConfigError) as caught:
        read("9" * 5000)
    assert len(str(caught.value)) < 250


def test_values_in_messages_are_short():
    for values in ({"optim_name": "x" * 10_000}, {"batch_size": "9" * 10_000}):
        with pytest.raises(ConfigError) as caught:
            SAMOptions(**values)
        assert len(str(caught.value)) < 200
    with pytest.raises(ConfigError, match="learning_rate: expected a finite number"):
        SAMOptions(learning_rate=10**400)


def test_refuses_a_damaged_file(tmp_path):
    path = tmp_path / "opt.json"
    path.write_text('{"batch_size": ')
    with pytest.raises(ConfigError, match="cannot be read as options"):
        base.read_json(SAMOptions, path)


def test_a_resumed_run_may_only_change_some_options(tmp_path):
    started = SAMOptions()
    free = SAMOptions(max_steps=7, workers=0, max_bad_images=500, exp_dir="moved")
    base.check_resumable(started, free, tmp_path)
    with pytest.raises(ConfigError, match="batch_size was 6, is 4.*another exp_dir"):
        base.check_resumable(started, SAMOptions(batch_size=4), tmp_path)


def test_data_folders_from_the_command_line():
    config = SAMOptions(train_data="a", train_target="b")
    assert data_folders(config, "train") == ("a", "b")


def test_data_folders_from_a_file(tmp_path):
    path = tmp_path / "datasets.json"
    pair = {"source": "sketches", "target": "/photos"}
    path.write_text(json.dumps({"ffhq_aging": {"train": "ffhq", "test": pair}}))
    config = SAMOptions(datasets=str(path))
    assert data_folders(config, "train") == (str(tmp_path / "ffhq"), "")
    assert data_folders(config, "test") == (str(tmp_path / "sketches"), "/photos")
    config = dataclasses.replace(config, test_target="/drawings")
    assert data_folders(config, "test") == (str(tmp_path / "sketches"), "/drawings")


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "there is no file"),
        ("{", "cannot be read as JSON"),
        ('{"celeba": {}}', "has no folder for ffhq_aging/train"),
        ('{"ffhq_aging": {"train": {"src": "a"}}}', "has no folder for ffhq_aging/train"),
        ('{"ffhq_aging": {"train": 5}}', "has no folder for ffhq_aging/train"),
    ],
)
def test_says_how_to_name_the_data(tmp_path, content, message):
    path = tmp_path / "datasets.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=f"{message}.*train_data FOLDER"):
        data_folders(SAMOptions(datasets=str(path)), "train")
