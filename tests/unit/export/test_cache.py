"""The cache of exported models: built once, whole or absent, rebuilt where stale or damaged."""

import multiprocessing
import time
from pathlib import Path

import pytest

from paddle_sam.core.files import sha256
from paddle_sam.export import cache


class Builder:
    """Stands for the export: counts, and writes what the checkpoint holds."""

    def __init__(self, checkpoint: Path):
        self.checkpoint, self.built = checkpoint, 0

    def __call__(self, folder: Path) -> None:
        self.built += 1
        (folder / "model").write_text(self.checkpoint.read_text() * 2)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights"
    path.write_text("abc")
    return path


@pytest.fixture
def build(weights, cache_folder):
    return Builder(weights)


def test_an_entry_is_built_once(build, weights):
    first = cache.exported(weights, build)
    assert cache.exported(weights, build) == first and build.built == 1
    assert (first / "model").read_text() == "abcabc"


def test_the_content_counts_not_the_name(build, weights, tmp_path):
    entry = cache.exported(weights, build)
    copy = tmp_path / "copy"
    copy.write_text("abc")
    assert cache.exported(copy, build) == entry and build.built == 1
    weights.write_text("abd")
    other = cache.exported(weights, build)
    assert other != entry and (other / "model").read_text() == "abdabd"


@pytest.mark.parametrize("attribute", ["EXPORT_VERSION", "STORED_PRECISION"])
def test_a_stale_entry_is_replaced(build, weights, monkeypatch, attribute):
    old = cache.exported(weights, build)
    monkeypatch.setattr(cache, attribute, "another")
    new = cache.exported(weights, build)
    assert build.built == 2 and new != old and not old.exists()


def test_another_paddle_has_another_entry(build, weights, monkeypatch):
    old = cache.exported(weights, build)
    monkeypatch.setattr("paddle.__version__", "9.9.9")
    assert cache.exported(weights, build) != old


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "model").write_text("abc"),  # truncated
        lambda entry: (entry / "model").write_text("abcabd"),  # same size
        lambda entry: (entry / "model").unlink(),
        lambda entry: (entry / "more").write_text(""),
        lambda entry: (entry / cache.CONTENTS).unlink(),
        lambda entry: (entry / cache.CONTENTS).write_text("{"),
    ],
)
def test_a_damaged_entry_is_rebuilt(build, weights, damage):
    entry = cache.exported(weights, build)
    damage(entry)
    assert not cache.is_whole(entry)
    assert cache.exported(weights, build) == entry
    assert build.built == 2 and cache.is_whole(entry)
    assert (entry / "model").read_text() == "abcabc"


def test_a_failed_build_leaves_nothing(weights, cache_folder):
    def fail(folder):
        (folder / "half").write_text("")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        cache.exported(weights, fail)
    left = [path.name for path in cache_folder.iterdir() if path.is_dir()]
    assert left == ["hashes"]


def test_what_a_crashed_builder_left_is_cleared(build, weights):
    entry = cache.exported(weights, build)
    left = entry.parent / f".{entry.name}.crashed"
    left.mkdir()
    (entry / "model").unlink()
    cache.exported(weights, build)
    assert not left.exists()


def test_the_hash_is_remembered_until_the_file_changes(weights, cache_folder, monkeypatch):
    hashed = []
    monkeypatch.setattr(cache, "sha256", lambda path: hashed.append(path) or sha256(path))
    first = cache.content_hash(weights)
    assert cache.content_hash(weights) == first and hashed == [weights]
    weights.write_text("abcd")
    assert cache.content_hash(weights) != first and len(hashed) == 2


def _slow_build(folder: Path) -> None:
    with (folder.parent / "builds.log").open("a") as log:
        log.write("built\n")
    (folder / "first").write_text("1" * 1000)
    time.sleep(0.3)
    (folder / "second").write_text("2" * 1000)


def _export_together(all_ready, weights: Path, results) -> None:
    all_ready.wait(60)
    entry = cache.exported(weights, _slow_build)
    results.put((str(entry), cache.is_whole(entry), (entry / "second").read_text() == "2" * 1000))


def test_processes_building_at_once_do_each_other_no_harm(weights, cache_folder):
    context = multiprocessing.get_context("spawn")
    results, all_ready = context.Queue(), context.Barrier(3)
    shared = (all_ready, weights, results)
    workers = [context.Process(target=_export_together, args=shared) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert len({entry for entry, _, _ in found}) == 1
    assert all(whole and complete for _, whole, complete in found)
    assert (cache_folder / "builds.log").read_text() == "built\n"
