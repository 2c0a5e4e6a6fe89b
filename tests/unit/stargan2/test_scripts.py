"""StarGAN v2's matrices, grids and interpolation, and its command on small networks."""

import shutil

import av
import numpy as np
import paddle
import pytest

from paddle_sam.core.images import read_image, save_image, to_network, to_uint8
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.networks import stargan2
from paddle_sam.networks.face_heatmaps import FaceHeatmaps
from paddle_sam.stargan2 import system as stargan2_system
from paddle_sam.stargan2.align import load_mean_face
from paddle_sam.stargan2.system import StarGAN2, load_fan, translation_matrix
from paddle_sam.stargan2.translate import latent_matrix, latents, reference_frames
from scripts.stargan2 import main as stargan2_command
from tests import DEVICE

SIZE = 32
TILE = 128  # of small images in a series
SHAPE = {"img_size": SIZE, "max_conv_dim": 8, "base_dim": 4}
ARCHS = {
    "generator": {**SHAPE, "style_dim": 4, "w_hpf": 1.0},
    "mapping_network": {"latent_dim": 4, "style_dim": 4, "num_domains": 2, "width": 8},
    "style_encoder": {**SHAPE, "style_dim": 4, "num_domains": 2},
    "fan": {"channels": 8},
}
BUILDERS = {
    "generator": stargan2.Generator,
    "mapping_network": stargan2.MappingNetwork,
    "style_encoder": stargan2.StyleEncoder,
    "fan": FaceHeatmaps,
}


def entry(name, network):
    builder = "face_heatmaps" if name == "fan" else f"stargan2_{name}"
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    return NetworkEntry(builder, ARCHS[name], state)


@pytest.fixture(scope="module")
def system():
    paddle.seed(0)
    return StarGAN2(*(BUILDERS[name](**arch) for name, arch in ARCHS.items()))


@pytest.fixture(scope="module")
def files(system, tmp_path_factory):
    """A checkpoint with its fan, one without, the fan alone, and domains of images."""
    folder = tmp_path_factory.mktemp("stargan2")
    entries = {name: entry(name, getattr(system, name)) for name in ARCHS}
    WeightFile("stargan2", entries).write(folder / "whole.pdparams")
    fan = {"face_heatmaps": entries.pop("fan")}
    WeightFile("face_heatmaps", fan).write(folder / "wing.pdparams")
    WeightFile("stargan2", entries).write(folder / "bare.pdparams")
    rng = np.random.default_rng(0)
    for domain in ("female", "male"):
        for index in range(3):
            image = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
            save_image(folder / "data" / domain / f"{index}.png", image)
    return folder


def sample(flags):
    return stargan2_command(["--mode", "sample", *flags])


def align(flags):
    return stargan2_command(["--mode", "align", *flags])


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def tile(picture, row, column):
    return picture[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE]


@paddle.no_grad()
def translated(system, image, style):
    return to_uint8(system.translate(paddle.to_tensor(to_network(image)), style).numpy())[0]


def assert_same(found, expected):
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_matrix_has_sources_above_and_references_beside(system, monkeypatch):
    sources, references, domains = images(3), images(3, 1), np.array([1, 0, 1])
    picture = translation_matrix(system, sources, references, domains)
    assert picture.shape == (4 * SIZE, 4 * SIZE, 3)
    assert (tile(picture, 0, 0) == 255).all()
    assert_same(tile(picture, 0, 2), sources[1])
    assert_same(tile(picture, 3, 0), references[2])
    monkeypatch.setattr(stargan2_system, "_BATCH", 2)
    assert_same(translation_matrix(system, sources, references, domains), picture)
    for row in range(3):
        style = system.reference_styles(references[row : row + 1], domains[row : row + 1])
        assert_same(tile(picture, row + 1, 2), translated(system, sources[1], style))


def test_a_latent_grid_has_a_row_for_each_latent(system):
    sources, z = images(2), latents(system, 3, seed=5)
    picture = latent_matrix(system, sources, z, domain=1)
    assert picture.shape == (4 * SIZE, 2 * SIZE, 3)
    assert_same(tile(picture, 0, 1), sources[1])
    style = system.latent_styles(z[2:], 1)
    assert_same(tile(picture, 3, 1), translated(system, sources[1], style))
    other = latent_matrix(system, sources, z, domain=0)
    assert np.abs(other.astype(int) - picture).max() > 1
    np.testing.assert_array_equal(z, latents(system, 3, seed=5))


