import numpy as np
import paddle
import pytest
from PIL import Image

import paddle_sam
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.ageing.tuning import TuningSettings, _Neighbours, tune
from paddle_sam.core.images import read_image, to_network
from paddle_sam.errors import CheckpointError, ConfigError
from scripts.edit import main as edit
from scripts.inference import main as inference
from scripts.project import main as project
from tests.unit.ageing.test_projection import Pixels
from tests.unit.ageing.tiny import SIZE, save_generator, tiny_generator


def face(seed=0):
    image = np.random.default_rng(seed).uniform(-1, 1, (1, 3, 4, 4)).astype(np.float32)
    return paddle.nn.functional.interpolate(paddle.to_tensor(image), [SIZE, SIZE], mode="bilinear")


def pivot(generator, seed=0):
    code = np.random.default_rng(seed).normal(size=(1, generator.n_codes, 16))
    return paddle.to_tensor(code.astype(np.float32))


def run(generator, codes, **settings):
    settings = TuningSettings(**{"steps": 15, "learning_rate": 0.01, **settings})
    *_, last = steps = list(tune(generator, Pixels(), face(), codes, settings))
    return steps[0], last


def test_the_code_comes_to_render_the_face_and_the_generator_stays():
    generator = tiny_generator()
    before = {name: tensor.numpy().copy() for name, tensor in generator.state_dict().items()}
    codes = pivot(generator)
    first, last = run(generator, codes, locality=0.0)
    assert last.index == 15
    assert last.lpips + last.mse < 0.5 * (first.lpips + first.mse)
    np.testing.assert_allclose(first.image.numpy(), generator.render(codes).numpy(), atol=1e-6)
    np.testing.assert_allclose(last.image.numpy(), last.generator.render(codes).numpy(), atol=1e-6)
    for name, tensor in generator.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])
    changed = {
        name
        for name, tensor in last.generator.state_dict().items()
        if not np.array_equal(tensor.numpy(), before[name])
    }
    assert changed
    assert not any(name.startswith(("style.", "noises.")) for name in changed)
    assert all(parameter.stop_gradient for parameter in last.generator.parameters())


def test_the_first_step_is_adams():
    """Its size is the learning rate, against the gradient's sign, in every synthesis weight."""
    generator, settings = tiny_generator(), TuningSettings(1, 0.01, locality=0.0)
    codes = pivot(generator)
    image = generator.render(codes)
    pooled = paddle.nn.functional.adaptive_avg_pool2d
    distance = (pooled(image, 4) - pooled(face(), 4)).square().mean()
    (distance + (image - face()).square().mean()).backward()
    *_, last = tune(generator, Pixels(), face(), codes, settings)
    tuned = dict(last.generator.named_parameters())
    for name in ("conv1.conv.weight", "to_rgbs.1.bias", "input.input"):
        before = dict(generator.named_parameters())[name]
        gradient = before.grad.numpy()
        clear = np.abs(gradient) > 1e-5
        step = (tuned[name].numpy() - before.numpy())[clear]
        np.testing.assert_allclose(step, -0.01 * np.sign(gradient[clear]), rtol=2e-2)
        assert clear.any()


@pytest.mark.parametrize("levels", [(), (8, 1)])
def test_random_codes_lie_at_the_radius_from_the_pivot(levels):
    generator = tiny_generator()
    generator.latent_avg = generator.latent_avg.tile(levels) if levels else generator.latent_avg
    codes = pivot(generator)
    near = _Neighbours(generator, Pixels(), codes, TuningSettings(radius=5.0), SIZE)
    first, second = near.draw(), near.draw()
    for one in (first, second):
        assert (one - codes).square().sum().sqrt().item() == pytest.approx(5.0, rel=1e-5)
    assert (first - second).abs().max().item() > 1e-3
    assert near.change(generator).item() == pytest.approx(0, abs=1e-9)


