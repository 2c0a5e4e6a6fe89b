import numpy as np
import paddle
import pytest
import skimage.data
import torch
from PIL import Image

from paddle_sam.ageing import run
from paddle_sam.ageing.edits import (
    Directions,
    chain,
    factorise,
    modulations,
    parse_edits,
    read_directions,
    save_directions,
    shift,
    shifted_styles,
    strengthen,
    style_parts,
)
from paddle_sam.ageing.latent_options import EditOptions
from paddle_sam.errors import CheckpointError, ConfigError
from paddle_sam.networks.stylegan2 import Generator
from scripts.edit import main as edit
from scripts.inference import main as inference
from tests.unit.ageing.tiny import tiny_generator, tiny_pipeline


@pytest.fixture(scope="module")
def generator():
    paddle.seed(5)
    return Generator(16, 8, 2, {4: 8, 8: 12, 16: 8})


@pytest.fixture(scope="module")
def crop(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("crop") / "a.png"
    Image.fromarray(pipeline.faces(skimage.data.astronaut())[0].image).save(path)
    return path


def test_each_code_drives_the_layers_that_rendering_gives_it(generator):
    """Where a code changes, the layers listed for it, and no others, see another input."""
    seen = {}
    layers = [(code, layer) for code, ls in enumerate(modulations(generator)) for layer in ls]
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, inputs, key=(code, at): seen.__setitem__(key, inputs[0].numpy())
        )
        for at, (code, layer) in enumerate(layers)
    ]
    codes = paddle.arange(6, dtype="float32").reshape([1, 6, 1]).expand([1, 6, 8])
    generator([codes], input_is_latent=True, randomize_noise=False)
    for hook in hooks:
        hook.remove()
    assert len(seen) == 5 + 3  # convolutions and RGB layers of a 16 px generator
    for (code, _), found in seen.items():
        assert (found == code).all()


def test_closed_form_directions_change_the_styles_most(generator):
    """The effect is what the layers themselves do with a step along the direction."""
    levels = [1, 3]
    directions, effects = factorise(generator, levels)
    np.testing.assert_allclose(directions @ directions.T, np.eye(8), atol=1e-5)
    assert (np.diff(effects) <= 0).all()

    def change(direction):
        start = paddle.randn([1, 8])
        step = start + paddle.to_tensor(direction[None].astype(np.float32))
        layers = [layer for level in levels for layer in modulations(generator)[level]]
        return sum((layer(step) - layer(start)).square().sum().item() for layer in layers)

    for direction, effect in zip(directions, effects, strict=True):
        assert change(direction) == pytest.approx(effect, rel=1e-3)
    others = np.random.default_rng(0).standard_normal((50, 8))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    assert max(map(change, others)) < effects[0]


def test_directions_touch_only_their_levels(generator):
    given = {"smile": np.arange(8, dtype=np.float32), "own": np.ones((6, 8), np.float32)}
    directions = Directions(generator, [2, 4], given)
    for name in ("sefa0", "smile", "own"):
        touched = np.abs(directions[name]).sum(axis=1) > 0
        assert touched.tolist() == [False, False, True, False, True, False]
    np.testing.assert_array_equal(directions["smile"][4], np.arange(8))
    total = directions.offset({"own": 2.0, "smile": -1.0})
    np.testing.assert_array_equal(total[2], 2 - np.arange(8))


@pytest.mark.parametrize("rgb", [True, False])
def test_a_direction_in_style_space_moves_what_layers_make_of_codes(generator, rgb):
    """The layers see A w + b + amount * d, in the order of rendering, and then are as before."""
    layers = [generator.conv1, generator.to_rgb1, *generator.convs[:2], generator.to_rgbs[0]]
    layers = [layer.conv for layer in [*layers, *generator.convs[2:], generator.to_rgbs[1]]]
    widths = [layer.weight.shape[1] for layer in layers]
    kept = [layer.weight.shape[1] if rgb or layer.demodulate else 0 for layer in layers]
    given = np.random.default_rng(0).standard_normal(sum(kept)).astype(np.float32)
    directions = Directions(generator, None, {"mine": given})
    w = paddle.randn([1, 8])
    before = [layer.modulation(w).numpy() for layer in layers]
    with shifted_styles(generator, 2.0 * directions["mine"]):
        moved = [layer.modulation(w).numpy() for layer in layers]
    parts = iter(np.split(given, np.cumsum([count for count in kept if count])[:-1]))
    for count, new, old in zip(kept, moved, before, strict=True):
        want = 2 * next(parts) if count else np.zeros(new.shape[1])
        np.testing.assert_allclose((new - old)[0], want, atol=1e-5)
    for layer, old in zip(layers, before, strict=True):
        np.testing.assert_array_equal(layer.modulation(w).numpy(), old)
    only = Directions(generator, [2], {"mine": given})["mine"]  # code 2 drives convs.1 alone
    touched = np.split(only != 0, np.cumsum(widths)[:-1])
    assert [part.any() for part in touched] == [False, False, False, True, *[False] * 4]
    with pytest.raises(ConfigError, match="mine is a direction in style space"):
        directions.offset({"mine": 1.0})


