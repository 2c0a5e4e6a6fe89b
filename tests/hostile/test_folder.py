"""A folder of a thousand odd files: of every one a result, or a reason under its name."""

import csv
import json
import os

import pytest

from paddle_sam.core.folders import list_folder
from paddle_sam.core.weights import find_weight
from paddle_sam.imagesets.archive import open_image_set, read_source
from scripts.align_all_parallel import main as align
from scripts.inference_side_by_side import main as age
from scripts.prepare_dataset import main as prepare
from tests.hostile.corpus import FILES, make_corpus

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "corpus"
    return folder, make_corpus(folder)


def written(name) -> str:
    return os.fspath(name).encode("utf-8", "backslashreplace").decode()


def test_the_corpus_is_the_same_for_a_seed(corpus, tmp_path):
    folder, names = corpus
    assert len(names) == FILES
    assert make_corpus(tmp_path / "small", seed=3, files=60) == make_corpus(
        tmp_path / "again", seed=3, files=60
    )
    for name in names:
        if (tmp_path / "again" / name).is_file():
            same = tmp_path / "small" / name
            assert same.read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_preparation_names_every_file(corpus, tmp_path, capfd):
    folder, names = corpus
    options = ["--data_path", str(folder), "--output", str(tmp_path / "set.zip"), "--size", "8"]
    assert prepare([*options, "--num_threads", "2"]) == 1  # some could not be read
    assert "Traceback" not in capfd.readouterr().err
    with (tmp_path / "set_report/report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    listed = {row["source"].split("#")[0] for row in rows} | {row["source"] for row in rows}
    for name in names:
        place = [name, *name.parents][:-1]  # a folder that is left out stands for what is in it
        assert any(f"corpus/{written(part)}" in listed for part in place), name
    for row in rows:
        assert row["outcome"] == "kept" or row["reason"], row
        assert row["reason"] not in ("unreadable", "not_examined") or row["detail"], row
    images = open_image_set(tmp_path / "set.zip")
    kept = [row["image"] for row in rows if row["outcome"] == "kept"]
    assert sorted(images.names) == sorted(kept) and len(kept) > 10
    assert {read_source(image).shape for image in images.images} == {(8, 8, 3)}
    summary = json.loads((tmp_path / "set_report/summary.json").read_text())
    assert summary["examined"] + sum(summary["left_out"].values()) == len(rows)


def test_alignment_names_every_image(corpus, tmp_path, capfd):
    folder, _ = corpus
    out = tmp_path / "crops"
    options = ["--root_path", str(folder), "--output_path", str(out), "--size", "8"]
    assert align([*options, "--num_threads", "2"]) in (1, 2)
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    images = list_folder(folder).images
    assert f"found {len(images)} images; left out:" in said.err
    lines = (out / "align_failures.jsonl").read_text(encoding="utf-8").splitlines()
    failures = [json.loads(line) for line in lines]
    failed = {failure["file"] for failure in failures}
    assert len(failed) == len(failures) and all(failure["error"] for failure in failures)
    crops = [path for path in out.rglob("*.png") if path.is_file()]
    assert len(failed) + len(crops) == len(images)
    assert failed <= {str(image.relative_to(folder)) for image in images}


def test_inference_names_every_image(corpus, tmp_path, capfd):
    folder, _ = corpus
    out = tmp_path / "results"
    options = ["--data_path", str(folder), "--exp_dir", str(out), "--no_align"]
    weights = ["--checkpoint_path", str(find_weight("sam_mini"))]
    assert age([*options, *weights, "--target_age", "40", "--engine", "eager"]) == 1
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    images = list_folder(folder).images
    results = [p for p in (out / "inference_side_by_side").rglob("*") if p.is_file()]
    failed = said.err.count("\nfailed: ")
    assert f"{len(results)} of {len(images)} photographs" in said.out
    assert len(results) + failed == len(images) and len(results) > 10
