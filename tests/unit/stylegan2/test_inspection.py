"""Nearest neighbours that find a planted copy; the average face; interpolation."""

import json
import zipfile

import numpy as np
import pytest

from paddle_sam.core.images import read_image, save_image
from paddle_sam.core.latents import Latent, save_latent
from paddle_sam.errors import ImageError
from paddle_sam.networks.image_features import LPIPS
from paddle_sam.stylegan2.inspection import Distance, distances, nearest
from scripts.inspect_generator import main
from tests.unit.ageing.tiny import save_generator, tiny_generator

COPIED = 2  # the seed whose sample is planted in the data set


@pytest.fixture
def data(tmp_path, generator):
    """Faces of other seeds and, as the fifth, a mirrored and slightly changed copy."""
    images = generator.render(generator.seed_codes(range(100, 112)))
    copy = generator.render(generator.seed_codes([COPIED], 0.7))[0][:, ::-1].astype(int)
    images[5] = (copy + np.random.default_rng(0).integers(-3, 4, copy.shape)).clip(0, 255)
    for number, image in enumerate(images):
        save_image(tmp_path / "data" / f"{number}.png", image)
    return tmp_path / "data"


@pytest.fixture
def options(tmp_path):
    save_generator(tmp_path / "tiny.pdparams", tiny_generator())
    text = f"--checkpoint_path {tmp_path / 'tiny.pdparams'} --exp_dir {tmp_path} --device cpu"
    return [*text.split(), "--engine", "eager", "--tile_size", "64", "--num_threads", "0"]


def result(tmp_path):
    return json.loads((tmp_path / "inspection" / "nearest.json").read_text())


def test_pixel_distance_by_hand():
    images = np.zeros((3, 1, 1, 3), np.uint8)
    images[1], images[2] = (3, 0, 0), (255, 255, 255)
    distance = Distance()
    parts = distance.extract(images)
    want = [[0, np.sqrt(3), 255], [np.sqrt(3), 0, np.sqrt((252**2 + 2 * 255**2) / 3)]]
    np.testing.assert_allclose(distance.between([parts[0][:2]], parts), want, rtol=1e-6)


def test_lpips_distance_is_lpips():
    import paddle

    from paddle_sam.core.images import to_network

    paddle.seed(0)
    lpips = LPIPS("alex")
    lpips.eval()
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    distance = Distance(lpips)
    found = distance.between(distance.extract(images[:2]), distance.extract(images))
    pairs = [paddle.to_tensor(to_network(images[[q] * 5])) for q in range(2)]
    whole = paddle.to_tensor(to_network(images))
    want = np.stack([lpips(pair, whole).numpy() for pair in pairs])
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
    assert found[0, 0] == pytest.approx(0, abs=1e-6) and np.abs(found[0, 1:]).min() > 1e-4


@pytest.mark.parametrize("archive", [False, True])
def test_a_planted_copy_is_found(data, options, tmp_path, capsys, archive):
    place = data
    if archive:
        place = tmp_path / "data.zip"
        with zipfile.ZipFile(place, "w") as packed:
            for path in data.iterdir():
                packed.write(path, path.name)
    arguments = ["--data_path", str(place), "--features", "pixels", "--neighbours", "3"]
    assert main([*options, *arguments, "--seeds", "0-3"]) == 0
    samples = result(tmp_path)["samples"]
    assert [sample["seed"] for sample in samples] == [0, 1, 2, 3]
    nearest_ones = [sample["neighbours"][0] for sample in samples]
    assert nearest_ones[COPIED]["image"] == "5.png" and nearest_ones[COPIED]["distance"] < 3
    others = [one["distance"] for seed, one in enumerate(nearest_ones) if seed != COPIED]
    assert min(others) > 6
    for sample in samples:
        far = [one["distance"] for one in sample["neighbours"]]
        assert len(far) == 3 and far == sorted(far)
    sheet = read_image(tmp_path / "inspection" / "nearest.png")
    assert sheet.shape == (4 * (64 + 12) + 3 * 4, 4 * 64, 3)
    assert "images of the data set: " in capsys.readouterr().out
    assert len(result(tmp_path)["data_set_to_itself"]) == 8

    # The copy is mirrored: without looking in the mirror it is just another face.
    assert main([*options, *arguments, "--seeds", str(COPIED), "--no-mirror"]) == 0
    assert result(tmp_path)["samples"][0]["neighbours"][0]["distance"] > 3


