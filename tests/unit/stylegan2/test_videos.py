"""Walks that loop, what the videos show, and files that players take."""

import av
import numpy as np
import pytest

from paddle_sam.core.images import save_image
from paddle_sam.core.latents import Latent, save_latent
from paddle_sam.errors import ConfigError
from paddle_sam.stylegan2.generator import StyleGenerator, mix
from paddle_sam.stylegan2.options import VideosOptions
from paddle_sam.stylegan2.videos import (
    crossfade,
    find_snapshots,
    grid_frames,
    mixing_frames,
    morph_frames,
    round_trip,
    smooth_walk,
    training_frames,
    walk_codes,
    walk_frames,
)
from scripts.video import main
from tests.unit.ageing.tiny import save_generator, tiny_generator

TILE = 32
SHORT = {"fps": 8, "duration": 1.5, "smoothing": 0.25, "tile_size": TILE}


@pytest.fixture
def run(tmp_path):
    """A run folder with three snapshots, of which 9 comes before 10."""
    (tmp_path / "run" / "snapshots").mkdir(parents=True)
    for seed, kimg in enumerate(("9", "10", "000200")):
        path = tmp_path / "run" / "snapshots" / f"network_{kimg}.pdparams"
        save_generator(path, tiny_generator(seed=seed))
    return tmp_path / "run"


def test_a_walk_has_unit_variance_and_closes():
    z = smooth_walk(frames=120, walkers=3, dim=64, sigma=8, seed=5)
    assert z.shape == (120, 3, 64) and z.dtype == np.float32
    assert np.square(z.astype(float)).mean() == pytest.approx(1, abs=1e-5)
    steps = np.linalg.norm(np.roll(z, -1, axis=0) - z, axis=(1, 2))
    # The step from the last frame to the first is like any other; without wrapping it is not.
    assert 0.7 * steps[:-1].mean() < steps[-1] < 1.3 * steps[:-1].mean()
    assert steps.max() < 0.2 * np.linalg.norm(z[0] - z[60])
    np.testing.assert_array_equal(z, smooth_walk(120, 3, 64, 8, 5))
    assert np.abs(z - smooth_walk(120, 3, 64, 8, 6)).max() > 1


def test_smoothing_is_a_circular_gaussian():
    """One column against a sum over all frames, weighted by their distance round the circle."""
    sigma, frames = 2.0, 24
    noise = np.random.RandomState(1).randn(frames, 1, 3)
    distance = np.abs(np.arange(frames)[:, None] - np.arange(frames))
    distance = np.minimum(distance, frames - distance)
    weights = np.exp(-(distance**2) / (2 * sigma**2))
    want = np.einsum("ft,tnd->fnd", weights / weights.sum(axis=1, keepdims=True), noise)
    want /= np.sqrt(np.square(want).mean())
    np.testing.assert_allclose(smooth_walk(frames, 1, 3, sigma, 1), want, atol=2e-3)


def test_the_walk_is_a_grid_of_walkers(generator):
    config = VideosOptions(grid="3x2", **SHORT)
    frames = list(walk_frames(config, generator))
    assert len(frames) == 12 and frames[0].shape == (2 * TILE, 3 * TILE, 3)
    codes = list(walk_codes(config, generator, 6))
    fifth = generator.render(codes[7])[4]
    found = frames[7][TILE : 2 * TILE, TILE : 2 * TILE]
    assert np.abs(found.astype(int) - fifth).max() <= 1
    moved = np.abs(frames[0].astype(int) - frames[6]).mean()
    seam = np.abs(frames[0].astype(int) - frames[-1]).mean()
    assert 0 < seam < moved


@pytest.mark.parametrize(("styles", "taken"), [("coarse", range(2)), ("fine", range(4, 8))])
def test_destinations_take_styles_of_the_walker(generator, styles, taken):
    config = VideosOptions(destinations="3,4", labels=False, **SHORT)
    frames = list(mixing_frames(config, generator, styles))
    assert len(frames) == 12 and frames[0].shape == (2 * TILE, 3 * TILE, 3)
    fixed = generator.seed_codes([3, 4], 0.7)
    source = list(walk_codes(config, generator, 1))[5]
    want = generator.render(np.concatenate([source, mix(fixed, source, taken)]))
    for column in range(3):
        found = frames[5][TILE:, column * TILE : (column + 1) * TILE]
        assert np.abs(found.astype(int) - want[column]).max() <= 1
    top = np.hstack(list(generator.render(fixed)))
    for frame in frames:  # these stand still
        np.testing.assert_array_equal(frame[:TILE, TILE:], top)
    labelled = next(mixing_frames(VideosOptions(destinations="3,4", **SHORT), generator, styles))
    assert labelled.shape[0] > 2 * TILE and labelled.shape[1] > 3 * TILE


