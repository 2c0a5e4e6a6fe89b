"""S2, the StyleGAN2 age tool: its projector's command line and its function, in their words."""

import inspect
import json

import pytest

from tests import DEVICE, ROOT
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


def test_a_type_of_model_names_its_file(capsys):
    from scripts.project import main

    words = ["a.jpg", "--model_type", "ffhq-config-f", "--size", "1024", "--style_dim", "512"]
    words += ["--n_mlp", "8", "--channel_multiplier", "2", "--latent_level", "0", "1", "2"]
    options = understood("project", words, capsys)
    assert options["checkpoint_path"] == "pretrained_models/stylegan2-ffhq-config-f.pdparams"
    assert options["latent_level"] == ["0", "1", "2"]
    portrait = str(ROOT / "CelebA_test" / "portrait.jpg")
    assert main([portrait, "--model_type", "ffhq-config-f"]) == 2
    error = capsys.readouterr().err
    assert "--checkpoint_path" in error
    assert "scripts/download_weights.py stylegan2" in error


@pytest.fixture
def crops(tmp_path):
    """Two faces as the embedded model takes them."""
    from paddle_sam import AgePipeline
    from paddle_sam.core.images import read_image, save_image

    pipeline = AgePipeline.from_checkpoint(device=DEVICE, engine="eager")
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path, name in zip(paths, ("portrait", "generated_9"), strict=True):
        photo = read_image(ROOT / "CelebA_test" / f"{name}.jpg")
        save_image(path, pipeline.faces(photo)[0].image)
    return paths


def test_the_command_and_the_function_do_the_same(crops, tmp_path, capsys):
    """In the described form; that includes what a weight of the squared error means."""
    import numpy as np

    import paddle_sam
    from paddle_sam.core.weights import find_weight
    from paddle_sam.networks.image_features import load_lpips
    from scripts.project import main

    numbers = {"size": 64, "style_dim": 128, "n_mlp": 4}
    embedded = str(find_weight("sam_mini"))
    words = [*map(str, crops), "--output", str(tmp_path / "out"), "--ckpt", embedded]
    words += [
        "--no_encoder",
        "--no_crop",
        "--lpips",
        "alex",
        "--step",
        "3",
        "--mse_weight",
        "2",
        "--return",
        "last",
    ]
    words += ["--start_lr", "0.1", "--final_lr", "0.025", "--fps", "30", "--duration", "1"]
    words += [f"--{name}={value}" for name, value in numbers.items()]
    assert main([*words, "--save_mp4", "--latent_level", "0", "1", "2"]) == 0
    assert "counts by --mse_weight 1;" in capsys.readouterr().err
    endings = ("-project.mp4", "-project.png", ".npz", ".pd")
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {f"{one.stem}{ending}" for one in crops for ending in endings}
    lpips = load_lpips(find_weight("lpips_alex"))
    given = {"ckpt": embedded, "no_encoder": True, "step": 3, "returned": "last", "lpips": lpips}
    given |= {"latent_level": range(3), "mse_weight": 2.0, **numbers}
    found = paddle_sam.project(crops, **given)
    for path, codes in zip(crops, found.codes, strict=True):
        with np.load(tmp_path / "out" / f"{path.stem}.npz") as file:
            np.testing.assert_allclose(file["w_plus"], codes, atol=1e-4)
    assert main([*words, "--size", "1024"]) == 2
    assert f"--size: {embedded} has 64, not 1024" in capsys.readouterr().err
    with pytest.raises(paddle_sam.ConfigError, match="n_mlp: the generator has 4, not 8"):
        paddle_sam.project(crops, **{**given, "n_mlp": 8})


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
    each = paddle_sam.project([image, image], mse_weight=1.0, mse_mean="image", **given).codes
    np.testing.assert_allclose(each[0], alone, atol=1e-4)


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


def test_a_generator_is_named_once(capsys):
    import paddle_sam
    from scripts.project import main

    words = ["x.png", "--model_type", "ffhq-config-f", "--checkpoint_path", "y.pdparams"]
    assert main(words) == 2
    assert "--model_type, --checkpoint_path: found 'ffhq-config-f'" in capsys.readouterr().err
    with pytest.raises(paddle_sam.ConfigError, match="generator, ckpt, model_type: expected one"):
        paddle_sam.project("x.png", ckpt="y.pdparams", model_type="ffhq-config-f")
