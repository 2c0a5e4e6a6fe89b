import dataclasses
import json

import numpy as np
import paddle
import pytest
import torch

from paddle_sam.convert.convert import convert_file, revert_file
from paddle_sam.core.images import read_image, save_image
from paddle_sam.core.weights import NetworkEntry, WeightFile
from paddle_sam.errors import CheckpointError, ConfigError, ImageError
from paddle_sam.metrics.features import (
    _INPUTS,
    TORCHVISION,
    FeatureStore,
    InceptionFeatures,
    clean_input,
    legacy_input,
    torchvision_input,
)
from paddle_sam.metrics.options import FeatureOptions
from paddle_sam.networks.image_features import (
    InceptionV3,
    max_pool,
    mean_pool,
    padded_mean_pool,
)
from tests import DEVICE, PARITY

MANIFEST = PARITY / "manifests" / "pt_inception-2015-12-05.json"


@pytest.fixture(scope="module")
def network():
    paddle.seed(0)
    return InceptionV3()


def images(count, size=20, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (size + i, size, 3), dtype=np.uint8) for i in range(count)]


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "images" / f"{index}.png" for index in range(5)]
    for path, image in zip(paths, images(5), strict=True):
        save_image(path, image)
    return paths


class Extractor:
    """Stands in for Inception: mean colours; notes what it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, images):
        self.asked += [image.shape[0] for image in images]
        return np.stack([image.mean(axis=(0, 1)) for image in images])


def test_clean_resizing_averages_and_legacy_picks():
    """Stripes far finer than the target: grey if antialiased, stripes if not."""
    stripes = np.zeros((299 * 4, 299 * 4, 3), np.uint8)
    stripes[:, ::2] = 255
    inside = (slice(None), slice(8, -8), slice(8, -8))
    assert np.abs(clean_input(stripes)[inside] - (127.5 - 128) / 128).max() < 1e-4
    points = np.zeros((299 * 4, 299 * 4, 3), np.uint8)
    points[1::4, 1::4] = points[2::4, 1::4] = points[1::4, 2::4] = points[2::4, 2::4] = 255
    assert legacy_input(points).min() == 1  # sampled from the middle of every 4 x 4
    assert abs(clean_input(points)[inside].mean() - (255 / 4 - 128) / 128) < 0.01


def test_images_of_the_networks_size_are_not_touched():
    image = images(1, 299)[0]
    expected = image.transpose(2, 0, 1).astype(np.float64)
    np.testing.assert_allclose(clean_input(image), (expected - 128) / 128, atol=1e-6)
    np.testing.assert_allclose(legacy_input(image), expected / 127.5 - 1, atol=1e-5)


def test_features_do_not_depend_on_the_batch_size(network):
    found = [
        InceptionFeatures(network, "random", batch_size=size)(images(3)) for size in (1, 2, 32)
    ]
    assert found[0].shape == (3, 2048)
    deviation = found[0].std()
    for features in found[1:]:
        assert np.abs(features - found[0]).max() < 1e-4 * deviation
    assert np.abs(found[0][0] - found[0][1]).max() > 1e-2 * deviation  # images matter


def test_the_two_resizings_give_other_features(network):
    clean, legacy = (
        InceptionFeatures(network, "random", resizing)(images(1))
        for resizing in ("clean", "legacy")
    )
    assert np.abs(clean - legacy).max() > 1e-3 * clean.std()


def test_weights_are_converted_there_and_back(tmp_path):
    manifest = json.loads(MANIFEST.read_text())
    state = {
        name: torch.from_numpy(np.broadcast_to(np.float32(len(name)), shape).copy())
        for name, shape, _ in manifest["tensors"]
    }
    torch.save(state, tmp_path / "inception.pth")
    report = convert_file(tmp_path / "inception.pth", tmp_path / "inception.pdparams")
    assert report.kind == "inception"
    assert report.counts["dropped"] == 2  # the classifier
    assert report.counts["written"] == len(state) - 2
    revert_file(tmp_path / "inception.pdparams", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())
    features = InceptionFeatures.from_file(tmp_path / "inception.pdparams", device=DEVICE)
    assert features.settings["weights"] == report.sha256


def test_torchvisions_network_is_told_from_tensorflows(tmp_path):
    """Its tensors, of which the second classifier has no part in features, convert and return."""
    manifest = json.loads((PARITY / "manifests" / "inception_v3_google.json").read_text())
    state = {
        name: torch.full(shape, len(name) % 7 + 1, dtype=getattr(torch, dtype))
        for name, shape, dtype in manifest["tensors"]
    }
    torch.save(state, tmp_path / "inception.pth")
    path = tmp_path / "inception.pdparams"
    convert_file(tmp_path / "inception.pth", path)
    features = InceptionFeatures.from_file(path, device=DEVICE, resizing=TORCHVISION)
    assert features.network.torchvision
    with pytest.raises(CheckpointError, match="inception_path: .*torchvision"):
        InceptionFeatures.from_file(path, device=DEVICE)
    revert_file(path, tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_torchvisions_averages_count_padding():
    """On a plane of ones the corner's average has 5 zeros of padding among 9 values."""
    ones = paddle.ones([1, 1, 3, 3])
    corner = [float(pool(ones)[0, 0, 0, 0]) for pool in (mean_pool, padded_mean_pool)]
    assert corner == pytest.approx([1, 4 / 9])
    last = [InceptionV3(torchvision).Mixed_7c.pool for torchvision in (False, True)]
    assert last == [max_pool, padded_mean_pool]