def test_destinations_take_styles_of_your_choice(generator):
    config = VideosOptions(destinations="3,4", style_ranges="0,6-", labels=False, **SHORT)
    frame = list(mixing_frames(config, generator, "mix"))[5]
    fixed = generator.seed_codes([3, 4], 0.7)
    walker = list(walk_codes(config, generator, 1))[5]
    for column, codes in ((1, [0]), (2, [6, 7])):
        want = generator.render(mix(fixed[column - 1 : column], walker, codes))[0]
        found = frame[TILE:, column * TILE : (column + 1) * TILE]
        assert np.abs(found.astype(int) - want).max() <= 1
    frame = list(
        mixing_frames(VideosOptions(**{**vars(config), "style_ranges": "6-"}), generator, "face")
    )[5]
    want = generator.render(mix(fixed[:1], walker, [6, 7]))[0]
    assert np.abs(frame.astype(int) - want).max() <= 1


def test_presets_are_the_published_videos():
    for preset, videos, seed, file in (
        ("random_grid_404", "walk", 404, "random_grid_404.mp4"),
        ("interpolate", "mix", 500, "interpolate.mp4"),
        ("fine_503", "face", 503, "fine_503.mp4"),
    ):
        found = VideosOptions(preset=preset)
        assert (found.duration, found.fps, found.truncation) == (60.0, 20, 0.7)
        assert (found.smoothing_frames, found.bits_per_second) == (20.0, 5_000_000)
        assert (found.videos, found.seed, found.path(videos, ".mp4").name) == (videos, seed, file)
    assert VideosOptions(preset="random_grid_404").grid == "2x2"
    assert VideosOptions(preset="random_grid_404", seed=7).path("walk", ".gif").name == (
        "random_grid_7.gif"
    )


def test_a_morph_rests_at_each_face_and_closes():
    stops = [np.full((2, 3), value, np.float32) for value in (0, 4, 8)]
    values = [float(codes[0, 0]) for codes in round_trip(stops, 12)]
    assert values[::4] == [0, 4, 8]
    assert values[2] == pytest.approx(2) and values[10] == pytest.approx(4)
    assert values[1] == pytest.approx(4 * 0.1464466, abs=1e-5)


def test_a_morph_of_projected_faces(generator, tmp_path):
    codes = generator.seed_codes([1, 2])
    for name, code in zip("ab", codes, strict=True):
        save_latent(tmp_path / f"{name}.npz", Latent(code, np.zeros((32, 32, 3), np.uint8)))
    latents = f"{tmp_path / 'a.npz'},{tmp_path / 'b.npz'}"
    config = VideosOptions(videos="morph", latents=latents, **SHORT)
    frames = list(morph_frames(config, generator))
    for frame, code in ((frames[0], codes[0]), (frames[6], codes[1])):
        assert np.abs(frame.astype(int) - generator.render(code[None])[0]).max() <= 1
    with pytest.raises(ConfigError, match="latents: expected two codes or more"):
        list(
            morph_frames(VideosOptions(videos="morph", latents=str(tmp_path / "a.npz")), generator)
        )


def test_a_clip_of_a_runs_own_grids(tmp_path):
    samples = tmp_path / "samples"
    for kimg, shade in ((9, 10), (10, 90), (200, 170)):
        save_image(samples / f"fakes_{kimg}.png", np.full((40, 60, 3), shade, np.uint8))
    save_image(samples / "reals.png", np.full((40, 60, 3), 255, np.uint8))
    config = VideosOptions(grids=str(tmp_path), grid_rate=2.0, fps=4)
    frames = list(grid_frames(config))
    assert [int(frame.mean()) for frame in frames] == [10, 10, 90, 90, 170, 170]
    assert frames[0].shape == (20, 30, 3)
    assert (config.videos, config.encoding["crf"]) == ("training", 33)
    assert main(["--grids", str(tmp_path), "--exp_dir", str(tmp_path)]) == 0
    assert probe(tmp_path / "videos" / "training.mp4") == ("h264", "yuv420p", 8, 25)


def test_snapshots_are_in_the_order_of_training(run, tmp_path):
    assert [kimg for kimg, _ in find_snapshots(run)] == [9, 10, 200]
    assert find_snapshots(run / "snapshots") == find_snapshots(run)
    with pytest.raises(ConfigError, match=r"at least two files network_KIMG\.pdparams .* found 0"):
        find_snapshots(tmp_path)