def test_psi_0_gives_everyone_the_mean_style(system):
    picture = latent_matrix(system, images(1), latents(system, 2, 0), 0, psi=0.0)
    assert_same(tile(picture, 1, 0), tile(picture, 2, 0))
    full = latent_matrix(system, images(1), latents(system, 2, 0), 0)
    assert np.abs(tile(full, 1, 0).astype(int) - tile(full, 2, 0)).max() > 1


def test_an_interpolation_passes_through_every_reference(system):
    sources, references, domains = images(2), images(3, 1), np.array([0, 1, 0])
    frames = list(reference_frames(system, sources, references, domains, steps=4))
    assert len(frames) == 2 * 4 + 1
    for place, row in ((0, 0), (4, 1), (8, 2)):
        assert frames[place].shape == (2 * SIZE, 2 * SIZE, 3)
        assert_same(tile(frames[place], 0, 1), sources[1])
        style = system.reference_styles(references[row : row + 1], domains[row : row + 1])
        assert_same(tile(frames[place], 1, 1), translated(system, sources[1], style))
    half = system.reference_styles(references[:2], domains[:2]).mean(axis=0, keepdim=True)
    assert_same(tile(frames[2], 1, 0), translated(system, sources[0], half))
    with pytest.raises(ConfigError, match="references: expected at least 2, found 1"):
        next(reference_frames(system, sources, references[:1], domains[:1], 4))


