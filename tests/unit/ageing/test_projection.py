import re
import shutil

import av
import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_sam.ageing.projection import (
    Best,
    ProjectionSettings,
    Step,
    masked_mse,
    noise_regularity,
    normalise,
    project,
)
from paddle_sam.core.images import to_network
from paddle_sam.core.latents import Latent, read_latent, save_latent
from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError, ConfigError, TrainingError
from paddle_sam.networks.stylegan2 import Generator
from scripts.inference import main as inference
from scripts.project import main as project_command


class Pixels:
    """Stands for LPIPS: the squared difference of 4 px averages."""

    def extract(self, images):
        return [paddle.nn.functional.adaptive_avg_pool2d(images, 4)]

    def distance(self, left, right):
        return (left[0] - right[0]).square().mean(axis=[1, 2, 3])


@pytest.fixture
def generator():
    paddle.seed(5)
    network = Generator(16, 8, 2, {4: 8, 8: 8, 16: 8}, lr_mlp=1.0)
    network.eval()
    return network


def faces(generator, n, seed):
    paddle.seed(seed)
    codes = generator.style(paddle.randn([n, 8])).unsqueeze(1).expand([n, 6, 8])
    with paddle.no_grad():
        images = generator([codes], input_is_latent=True, randomize_noise=False)
    return images.detach(), codes.detach()


def run(generator, targets, start, **options):
    best = Best()
    masks = options.pop("masks", None)
    settings = ProjectionSettings(**{"steps": 12, **options})
    for step in project(generator, Pixels(), targets, start, settings, masks):
        best.see(step)
    return best, step


def test_the_learning_rate_falls_geometrically():
    settings = ProjectionSettings(steps=100)
    rates = [settings.learning_rate(step) for step in range(101)]
    assert (rates[0], rates[100]) == (0.1, pytest.approx(0.025))
    np.testing.assert_allclose(np.divide(rates[1:], rates[:-1]), 0.25 ** (1 / 100))


def test_images_come_closer_and_a_batch_is_as_good_as_one_by_one(generator):
    targets, _ = faces(generator, 2, seed=1)
    _, start = faces(generator, 2, seed=2)
    best, last = run(generator, targets, start, steps=40)
    assert last.index == 40
    assert (best.start.loss / best.loss).min() > 3
    alone, _ = run(generator, targets[1:], start[1:], steps=40)
    np.testing.assert_allclose(best.codes[1:].numpy(), alone.codes.numpy(), atol=1e-4)
    with paddle.no_grad():
        again = generator([best.codes], input_is_latent=True, randomize_noise=False)
    np.testing.assert_allclose(again.numpy(), best.images.numpy(), atol=1e-5)


def test_only_chosen_levels_change(generator):
    targets, _ = faces(generator, 1, seed=1)
    _, start = faces(generator, 1, seed=2)
    best, _ = run(generator, targets, start, levels=[0, 3])
    moved = (best.codes - start).abs().sum(axis=2).numpy()[0] > 0
    assert moved.tolist() == [True, False, False, True, False, False]


def test_in_w_all_levels_are_one_code(generator):
    targets, _ = faces(generator, 1, seed=1)
    start = paddle.randn([1, 6, 8])
    best, _ = run(generator, targets, start, in_w=True)
    codes = best.codes.numpy()[0]
    np.testing.assert_allclose(codes, np.tile(codes[:1], (6, 1)), atol=1e-6)
    np.testing.assert_allclose(best.start.codes.numpy()[0, 2], start.numpy()[0].mean(0), atol=1e-6)


def test_what_the_mask_hides_does_not_count(generator):
    targets, codes = faces(generator, 1, seed=1)
    _, start = faces(generator, 1, seed=2)
    masks = paddle.ones([1, 1, 16, 16])
    masks[:, :, :, 8:] = 0
    spoilt = targets.clone()
    spoilt[:, :, :, 8:] = 1.0
    whole, _ = run(generator, targets, start, masks=masks)
    other, _ = run(generator, spoilt, start, masks=masks)
    np.testing.assert_array_equal(whole.codes.numpy(), other.codes.numpy())
    assert masked_mse(spoilt, targets, masks).item() == 0
    half = masked_mse(targets + masks, targets, masks)
    assert half.item() == pytest.approx(0.5)  # the mean is over all pixels


