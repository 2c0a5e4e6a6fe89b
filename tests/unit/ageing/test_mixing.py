import numpy as np
import paddle
import pytest
import skimage.data
from PIL import Image

from paddle_sam.ageing import mixing as style_mixing
from paddle_sam.ageing.mixing import Donors, mix_photos, random_codes, read_paths
from paddle_sam.ageing.options import (
    ReferenceOptions,
    StyleMixingOptions,
    parse_latent_mask,
)
from paddle_sam.ageing.run import AgeingRun
from paddle_sam.core.images import to_network, to_uint8
from paddle_sam.errors import ConfigError
from paddle_sam.networks.sam import add_age_plane
from scripts.reference_guided_inference import main as reference_guided_inference
from scripts.style_mixing import main as style_mixing_command

PORTRAIT = skimage.data.astronaut()


@pytest.fixture(scope="module")
def crops(pipeline, tmp_path_factory):
    """Folder with two aligned crops: the portrait, and the portrait mirrored and tinted."""
    folder = tmp_path_factory.mktemp("crops")
    crop = pipeline.faces(PORTRAIT)[0].image
    Image.fromarray(crop).save(folder / "a.png")
    Image.fromarray((crop[:, ::-1] * (1, 0.7, 0.5)).astype(np.uint8)).save(folder / "b.png")
    return folder


def network_input(path, age):
    image = paddle.to_tensor(to_network(np.asarray(Image.open(path))))
    return add_age_plane(image, paddle.to_tensor([float(age)]))


def mixed_images(config, donors):
    """Name of each input: its results at each age, [A, N, R, R, 3]."""
    run = AgeingRun(config)
    found = {
        str(name): np.stack([images[1:] for images in mixed.values()])
        for name, _, mixed in mix_photos(config, run, donors)
    }
    assert run.summary.status() == 0
    return found


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_without_keep_age_it_is_the_networks_own_style_mixing(pipeline, crops, alpha):
    config = StyleMixingOptions(
        data_path=str(crops),
        no_align=True,
        raw_age=True,
        target_age="10,70",
        latent_mask="4,9",
        mix_alpha=alpha,
    )
    codes = random_codes(pipeline, 2, seed=1, truncation=1.0)
    found = mixed_images(config, Donors(np.zeros((2, 64, 64, 3), np.uint8), lambda age: codes))
    for name in ("a.png", "b.png"):
        for at, age in enumerate((10, 70)):
            x = network_input(crops / name, age)
            for donor in range(2):
                with paddle.no_grad():
                    want = pipeline.network(
                        x,
                        latent_mask=[4, 9],
                        inject_latent=codes[donor : donor + 1],
                        alpha=alpha,
                        randomize_noise=False,
                    )
                difference = found[name][at, donor].astype(int) - to_uint8(want.numpy())[0]
                assert np.abs(difference).max() <= 1


def test_keep_age_adds_what_ageing_changes(pipeline, crops):
    """With every code replaced, the donor itself is aged: to its code the residual is added."""
    config = StyleMixingOptions(
        data_path=str(crops / "a.png"),
        no_align=True,
        raw_age=True,
        target_age="70",
        latent_mask="0-9",
    )
    codes = random_codes(pipeline, 1, seed=1, truncation=0.7)
    donors = Donors(np.zeros((1, 64, 64, 3), np.uint8), lambda age: codes, age_with_face=True)
    (found,) = mixed_images(config, donors)["a.png"]
    x = network_input(crops / "a.png", 70)
    with paddle.no_grad():
        residual = pipeline.network.encoder(x)
        want = pipeline.network.decode(codes + residual, randomize_noise=False)[0]
    assert np.abs(found[0].astype(int) - to_uint8(want.numpy())[0]).max() <= 1