def test_locality_keeps_the_generator_near_the_pivot():
    generator = tiny_generator()
    codes = pivot(generator)
    settings = TuningSettings(radius=3.0, seed=9)
    changes = []
    for locality in (0.0, 3.0):
        _, last = run(generator, codes, locality=locality, radius=3.0)
        near = _Neighbours(generator, Pixels(), codes, settings, SIZE)
        changes.append(np.mean([near.change(last.generator).item() for _ in range(4)]))
    assert changes[1] < 0.7 * changes[0]


def test_what_the_mask_hides_does_not_count():
    generator = tiny_generator()
    codes = pivot(generator)
    mask = paddle.ones([1, 1, SIZE, SIZE])
    mask[:, :, :, 16:] = 0
    spoilt = face().clone()
    spoilt[:, :, :, 16:] = 1.0
    settings = TuningSettings(2, 0.01, locality=0.0)
    images = []
    for target in (face(), spoilt):
        *_, last = tune(generator, Pixels(), target, codes, settings, mask)
        images.append(last.image.numpy())
    np.testing.assert_array_equal(*images)


def test_the_function_takes_what_people_have(monkeypatch):
    generator = tiny_generator()
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    codes = pivot(generator)[0].numpy()
    tuned = paddle_sam.tune(
        Image.fromarray(picture), codes, generator, step=3, learning_rate=0.01, lpips=Pixels()
    )
    assert tuned.after < tuned.before
    assert tuned.image.shape == (SIZE, SIZE, 3)
    with pytest.raises(ConfigError, match=r"codes: expected shape \[1, 8, 16\]"):
        paddle_sam.tune(picture, codes[:3], generator, lpips=Pixels())


@pytest.fixture
def crop(tmp_path, pipeline):
    import skimage.data

    image = pipeline.faces(skimage.data.astronaut())[0].image
    Image.fromarray(image).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_ageing_and_edits_run_on_the_tuned_generator(crop, tmp_path, pipeline):
    """At the strength 0 the result is what the tuned generator makes of the code."""
    argv = [str(crop), "--no_align", "--output", str(tmp_path), "--step", "0", "--tune", "2"]
    argv += ["--lpips", "alex", "--no-save_mp4", "--report", "--locality", "0"]
    assert project(argv) == 0
    generator, tuned = tmp_path / "a-generator.pdparams", read_image(tmp_path / "a-tuned.png")
    assert (tmp_path / "report.json").is_file()
    shared = ["--latent", str(tmp_path / "a.npz"), "--generator", str(generator)]
    shared += ["--exp_dir", str(tmp_path / "out")]
    age = ["--target_age", "50", "--strength", "0", "--keep", "0"]
    assert inference([*shared, *age]) == 0
    result = read_image(tmp_path / "out" / "inference_results" / "50" / "a.png")
    assert np.abs(result.astype(int) - tuned).max() <= 1
    plain = pipeline.pictures(pipeline.invert(paddle.to_tensor(to_network(read_image(crop)))))[0]
    assert np.abs(plain.astype(int) - tuned).mean() > 0.5
    assert edit([*shared, "--explore", "sefa0", "--amounts=0"]) == 0
    sheet = read_image(tmp_path / "out" / "directions" / "a.png")
    assert np.abs(sheet[:128:2, :128:2].astype(int) - tuned).mean() < 12  # enlarged


def test_a_generator_of_another_size_is_refused(tmp_path, capsys):
    save_generator(tmp_path / "small.pdparams", tiny_generator())
    arguments = ["--generator", str(tmp_path / "small.pdparams")]
    assert inference(arguments) == 2
    assert "--generator: renders 32 px from 8 codes of 16, this model 64 px" in (
        capsys.readouterr().err
    )
    assert inference([*arguments, "--engine", "onednn"]) == 2
    assert "--engine onednn" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="nowhere"):
        AgePipeline.from_checkpoint(generator="nowhere.pdparams")


def test_tuning_and_optimised_noise_exclude_each_other(capsys):
    assert project(["--tune", "1", "--noise_regularize", "1"]) == 2
    assert "--tune, --noise_regularize" in capsys.readouterr().err
