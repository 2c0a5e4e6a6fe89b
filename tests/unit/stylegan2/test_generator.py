"""Seeds, truncation and noise against what they should be by hand."""

import numpy as np
import paddle
import pytest

from paddle_sam.core.weights import find_weight
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.networks.stylegan2_ops import seed_latents
from paddle_sam.stylegan2.generator import (
    StyleGenerator,
    mix,
    open_generator,
    seed_noise,
    truncate,
)
from paddle_sam.stylegan2.options import GeneratorOptions
from tests import DEVICE
from tests.unit.ageing.tiny import save_generator, tiny_generator

SEEDS = [3, 0, 7, 2005, 41]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_generator(folder / "tiny.pdparams", tiny_generator())
    with pytest.MonkeyPatch.context() as patch:  # one cache of exported models for all tests
        patch.setenv("PADDLE_SAM_CACHE", str(folder / "cache"))
        yield folder / "tiny.pdparams"


@pytest.fixture(scope="module", params=["eager", "onednn"])
def generator(request, weights):
    return StyleGenerator.open(weights, engine=request.param, device=DEVICE)


def test_a_seeds_latent_is_what_numpy_gives_it():
    want = np.random.RandomState(2005).randn(1, 16)
    np.testing.assert_array_equal(seed_latents(SEEDS, 16)[3], want[0].astype(np.float32))
    with pytest.raises(ConfigError, match="seed: expected 0 to 4294967295, found 4294967296"):
        seed_latents([0, 1 << 32], 16)


def test_a_seed_gives_one_image_in_any_company(generator):
    """Its code bit for bit; its image but for single grey levels, which batches may move."""
    codes = generator.seed_codes(SEEDS, 0.7)
    together = generator.render(codes)
    assert together.std() > 10
    for order in ([0, 1, 2, 3, 4], [4, 2], [3]):
        part = generator.seed_codes([SEEDS[place] for place in order], 0.7)
        np.testing.assert_array_equal(part, codes[order])
        difference = np.abs(generator.render(part).astype(int) - together[order])
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_codes_of_seeds_leave_the_device_together(weights, host_copies):
    generator = StyleGenerator.open(weights, engine="eager", device=DEVICE)
    host_copies.clear()
    generator.seed_codes(SEEDS)
    assert len(host_copies) == 1, host_copies


def test_the_engine_gives_the_eager_images(weights):
    images = []
    for engine in ("eager", "onednn"):
        generator = StyleGenerator.open(weights, engine=engine, device=DEVICE)
        images.append(generator.render(generator.seed_codes(SEEDS, 0.7)).astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1


def test_truncation_by_hand(generator):
    network, average = tiny_generator(), generator.w_avg
    assert average.shape == (1, 16)
    np.testing.assert_array_equal(average[0], network.latent_avg.numpy())
    with paddle.no_grad():
        w = network.style(paddle.to_tensor(seed_latents(SEEDS, 16))).numpy()[:, None]
    for psi in (1.0, 0.7, 0.0, -1.0):
        want = np.repeat(average + psi * (w - average), 8, axis=1)
        codes = generator.seed_codes(SEEDS, psi)
        assert codes.shape == (5, 8, 16) and codes.dtype == np.float32
        np.testing.assert_allclose(codes, want, atol=1e-5)
    # At psi 0 nothing is left of the seed; at -1 the face is as far on the other side.
    assert np.ptp(generator.render(generator.seed_codes(SEEDS, 0.0)), axis=0).max() == 0
    both = generator.seed_codes(SEEDS, 1.0) + generator.seed_codes(SEEDS, -1.0)
    np.testing.assert_allclose(both, np.broadcast_to(2 * average, both.shape), atol=1e-5)


def test_the_cutoff_leaves_the_other_codes():
    w_plus = np.random.default_rng(0).normal(size=(2, 8, 4)).astype(np.float32)
    average = np.ones((1, 4), np.float32)
    codes = truncate(w_plus, average, 0.5, cutoff=3)
    np.testing.assert_allclose(codes[:, :3], 1 + 0.5 * (w_plus[:, :3] - 1), rtol=1e-6)
    np.testing.assert_array_equal(codes[:, 3:], w_plus[:, 3:])
    np.testing.assert_array_equal(truncate(w_plus, average, 0.5, 8), truncate(w_plus, average, 0.5))


def test_mixing_takes_the_named_codes():
    faces, source = np.zeros((2, 8, 4)), np.ones((1, 8, 4))
    mixed = mix(faces, source, range(2, 4))
    assert mixed[:, 2:4].min() == 1 and mixed.sum() == 2 * 2 * 4 and faces.sum() == 0


def test_noise_is_each_seeds_own():
    together, alone = seed_noise([4, 9], [4, 8]), seed_noise([9], [4, 8])
    assert [noise.shape for noise in together] == [(2, 1, 4, 4), (2, 1, 8, 8)]
    np.testing.assert_array_equal(together[1][1:], alone[1])
    # Not the numbers its z begins with.
    assert not np.isin(alone[0].ravel()[:4], seed_latents([9], 16)).any()


def test_noise_changes_the_image_and_none_differs_from_the_stored(weights):
    generator = StyleGenerator.open(weights, device=DEVICE, any_noise=True)
    code = generator.seed_codes([1])
    stored = generator.render(code)
    np.testing.assert_array_equal(generator.render(code, generator.stored_noise()), stored)
    zero = [0 * noise for noise in generator.stored_noise()]
    assert (generator.render(code, zero) != stored).any()


def test_an_average_is_computed_where_the_file_has_none(tmp_path, capsys):
    network = tiny_generator()
    save_generator(tmp_path / "a.pdparams", network, latent_avg=False)
    found = StyleGenerator.open(tmp_path / "a.pdparams", engine="eager")
    note = capsys.readouterr().err
    assert "a.pdparams states no average code; using the mean of 10000 random ones" in note
    with paddle.no_grad():
        z = paddle.to_tensor(np.random.RandomState(0).randn(10000, 16).astype(np.float32))
        want = network.style(z).numpy().astype(float).mean(axis=0)
    np.testing.assert_allclose(found.w_avg, want[None], atol=1e-5)

    few = StyleGenerator(network, mean_samples=50)
    assert capsys.readouterr().err == ""
    np.testing.assert_allclose(few.w_avg, want[None], atol=0.5)
    assert np.abs(few.w_avg - want).max() > 1e-3


def test_the_decoder_of_sam_is_a_generator_too(checkpoint, weights):
    for engine in ("eager", "onednn"):
        found = StyleGenerator.open(checkpoint, engine=engine, device=DEVICE)
        assert (found.size, found.n_codes, found.dim) == (32, 8, 16)
        assert found.w_avg.shape == (8, 16)
        assert found.render(found.seed_codes([1, 2])).shape == (2, 32, 32, 3)


def test_what_cannot_be_used_is_explained(weights):
    for engine in ("eager", "onednn"):
        with pytest.raises(CheckpointError, match="holds an age regressor"):
            StyleGenerator.open(find_weight("age_mini"), engine=engine)
        with pytest.raises(CheckpointError, match=r"none\.pdparams: there is no such file"):
            StyleGenerator.open(weights.with_name("none.pdparams"), engine=engine)
    with pytest.raises(ConfigError, match="truncation_cutoff: this model has 8 codes, found 9"):
        open_generator(GeneratorOptions(checkpoint_path=str(weights), truncation_cutoff=9))
    with pytest.raises(ConfigError, match="engine onednn: has the stored noise only"):
        StyleGenerator.open(weights, engine="onednn", any_noise=True)
