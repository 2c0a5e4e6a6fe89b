import json

import numpy as np
import paddle
import pytest
from PIL import Image

import paddle_sam
from paddle_sam.ageing.invert import PictureEncoder, shrink
from paddle_sam.ageing.latent_options import InvertOptions
from paddle_sam.convert.encoders import ENCODER_TYPES
from paddle_sam.core.images import read_image, to_network, to_uint8
from paddle_sam.core.latents import read_latent
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import CheckpointError, ConfigError, ImageError
from paddle_sam.faces.alignment import CropSettings
from paddle_sam.networks.sam import build_sam
from scripts.inference import main as inference
from scripts.invert import main as invert
from tests.unit.convert.test_encoder_types import DECODER, arguments
from tests.unit.export.tiny import ARCH, ENCODER, SIZE, tiny_sam

LABELS = 5
RESTYLE = ("BackboneEncoder", "ProgressiveBackboneEncoder")


def network(channels: int, **options):
    """pSp (3 channels), ReStyle (6), or an encoder of sketches or label maps; always the same."""
    paddle.seed(3)
    arch = {"encoder": ENCODER | {"in_channels": channels}, "pretrained_encoder": None}
    return tiny_sam(**arch, start="latent_avg", **options)


@pytest.fixture
def weights(tmp_path):
    """A function (channels) -> the path of a weight file of such an encoder."""

    def write(channels: int, **encoder):
        arch = ARCH | {"encoder": ENCODER | {"in_channels": channels} | encoder}
        arch |= {"pretrained_encoder": None, "start": "latent_avg", "iterations": 2}
        state = {k: v.numpy() for k, v in network(channels, iterations=2).state_dict().items()}
        path = tmp_path / f"encoder{channels}.pdparams"
        WeightFile("psp", {"psp": NetworkEntry("sam", arch, state)}).write(path)
        return path

    return write


def encoder(channels: int, **options) -> PictureEncoder:
    return PictureEncoder(network(channels), CropSettings(SIZE), **options)