def test_targets_larger_than_the_image_are_averaged_down(generator):
    targets, _ = faces(generator, 1, seed=1)
    _, start = faces(generator, 1, seed=2)
    doubled = targets.repeat_interleave(2, 2).repeat_interleave(2, 3)
    small, _ = run(generator, targets, start, steps=3)
    large, _ = run(generator, doubled, start, steps=3)
    np.testing.assert_allclose(small.codes.numpy(), large.codes.numpy(), atol=1e-6)


def test_the_generator_is_left_as_it_was_found(generator):
    targets, _ = faces(generator, 1, seed=1)
    _, start = faces(generator, 1, seed=2)
    before = [one.stop_gradient for one in generator.parameters()]
    assert not all(before)
    steps = project(generator, Pixels(), targets, start, ProjectionSettings(steps=2))
    for _ in steps:  # also between two steps
        assert [one.stop_gradient for one in generator.parameters()] == before
    assert all(one.grad is None for one in generator.parameters())


def test_noise_is_optimised_and_stays_noise(generator):
    targets, codes = faces(generator, 1, seed=1)
    _, start = faces(generator, 1, seed=2)
    for layer in [generator.conv1, *generator.convs]:
        layer.noise.weight.set_value(paddle.full([1], 0.3))
    best, _ = run(generator, targets, start, noise_weight=10.0)
    for found, buffer in zip(best.noise, generator.noises.as_list(), strict=True):
        assert found.shape == buffer.shape
        assert float((found - buffer).abs().max()) > 0.01
        assert abs(found.mean().item()) < 1e-5
        assert found.square().mean().item() == pytest.approx(1, abs=1e-4)


def test_regularity_of_maps_by_hand():
    """A map of one value correlates fully with its neighbours, white noise hardly."""
    ones = paddle.ones([1, 1, 8, 8])
    assert noise_regularity([ones]).item() == pytest.approx(2)
    # 16 px: 2 for itself, and its half of twice the value has correlation 4, squared 16, twice.
    assert noise_regularity([paddle.ones([1, 1, 16, 16])]).item() == pytest.approx(2 + 32)
    paddle.seed(0)
    white = paddle.randn([3, 1, 64, 64])
    normalise([white])
    assert noise_regularity([white]).max().item() < 0.3  # of 8
    assert noise_regularity([white]).shape == [3]


def test_a_loss_that_is_no_number_ends_it(generator):
    targets, start = faces(generator, 1, seed=1)
    with pytest.raises(TrainingError, match="no longer a number at step 0; use a smaller"):
        run(generator, targets, start * float("nan"))


def test_levels_and_shapes_are_checked(generator):
    targets, start = faces(generator, 1, seed=1)
    with pytest.raises(ConfigError, match="codes 0 to 5, found 6"):
        run(generator, targets, start, levels=[6])
    with pytest.raises(ConfigError, match=r"start: expected shape \[1, 6, 8\]"):
        run(generator, targets, start[:, :5])


@pytest.fixture(scope="module")
def crops(pipeline, tmp_path_factory):
    """Folder with two aligned crops, the second of which has a mask."""
    import skimage.data

    folder = tmp_path_factory.mktemp("crops")
    crop = pipeline.faces(skimage.data.astronaut())[0].image
    Image.fromarray(crop).save(folder / "a.png")
    Image.fromarray(np.ascontiguousarray(crop[:, ::-1])).save(folder / "b.png")
    mask = np.full((64, 64), 255, np.uint8)
    mask[:, :20] = 0
    Image.fromarray(mask).save(folder / "b.mask.png")
    return folder


@pytest.fixture(scope="module")
def projected(crops, tmp_path_factory):
    """Results of the command on both crops, and what it printed."""
    folder = tmp_path_factory.mktemp("projected")
    arguments = ["--data_path", str(crops), "--exp_dir", str(folder), "--no_align"]
    assert project_command([*arguments, "--step", "6", "--lpips", "alex"]) == 0
    return folder / "projection"