@pytest.mark.parametrize("fan", ["inside", "beside"])
def test_the_sampling_script_writes_its_pictures(files, tmp_path, capsys, fan):
    flags = ["--checkpoint_path", str(files / "whole.pdparams")]
    if fan == "beside":
        flags = ["--checkpoint_path", str(files / "bare.pdparams")]
        flags += ["--wing_path", str(files / "wing.pdparams")]
    flags += ["--src_dir", str(files / "data"), "--ref_dir", str(files / "data")]
    flags += ["--result_dir", str(tmp_path), "--device", DEVICE]
    flags += ["--max_images", "2", "--num_outs_per_domain", "3", "--video_steps", "5"]
    assert sample(flags) == 0
    shapes = {path.name: read_image(path).shape for path in tmp_path.glob("*.jpg")}
    assert shapes == {
        "reference.jpg": (5 * SIZE, 5 * SIZE, 3),
        "latent_female.jpg": (4 * SIZE, 4 * SIZE, 3),
        "latent_male.jpg": (4 * SIZE, 4 * SIZE, 3),
    }
    printed = capsys.readouterr().out.split()
    assert sorted(printed) == sorted(str(tmp_path / name) for name in (*shapes, "video_ref.mp4"))
    with av.open(str(tmp_path / "video_ref.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 3 * 5 + 1  # three steps of five frames between four references
    assert frames[0].shape == (2 * SIZE, 4 * SIZE, 3)


def test_a_series_shows_training_step_by_step(files, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in (100, 2000):
        shutil.copy(files / "whole.pdparams", folder / f"iteration_{step}.pdparams")
    flags = ["--checkpoint_dir", str(folder), "--resume_iter", "2000", "--no-video"]
    flags += ["--src_dir", str(files / "data"), "--ref_dir", str(files / "data")]
    flags += ["--result_dir", str(tmp_path), "--device", DEVICE, "--max_images", "1"]
    assert sample([*flags, "--series", "100,2000"]) == 0
    series = read_image(tmp_path / "series.jpg")
    # Two sources in two domains; the sources above, a row for each step, their names at the left.
    assert series.shape == (3 * TILE, TILE // 2 + 4 * TILE, 3)
    rows = [series[row * TILE : (row + 1) * TILE, TILE // 2 :] for row in range(3)]
    inside = np.abs(rows[1].astype(int) - rows[2])[4:-4]
    assert inside.max() <= 40  # the same file, but for JPEG, which mixes colours across edges
    assert np.abs(rows[0].astype(int) - rows[1]).mean() > 1
    assert sample([*flags, "--series", "100,7"]) == 2
    assert "has no iteration_7" in capsys.readouterr().err
    assert sample([*flags, "--series", "x"]) == 2
    assert "series: expected steps" in capsys.readouterr().err


def test_what_is_missing_is_named(files, capsys, tmp_path):
    assert sample([]) == 2
    assert "--checkpoint_path" in capsys.readouterr().err
    data = ["--src_dir", str(files / "data"), "--ref_dir", str(files / "data")]
    bare = ["--checkpoint_path", str(files / "bare.pdparams"), "--device", DEVICE]
    assert sample([*bare, *data]) == 2
    assert "wing_path: this generator has a high-pass skip" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="wing_path: .*download_weights.py wing"):
        load_fan(tmp_path / "none.pdparams", DEVICE)
    with pytest.raises(CheckpointError, match="holds stargan2_generator"):
        load_fan(files / "whole.pdparams", DEVICE)
    with pytest.raises(CheckpointError, match="holds face_heatmaps"):
        StarGAN2.from_file(files / "wing.pdparams", device=DEVICE)
    save_image(tmp_path / "one" / "0.png", np.zeros((8, 8, 3), np.uint8))
    whole = ["--checkpoint_path", str(files / "whole.pdparams"), "--device", DEVICE]
    assert sample([*whole, *data, "--num_outs_per_domain", "9999"]) == 2
    assert "up to 10000 images of 32 pixels in a row" in capsys.readouterr().err
    assert sample([*whole, *data[:2], "--ref_dir", str(tmp_path)]) == 2
    assert "has 1 domains (one), expected 2" in capsys.readouterr().err


def mean_face():
    points = np.random.default_rng(0).uniform(70, 190, (98, 2))
    points[[*range(60, 68), 96]], points[[*range(68, 76), 97]] = [95, 110], [160, 112]
    points[76], points[82] = [102, 180], [152, 181]
    return points


def test_the_alignment_script_goes_on_after_a_bad_photograph(files, tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "celeba_lm_mean.npz", mean=mean_face())
    # The untrained network finds nothing; say where the face is.
    monkeypatch.setattr(
        FaceHeatmaps, "landmarks", lambda self, x: mean_face()[None] * (x.shape[2] / 256)
    )
    photos = tmp_path / "photos"
    row, column = np.mgrid[:512, :512]
    picture = np.stack([row / 2, column / 2, (row + column) / 4], axis=2).astype(np.uint8)
    save_image(photos / "a" / "good.jpg", picture)
    save_image(photos / "a" / "good.png", picture)
    (photos / "bad.jpg").write_bytes(b"no image")
    flags = ["--inp_dir", str(photos), "--out_dir", str(tmp_path / "out"), "--device", DEVICE]
    flags += ["--wing_path", str(files / "wing.pdparams"), "--img_size", "64"]
    assert align([*flags, "--lm_path", str(tmp_path / "celeba_lm_mean.npz")]) == 1
    out, err = capsys.readouterr()
    assert "2 of 3 aligned" in out
    assert (tmp_path / "out" / "a" / "good.png.png").is_file()  # of good.png
    assert str(photos / "bad.jpg") in err
    # The face is where the mean face is, so the crop is the whole photograph, reduced.
    crop = read_image(tmp_path / "out" / "a" / "good.jpg.png")
    small = read_image(photos / "a" / "good.jpg").reshape(64, 8, 64, 8, 3).mean(axis=(1, 3))
    assert np.abs(crop[2:-2, 2:-2] - small[2:-2, 2:-2]).max() < 3  # 4 levels a pixel
    shutil.rmtree(photos / "a")
    assert align([*flags, "--lm_path", str(tmp_path / "celeba_lm_mean.npz")]) == 2


def test_the_mean_face_may_be_converted_or_not(files, tmp_path):
    from paddle_sam.convert.convert import convert_file

    np.savez(tmp_path / "mean.npz", mean=mean_face())
    convert_file(tmp_path / "mean.npz", tmp_path / "mean.pdparams")
    for name in ("mean.npz", "mean.pdparams"):
        np.testing.assert_allclose(load_mean_face(str(tmp_path / name)), mean_face(), atol=1e-4)
    with pytest.raises(CheckpointError, match="lm_path: .*face alignment network"):
        load_mean_face(str(files / "wing.pdparams"))
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="bad.npz: not a NumPy archive"):
        load_mean_face(str(tmp_path / "bad.npz"))
    np.savez(tmp_path / "other.npz", x=mean_face())
    with pytest.raises(CheckpointError, match="holds no array `mean`, as celeba_lm_mean.npz does"):
        load_mean_face(str(tmp_path / "other.npz"))
    with pytest.raises(CheckpointError, match="lm_path: .*download_weights.py celeba_lm_mean"):
        load_mean_face(str(tmp_path / "missing.npz"))
