"""Moving pictures, written frame by frame: MP4 that every player shows, GIF and WebP.

Frames are uint8 RGB `[H, W, 3]`. Only the frame at hand is in memory, and the file appears under
its name when it is whole.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from paddle_sam.core.files import atomic_path, write_error
from paddle_sam.core.images import check_image
from paddle_sam.errors import ConfigError, OutputError, check_shape
from paddle_sam.options import HIGHEST_FRAME_RATE

BT709 = 1  # number of that standard in the lists of primaries, transfer curves and matrices
GIF_COLOURS = 256
GIF_FPS = 13
YUV = "yuv420p"


@dataclass(frozen=True)
class _Kind:
    """How one kind of file is encoded: container, codec, pixel format and options."""

    container: str
    codec: str
    pixels: str
    codec_options: dict[str, str]
    container_options: dict[str, str]
    tag: str = ""
    bitrate: int | None = None


_KINDS = {
    # The index at the front lets a browser start before it has everything.
    ".mp4": _Kind("mp4", "libx264", YUV, {"crf": "17"}, {"movflags": "+faststart"}),
    ".gif": _Kind("gif", "gif", "pal8", {}, {"loop": "0"}),
    # Below 94 libwebp leaves blocks as they were while they change slowly, as ageing faces do.
    ".webp": _Kind("webp", "libwebp_anim", "bgra", {"quality": "95"}, {"loop": "0"}),
}
VIDEO_SUFFIXES = tuple(_KINDS)
# Codecs an MP4 file may have: encoder, its options for a constant good quality, and the tag by
# which players know the codec.
_CODECS = {
    "h264": ("libx264", {"crf": "17"}, "avc1"),
    "hevc": ("libx265", {"crf": "20", "x265-params": "log-level=error"}, "hvc1"),
    "av1": ("libsvtav1", {"crf": "25"}, "av01"),
}
CODECS = tuple(_CODECS)


class VideoWriter:
    """Takes frames one after the other; made by `open_video`."""

    def __init__(self, container: av.container.OutputContainer, kind: _Kind, fps: Fraction):
        self.frames = 0
        self._container = container
        self._kind = kind
        self._stream = container.add_stream(kind.codec, rate=fps, options=dict(kind.codec_options))
        self._stream.pix_fmt = kind.pixels
        if kind.tag:
            self._stream.codec_context.codec_tag = kind.tag
        if kind.bitrate:
            self._stream.bit_rate = kind.bitrate
        self._shape: tuple[int, ...] | None = None

    def add(self, frame: np.ndarray) -> None:
        """Append a uint8 RGB frame [H, W, 3]; all frames of a video have one size."""
        check_image("video frame", frame)
        if self._shape is None:
            self._start(frame.shape)
        check_shape("video frame", frame, self._shape)
        picture = self._picture(frame)
        picture.pts = self.frames
        picture.time_base = 1 / self._stream.codec_context.framerate
        self._container.mux(self._stream.encode(picture))
        self.frames += 1

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if not self.frames:
            raise ConfigError("video: expected at least one frame, found none")
        self._container.mux(self._stream.encode(None))

    def _start(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        height, width = shape[:2]
        if self._kind.pixels == YUV:  # one colour sample for two by two pixels
            height, width = height + height % 2, width + width % 2
            context = self._stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = ColorRange.MPEG.value
        self._stream.height, self._stream.width = height, width

    def _picture(self, frame: np.ndarray) -> av.VideoFrame:
        if self._kind.pixels == "pal8":
            return _palette_picture(frame)
        if self._kind.pixels != YUV:
            return av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format=self._kind.pixels
            )
        # An odd side is evened by repeating the last row or column.
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        return av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
            format=YUV, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )


def _palette_picture(frame: np.ndarray) -> av.VideoFrame:
    """A frame with a palette of its own, since faces that age change their colours."""
    reduced = Image.fromarray(frame).quantize(GIF_COLOURS, dither=Image.Dither.NONE)
    palette = np.zeros((GIF_COLOURS, 4), np.uint8)
    colours = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
    palette[: len(colours), 1:] = colours
    palette[:, 0] = 255  # opacity comes first
    return av.VideoFrame.from_ndarray((np.asarray(reduced), palette), format="pal8")


@contextlib.contextmanager
def open_video(
    path: str | os.PathLike,
    fps: float,
    codec: str = "h264",
    bitrate: int | None = None,
    crf: int | None = None,
) -> Iterator[VideoWriter]:
    """Yield a writer whose frames become the file `path`; its suffix chooses the kind.

    MP4 is yuv420p, BT.709 colours. On any failure `path` is as it was.

    Args:
        path: ends in `.mp4`, `.gif` or `.webp`.
        fps: frames per second.
        codec: of an MP4 file: `h264`, which every player shows, `hevc` or `av1`.
        bitrate: of an MP4 file, in bits per second; None for a constant quality.
        crf: that quality, from 0 (lossless) to 51; None for a good one. Encoding to a chosen
            quality takes its time, and drawings into account.

    Raises:
        ConfigError: the suffix is another one, PyAV has no such codec, or there was no frame.
        OutputError: the system refused to write.
    """
    path = Path(path)
    kind, rate = _kind(path.suffix, str(path)), _rate(fps)
    if kind.container == "mp4":
        kind = _encoded(kind, codec, bitrate, crf)
    with atomic_path(path) as temporary, _encoding(str(temporary), kind, rate, str(path)) as writer:
        yield writer


@contextlib.contextmanager
def encode_video(stream: BinaryIO, suffix: str, fps: float) -> Iterator[VideoWriter]:
    """Like `open_video`, but what would be the file's content goes to a seekable `stream`."""
    kind = _kind(suffix, "video")
    # To move the index to the front the encoder would open what it wrote by its name.
    options = {name: value for name, value in kind.container_options.items() if name != "movflags"}
    kind = replace(kind, container_options=options)
    with _encoding(stream, kind, _rate(fps), "video") as writer:
        yield writer


