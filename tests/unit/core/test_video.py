"""Video files, probed by decoding them: codec, size, number of frames, times, colours."""

import io
import weakref
from types import SimpleNamespace

import av
import numpy as np
import pytest
import skimage.data
from av.video.reformatter import Colorspace
from PIL import Image, ImageSequence

from paddle_sam.core.video import encode_video, open_video, write_video
from paddle_sam.errors import ConfigError, OutputError

# An odd height and width, which yuv420p cannot have.
PICTURE = skimage.data.astronaut()[:95, 150:281]
FRAMES = [np.roll(PICTURE, 3 * k, axis=1) for k in range(12)]


def decoded(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [in_colour(frame) for frame in container.decode(stream)]
        # A closed container's stream need not answer.
        names = ("codec_context", "frames", "width", "height", "average_rate")
        facts = SimpleNamespace(**{name: getattr(stream, name) for name in names})
        return facts, frames, float(container.duration / av.time_base)


def in_colour(frame):
    """The RGB of a frame by its own tag."""
    tag = None if frame.format.is_rgb else frame.colorspace
    to = Colorspace.DEFAULT  # where both are the same, PyAV before 17 leaves the tag unread
    return frame.reformat(format="rgb24", src_colorspace=tag, dst_colorspace=to).to_ndarray()


def difference(left, right):
    return np.abs(left.astype(int) - right).mean()


def test_mp4_is_h264_yuv420p_with_even_sides(tmp_path):
    assert write_video(tmp_path / "a.mp4", iter(FRAMES), 24) == 12
    stream, frames, seconds = decoded(tmp_path / "a.mp4")
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert (stream.frames, stream.width, stream.height) == (12, 132, 96)
    assert (stream.average_rate, seconds) == (24, pytest.approx(0.5, abs=0.01))
    assert len(frames) == 12
    for found, want in zip(frames, FRAMES, strict=True):
        assert difference(found[:95, :131], want) < 5
    # The added row and column repeat their neighbours.
    assert difference(frames[0][95:, :131], FRAMES[0][94:]) < 8


def test_mp4_colours_are_those_given(tmp_path):
    """Full-range or BT.601 numbers under a BT.709 tag would shift these by 10 and more."""
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (90, 60, 40)):
        write_video(tmp_path / "a.mp4", [np.full((32, 32, 3), colour, np.uint8)] * 2, 10)
        stream, frames, _ = decoded(tmp_path / "a.mp4")
        assert np.abs(frames[0].astype(int) - colour).max() <= 3
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)


def test_mp4_begins_with_its_index(tmp_path):
    write_video(tmp_path / "a.mp4", FRAMES, 24)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_stream_gets_what_a_file_would(tmp_path, suffix):
    stream = io.BytesIO()
    with encode_video(stream, suffix, 24) as video:
        for frame in FRAMES:
            video.add(frame)
    write_video(tmp_path / f"a{suffix}", FRAMES, 24)
    (tmp_path / f"b{suffix}").write_bytes(stream.getvalue())
    (_, one, seconds), (_, other, others) = (decoded(tmp_path / f"{name}{suffix}") for name in "ab")
    assert (len(one), seconds) == (len(other), others)
    assert max(difference(*pair) for pair in zip(one, other, strict=True)) < 1


def test_gif_has_every_frame_in_its_colours_and_loops(tmp_path):
    write_video(tmp_path / "a.gif", FRAMES, 10)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (12, (131, 95), 0)
        assert image.info["duration"] == 100
        for frame, want in zip(ImageSequence.Iterator(image), FRAMES, strict=True):
            assert difference(np.asarray(frame.convert("RGB")), want) < 4


