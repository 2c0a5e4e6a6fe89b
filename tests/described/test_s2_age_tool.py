"""S2, the StyleGAN2 age tool: its projector's command line and its function, in their words."""

import inspect
import json

import pytest

from tests.described import understood


def test_the_described_command_is_understood(capsys):
    words = ["a.jpg", "b.jpg", "--output", "./output", "--ckpt", "model.pdparams", "--step", "0"]
    words += ["--start_lr", "0.1", "--final_lr", "0.025", "--mse_weight", "1", "--save_mp4"]
    words += ["--fps", "30", "--duration", "5", "--no_encoder", "--no_crop", "--return", "last"]
    options = understood("project", words, capsys)
    assert options["files"] == ["a.jpg", "b.jpg"]
    assert (options["output"], options["checkpoint_path"]) == ("./output", "model.pdparams")
    assert (options["start"], options["no_align"], options["returned"]) == ("mean", True, "last")


def test_its_defaults_are_the_described_ones(capsys):
    options = understood("project", ["a.jpg"], capsys)
    described = {"start_lr": 0.1, "final_lr": 0.025, "step": 100, "mse_weight": 1.0, "fps": 30}
    described |= {"duration": 5.0, "start": "encoder", "no_align": False}
    assert {name: options[name] for name in described} == described


@pytest.mark.parametrize("name", ["model_type", "size", "style_dim", "n_mlp", "channel_multiplier"])
def test_what_the_weight_file_says_is_not_asked(name, capsys):
    from scripts.project import main

    with pytest.raises(SystemExit) as caught:
        main([f"--{name}", "8", "a.jpg"])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.count("\n") == 1
    assert f"--{name}" in error
    assert "--checkpoint_path" in error


def test_the_function_has_the_described_arguments():
    import paddle_sam

    parameters = inspect.signature(paddle_sam.project).parameters
    described = "images masks generator psp latent_level start_lr final_lr step mse_weight"
    for name in [*described.split(), "no_encoder"]:
        assert name in parameters, name
    defaults = {"start_lr": 0.1, "final_lr": 0.025, "step": 100, "mse_weight": 1.0}
    assert {name: parameters[name].default for name in defaults} == defaults


def test_options_that_exclude_each_other_are_named(capsys):
    from scripts.project import main

    assert main(["a.jpg", "--output", "one", "--exp_dir", "two"]) == 2
    assert "--output, --exp_dir" in capsys.readouterr().err
    assert main(["--files", " "]) == 2
    assert "--files: found an empty" in capsys.readouterr().err


def test_files_in_a_home_folder_are_found(capsys, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    options = understood("project", ["--files=~/a.jpg", "~/b.jpg"], capsys)
    assert json.dumps(options["files"]) == '["/home/somebody/a.jpg", "/home/somebody/b.jpg"]'


def test_the_squared_error_of_a_batch_is_its_mean():
    """Two images weigh as one: of two alike, twice the weight is the weight of one alone."""
    import numpy as np

    import paddle_sam

    class Nothing:
        """Stands for LPIPS, with a constant gradient, so that weights matter to Adam."""

        def extract(self, images):
            return images

        def distance(self, left, right):
            return left.mean(axis=[1, 2, 3])

    image = np.full((64, 64, 3), 90, np.uint8)
    given = {"step": 3, "lpips": Nothing(), "no_encoder": True}
    alone = paddle_sam.project(image, mse_weight=1.0, **given).codes[0]
    two = paddle_sam.project([image, image], mse_weight=2.0, **given).codes
    np.testing.assert_allclose(two[0], alone, atol=1e-4)
    other = paddle_sam.project([image, image], mse_weight=1.0, **given).codes
    assert np.abs(other[0] - alone).max() > 0.01


def test_the_code_of_the_last_step_on_demand():
    """Of the described tool it is the only one; here the default is the step of the lowest loss."""
    import numpy as np

    import paddle_sam

    class Rising:
        """Stands for LPIPS; whatever is changed is worse than the start."""

        def extract(self, images):
            return [images]

        def distance(self, left, right):
            start = self.__dict__.setdefault("start", left[0].detach())
            return (left[0] - start).square().sum(axis=[1, 2, 3]) + left[0].sum(axis=[1, 2, 3])

    image = np.full((64, 64, 3), 90, np.uint8)
    given = {"step": 3, "no_encoder": True, "mse_weight": 0.0, "start_lr": 5.0, "final_lr": 5.0}
    found = {
        returned: paddle_sam.project([image], lpips=Rising(), returned=returned, **given)
        for returned in ("best", "last")
    }
    last, best = found["last"], found["best"]
    np.testing.assert_array_equal(last.images[0], last.frames[0][-1])
    assert not np.array_equal(best.codes, last.codes)
    with pytest.raises(ValueError, match="returned: expected best or last"):
        paddle_sam.project([image], lpips=Rising(), returned="first")