def test_training_shows_the_same_seeds_in_every_snapshot(run):
    config = VideosOptions(
        videos="training", snapshots=str(run), grid="2x1", seed=4, fps=8, duration=1, smoothing=0.1,
        tile_size=TILE, labels=False,
    )  # fmt: skip
    frames = list(training_frames(config))
    assert len(frames) == 8
    for frame, seed in ((frames[0], 0), (frames[-1], 2)):
        one = StyleGenerator(tiny_generator(seed=seed))
        want = np.hstack(list(one.render(one.seed_codes([4, 5], 0.7))))
        assert np.abs(frame.astype(int) - want).max() <= 1
    labelled = list(training_frames(VideosOptions(**{**vars(config), "labels": True})))
    assert labelled[0].shape == (TILE + 12, 2 * TILE, 3)
    assert (labelled[0][TILE:] != labelled[-1][TILE:]).any()  # 9 kimg, 200 kimg
    cut = list(training_frames(VideosOptions(**{**vars(config), "fade": False})))
    assert len({frame.tobytes() for frame in cut}) == 3 < len({f.tobytes() for f in frames})


def test_snapshots_of_a_network_that_grew_are_shown_at_its_last_size(tmp_path):
    for kimg, size in ((1, 128), (2, 256)):
        save_generator(tmp_path / f"network_{kimg}.pdparams", tiny_generator(size))
    config = VideosOptions(
        videos="training", snapshots=str(tmp_path), grid="1x1", fps=3, duration=1
    )
    shapes = {frame.shape for frame in training_frames(config)}
    assert shapes == {(256 + 42, 256, 3)}


def test_crossfading_rests_at_each_picture():
    pictures = [np.full((1, 1, 3), shade, np.uint8) for shade in (0, 200)]
    values = [crossfade(pictures.__getitem__, k / 4)[0, 0, 0] for k in range(4)]
    assert values == [0, 29, 100, 171]
    assert crossfade(pictures.__getitem__, 1.0)[0, 0, 0] == 200


def probe(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        count = sum(1 for _ in container.decode(stream))
        return stream.codec_context.name, stream.codec_context.pix_fmt, count, stream.average_rate


def test_the_command_writes_what_players_show(run, tmp_path, capsys):
    weights = run / "snapshots" / "network_9.pdparams"
    options = (
        f"--checkpoint_path {weights} --exp_dir {tmp_path} --engine eager --fps 10 --tile_size 32"
    )
    options += " --duration 1.2 --smoothing 0.3 --bitrate 300k"
    wanted = f"--videos walk,coarse,middle,fine,training --snapshots {run}"
    assert main([*options.split(), *wanted.split()]) == 0
    printed = capsys.readouterr().out
    for name in ("walk", "coarse", "middle", "fine", "training"):
        path = tmp_path / "videos" / f"{name}_0.mp4"
        assert str(path) in printed
        assert probe(path) == ("h264", "yuv420p", 12, 10)
    assert main([*options.split(), "--videos", "walk", "--formats", "gif,webp"]) == 0
    assert {path.suffix for path in (tmp_path / "videos").glob("walk_0.*")} == {
        ".mp4", ".gif", ".webp",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--videos wlk", "videos: expected some of walk, coarse, middle, fine, mix"),
        ("--formats avi", "formats: expected some of mp4, gif, webp"),
        ("--bitrate fast", "bitrate: expected bits per second"),
        ("--videos training", "snapshots: name the folder"),
        ("--videos training --snapshots none", "expected at least two files"),
        ("--videos walk --latents a.npz,b.npz", "latents: is used by --videos morph"),
        ("--videos morph --latents absent.npz", "absent.npz: there is no such file"),
        ("--videos walk,mix --name x", "name: is for a single video, found 2"),
        ("--videos mix --style_ranges 0,1", "style_ranges: expected one entry for each of the 3"),
        ("--videos face --style_ranges 8-", "style_ranges: expected numbers"),
        ("--grids none", "grids: expected at least two pictures fakes*.png in none, found 0"),
        ("--crf 30 --bitrate 5M", "crf: is for h264 without --bitrate"),
        ("--grid 3", "grid: expected COLUMNSxROWS"),
        ("--destinations x --videos fine", "destinations: expected seeds"),
        ("--smoothing 9", "smoothing: expected at most a quarter"),
        ("--fps 0", "fps: expected at least 1"),
    ],
)
def test_what_cannot_work_is_explained(run, tmp_path, capsys, options, words):
    weights = run / "snapshots" / "network_9.pdparams"
    always = ["--checkpoint_path", str(weights), "--exp_dir", str(tmp_path / "out")]
    assert main([*always, "--engine", "eager", *options.split()]) == 2
    assert words in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("videos/*"))
