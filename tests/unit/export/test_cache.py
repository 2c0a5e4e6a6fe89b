"""The cache of exported models: built once, whole or absent, rebuilt where stale or damaged."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paddle_sam.core.files import sha256
from paddle_sam.errors import ConfigError
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


def test_a_stale_entry_is_replaced(build, weights, monkeypatch):
    old = cache.exported(weights, build)
    monkeypatch.setattr(cache, "EXPORT_VERSION", "another")
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
    assert sorted(left) == ["hashes", "locks"]


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


# Bounds. An entry of these tests takes some 60 bytes.


def fill(tmp_path, count):
    """Entries of so many weight files, opened in order; `(weights, entry)` each."""
    made = []
    for number in range(count):
        path = tmp_path / f"weights{number}"
        path.write_text(f"{number}" * 1000)
        entry = cache.exported(path, Builder(path))
        os.utime(cache._used(entry), (number, number))
        made.append((path, entry))
    return made


def test_the_longest_unused_entries_go(tmp_path, cache_folder, monkeypatch):
    made = fill(tmp_path, 3)
    cache.exported(made[0][0], Builder(made[0][0]))  # used again, so the second is the oldest
    monkeypatch.setenv("PADDLE_SAM_CACHE_GB", "7e-6")  # three entries of 2 kB each fit
    path = tmp_path / "more"
    path.write_text("x" * 1000)
    last = cache.exported(path, Builder(path))
    assert [entry.exists() for _, entry in made] == [True, False, True] and cache.is_whole(last)


def test_an_entry_alone_above_the_limit_is_kept(tmp_path, cache_folder, monkeypatch):
    monkeypatch.setenv("PADDLE_SAM_CACHE_GB", "0")
    (first, second) = fill(tmp_path, 2)
    assert not first[1].exists() and cache.is_whole(second[1])


@pytest.mark.skipif(cache.fcntl is None, reason="Windows refuses to remove what is open")
def test_what_a_process_holds_is_kept(tmp_path, cache_folder, monkeypatch):
    ((path, entry),) = fill(tmp_path, 1)
    monkeypatch.setenv("PADDLE_SAM_CACHE_GB", "0")
    with cache.hold(entry):
        fill(tmp_path, 2)
        assert entry.exists()
    other = tmp_path / "other"
    other.write_text("other")
    cache.exported(other, Builder(other))
    assert not entry.exists()


@pytest.mark.parametrize("limit", ["much", "-1", "nan"])
def test_a_limit_that_is_not_a_size_is_refused(build, weights, monkeypatch, limit):
    monkeypatch.setenv("PADDLE_SAM_CACHE_GB", limit)
    with pytest.raises(ConfigError, match=f"PADDLE_SAM_CACHE_GB: .*{limit}"):
        cache.exported(weights, build)


def test_checkpoints_of_a_run_are_not_kept(tmp_path, cache_folder):
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "best_model.pdparams"
    checkpoint.parent.mkdir(parents=True)
    (run / "stats.jsonl").write_text("")
    checkpoint.write_text("abc")
    code = (
        "from pathlib import Path; from paddle_sam.export import cache;"
        "build = lambda to: (to / 'model').write_text('abc');"
        f"entry = cache.exported(Path({str(checkpoint)!r}), build);"
        "print((entry / 'model').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "abc\n", done.stderr
    assert [path.name for path in cache_folder.iterdir()] == ["locks"]
    assert not any((cache_folder / "locks").iterdir())


def test_remembered_hashes_are_bounded(tmp_path, cache_folder, monkeypatch):
    monkeypatch.setattr(cache, "MOST_NOTES", 3)
    for number in range(5):
        cache.write_note("hashes", [number], f"{number}")
    assert len(list((cache_folder / "hashes").iterdir())) == 3
    assert cache.read_note("hashes", [4]) == "4" and cache.read_note("hashes", [9]) is None


def test_a_user_without_a_home_is_told(monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("PADDLE_SAM_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(OSError, match="PADDLE_SAM_CACHE"):
        cache.cache_dir()