def test_sheets_show_directions_in_style_space(pipeline, crop, tmp_path):
    count = sum(part[0] for part in style_parts(pipeline.network.decoder, ()))
    torch.save([torch.ones(count - 5), torch.zeros(5)], tmp_path / "all.pt")  # a list of layers
    arguments = ["--data_path", str(crop), "--no_align", "--exp_dir", str(tmp_path)]
    arguments += ["--directions", str(tmp_path / "all.pt"), "--explore", "all"]
    assert edit([*arguments, "--amounts=-1,0,1,0"]) == 0
    sheet = np.asarray(Image.open(tmp_path / "directions" / "a.png")).astype(int)
    tiles = [sheet[:128, 128 * k : 128 * (k + 1)] for k in range(4)]
    np.testing.assert_array_equal(tiles[1], tiles[3])
    assert min(np.abs(tiles[k] - tiles[1]).mean() for k in (0, 2)) > 3
    assert inference([*arguments[:-2], "--edit", "all=1", "--target_age", "60"]) == 2


def test_edits_are_chained_in_order():
    codes, inverted = paddle.full([1, 2, 3], 5.0), paddle.full([1, 2, 3], 1.0)
    both = chain([strengthen(0.5), shift(paddle.ones([2, 3]))])
    np.testing.assert_array_equal(both(codes, inverted).numpy(), np.full((1, 2, 3), 4.0))
    np.testing.assert_array_equal(strengthen(0.0)(codes, inverted).numpy(), inverted.numpy())
    np.testing.assert_array_equal(strengthen(1.5)(codes, inverted).numpy()[0, 0, 0], 7.0)
    assert chain([])(codes, inverted) is codes


def test_an_edit_is_combined_with_ageing(pipeline, crop, tmp_path):
    """What the command writes is the decoded sum of the aged code and the direction."""
    rng = np.random.default_rng(1)
    mine = rng.standard_normal(pipeline.style_dim).astype(np.float32) / 4
    np.savez(tmp_path / "mine.npz", mine=mine)
    arguments = ["--data_path", str(crop), "--no_align", "--target_age", "60"]
    arguments += ["--directions", str(tmp_path / "mine.npz"), "--edit", "mine=2,sefa1=-1"]
    arguments += ["--keep", "0"]
    assert inference([*arguments, "--edit_level", "0-3", "--exp_dir", str(tmp_path)]) == 0
    found = np.asarray(Image.open(tmp_path / "inference_results" / "60" / "a.png"))
    offset = np.zeros((pipeline.n_codes, pipeline.style_dim), np.float32)
    offset[:4] = 2 * mine - factorise(pipeline.network.decoder, range(4))[0][1]
    face = np.asarray(Image.open(crop))
    moved = shift(paddle.to_tensor(offset))
    want = pipeline.age(face[None], [60], edit=moved)[0, 0]
    assert np.abs(found.astype(int) - want).max() <= 1
    assert np.abs(found.astype(int) - pipeline.age(face[None], [60])[0, 0]).mean() > 2


def test_sheets_and_saved_directions(crop, tmp_path):
    arguments = ["--data_path", str(crop), "--no_align", "--exp_dir", str(tmp_path)]
    arguments += ["--explore", "sefa0-1", "--amounts=-2,0,2"]
    saved = str(tmp_path / "found.npz")
    assert edit([*arguments, "--save_directions", saved]) == 0
    sheet = np.asarray(Image.open(tmp_path / "directions" / "a.png"))
    assert sheet.shape == (2 * (128 + 21) + 4, 3 * 128, 3)
    middle = sheet[:128, 128:256]
    np.testing.assert_array_equal(middle, sheet[153 : 153 + 128, 128:256])  # not moved: the same
    assert np.abs(sheet[:128, :128].astype(int) - middle).mean() > 3
    assert list(read_directions(saved)) == ["sefa0", "sefa1"]
    assert edit([*arguments, "--directions", saved, "--target_age", "20,70"]) == 0
    young, old = (
        np.asarray(Image.open(tmp_path / "directions" / age / "a.png")) for age in ("20", "70")
    )
    assert np.abs(young.astype(int) - old).mean() > 3


def test_saved_directions_come_back(tmp_path):
    save_directions(tmp_path / "a.npz", {"smile": np.float32([1, 2])})
    np.testing.assert_array_equal(read_directions(tmp_path / "a.npz")["smile"], [1, 2])