def write_all(
    paths: Sequence[Path],
    frames: Iterable[np.ndarray],
    fps: int,
    codec: str = "h264",
    bitrate: int | None = None,
    crf: int | None = None,
) -> None:
    """Write the same frames to several files; a GIF, of large frames, gets fewer of them.

    For the codec, its bit rate and quality see `open_video`.
    """
    with contextlib.ExitStack() as stack:
        videos = []
        for path in paths:
            every = math.ceil(fps / GIF_FPS) if path.suffix == ".gif" else 1
            video = stack.enter_context(open_video(path, fps / every, codec, bitrate, crf))
            videos.append((every, video))
        for number, frame in enumerate(frames):
            for every, video in videos:
                if number % every == 0:
                    video.add(frame)


def there_and_back(frames: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """All `count` frames, then all but the last and the first backwards: a seamless loop.

    What was shown waits on disk, not in memory.
    """
    with tempfile.TemporaryFile() as spool:
        frame = None
        for frame in frames:
            yield frame
            spool.write(frame.tobytes())
        for index in range(count - 2, 0, -1):
            spool.seek(index * frame.nbytes)
            yield np.frombuffer(spool.read(frame.nbytes), np.uint8).reshape(frame.shape)


def _kind(suffix: str, name: str) -> _Kind:
    if suffix.lower() not in _KINDS:
        raise ConfigError(
            f"{name}: cannot write videos as {suffix or 'a file without suffix'!r}; use one of"
            f" {', '.join(VIDEO_SUFFIXES)}"
        )
    return _KINDS[suffix.lower()]


def _rate(fps: float) -> Fraction:
    if not 0.001 <= fps <= HIGHEST_FRAME_RATE:
        raise ConfigError(f"fps: expected 0.001 to {HIGHEST_FRAME_RATE}, found {fps}")
    return Fraction(fps).limit_denominator(1001)


@contextlib.contextmanager
def _encoding(
    target: str | BinaryIO, kind: _Kind, rate: Fraction, name: str
) -> Iterator[VideoWriter]:
    try:
        with av.open(
            target, "w", format=kind.container, options=dict(kind.container_options)
        ) as container:
            writer = VideoWriter(container, kind, rate)
            yield writer
            writer.finish()
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise write_error(name, error) from error
        raise OutputError(f"{name}: could not be encoded ({error})") from error


def _encoded(kind: _Kind, codec: str, bitrate: int | None, crf: int | None) -> _Kind:
    """MP4 with another codec, or a bit rate or other quality in place of the good one."""
    if codec not in _CODECS:
        raise ConfigError(f"codec: expected one of {', '.join(CODECS)}, found {codec!r}")
    encoder, options, tag = _CODECS[codec]
    if encoder not in av.codecs_available:
        raise ConfigError(f"codec: this PyAV was built without {encoder}, which {codec} needs")
    options = {name: value for name, value in options.items() if not (bitrate and name == "crf")}
    if crf is not None:
        options |= {"crf": str(crf), "preset": "veryslow"}
        options |= {"tune": "animation"} if codec == "h264" else {}
    return replace(kind, codec=encoder, codec_options=options, tag=tag, bitrate=bitrate)


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    fps: float,
    codec: str = "h264",
    bitrate: int | None = None,
) -> int:
    """Write all `frames` to `path` and give their number; see `open_video`."""
    with open_video(path, fps, codec, bitrate) as video:
        for frame in frames:
            video.add(frame)
    return video.frames


def ease(share: float | np.ndarray) -> float | np.ndarray:
    """Return the way from 0 to 1 along half a cosine, which starts and ends slowly.

    >>> [round(float(ease(share)), 3) for share in (0, 0.25, 0.5, 1)]
    [0.0, 0.146, 0.5, 1.0]
    """
    return (1 - np.cos(np.pi * share)) / 2