def test_torchvisions_input_is_normalised_by_imagenet():
    white = np.full((40, 60, 3), 255, np.uint8)
    found = torchvision_input(white)
    assert found.shape == (3, 299, 299)
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(found[:, 7, 250], expected, rtol=1e-6)


def test_another_network_is_refused(tmp_path):
    entry = NetworkEntry("mean_face", {}, {"mean": np.zeros((98, 2), "float32")})
    WeightFile("mean_face", {"mean_face": entry}).write(tmp_path / "face.pdparams")
    with pytest.raises(CheckpointError, match="inception_path: .*mean face"):
        InceptionFeatures.from_file(tmp_path / "face.pdparams", device=DEVICE)


def test_missing_weights_name_the_commands_that_get_them(tmp_path):
    with pytest.raises(CheckpointError, match="inception_path: .*download_weights.py inception"):
        InceptionFeatures.from_file(tmp_path / "none.pdparams", device=DEVICE)


def test_options_are_checked():
    with pytest.raises(ConfigError, match="resizing: .*clean, legacy"):
        FeatureOptions(resizing="bicubic")
    with pytest.raises(ConfigError, match="batch_size: .*1"):
        FeatureOptions(batch_size=0)
    with pytest.raises(ConfigError, match="resizing legacy: .*features inception"):
        FeatureOptions(resizing="legacy", features=TORCHVISION)


def test_each_content_is_looked_at_once(files, tmp_path):
    extractor = Extractor()
    store = FeatureStore(tmp_path / "cache", extractor, {"resizing": "clean"})
    expected = np.stack([read_image(path).mean(axis=(0, 1)) for path in files])
    np.testing.assert_array_equal(store.of_files(files), expected)
    assert len(extractor.asked) == 5
    copy = files[0].with_name("copy.png")
    copy.write_bytes(files[0].read_bytes())
    np.testing.assert_array_equal(
        store.of_files([copy, *files[::-1]]), expected[[0, 4, 3, 2, 1, 0]]
    )
    assert len(extractor.asked) == 5
    again = Extractor()
    restored = FeatureStore(tmp_path / "cache", again, {"resizing": "clean"})
    np.testing.assert_array_equal(restored.of_files(files), expected)
    assert again.asked == []


def test_changed_images_and_other_settings_are_computed_anew(files, tmp_path):
    FeatureStore(tmp_path / "cache", Extractor(), {"resizing": "clean"}).of_files(files)
    extractor = Extractor()
    FeatureStore(tmp_path / "cache", extractor, {"resizing": "legacy"}).of_files(files)
    assert len(extractor.asked) == 5
    extractor = Extractor()
    save_image(files[2], images(1, 30)[0])
    store = FeatureStore(tmp_path / "cache", extractor, {"resizing": "clean"})
    found = store.of_files(files)
    assert extractor.asked == [30]
    np.testing.assert_array_equal(found[2], read_image(files[2]).mean(axis=(0, 1)))


def test_an_interrupted_run_goes_on(files, tmp_path, monkeypatch):
    monkeypatch.setattr("paddle_sam.metrics.features.PART_SIZE", 2)
    files[3].write_bytes(b"no image")
    first = Extractor()
    with pytest.raises(ImageError, match="3.png"):
        FeatureStore(tmp_path / "cache", first, {}).of_files(files)
    assert len(first.asked) == 2
    save_image(files[3], images(1, 40)[0])
    second = Extractor()
    found = FeatureStore(tmp_path / "cache", second, {}).of_files(files)
    assert len(second.asked) == 3
    np.testing.assert_array_equal(
        found, np.stack([read_image(path).mean(axis=(0, 1)) for path in files])
    )


def test_a_file_that_is_gone_is_named(files):
    (link := files[0].with_name("link.png")).symlink_to("nowhere.png")
    with pytest.raises(ImageError, match="link.png: could not be read"):
        FeatureStore(None, Extractor(), {}).of_files([link])


def test_what_is_not_to_be_kept_is_not(files, tmp_path):
    extractor = Extractor()
    store = FeatureStore(tmp_path / "cache", extractor, {})
    first = store.of_files(files[:2])
    found = store.of_files(files, keep=False)
    np.testing.assert_array_equal(found[:2], first)
    assert len(extractor.asked) == 5
    store.of_files(files, keep=False)  # three of them again, neither in memory nor in the folder
    assert len(extractor.asked) == 8
    assert len(list((tmp_path / "cache").rglob("part_*.npz"))) == 1


def test_a_damaged_part_is_computed_again(files, tmp_path, capsys):
    expected = FeatureStore(tmp_path / "cache", Extractor(), {}).of_files(files)
    (part,) = (tmp_path / "cache").rglob("part_*.npz")
    part.write_bytes(part.read_bytes()[:100])
    extractor = Extractor()
    store = FeatureStore(tmp_path / "cache", extractor, {})
    assert f"{part}: damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(store.of_files(files), expected)
    assert len(extractor.asked) == 5
    FeatureStore(tmp_path / "cache", extractor, {}).of_files(files)  # the part is whole again
    assert len(extractor.asked) == 5


def test_without_a_folder_features_stay_in_memory(files):
    extractor = Extractor()
    store = FeatureStore(None, extractor, {})
    assert store.of_files(files).shape == (5, 3)
    store.of_files(files)
    assert len(extractor.asked) == 5
    with pytest.raises(ConfigError, match="expected at least one image, found none"):
        store.of_files([])


def test_options_offer_what_the_network_can_be_fed():
    fields = {field.name: field for field in dataclasses.fields(FeatureOptions)}
    assert {*fields["resizing"].metadata["choices"], TORCHVISION} == set(_INPUTS)
    assert TORCHVISION in fields["features"].metadata["choices"]