def test_webp_plays_as_long_as_it_should_and_loops(tmp_path):
    write_video(tmp_path / "a.webp", FRAMES, 20)
    with Image.open(tmp_path / "a.webp") as image:
        assert (image.size, image.info["loop"]) == ((131, 95), 0)
        seconds, last = 0, None
        for frame in ImageSequence.Iterator(image):
            last = np.asarray(frame.convert("RGB"))
            seconds += frame.info["duration"] / 1000
    assert seconds == pytest.approx(0.6, abs=0.01)
    assert difference(last, FRAMES[-1]) < 6


def test_webp_follows_slow_changes(tmp_path):
    """At quality 90 blocks stay as they were: the last of these frames is 3.8 levels off."""
    squares = np.random.default_rng(0).integers(60, 120, (8, 8, 3)).astype(np.uint8)
    frames = [np.kron(squares, np.ones((8, 8, 1), np.uint8)) + np.uint8(k) for k in range(40)]
    write_video(tmp_path / "a.webp", frames, 10)
    with Image.open(tmp_path / "a.webp") as image:
        image.seek(image.n_frames - 1)
        last = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(last - frames[-1]).mean() < 2.5


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_frames_are_not_gathered(tmp_path, suffix):
    """Of twelve frames no more than the two newest are in memory at once."""
    alive, most = set(), 0

    def frames():
        nonlocal most
        for number in range(12):
            frame = FRAMES[number].copy()
            alive.add(number)
            weakref.finalize(frame, alive.discard, number)
            most = max(most, len(alive))
            yield frame

    write_video(tmp_path / f"a{suffix}", frames(), 10)
    assert most <= 2


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_failure_leaves_the_old_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), open_video(path, 10) as video:
        video.add(FRAMES[0])
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "frames", "fps", "words"),
    [
        ("a.avi", FRAMES, 10, r"cannot write videos as '.avi'; use one of .mp4, .gif, .webp"),
        ("a.mp4", [], 10, "at least one frame, found none"),
        ("a.mp4", FRAMES, 0, "fps: expected 0.001 to 240, found 0"),
        ("a.mp4", FRAMES, 0.0001, "fps: expected 0.001 to 240, found 0.0001"),
        ("a.mp4", [FRAMES[0], FRAMES[0][:50]], 10, r"expected shape \[95, 131, 3\], found \[50"),
        ("a.mp4", [FRAMES[0] / 255], 10, "expected uint8 in 0..255, found float64"),
    ],
)
def test_what_cannot_be_written_is_explained(tmp_path, name, frames, fps, words):
    with pytest.raises(ConfigError, match=words):
        write_video(tmp_path / name, frames, fps)
    assert not any(tmp_path.iterdir())


def test_a_file_in_the_way_of_the_folder_is_explained(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="could not be written"):
        write_video(tmp_path / "file" / "a.mp4", FRAMES, 10)


@pytest.mark.parametrize(("codec", "name"), [("h264", "h264"), ("hevc", "hevc"), ("av1", "av1")])
def test_mp4_codecs(tmp_path, codec, name):
    assert write_video(tmp_path / "a.mp4", FRAMES, 24, codec) == 12
    stream, frames, _ = decoded(tmp_path / "a.mp4")
    assert name in stream.codec_context.codec.canonical_name
    assert (stream.codec_context.pix_fmt, len(frames)) == ("yuv420p", 12)
    assert difference(frames[5][:95, :131], FRAMES[5]) < 8


def test_a_bit_rate_takes_the_place_of_constant_quality(tmp_path):
    noise = list(np.random.default_rng(0).integers(0, 256, (50, 96, 128, 3), np.uint8))
    sizes = []
    for bitrate in (None, 800_000, 200_000):
        write_video(tmp_path / "a.mp4", noise, 25, bitrate=bitrate)
        sizes.append((tmp_path / "a.mp4").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1] > 3 * sizes[2]
    assert 0.5 < sizes[1] / (2 * 800_000 / 8) < 1.5


def test_unknown_codecs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="codec: expected one of h264, hevc, av1, found 'xvid'"):
        write_video(tmp_path / "a.mp4", FRAMES, 24, "xvid")
