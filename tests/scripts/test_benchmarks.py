"""`python -m benchmarks.gpu`: sections run, a failed check fails it, all is on the page."""

import json

import pytest

from benchmarks import gpu, timing


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    return tmp_path


def test_second_derivatives_on_the_cpu(results):
    arguments = ["--device", "cpu", "--small", "--sections", "second_derivatives"]
    assert gpu.main(arguments) == 0
    rows = json.loads((results / "gpu.json").read_text())["sections"]["second derivatives"]
    assert [row["of"] for row in rows] == ["r1", "path length"]
    assert all(0 < row["relative_error"] < 1e-4 for row in rows)
    assert "| path length |" in (results / "gpu.md").read_text()


def test_what_fails_is_said_and_costs_nothing_else(results, monkeypatch, capsys):
    def broken(report, device, small):
        raise RuntimeError("no such kernel")

    def fine(report, device, small):
        report.add("fine", value=1.5, passed=True)

    monkeypatch.setattr(gpu, "SECTIONS", {"broken": broken, "fine": fine})
    assert gpu.main(["--device", "cpu", "--small", "--name", "other"]) == 1
    said = capsys.readouterr()
    assert "FAILED: broken" in said.err and "no such kernel" in said.err
    assert "| 1.5 | True |" in (results / "other.md").read_text()
