"""The papers' figures: what is where, and the numbers behind the noise figures."""

import numpy as np
import pytest

from paddle_sam.core.images import read_image
from paddle_sam.errors import ConfigError
from paddle_sam.networks.stylegan2_ops import noise_resolutions
from paddle_sam.stylegan2.figures import (
    busiest,
    components_figure,
    deviation,
    mixing_figure,
    noise_figure,
    packed,
    study_noise,
    truncation_figure,
    uncurated_figure,
)
from paddle_sam.stylegan2.generator import StyleGenerator, mix, seed_noise
from paddle_sam.stylegan2.options import FiguresOptions
from scripts.figures import main
from tests.unit.ageing.tiny import save_generator, tiny_generator

TILE = 32  # the generator's own size, so that tiles are its pixels


def tile_at(figure, row, column, gap=0, left=TILE // 2, top=12):
    """The pixels of a tile of a labelled figure."""
    cell = TILE + 2 * gap
    y, x = top + row * cell + gap, left + column * cell + gap
    return figure[y : y + TILE, x : x + TILE]


def same(found, want):
    """But for the grey level that a batch may move."""
    assert np.abs(found.astype(int) - want).max() <= 1


def test_the_deviation_is_numpys(generator):
    """Kept as running sums over 23 draws in batches of 5; numpy has all of them at once."""
    code = generator.seed_codes([3])
    shown, found = study_noise(StyleGenerator(tiny_generator(), batch_size=5), code, draws=23)
    images = []
    for seeds in (range(5), range(5, 10), range(10, 15), range(15, 20), range(20, 23)):
        noise = seed_noise(seeds, noise_resolutions(32))
        images.append(generator.render(np.repeat(code, len(seeds), axis=0), noise))
    images = np.concatenate(images)
    want = np.sqrt(images.astype(float).var(axis=0).mean(axis=-1))
    assert want.max() > 1
    np.testing.assert_allclose(found, want, atol=1e-6)
    np.testing.assert_allclose(deviation(images), want, atol=1e-12)
    np.testing.assert_array_equal(shown, images[:4])


def test_the_deviation_by_hand():
    images = np.zeros((2, 1, 1, 3), np.uint8)
    images[1] = (6, 0, 0)  # deviations 3, 0, 0 of the channels
    assert deviation(images)[0, 0] == pytest.approx(np.sqrt(3))


def test_the_busiest_square():
    plane = np.zeros((16, 16))
    plane[9:13, 2:6] = 1
    plane[0, 0] = 5
    assert busiest(plane, 4) == (9, 2, 4)


def test_noise_components_are_nested(generator):
    config = FiguresOptions(component_seeds="1967", tile_size=TILE)
    figure = components_figure(config, generator)
    assert figure.shape == (12 + 2 * (TILE + 4), TILE // 2 + 4 * (TILE + 4), 3)
    code = generator.seed_codes([1967], config.truncation)
    stored = generator.stored_noise()
    fine = [noise * (noise.shape[-1] >= 16) for noise in stored]
    coarse = [noise * (noise.shape[-1] < 16) for noise in stored]
    none = [0 * noise for noise in stored]
    for column, noise in ((1, none), (2, fine), (3, coarse)):
        want = generator.render(code, noise)[0]
        same(tile_at(figure, 0, column, gap=2), want)


def test_noise_components_of_ones_choice_and_mirrored(generator):
    given = {"component_seeds": "5,6", "tile_size": TILE}
    figure = components_figure(FiguresOptions(**given), generator)
    config = FiguresOptions(noise_ranges="none,2-3", component_flips="", **given)
    found = components_figure(config, generator)
    assert found.shape == (12 + 4 * (TILE + 4), TILE // 2 + 2 * (TILE + 4), 3)
    stored = generator.stored_noise()
    some = [noise * (2 <= layer <= 3) for layer, noise in enumerate(stored)]
    code = generator.seed_codes([6], 0.7)
    same(tile_at(found, 2, 1, gap=2), generator.render(code, some)[0])
    none = [0 * noise for noise in stored]  # the second face is mirrored unless told otherwise
    same(tile_at(figure, 2, 1, gap=2), generator.render(code, none)[0][:, ::-1])
    for options, words in (
        ({"noise_ranges": "all,9"}, "noise_ranges: this model has the codes 0 to 7, found 9"),
        ({"component_flips": "2"}, "component_flips: "),
    ):
        with pytest.raises(ConfigError, match=words):
            components_figure(FiguresOptions(**given, **options), generator)


def test_noise_figure(generator):
    config = FiguresOptions(noise_seeds="1,2,3", noise_draws=5, tile_size=64)
    figure = noise_figure(config, generator)
    assert figure.shape == (12 + 3 * 68, 32 + 3 * 68, 3)
    _, spread = study_noise(generator, generator.seed_codes([2], 0.7), 5)
    shades = figure[12 + 68 : 12 + 2 * 68, 32 + 2 * 68 + 2 : -2, 0][2:-2]
    assert shades.max() == 255
    row, column = divmod(int(spread.argmax()), 32)
    assert shades[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].max() > 240


def test_mixing_rows_take_their_styles_from_the_columns(generator):
    config = FiguresOptions(
        mix_columns="10,11,12", mix_rows="1,2,3", mix_styles="coarse,0-5,fine", tile_size=TILE
    )
    figure = mixing_figure(config, generator)
    codes = {seed: generator.seed_codes([seed], 0.7) for seed in (1, 2, 3, 10, 11, 12)}
    assert (tile_at(figure, 0, 0) == 255).all()
    for column, seed in enumerate((10, 11, 12), 1):
        same(tile_at(figure, 0, column), generator.render(codes[seed])[0])
    for row, (seed, taken) in enumerate(((1, range(2)), (2, range(6)), (3, range(4, 8))), 1):
        same(tile_at(figure, row, 0), generator.render(codes[seed])[0])
        mixed = mix(codes[seed], codes[12], taken)
        same(tile_at(figure, row, 3), generator.render(mixed)[0])
    for styles in ("coarse,fine", "coarse,fine,x", "0-3,0-8,0"):
        with pytest.raises(ConfigError, match="mix_styles: "):
            mixing_figure(FiguresOptions(mix_rows="1,2,3", mix_styles=styles), generator)


def test_truncation_goes_through_the_average_to_the_opposite(generator):
    config = FiguresOptions(truncation_seeds="4,9", psis="1,0,-1", tile_size=TILE)
    figure = truncation_figure(config, generator)
    assert figure.shape == (12 + 2 * TILE, TILE // 2 + 3 * TILE, 3)
    same(tile_at(figure, 0, 1), tile_at(figure, 1, 1))
    opposite = generator.render(generator.seed_codes([9], -1.0))[0]
    same(tile_at(figure, 1, 2), opposite)


def test_uncurated_images_are_packed_by_size(generator):
    config = FiguresOptions(uncurated_rows=1, uncurated_levels="0,1,2", tile_size=TILE)
    figure = uncurated_figure(config, generator)
    assert figure.shape == (TILE, TILE + TILE // 2 + TILE // 4, 3)
    images = generator.render(generator.seed_codes(range(5, 12), 0.7))
    same(figure[:, :TILE], images[0])
    with pytest.raises(ConfigError, match="uncurated_levels: 5 halvings of 32 px"):
        uncurated_figure(FiguresOptions(uncurated_levels="5", tile_size=TILE), generator)


def test_packing_takes_each_image_once_column_by_column():
    colours = iter(np.full((8, 8, 3), shade, np.uint8) for shade in range(6))
    picture = packed(colours, rows=2, levels=[0, 1], tile=8)
    assert picture.shape == (16, 12, 3)
    assert picture[::8, 0, 0].tolist() == [0, 1]
    assert picture[::4, 8, 0].tolist() == [2, 3, 4, 5]


def test_the_command(tmp_path, capsys):
    save_generator(tmp_path / "tiny.pdparams", tiny_generator())
    options = ["--checkpoint_path", tmp_path / "tiny.pdparams", "--exp_dir", tmp_path]
    options += ["--noise_draws", 2, "--tile_size", 64, "--uncurated_rows", 1, "--engine", "eager"]
    assert main([str(option) for option in options]) == 0
    printed = capsys.readouterr().out
    for name in ("uncurated", "mixing", "noise", "components", "truncation"):
        path = tmp_path / "figures" / f"{name}.png"
        assert str(path) in printed
        assert read_image(path).std() > 10
    assert main(["--figures", "mixin"]) == 2
    assert "figures: expected some of uncurated, mixing" in capsys.readouterr().err