def picture(seed: int = 0, side: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def codes_of(file) -> np.ndarray:
    return read_latent(file, 8, 16).w_plus


def test_a_label_map_becomes_a_plane_for_each_label():
    labels = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    labels[:, SIZE:] = 3
    planes, (shown,) = encoder(LABELS).prepare([encoder(LABELS).fit(labels)])
    assert planes.shape == (1, LABELS, SIZE, SIZE)
    np.testing.assert_array_equal(planes.sum(axis=1), 1)
    np.testing.assert_array_equal(planes[0, 3, :, SIZE // 2 :], 1)
    np.testing.assert_array_equal(planes[0, 0, :, : SIZE // 2], 1)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 2


def test_a_sketch_keeps_its_grey_levels_from_0_to_1():
    sketch = np.full((SIZE, SIZE, 3), 51, np.uint8)
    planes, _ = encoder(1).prepare([encoder(1).fit(sketch)])
    assert planes.shape == (1, 1, SIZE, SIZE)
    np.testing.assert_allclose(planes, 0.2)


def test_what_is_not_square_is_cut_at_its_centre():
    wide = np.zeros((SIZE, 3 * SIZE, 3), np.uint8)
    wide[:, SIZE : 2 * SIZE] = picture()
    np.testing.assert_array_equal(encoder(1).fit(wide), picture())


def test_shrinking_is_that_of_super_resolution():
    """Keys' kernel with a = -0.5 of four times the factor's width, centred on the small pixels."""
    factor, image = 4, picture(side=64)
    at = np.abs((np.arange(4 * factor) - 2 * factor + 0.5) / factor)
    near, far = 1.5 * at**3 - 2.5 * at**2 + 1, -0.5 * at**3 + 2.5 * at**2 - 4 * at + 2
    kernel = np.where(at <= 1, near, np.where(at < 2, far, 0))
    kernel /= kernel.sum()
    pad = (4 * factor - factor) // 2
    wide = np.pad(image.astype(float), ((pad, pad), (pad, pad), (0, 0)), "reflect")
    rows = np.stack([kernel @ wide[k : k + 16].reshape(16, -1) for k in range(0, 64, factor)])
    rows = rows.reshape(16, -1, 3).transpose(1, 0, 2)
    small = np.stack([kernel @ rows[k : k + 16].reshape(16, -1) for k in range(0, 64, factor)])
    small = small.reshape(16, 16, 3).transpose(1, 0, 2).clip(0, 255)
    expected = Image.fromarray(np.rint(small).astype(np.uint8)).resize((64, 64), Image.BILINEAR)
    inside = (slice(16, -16), slice(16, -16))  # Pillow cuts the kernel at the edge
    difference = np.abs(shrink(image, factor).astype(int) - np.asarray(expected))[inside]
    assert difference.max() <= 1
    np.testing.assert_array_equal(shrink(image, 1), image)


@pytest.mark.parametrize(("channels", "inputs"), [(3, 3), (6, 3), (1, 1), (LABELS, LABELS)])
def test_codes_are_those_of_the_network(channels, inputs):
    one = encoder(channels)
    planes = np.random.default_rng(0).uniform(0, 1, (2, inputs, SIZE, SIZE)).astype(np.float32)
    *_, codes = one.codes(planes)
    with paddle.no_grad():
        expected = one.network.encode(paddle.to_tensor(planes))
    np.testing.assert_allclose(codes.numpy(), expected.numpy(), atol=1e-6)


def test_restyle_takes_the_steps_that_are_asked_for():
    planes = to_network(picture())
    *_, three = encoder(6, steps=3).codes(planes)
    steps = list(encoder(6).codes(planes))
    assert len(steps) == 5  # as published
    np.testing.assert_allclose(steps[2].numpy(), three.numpy(), atol=1e-6)
    assert np.abs(steps[4].numpy() - steps[2].numpy()).max() > 1e-3


def test_sam_inverts_by_its_frozen_encoder():
    sam = tiny_sam()
    images, codes = paddle_sam.invert(picture(), sam, align=False)
    with paddle.no_grad():
        expected = sam.invert(paddle.to_tensor(to_network(picture())))
    np.testing.assert_allclose(codes, expected.numpy(), atol=1e-6)
    assert images.shape == (1, SIZE, SIZE, 3)


def test_what_an_encoder_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="steps"):
        encoder(3, steps=2)
    with pytest.raises(ConfigError, match="resize_factors.*sketch"):
        encoder(1, factor=4)
    with pytest.raises(CheckpointError, match="an age"):
        PictureEncoder(tiny_sam(start="latent_avg", pretrained_encoder=None), CropSettings(SIZE))
    with pytest.raises(ImageError, match="label 9.*0 to 4"):
        encoder(LABELS).fit(np.full((SIZE, SIZE), 9, np.uint8))
    with pytest.raises(ImageError, match="label map"):
        paddle_sam.invert([picture()], network(LABELS))


def test_a_folder_of_sketches_with_a_bad_one(weights, tmp_path, capsys):
    folder = tmp_path / "sketches"
    folder.mkdir()
    for name in ("a", "b"):
        Image.fromarray(picture()[..., 0]).save(folder / f"{name}.png")
    (folder / "c.png").write_bytes(b"no image")
    path = weights(1)
    argv = [str(folder), "--checkpoint_path", str(path), "--exp_dir", str(tmp_path / "out")]
    assert invert(argv) == 1
    assert "c.png" in capsys.readouterr().err
    found = {file.name for file in (tmp_path / "out" / "inversion").iterdir()}
    kinds = (".npz", ".pd", "-inversion.png", "-sheet.jpg")
    assert found == {f"{name}{kind}" for name in "ab" for kind in kinds}
    grey = picture()[..., 0].astype(np.float32)[None, None] / 255
    with paddle.no_grad():
        expected = paddle_sam.load(path).encode(paddle.to_tensor(grey))[0].numpy()
    np.testing.assert_allclose(
        codes_of(tmp_path / "out" / "inversion" / "a.npz"), expected, atol=1e-6
    )


@pytest.mark.parametrize("mode", ["L", "P"])
def test_label_maps_are_read_by_their_numbers(weights, tmp_path, mode):
    labels = np.random.default_rng(0).integers(0, LABELS, (SIZE, SIZE), np.uint8)
    image = Image.fromarray(labels)
    if mode == "P":
        image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200, 9, 9, 9, 99, 99, 99])
        assert image.mode == "P"
    image.save(tmp_path / "map.png")
    argv = ["--data_path", str(tmp_path / "map.png"), "--exp_dir", str(tmp_path / "out")]
    path = weights(LABELS)
    assert invert([*argv, "--checkpoint_path", str(path)]) == 0
    planes = np.eye(LABELS, dtype=np.float32)[labels].transpose(2, 0, 1)[None]
    with paddle.no_grad():
        expected = paddle_sam.load(path).encode(paddle.to_tensor(planes))[0].numpy()
    np.testing.assert_allclose(
        codes_of(tmp_path / "out" / "inversion" / "map.npz"), expected, atol=1e-6
    )


def test_coloured_and_lossy_label_maps_are_refused(weights, tmp_path, capsys):
    Image.fromarray(picture()).save(tmp_path / "colours.png")
    Image.fromarray(picture()[..., 0] % LABELS).save(tmp_path / "lossy.jpg")
    argv = ["--checkpoint_path", str(weights(LABELS)), "--exp_dir", str(tmp_path / "out")]
    assert invert([str(tmp_path / "colours.png"), str(tmp_path / "lossy.jpg"), *argv]) == 2
    errors = capsys.readouterr().err
    assert "found colours" in errors
    assert "found JPEG" in errors


def test_a_sheet_shows_every_step_of_restyle(weights, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "face.png")
    argv = [str(tmp_path / "face.png"), "--no_align", "--exp_dir", str(tmp_path / "out")]
    assert invert([*argv, "--checkpoint_path", str(weights(6))]) == 0
    sheet = read_image(tmp_path / "out" / "inversion" / "face-sheet.jpg")
    assert sheet.shape[1] == 3 * 256  # the input, step 1, the inversion


@pytest.mark.parametrize("channels", [3, 6])
def test_a_wide_picture_gives_a_wide_image(weights, tmp_path, channels):
    """A car of 4 to 3: the encoder reads 24 rows of 32, and the margins of images are cut."""
    pixels = picture(side=64)[:, :50]  # of which the centre is taken
    Image.fromarray(pixels).save(tmp_path / "car.png")
    path = weights(channels, rows=24)
    argv = [str(tmp_path / "car.png"), "--exp_dir", str(tmp_path / "out")]
    assert invert([*argv, "--checkpoint_path", str(path)]) == 0
    encoder = PictureEncoder.open(path)
    assert (encoder.kind, encoder.rows) == ("car", 24)
    middle = Image.fromarray(pixels[13:50]).resize((32, 24), Image.Resampling.LANCZOS)
    x = paddle.to_tensor(to_network(np.asarray(middle)))
    net = paddle_sam.load(path)
    with paddle.no_grad():
        codes = net.latent_avg.unsqueeze(0)
        for _ in range(2 if channels == 6 else 1):
            image = net.decoder([codes], input_is_latent=True, randomize_noise=False)[:, :, 4:28]
            both = paddle.concat([x, image], axis=1) if channels == 6 else x
            codes = codes + net.encoder(both)
        image = net.decoder([codes], input_is_latent=True, randomize_noise=False)
    folder = tmp_path / "out" / "inversion"
    np.testing.assert_allclose(codes_of(folder / "car.npz"), codes[0].numpy(), atol=1e-4)
    found = read_image(folder / "car-inversion.png")
    want = to_uint8(image[:, :, 4:28].numpy())[0]
    assert np.abs(found.astype(int) - want).max() <= 1
    steps = 3 if channels == 6 else 2
    assert read_image(folder / "car-sheet.jpg").shape == (192 + 256 // 6, steps * 256, 3)


def test_a_code_is_aged_by_sam_as_its_face(checkpoint, tmp_path):
    """Both files: the `.pd` finds its picture beside it."""
    Image.fromarray(picture()).save(tmp_path / "face.png")
    model = ["--checkpoint_path", str(checkpoint), "--exp_dir", str(tmp_path / "out")]
    assert invert([str(tmp_path / "face.png"), "--no_align", *model]) == 0
    folder = tmp_path / "out" / "inversion"
    ageing = [*model, "--target_age", "50", "--engine", "eager", "--latent"]
    for file in ("face.npz", "face.pd"):
        assert inference([*ageing, str(folder / file)]) == 0
    assert (tmp_path / "out" / "inference_results" / "50" / "face.png").is_file()


def test_names_of_other_programs_are_understood(capsys):
    with pytest.raises(SystemExit):
        invert(["--images_dir", "faces", "--n_iters_per_batch", "3", "--dry_run"])
    options = json.loads(capsys.readouterr().out)
    assert (options["data_path"], options["steps"]) == ("faces", 3)


def test_codes_of_others_are_aged_without_a_picture(checkpoint, tmp_path):
    """Each of an array [N, L, D] shows the face that the generator makes of it."""
    codes = np.random.default_rng(0).normal(size=(2, 8, 16)).astype(np.float32)
    np.save(tmp_path / "two.npy", codes)
    argv = ["--checkpoint_path", str(checkpoint), "--exp_dir", str(tmp_path / "out")]
    argv += ["--target_age", "50", "--engine", "eager", "--keep", "0", "--strength", "0"]
    assert inference([*argv, "--latent", str(tmp_path / "two.npy")]) == 0
    network = paddle_sam.load(checkpoint)
    for number in (0, 1):
        with paddle.no_grad():
            one = paddle.to_tensor(codes[number : number + 1])
            image, _ = network.decode(one, resize=False, randomize_noise=False)
        found = read_image(tmp_path / "out" / "inference_results" / "50" / f"two_{number}.png")
        np.testing.assert_allclose(to_network(found), image.clip(-1, 1).numpy(), atol=1.01 / 127.5)


def test_codes_are_found_by_the_names_of_photographs(checkpoint, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("anna", "bea", "carl"):
        Image.fromarray(picture()).save(folder / f"{name}.png")
    code = np.zeros((8, 16), np.float32)
    np.save(tmp_path / "latents.npy", {"anna.jpg": [code, code], "bea.jpg": [code]})
    argv = ["--checkpoint_path", str(checkpoint), "--exp_dir", str(tmp_path / "out"), "--no_align"]
    argv += ["--data_path", str(folder), "--latent", str(tmp_path / "latents.npy")]
    assert inference([*argv, "--target_age", "50", "--engine", "eager"]) == 1
    assert "no code called carl" in capsys.readouterr().err
    found = {file.name for file in (tmp_path / "out" / "inference_results" / "50").iterdir()}
    assert found == {"anna.png", "bea.png"}


@pytest.mark.parametrize("kind", ENCODER_TYPES)
def test_every_encoder_type_inverts(kind):
    """Those of one code, or of the last layer, too."""
    small = arguments(kind)
    steps = {"in_channels": 6} if kind in RESTYLE else {}
    network = build_sam(encoder=small | steps, decoder=DECODER, start="latent_avg", iterations=2)
    network.eval()
    images, codes = paddle_sam.invert(picture(), network, align=False)
    assert (images.shape, codes.shape) == ((1, SIZE, SIZE, 3), (1, 8, 16))
    with paddle.no_grad():
        expected = network.encode(paddle.to_tensor(to_network(picture())))
    np.testing.assert_allclose(codes, np.broadcast_to(expected.numpy(), codes.shape), atol=1e-5)


def test_one_sketch_in_several_styles(weights, tmp_path, capsys):
    """Codes that are not named stay; the others are those of the seeds, as far as alpha says."""
    path = weights(1)
    encoder = PictureEncoder.open(path)
    code = paddle.to_tensor(np.random.default_rng(0).normal(size=(1, 8, 16)).astype(np.float32))
    options = InvertOptions(latent_mask="4-7", n_outputs_to_generate=2, mix_alpha=0.25, seed=5)
    found = encoder.styled(code, options).numpy()
    z = np.random.RandomState(6).randn(1, 16).astype(np.float32)
    with paddle.no_grad():
        w = encoder.network.map_latents(paddle.to_tensor(z)).numpy()
    np.testing.assert_array_equal(found[1, :4], code[0, :4].numpy())
    np.testing.assert_allclose(found[1, 4:], 0.25 * w + 0.75 * code[0, 4:].numpy(), atol=1e-6)
    Image.fromarray(picture()).save(tmp_path / "a.png")
    argv = [str(tmp_path / "a.png"), "--checkpoint_path", str(path), "--exp_dir", str(tmp_path)]
    assert invert([*argv, "--latent_mask", "4-7", "--n_outputs_to_generate", "2"]) == 0
    names = {file.name for file in (tmp_path / "inversion").iterdir()}
    assert {"a-style0.png", "a-style1.png", "a-sheet.jpg"} <= names
    assert invert([*argv, "--latent_mask", "4-9"]) == 2
    assert "--latent_mask: this model has the codes 0 to 7" in capsys.readouterr().err