@pytest.fixture
def shape(pipeline):
    """Of the embedded model's W+ codes: how many, and how long."""
    return pipeline.n_codes, pipeline.style_dim


def test_the_command_writes_latent_image_and_video(projected, pipeline, shape):
    endings = (".npz", ".pd", "-project.png", "-project.mp4")
    names = {f"{stem}{ending}" for stem in "ab" for ending in endings}
    assert {path.name for path in projected.iterdir()} == names
    latent = read_latent(projected / "a.npz", *shape)
    image = np.asarray(Image.open(projected / "a-project.png"))
    again = pipeline.decode(paddle.to_tensor(latent.w_plus[None])).numpy()[0]
    want = np.rint((again.transpose(1, 2, 0).clip(-1, 1) + 1) * 127.5)
    assert np.abs(image - want).max() <= 1
    bare = paddle.load(str(projected / "a.pd"))["latent_code"]
    np.testing.assert_array_equal(np.asarray(bare), latent.w_plus)
    with av.open(str(projected / "b-project.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.frames, stream.average_rate) == (150, 30)  # five seconds, as described
        assert (stream.width, stream.height) == (256, 256)  # frames only


def test_the_mask_beside_the_photograph_is_used(projected, crops, tmp_path, capsys, shape):
    """Without its mask the second face projects to another code; masks are no photographs."""
    Image.open(crops / "b.png").save(tmp_path / "b.png")
    arguments = ["--data_path", str(tmp_path / "b.png"), "--exp_dir", str(tmp_path), "--no_align"]
    arguments += ["--step", "6", "--lpips", "alex", "--no-save_mp4"]
    assert project_command(arguments) == 0
    printed = capsys.readouterr().out
    start, end = map(float, re.search(r"loss ([\d.]+) -> ([\d.]+)", printed).groups())
    assert end < start
    bare = read_latent(tmp_path / "projection" / "b.npz", *shape)
    masked = read_latent(projected / "b.npz", *shape)
    assert np.abs(bare.w_plus - masked.w_plus).max() > 0.01
    assert not (tmp_path / "projection" / "b-project.mp4").exists()


@pytest.mark.parametrize("with_photo", [False, True])
def test_a_latent_is_aged(projected, crops, pipeline, tmp_path, with_photo, shape):
    arguments = ["--latent", str(projected / "a.npz"), "--exp_dir", str(tmp_path)]
    if with_photo:
        arguments += ["--data_path", str(crops / "a.png"), "--no_align"]
    assert inference([*arguments, "--target_age", "60", "--keep", "0"]) == 0
    found = np.asarray(Image.open(tmp_path / "inference_results" / "60" / "a.png"))
    latent = read_latent(projected / "a.npz", *shape)
    codes = paddle.to_tensor(latent.w_plus[None])
    want = pipeline.age(latent.crop[None], [60], inverted=codes)[0, 0]
    assert np.abs(found.astype(int) - want).max() <= 1
    plain = pipeline.age(latent.crop[None], [60])[0, 0]
    assert np.abs(found.astype(int) - plain).mean() > 1


def test_a_latent_of_another_face_is_refused(projected, crops, tmp_path, capsys):
    arguments = ["--latent", str(projected / "a.npz"), "--data_path", str(crops / "b.png")]
    assert inference([*arguments, "--no_align", "--exp_dir", str(tmp_path)]) == 2
    assert "a.npz was projected from another face" in capsys.readouterr().err


def test_photographs_that_differ_by_their_format_keep_their_own_latents(
    crops, tmp_path, capsys, shape
):
    Image.open(crops / "a.png").save(tmp_path / "a.png")
    Image.open(crops / "b.png").save(tmp_path / "a.bmp")
    arguments = ["--data_path", str(tmp_path), "--exp_dir", str(tmp_path / "out"), "--no_align"]
    assert project_command([*arguments, "--step", "1", "--lpips", "alex", "--no-save_mp4"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("2 of 2 photographs, faces: 2") > printed.rindex("times closer")
    latents = sorted((tmp_path / "out" / "projection").glob("*.npz"))
    assert len(latents) == 2
    one, other = (read_latent(path, *shape).crop for path in latents)
    assert np.abs(one.astype(int) - other).mean() > 5
    again = ["--data_path", str(tmp_path), "--exp_dir", str(tmp_path / "out"), "--no_align"]
    again += ["--latent", str(latents[0].parent), "--target_age", "30"]
    assert inference(again) == 0


def test_a_folder_of_latents_is_aged(projected, crops, tmp_path):
    arguments = ["--latent", str(projected), "--target_age", "30"]
    assert inference([*arguments, "--exp_dir", str(tmp_path / "alone")]) == 0
    arguments += ["--data_path", str(crops), "--no_align", "--exp_dir", str(tmp_path / "photos")]
    assert inference(arguments) == 0
    for name in ("a.png", "b.png"):
        one, other = (
            np.asarray(Image.open(tmp_path / kind / "inference_results" / "30" / name))
            for kind in ("alone", "photos")
        )
        np.testing.assert_array_equal(one, other)


def test_a_damaged_latent_does_not_stop_the_others(projected, crops, tmp_path, capsys):
    for name in ("a.npz", "a-project.png"):
        shutil.copy(projected / name, tmp_path)
    damaged = tmp_path / "b.npz"
    arguments = ["--latent", str(tmp_path), "--target_age", "30"]
    of_photos = ["--data_path", str(crops), "--no_align"]
    damaged.write_bytes(b"junk")
    assert inference([*arguments, "--exp_dir", str(tmp_path / "alone")]) == 1
    assert inference([*arguments, *of_photos, "--exp_dir", str(tmp_path / "photos")]) == 1
    w_plus = np.load(tmp_path / "a.npz")["w_plus"]
    np.savez(damaged, w_plus=w_plus, crop=np.zeros((64, 64), np.uint8))
    assert inference([*arguments, *of_photos, "--exp_dir", str(tmp_path / "grey")]) == 1
    assert capsys.readouterr().err.count(f"failed: {damaged}") == 3
    for kind in ("alone", "photos", "grey"):
        results = (tmp_path / kind).rglob("*.png")
        assert [path.name for path in results] == ["a.png"]


def test_refining_brings_the_face_closer(crops, pipeline, tmp_path):
    """With strength 0 the result is the inverted face, which a few steps bring closer."""
    results = []
    for refine in ("0", "8"):
        arguments = ["--data_path", str(crops / "a.png"), "--no_align", "--strength", "0"]
        arguments += ["--refine", refine, "--target_age", "50", "--exp_dir", str(tmp_path / refine)]
        assert inference([*arguments, "--keep", "0"]) == 0
        image = Image.open(tmp_path / refine / "inference_results" / "50" / "a.png")
        results.append(np.asarray(image).astype(int))
    crop = np.array(Image.open(crops / "a.png"))
    inverted = pipeline.decode(pipeline.invert(paddle.to_tensor(to_network(crop)))).numpy()[0]
    shown = np.rint((inverted.transpose(1, 2, 0).clip(-1, 1) + 1) * 127.5)
    assert np.abs(results[0] - shown).max() <= 1
    errors = [np.square(result - crop.astype(int)).mean() for result in results]
    assert errors[1] < 0.9 * errors[0]


def test_a_mask_that_leaves_nothing_does_not_stop_the_others(crops, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        shutil.copy(crops / name, tmp_path)
    Image.new("L", Image.open(crops / "a.png").size).save(tmp_path / "a.mask.png")
    arguments = ["--data_path", str(tmp_path), "--no_align", "--refine", "1", "--target_age", "50"]
    assert inference([*arguments, "--keep", "0", "--exp_dir", str(tmp_path / "out")]) == 1
    assert "a.mask.png: the mask leaves nothing of the face" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").rglob("*.png")] == ["b.png"]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"w_plus": np.zeros((10, 128), np.float32)}, "not the face's picture"),
        (
            {"w_plus": np.zeros((18, 512)), "crop": 0},
            r"shape \[18, 512\], this model takes \[10, 128",
        ),
        ({"w_plus": np.full((10, 128), np.nan), "crop": 0}, "not numbers"),
    ],
)
def test_latents_that_do_not_fit_are_explained(tmp_path, arrays, words):
    if "crop" in arrays:
        arrays = {**arrays, "crop": np.zeros((64, 64, 3), np.uint8)}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(CheckpointError, match=words):
        read_latent(tmp_path / "a.npz", 10, 128)


def test_files_that_are_no_latents_are_explained(tmp_path, capsys):
    (tmp_path / "a.npz").write_bytes(b"\x80\x04evil")
    with pytest.raises(CheckpointError, match="NumPy archive"):
        read_latent(tmp_path / "a.npz", 10, 128)
    for content, words in ((b"cos\nsystem\n(S'id'\ntR.", "refused"), (b"junk", "bare.pd")):
        (tmp_path / "bare.pd").write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            read_latent(tmp_path / "bare.pd", 10, 128)
    paddle.save({"other": paddle.ones([10, 128])}, str(tmp_path / "bare.pd"))
    with pytest.raises(CheckpointError, match="latent_code"):
        read_latent(tmp_path / "bare.pd", 10, 128)
    (tmp_path / "empty").mkdir()
    for path, words in (("nowhere.npz", "no such file; scripts/proj"), ("empty", "none of .npz")):
        assert inference(["--latent", str(tmp_path / path)]) == 2
        assert words in capsys.readouterr().err
    small = Latent(np.zeros((10, 128), np.float32), np.zeros((9, 9, 3), np.uint8))
    save_latent(tmp_path / "b.npz", small)
    assert inference(["--latent", str(tmp_path / "b.npz"), "--exp_dir", str(tmp_path)]) == 2
    assert "the crop in" in capsys.readouterr().err


def test_a_mask_that_does_not_fit_is_the_photographs_failure(tmp_path, crops, capsys):
    Image.open(crops / "a.png").save(tmp_path / "a.png")
    Image.new("L", (32, 64), 255).save(tmp_path / "a.mask.png")
    arguments = ["--data_path", str(tmp_path), "--exp_dir", str(tmp_path), "--no_align"]
    assert project_command([*arguments, "--lpips", "alex"]) == 2
    assert "the mask has 32 x 64 pixels, its photograph 64 x 64" in capsys.readouterr().err
    Image.new("L", (64, 64), 0).save(tmp_path / "a.mask.png")
    assert project_command([*arguments, "--lpips", "alex"]) == 2
    assert "the mask leaves nothing of the face" in capsys.readouterr().err


def test_a_generator_alone_has_no_encoder_to_start_from(crops, tmp_path, capsys, shape):
    arguments = ["--checkpoint_path", str(find_weight("stylegan2_mini")), "--no_align"]
    arguments += ["--data_path", str(crops / "a.png"), "--exp_dir", str(tmp_path)]
    assert project_command(arguments) == 2
    assert "to start from; use --start mean" in capsys.readouterr().err
    arguments += ["--start", "mean", "--space", "w", "--step", "2", "--lpips", "alex"]
    assert project_command(arguments) == 0
    codes = read_latent(tmp_path / "projection" / "a.npz", *shape).w_plus
    np.testing.assert_allclose(codes, np.tile(codes[:1], (shape[0], 1)), atol=1e-6)
    assert project_command(["--checkpoint_path", str(find_weight("age_mini"))]) == 2
    assert "holds an age regressor" in capsys.readouterr().err


def test_several_files_go_to_the_folder_itself(crops, projected, tmp_path, capsys):
    """Under the described names, each file once, and the last step where it is asked for."""
    words = [str(crops / "a.png"), "--step", "0", str(crops / "b.png"), str(crops / "a.png")]
    words += ["--output", str(tmp_path), "--no_crop", "--lpips", "alex", "--return", "last"]
    assert project_command([*words, "--fps", "10", "--duration", "0", "--couple_outputs"]) == 0
    endings = (".npz", ".pd", "-project.png", "-project.mp4")
    names = {f"{stem}{ending}" for stem in "ab" for ending in endings}
    assert {path.name for path in tmp_path.iterdir()} == names
    with av.open(str(tmp_path / "a-project.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.frames == 1  # a frame a step: where it starts
        assert stream.width == 512  # beside the target
    assert project_command([str(tmp_path), *words[1:], "--no-save_mp4"]) == 2
    assert "results of earlier runs" in capsys.readouterr().err


def test_files_of_one_name_keep_their_folders(crops, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.open(crops / "a.png").save(tmp_path / folder / "a.png")
    words = [str(tmp_path / folder / "a.png") for folder in ("one", "two")]
    words += ["--output", str(tmp_path / "out"), "--no_crop", "--lpips", "alex", "--step", "0"]
    assert project_command([*words, "--no-save_mp4"]) == 0
    found = sorted((tmp_path / "out").rglob("*.pd"))
    assert [path.parent.name for path in found] == ["one", "two"]


def test_the_last_step_is_returned_though_another_was_better(generator):
    best, last = Best(), Best(always_last=True)
    for loss in (2.0, 1.0, 3.0):
        codes = paddle.full([1, 10, 4], loss)
        images = paddle.full([1, 3, 2, 2], loss)
        losses = paddle.full([1], loss)
        for keeper in (best, last):
            keeper.see(Step(0, images, codes, losses, losses, losses, None))
    assert (best.codes[0, 0, 0].item(), last.codes[0, 0, 0].item()) == (1.0, 3.0)


def test_a_code_alone_is_a_latent_too(projected, crops, tmp_path):
    shutil.copy(projected / "a.pd", tmp_path)
    bare = ["--latent", str(tmp_path / "a.pd"), "--exp_dir", str(tmp_path), "--target_age", "60"]
    assert inference(bare) == 0  # the face is what the generator makes of it
    assert inference([*bare, "--data_path", str(crops / "a.png"), "--no_align"]) == 0
    coded = np.asarray(Image.open(tmp_path / "inference_results" / "60" / "a.png"))
    full = ["--latent", str(projected / "a.npz"), "--exp_dir", str(tmp_path / "full")]
    assert inference([*full, "--target_age", "60"]) == 0
    whole = np.asarray(Image.open(tmp_path / "full" / "inference_results" / "60" / "a.png"))
    assert np.abs(coded.astype(int) - whole).max() <= 1
    shutil.copy(projected / "a-project.png", tmp_path)
    assert inference([*bare[2:], "--latent", str(tmp_path)]) == 0


def test_the_centre_of_what_is_not_square_is_projected(crops, tmp_path, capsys, shape):
    face = Image.open(crops / "a.png")
    wide = Image.new("RGB", (96, 64))
    wide.paste(face, (16, 0))
    wide.save(tmp_path / "wide.png")
    words = [str(tmp_path / "wide.png"), "--no_crop", "--lpips", "alex", "--step", "0"]
    assert project_command([*words, "--output", str(tmp_path), "--no-save_mp4"]) == 0
    np.testing.assert_array_equal(read_latent(tmp_path / "wide.npz", *shape).crop, face)
    assert "wide.png: is not square" in capsys.readouterr().err


def test_of_what_is_not_square_the_centre_is_taken_and_that_is_said_once(tmp_path, capsys):
    for name in "ab":
        pixels = np.random.default_rng(0).integers(0, 256, (64, 100, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    argv = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--no_crop", "--step", "0"]
    argv += ["--output", str(tmp_path / "out"), "--no-save_mp4", "--lpips", "alex"]
    assert project_command(argv) == 0
    errors = capsys.readouterr().err
    assert errors.count("not square") == 1
    assert "squeezed" not in errors
    centre = Image.fromarray(pixels[:, 18:82])
    with np.load(tmp_path / "out" / "a.npz") as found:
        np.testing.assert_array_equal(found["crop"], np.asarray(centre))
