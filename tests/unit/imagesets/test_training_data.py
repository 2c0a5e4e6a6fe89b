import itertools
import multiprocessing
import os
import signal

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_sam.errors import ConfigError, ImageError
from paddle_sam.imagesets.loader import (
    BatchLoader,
    ImagePairs,
    draw_mirrored,
    read_sample,
    resize_bilinear,
    sample_index,
    to_device,
)


@pytest.fixture
def folder(tmp_path):
    """Seven 8 px images, the i-th grey level 10 * i, its left column white."""
    for index in range(7):
        pixels = np.full((8, 8, 3), 10 * index, np.uint8)
        pixels[:, 0] = 255
        path = tmp_path / "images" / ("a" if index < 4 else "b") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


def _levels(batch):
    """Which images of `folder` a batch holds, from the grey level in their middle."""
    return [int(image[4, 4, 0]) // 10 for image in batch.source]


def _take(loader, count, start=0, part=slice(None), batch_size=3):
    return list(itertools.islice(loader.training(batch_size, 5, start, part), count))


def test_every_pass_shows_each_sample_once_in_another_order():
    passes = [[sample_index(7 * epoch + i, 7, seed=3) for i in range(7)] for epoch in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(7))
    assert passes[0] != passes[1]


def test_batches_hold_bytes(folder):
    batch = next(BatchLoader(ImagePairs(folder), 8).once(4))
    assert batch.source.shape == (4, 8, 8, 3)
    assert batch.source.dtype == np.uint8 and batch.source.flags.c_contiguous
    assert (batch.source.min(), batch.source.max()) == (0, 255)
    assert batch.target is None and batch.mirror is None
    assert [path.name for path in batch.paths] == ["0.png", "1.png", "2.png", "3.png"]


def test_once_gives_all_samples_in_order(folder):
    batches = list(BatchLoader(ImagePairs(folder), 8).once(3))
    assert [_levels(batch) for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_run_can_be_resumed_at_any_step(folder):
    straight = _take(BatchLoader(ImagePairs(folder), 8), 6)
    resumed = _take(BatchLoader(ImagePairs(folder), 8), 2, start=4)
    for left, right in zip(straight[4:], resumed, strict=True):
        np.testing.assert_array_equal(left.source, right.source)
        np.testing.assert_array_equal(left.mirror, right.mirror)


def test_processes_together_see_what_one_alone_sees(folder):
    whole = _take(BatchLoader(ImagePairs(folder), 8), 3, batch_size=4)
    halves = [
        _take(BatchLoader(ImagePairs(folder), 8), 3, part=part, batch_size=4)
        for part in (slice(0, 2), slice(2, 4))
    ]
    for step in range(3):
        together = np.concatenate([half[step].source for half in halves])
        np.testing.assert_array_equal(whole[step].source, together)


def test_about_half_of_the_samples_are_mirrored(folder):
    batches = _take(BatchLoader(ImagePairs(folder), 8), 40)
    shown = np.concatenate([batch.tensors()[0].numpy() for batch in batches])
    left, right = (shown[:, 0, 0, column] == 1 for column in (0, 7))
    assert all(left != right)
    assert 40 < sum(right) < 80
    np.testing.assert_array_equal(draw_mirrored(np.arange(120), 5), right)


@pytest.mark.parametrize("where", ["cpu", "gpu:0"])
def test_network_input_has_the_bits_that_numpy_gives(monkeypatch, where):
    """Of every level of the three colours, by NumPy on a CPU, and as on a GPU by Paddle."""
    monkeypatch.setattr(paddle, "get_device", lambda: where)
    levels = np.random.default_rng(0).permuted(np.arange(3 * 4096) % 256).astype(np.uint8)
    images = levels.reshape(4, 32, 32, 3)
    mirror = np.array([True, False, True, False])
    shown = np.where(mirror[:, None, None, None], images[:, :, ::-1], images)
    expected = shown.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    np.testing.assert_array_equal(to_device(images, mirror).numpy(), expected)
    for size in (16, 4, 1):
        squares = expected.reshape(4, 3, size, 32 // size, size, 32 // size)
        np.testing.assert_array_equal(
            to_device(images, mirror, size).numpy(), squares.mean(axis=(3, 5))
        )


def test_images_are_reduced_by_averaging():
    image = np.arange(16, dtype="float32").reshape(1, 1, 4, 4)
    np.testing.assert_array_equal(to_device(image, size=2), [[[[2.5, 4.5], [10.5, 12.5]]]])


def test_a_part_of_a_batch_has_its_own_targets_and_mirrors(folder):
    batch = next(BatchLoader(ImagePairs(folder, folder), 8).training(6, 5, 0, slice(None)))
    source, target = batch.tensors()
    part = batch[2:4]
    assert (len(part), part.paths) == (2, batch.paths[2:4])
    for whole, some in zip((source, target), part.tensors(), strict=True):
        np.testing.assert_array_equal(some.numpy(), whole[2:4].numpy())


def test_resizing_is_pillows_antialiased_bilinear():
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    image = np.repeat(checker[:, :, None], 3, 2).astype(np.uint8)
    assert np.abs(resize_bilinear(image, 16).astype(int) - 127).max() <= 1
    assert resize_bilinear(image, 64) is image


@pytest.mark.parametrize("cache", [False, True])
def test_worker_processes_and_cache_change_nothing(folder, cache):
    (folder / "a" / "1.png").write_bytes(b"broken")
    plain = BatchLoader(ImagePairs(folder), 8, max_bad=1, report=lambda _: None)
    other = BatchLoader(
        ImagePairs(folder), 8, workers=2, max_bad=1, cache=cache, report=lambda _: None
    )
    for left, right in zip(_take(plain, 8), _take(other, 8), strict=True):
        np.testing.assert_array_equal(left.source, right.source)
        assert left.paths == right.paths


def test_readers_leave_signals_to_the_run_and_their_death_is_explained(folder):
    loader = BatchLoader(ImagePairs(folder), 8, workers=1)
    batches = loader.training(3, 5, 0, slice(None))
    next(batches)
    (reader,) = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGTERM):  # as sent to all processes of a run
        os.kill(reader.pid, number)
    for _ in range(4):  # more than are read ahead
        next(batches)
    reader.kill()
    with pytest.raises(ImageError, match="one of 1 processes that read images was killed"):
        for _ in range(5):
            next(batches)


def test_an_unreadable_image_is_reported_and_replaced(folder):
    (folder / "a" / "1.png").write_bytes(b"broken")
    messages = []
    loader = BatchLoader(ImagePairs(folder), 8, max_bad=1, report=messages.append)
    batches = _take(loader, 14)
    seen = [level for batch in batches for level in _levels(batch)]
    assert 1 not in seen
    assert seen.count(2) == 2 * seen.count(3)  # it stands in for its neighbour
    assert len(messages) == 1
    assert "1.png" in messages[0]


def test_too_many_unreadable_images_stop_the_run(folder):
    for name in ("0.png", "1.png"):
        (folder / "a" / name).write_bytes(b"broken")
    loader = BatchLoader(ImagePairs(folder), 8, max_bad=1, report=lambda _: None)
    with pytest.raises(ImageError, match="2 of 7.*max_bad_images"):
        list(loader.once(3))


def test_only_unreadable_images_stop_the_run(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"broken")
    loader = BatchLoader(ImagePairs(folder), 8, max_bad=99, report=lambda _: None)
    with pytest.raises(ImageError, match="7 of 7"):
        list(loader.once(3))


def test_pairs_by_relative_path(folder, tmp_path):
    for path in folder.rglob("*.png"):
        target = tmp_path / "targets" / path.relative_to(folder).with_suffix(".bmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - np.asarray(Image.open(path))).save(target)
    batch = next(BatchLoader(ImagePairs(folder, tmp_path / "targets"), 8).once(7))
    np.testing.assert_array_equal(batch.source, 255 - batch.target)
    (tmp_path / "targets" / "a" / "2.bmp").unlink()
    with pytest.raises(ConfigError, match="has no image for a/2 of .*1 of 7"):
        ImagePairs(folder, tmp_path / "targets")


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_that_are_not_square_are_squeezed_and_that_is_said_once(folder, workers):
    for name in ("0.png", "2.png"):
        Image.new("RGB", (16, 8), "red").save(folder / "a" / name)
    said = []
    loader = BatchLoader(ImagePairs(folder), 8, workers=workers, report=said.append)
    assert sum(len(batch) for batch in loader.once(3)) == 7
    (message,) = said
    assert f"{folder}/a/0.png, 16 x 8 pixels" in message and "prepare_dataset.py" in message


def test_limit_takes_the_first(folder):
    assert len(ImagePairs(folder, limit=3)) == 3


def test_read_sample_names_the_file(tmp_path):
    with pytest.raises(ImageError, match="missing.png"):
        read_sample([tmp_path / "missing.png"], 8)