def test_unreadable_images_are_skipped_and_never_near(data, options, tmp_path, capsys):
    (data / "0.png").write_bytes(b"none")
    (data / "0b.txt").write_text("no image")
    assert (
        main([*options, "--data_path", str(data), "--features", "pixels", "--neighbours", "99"])
        == 0
    )
    assert "skipped: " in capsys.readouterr().err
    for sample in result(tmp_path)["samples"]:
        names = [one["image"] for one in sample["neighbours"]]
        assert len(names) == 11 and "0.png" not in names
    with pytest.raises(ImageError, match="none of 1 images can be read"):
        distances(np.zeros((1, 8, 8, 3), np.uint8), [data / "0.png"], Distance())


def test_fewer_neighbours_than_asked_for():
    places, far = nearest(np.array([[0.3, np.inf, 0.1]]), 5)
    assert places.tolist() == [[2, 0]] and far.tolist() == [[0.1, 0.3]]


def test_the_average_face_is_psi_0(options, tmp_path, generator):
    assert main([*options, "--tile_size", "32"]) == 0
    found = read_image(tmp_path / "inspection" / "average_face.png")
    np.testing.assert_array_equal(found, generator.render(generator.seed_codes([7], 0.0))[0])
    assert not (tmp_path / "inspection" / "nearest.png").exists()


def test_interpolation_goes_from_one_projection_to_the_other(options, tmp_path, generator, capsys):
    codes = generator.seed_codes([1, 2])
    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    for name, code, crop in zip("ab", codes, crops, strict=True):
        save_latent(tmp_path / f"{name}.npz", Latent(code, crop))
    both = f"{tmp_path / 'a.npz'},{tmp_path / 'b.npz'}"
    arguments = f"--latents {both} --steps 3 --tile_size 32 --video --fps 10 --duration 1".split()
    assert main([*options, *arguments]) == 0
    strip = read_image(tmp_path / "inspection" / "a_to_b.png")[:32]
    middle = generator.render(codes.mean(axis=0, keepdims=True))
    want = [crops[0], generator.render(codes)[0], middle[0], generator.render(codes)[1], crops[1]]
    assert np.abs(strip.astype(int) - np.hstack(want)).max() <= 1
    assert (tmp_path / "inspection" / "a_to_b.mp4").stat().st_size > 500
    assert "a_to_b.mp4" in capsys.readouterr().out

    assert main([*options, "--latents", f"{tmp_path / 'a.npz'}"]) == 2
    assert "latents: expected two files such as a.npz,b.npz" in capsys.readouterr().err
    save_latent(tmp_path / "b.npz", Latent(codes[0][:4], crops[0]))
    assert main([*options, "--latents", both]) == 2
    assert "b.npz: holds a code of shape [4, 16], this model takes [8, 16]" in (
        capsys.readouterr().err
    )


def test_missing_data_is_explained_before_anything_is_made(options, tmp_path, capsys):
    assert main([*options, "--data_path", str(tmp_path / "none")]) == 2
    assert "none: there is no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "inspection").exists()


def test_a_table_of_layers_counts_every_parameter(tmp_path, capsys):
    network = tiny_generator()
    save_generator(tmp_path / "tiny.pdparams", network)
    given = ["--checkpoint_path", str(tmp_path / "tiny.pdparams"), "--exp_dir", str(tmp_path)]
    assert main([*given, "--layers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {
        line.split()[0]: line.split() for line in lines if line.startswith(("conv", "to_", "t"))
    }
    parameters = sum(int(np.prod(p.shape)) for p in network.parameters())
    assert rows["total"][-1] == f"{parameters:,}"
    assert rows["conv1"][1:8:2] == ["1", str(network.conv1.conv.weight.shape[0]), "4", "4"]
    assert rows["to_rgbs.2"][1:8:2] == ["1", "3", "32", "32"]