@pytest.mark.parametrize(
    ("text", "words"), [("smile", "found 'smile'"), ("a=b", "found 'a=b'"), ("=3", "found '=3'")]
)
def test_edits_that_cannot_be_read_are_explained(text, words):
    with pytest.raises(ConfigError, match=f"edit: expected NAME=AMOUNT.*{words}"):
        parse_edits(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--edit", "smile=2"], "there is no direction 'smile'; known are sefa0 to sefa127"),
        (["--edit", "sefa128=2"], "--edit, --explore: there is no direction 'sefa128'"),
        (["--edit", "sefa0=2", "--edit_level", "10"], "edit_level: this model has the codes 0"),
        (["--directions", "nowhere.npz"], "nowhere.npz: there is no such file"),
        (
            ["--edit", "sefa0=2", "--engine", "onednn"],
            "--engine onednn: exported models can",
        ),
    ],
)
def test_options_that_cannot_work_are_explained(arguments, words, capsys):
    assert inference(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "arguments", "option"),
    [(inference, ["--strength", "2"], "strength"), (inference, ["--refine", "1"], "refine")]
    + [(edit, [], "explore")],
)
def test_what_needs_an_inverted_face_is_refused_without(
    command, arguments, option, monkeypatch, capsys
):
    """Of a network that ages from the average face, not from the face as it was inverted."""
    network = tiny_pipeline(start="latent_avg", pretrained=False)
    monkeypatch.setattr(run.AgePipeline, "from_checkpoint", lambda *_, **__: network)
    assert command(arguments) == 2
    assert f"--{option}: network does not invert faces" in capsys.readouterr().err


def test_files_that_hold_no_directions_are_explained(tmp_path, capsys):
    np.savez(tmp_path / "short.npz", smile=np.zeros(5, np.float32))
    assert inference(["--directions", str(tmp_path / "short.npz")]) == 2
    assert "smile has the shape [5], this model takes [128] or [10, 128]" in capsys.readouterr().err
    np.savez(tmp_path / "text.npz", smile=np.array(["a"]))
    with pytest.raises(CheckpointError, match="smile: expected a direction, finite numbers"):
        read_directions(tmp_path / "text.npz")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"explore": " ,"}, "explore: expected names"),
        ({"amounts": "1,x"}, "amounts: expected"),
    ],
)
def test_what_to_explore_is_checked(option, words):
    with pytest.raises(ConfigError, match=words):
        _ = EditOptions(**option).names, EditOptions(**option).steps


@pytest.mark.parametrize("shape", [(16,), (1, 16), (10, 16), (1, 10, 16)])
def test_directions_of_others_are_read(tmp_path, shape):
    direction = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected = direction[0] if shape[0] == 1 else direction
    np.save(tmp_path / "age.npy", direction.astype("float64"))
    torch.save(torch.from_numpy(direction), tmp_path / "age.pt")
    torch.save({"age": torch.from_numpy(direction)}, tmp_path / "some.pt")
    for name in ("age.npy", "age.pt", "some.pt"):
        np.testing.assert_allclose(read_directions(tmp_path / name)["age"], expected, rtol=1e-6)


def test_ganspace_components_are_scaled_by_their_deviation(tmp_path):
    rng = np.random.default_rng(0)
    components, deviations = rng.normal(size=(3, 16)), rng.uniform(1, 2, 3)
    pca = {"comp": components, "std": deviations, "mean": np.zeros(16)}
    torch.save({k: torch.from_numpy(v) for k, v in pca.items()}, tmp_path / "ffhq_pca.pt")
    np.savez(tmp_path / "x.npz", lat_comp=components[:, None], lat_stdev=deviations, act_mean=[0.0])
    for name in ("ffhq_pca.pt", "x.npz"):
        found = read_directions(tmp_path / name)
        assert list(found) == ["ganspace0", "ganspace1", "ganspace2"]
        np.testing.assert_allclose(found["ganspace2"], components[2] * deviations[2], rtol=1e-5)


@pytest.mark.parametrize(
    "content", ["text", {"a": 1}, {"a": torch.zeros(3, dtype=torch.int64)}, torch.tensor(1.0)]
)
def test_a_torch_file_without_directions_is_named(tmp_path, content):
    torch.save(content, tmp_path / "age.pt")
    with pytest.raises(CheckpointError, match="age.pt: .*: expected a direction"):
        read_directions(tmp_path / "age.pt")


def test_a_renamed_torch_file_is_not_taken_for_arrays(tmp_path):
    torch.save(torch.zeros(16), tmp_path / "mean.npz")
    with pytest.raises(CheckpointError, match="mean.npz: "):
        read_directions(tmp_path / "mean.npz")


def test_a_table_of_style_channels_is_refused_with_its_reason(tmp_path):
    np.save(tmp_path / "fs3.npy", np.zeros((6048, 512), np.float32))
    with pytest.raises(ConfigError, match=r"fs3 .*\[6048, 512\].*CLIP"):
        Directions(tiny_generator(), given=read_directions(tmp_path / "fs3.npy"))
