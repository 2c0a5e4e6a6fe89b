import av
import numpy as np
import paddle
import pytest
import skimage.data
from PIL import Image

from paddle_sam.ageing.animate import frame_ages, interpolate, render_between
from paddle_sam.ageing.options import AnimationOptions
from paddle_sam.core.video import there_and_back
from paddle_sam.errors import ConfigError
from scripts.animate import main as animate

PORTRAIT = skimage.data.astronaut()


def test_ages_rest_at_both_ends_and_rise_between():
    ages = frame_ages(0, 100, 50, back=True)
    assert len(ages) == 26  # and 24 of them again on the way back
    steps = np.diff(ages)
    assert (ages[0], ages[-1]) == (0, pytest.approx(100))
    assert (steps > 0).all()
    assert steps[0] == pytest.approx(steps[-1]) and steps[12] > 5 * steps[0]
    assert len(frame_ages(20, 60, 50, back=False)) == 50


def test_codes_between_two_ages_are_interpolated():
    codes = paddle.to_tensor([0.0, 1.0, 5.0]).reshape([3, 1, 1])
    found = [interpolate(codes, [0, 50, 60], age).item() for age in (0, 25, 50, 55, 60)]
    assert found == [0, 0.5, 1, 3, 5]
    assert interpolate(codes[:1], [30], 30).item() == 0


def test_frames_at_key_ages_are_the_pipelines(pipeline):
    crop = pipeline.faces(PORTRAIT)[0].image
    keys = [20, 60]
    images = paddle.to_tensor(crop.transpose(2, 0, 1)[None] / np.float32(127.5) - 1)
    both = paddle.concat([images] * 2)
    codes = pipeline.aged_codes(both, pipeline.invert(both), paddle.to_tensor([20.0, 60.0]))
    frames = list(render_between(pipeline, codes, keys, [20, 40, 60], batch_size=2))
    want = pipeline.age(crop[None], keys)[0]
    assert np.abs(frames[0].astype(int) - want[0]).max() <= 1
    assert np.abs(frames[2].astype(int) - want[1]).max() <= 1
    assert np.abs(frames[1].astype(int) - want[0]).mean() > 2


def test_there_and_back_is_a_loop_without_repeats():
    frames = [np.full((2, 3, 3), k, np.uint8) for k in range(4)]
    found = [int(frame[0, 0, 0]) for frame in there_and_back(iter(frames), 4)]
    assert found == [0, 1, 2, 3, 2, 1]


def test_the_command_writes_each_format_for_each_face(tmp_path, capsys):
    group = np.concatenate([PORTRAIT[:320, 60:380]] * 2, axis=1)
    Image.fromarray(group).save(tmp_path / "group.png")
    arguments = ["--data_path", str(tmp_path / "group.png"), "--exp_dir", str(tmp_path / "out")]
    arguments += ["--face", "all", "--formats", "mp4,gif", "--fps", "20", "--duration", "0.4"]
    assert animate([*arguments, "--couple_outputs"]) == 0, capsys.readouterr().err
    folder = tmp_path / "out" / "animations"
    names = {"group.mp4", "group.gif", "group_face2.mp4", "group_face2.gif"}
    assert {path.name for path in folder.iterdir()} == names
    for name in ("group.mp4", "group_face2.mp4"):
        with av.open(str(folder / name)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (stream.frames, stream.average_rate, stream.width) == (8, 20, 512)
            assert stream.height > 256  # the age below
    with Image.open(folder / "group.gif") as image:
        assert image.n_frames == 4  # every second


def test_formats_are_checked():
    assert AnimationOptions(formats="mp4, GIF,.mp4").suffixes == [".mp4", ".gif"]
    with pytest.raises(ConfigError, match="formats: expected some of mp4, gif, webp, found 'avi'"):
        _ = AnimationOptions(formats="mp4,avi").suffixes