def test_references_are_aged_to_the_same_age(pipeline, crops, tmp_path):
    (tmp_path / "list.txt").write_text(f"{crops / 'b.png'}\n\n")
    config = ReferenceOptions(
        data_path=str(crops / "a.png"),
        no_align=True,
        raw_age=True,
        ref_images_paths_file=str(tmp_path / "list.txt"),
    )
    donors = style_mixing.references(
        config, AgeingRun(config), read_paths(config.ref_images_paths_file)
    )
    with paddle.no_grad():
        want = pipeline.network.encode(network_input(crops / "b.png", 40))
    np.testing.assert_allclose(donors.codes(40).numpy(), want.numpy(), atol=1e-4)
    np.testing.assert_array_equal(donors.tiles[0], np.asarray(Image.open(crops / "b.png")))


def test_random_codes_follow_the_seed_and_the_truncation(pipeline):
    one, two = (random_codes(pipeline, 3, seed, 0.7).numpy() for seed in (1, 2))
    np.testing.assert_array_equal(one, random_codes(pipeline, 3, 1, 0.7).numpy())
    assert np.abs(one - two).max() > 0.1 and np.abs(one[0] - one[1]).max() > 0.1
    average = pipeline.network.latent_avg.numpy()
    half, full = (random_codes(pipeline, 3, 1, psi).numpy() - average for psi in (0.5, 1.0))
    np.testing.assert_allclose(half, full / 2, atol=1e-5)


def test_style_mixing_writes_a_sheet(crops, tmp_path):
    arguments = ["--data_path", str(crops / "a.png"), "--exp_dir", str(tmp_path), "--no_align"]
    assert style_mixing_command([*arguments, "--n_outputs_to_generate", "3"]) == 0
    sheet = Image.open(tmp_path / "style_mixing" / "a.png")
    assert sheet.width == 4 * 128  # input and three faces
    assert sheet.height == 4 * (128 + 128 // 6) + 3 * 4  # faces, three ages, gaps


def test_reference_guided_writes_a_folder_per_age(crops, tmp_path):
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")  # seen from the file's folder
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes((crops / name).read_bytes())
    arguments = ["--data_path", str(crops), "--exp_dir", str(tmp_path / "out"), "--no_align"]
    arguments += ["--ref_images_paths_file", str(tmp_path / "list.txt"), "--target_age=20,65"]
    assert reference_guided_inference([*arguments, "--latent_mask=8,9", "--mix_alpha", "0.5"]) == 0
    folder = tmp_path / "out" / "reference_guided"
    written = {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
    assert written == {"20/a.png", "20/b.png", "65/a.png", "65/b.png"}
    sheet = np.asarray(Image.open(folder / "20" / "a.png"))
    assert sheet.shape[1] == 3 * 128
    top = np.asarray(Image.open(crops / "b.png").resize((128, 128), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(sheet[:128, 256:], top)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8,x", "expected numbers such as 8,9 or ranges such as 5-9, found 'x'"),
        ("9-8", "found '9-8'"),
        ("", "found ''"),
        ("8,10", "this model has the codes 0 to 9, found 10"),
    ],
)
def test_masks_that_cannot_be_are_explained(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_latent_mask(text or ",", 10)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"\n \n", "names no image"),
        (b"\xff\xfe\x00", "there is no such file"),
    ],
)
def test_lists_of_references_that_cannot_be_used_are_explained(tmp_path, content, words):
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=f"ref_images_paths_file: .*{words}"):
        read_paths(str(tmp_path / "list.txt"))


def test_a_missing_reference_is_named(tmp_path, capsys):
    (tmp_path / "list.txt").write_text("nowhere.png\n")
    arguments = ["--ref_images_paths_file", str(tmp_path / "list.txt")]
    assert reference_guided_inference([*arguments, "--exp_dir", str(tmp_path / "out")]) == 2
    assert "nowhere.png: there is no such file" in capsys.readouterr().err
    assert reference_guided_inference([]) == 2
    assert "ref_images_paths_file: expected a text file" in capsys.readouterr().err
