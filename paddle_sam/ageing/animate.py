"""A face that grows old, and young again: codes interpolated in W+ between a few ages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import paddle
from tqdm import tqdm

from paddle_sam.ageing.dial import FaceDial, aims
from paddle_sam.ageing.options import AnimationOptions, parse_ages
from paddle_sam.ageing.photos import Summary
from paddle_sam.ageing.pipeline import AgePipeline
from paddle_sam.ageing.run import AgeingRun
from paddle_sam.core.images import LARGE_TILE, caption_line, resize, to_network, to_uint8
from paddle_sam.core.processes import batches
from paddle_sam.core.video import ease, there_and_back, write_all


def animate(options: AnimationOptions) -> Summary:
    """A video of every face under `exp_dir/animations/`."""
    keys = sorted(parse_ages(options.target_age))
    suffixes = options.suffixes
    folder = options.results / "animations"
    run = AgeingRun(options, lambda one: folder / one.result(suffixes[-1]))
    size = options.frame_size or max(run.pipeline.output_size, LARGE_TILE)
    ages = frame_ages(keys[0], keys[-1], round(options.fps * options.duration), options.back)
    for photo in run.photos():
        inverted = run.invert(photo)
        dials = run.dials(photo, inverted, size)
        for index, (crop, dial) in enumerate(zip(photo.crops, dials, strict=True)):
            image, start = paddle.to_tensor(to_network(crop)), inverted[index : index + 1]
            asked = aims([dial], keys)[0]
            codes = paddle.concat([run.codes(image, start, age) for age in asked])
            images = render_between(run.pipeline, codes, keys, ages, run.batch_size)
            beside = None
            if options.couple_outputs:
                beside = crop if dial is None else dial.picture
            frames = compose_all(images, ages, dial, size, options.labels, beside)
            if options.back:
                frames = there_and_back(frames, len(ages))
            paths = [folder / photo.face_names(suffix)[index] for suffix in suffixes]
            write_all(paths, frames, options.fps)
            tqdm.write("\n".join(map(str, paths)))
    return run.summary


def frame_ages(first: float, last: float, frames: int, back: bool) -> list[float]:
    """Age of each frame up to the turning point, along half a cosine.

    The movement comes to rest at both ends. With `back` the frames there, mirrored for the way
    back (`there_and_back`), are `frames` together, up to one because their number is even.
    """
    count = max(frames // 2 + 1 if back else frames, 2)
    phases = (index / (count - 1) for index in range(count))
    return [first + (last - first) * float(ease(phase)) for phase in phases]


def render_between(
    pipeline: AgePipeline,
    codes: paddle.Tensor,
    keys: Sequence[float],
    ages: Sequence[float],
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Images uint8 [R, R, 3] at `ages`, their codes interpolated between those at `keys`.

    Args:
        pipeline: renders.
        codes: [K, L, D], at the K rising ages `keys`.
        ages: within the keys' range.
        batch_size: images rendered together.
    """
    for part in batches(ages, batch_size):
        between = paddle.stack([interpolate(codes, keys, age) for age in part])
        yield from to_uint8(pipeline.decode(between))


def interpolate(codes: paddle.Tensor, keys: Sequence[float], age: float) -> paddle.Tensor:
    """Code [L, D] at `age`, linear between the codes [K, L, D] at the rising `keys`."""
    if len(keys) == 1:
        return codes[0]
    right = min(max(int(np.searchsorted(keys, age)), 1), len(keys) - 1)
    share = (age - keys[right - 1]) / (keys[right] - keys[right - 1])
    return codes[right - 1] * (1 - share) + codes[right] * share


def compose_all(
    images: Iterable[np.ndarray],
    ages: Sequence[float],
    dial: FaceDial | None,
    size: int,
    captions: bool,
    beside: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Frames of renderings [R, R, 3] at `ages`, blended into the photograph by a dial, if any."""
    for image, age in zip(images, ages, strict=True):
        if dial is not None:
            image = dial.shown(dial.change(image, age))
        yield compose(image, size, age if captions else None, beside)


def compose(
    image: np.ndarray, size: int, age: float | None = None, beside: np.ndarray | None = None
) -> np.ndarray:
    """A frame: the face [*, *, 3] as a square of `size`, right of `beside`, above its age."""
    tiles = [tile for tile in (beside, image) if tile is not None]
    frame = np.concatenate([resize(tile, size) for tile in tiles], axis=1)
    if age is None:
        return frame
    captions = ["input", f"{age:.0f}"][-len(tiles) :]
    return np.concatenate([frame, caption_line(captions, size)])
